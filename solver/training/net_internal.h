/* What net.c and net_layout.c share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_NET_INTERNAL_H
#define AM_SOLVER_TRAINING_NET_INTERNAL_H

#include "solver/training/net.h"

/** Where the parameters of every node lie in net->trunk. */
void am_net_find_params(am_net *net);

#endif
