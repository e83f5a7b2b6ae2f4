/* Networks that are put into order: the shape that a recipe gives them, and their weights, whole on
 * every rank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_ALIGN_NETWORKS_H
#define AM_JOBS_ALIGN_NETWORKS_H

#include "io/checkpoint/checkpoint.h"
#include "jobs/training/recipe.h"

/** The recipe's network for samples of `features` numbers; 0: as its first data set says. job: of
 * messages. Collective [comm]. net, trunk (f64): freed by the caller, also after an error. Errors:
 * AM_E_RECIPE, those of the data set; agreed. */
int am_networks_shape_all(MPI_Comm comm, const am_train_recipe *recipe, const char *job,
                          int64_t features, am_net *net, am_param_layout *trunk);

/** Heads NAME.head.weight [classes,features], NAME.head.bias [classes] and nothing else. Local,
 * pure. Errors: AM_E_DATA. */
int am_networks_check_heads(const am_ckpt *ckpt, int64_t features);

/** Read tensors into a block of f64; they must be finite. Collective [comm]. Errors: AM_E_DATA and
 * those of am_ckpt_load_all; agreed. */
int am_networks_load_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                         const int64_t *offset, double *block);

#endif
