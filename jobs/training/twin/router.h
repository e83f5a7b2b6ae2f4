/* The router of twins: which task a sample is of. Parts for twin.c; the contract is in twin.h.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_TWIN_ROUTER_H
#define AM_JOBS_TRAINING_TWIN_ROUTER_H

#include "jobs/training/twin/twin.h"

/** Lay out and allocate for the features of the suite's heads; nothing is trained. Local. out:
 * freed by am_router_free, also after an error. Errors: AM_E_RECIPE, AM_E_NOMEM. */
int am_router_make(const am_suite *suite, const am_twin_section *section, am_router *out);
void am_router_free(am_router *router); /* accepts a zeroed one */

/** The network of a router: `features` in, one hidden layer; shaped. Owned. */
int am_router_net(int64_t features, int64_t hidden, am_net *out);

#endif
