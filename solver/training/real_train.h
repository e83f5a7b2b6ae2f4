/* The operations of am_train_ops, one precision. Contracts: solver/training/train.h.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_TRAIN_H
#define AM_SOLVER_TRAINING_REAL_TRAIN_H

#include "solver/training/real.h"
#include "solver/training/train.h"

int AM_R(am_train_init)(const am_param_layout *layout, uint64_t seed, const char *purpose,
                        void *params);
int AM_R(am_train_state_arrays)(const am_optim_options *options);
int AM_R(am_train_state_new)(MPI_Comm comm, const am_net *net, const am_task *tasks, int n_tasks,
                             const am_train_options *options, am_train_state **out);
int AM_R(am_train_all)(MPI_Comm comm, const am_net *net, void *trunk, am_task *tasks, int n_tasks,
                       const am_train_options *options, am_train_result *result);
int AM_R(am_eval_all)(MPI_Comm comm, const am_net *net, const void *trunk, const void *head,
                      int64_t classes, const am_samples *samples, am_eval_result *result);
int AM_R(am_eval_parts_all)(MPI_Comm comm, const am_net *net, const am_eval_parts *parts,
                            const void *head, int64_t classes, const am_samples *samples,
                            am_eval_result *result);
int AM_R(am_train_features_all)(MPI_Comm comm, const am_net *net, const void *trunk,
                                int64_t classes, const am_samples *samples, float *out);
int AM_R(am_train_probabilities_all)(MPI_Comm comm, const am_net *net, const void *trunk,
                                     const void *head, int64_t classes, const am_samples *samples,
                                     double *out);
int AM_R(am_train_gradient)(const am_net *net, const void *trunk, const void *head, int64_t classes,
                            const am_samples *samples, int64_t lo, int64_t hi, double *loss,
                            void *d_trunk, void *d_head);

int AM_R(am_train_hvp)(const am_net *net, const void *trunk, const void *head, int64_t classes,
                       const am_samples *samples, int64_t lo, int64_t hi, const void *trunk_dot,
                       const void *head_dot, double *loss, void *d_trunk, void *d_head,
                       void *h_trunk, void *h_head);
int AM_R(am_train_hvp_bytes)(const am_net *net, int64_t rows, int64_t classes, int64_t *bytes);

int AM_R(am_train_stats)(const am_stats_leaf *leaf, double *sums);
int AM_R(am_train_stats_bytes)(const am_net *net, const am_stats_options *options, int64_t rows,
                               int64_t classes, int64_t *bytes);

/** The statistics of a pair in a leaf (stats.h), whose samples are `held`; into sums, which are 0.
 * Local. Memory: am_train_pair_bytes. Errors: AM_E_NOMEM. */
int AM_R(am_train_pair)(const am_stats_leaf *leaf, const am_samples *held, double *sums);
int AM_R(am_train_pair_bytes)(const am_net *net, const am_stats_options *options, int64_t rows,
                              int64_t classes, int64_t *bytes);

/** The gradient [n] of the tensors that are not frozen, at the start of d, to the places of their
 * tensors; zeros for the frozen ones. */
void AM_R(am_gradient_spread)(const am_param_layout *trunk, int64_t n, real *d);

bool AM_R(am_train_is_direct)(const am_optim_options *options);
void AM_R(am_train_step)(const am_optim_options *options, int64_t step, int64_t n, void *w,
                         const void *g, void *const *state);

/** Errors AM_E_RECIPE when samples and network do not fit. Pure. */
int AM_R(am_train_check)(const am_net *net, const am_samples *samples, int64_t classes);

#endif
