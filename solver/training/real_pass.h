/* Forward and backward through a network on one micro-batch: the order of the layers and where
 * their arrays lie. No MPI. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_PASS_H
#define AM_SOLVER_TRAINING_REAL_PASS_H

#include "mpi/arena.h"
#include "mpi/reduce.h"
#include "solver/training/net.h"
#include "solver/training/real_layer.h"

/* A network and the activations of one micro-batch of at most `rows` samples.
 *
 *   x[0] --W0--> x[1] --W1--> ... x[L] --head--> z     x[l] is [B, width[l]], width[0] the inputs
 */
typedef struct am_pass {
    int L; /* trunk layers */
    int64_t width[AM_MAX_WIDTHS + 1];
    int64_t weight[AM_MAX_WIDTHS], bias[AM_MAX_WIDTHS]; /* offsets in the trunk block */
    const am_layer *activation;
    int64_t rows;
    am_arena arena;             /* owns the arrays below */
    int64_t *index;             /* [rows] samples of the micro-batch, filled by the caller */
    int32_t *label;             /* [rows] */
    double *loss;               /* [rows] */
    float *gathered;            /* [rows, inputs]; f32: the same as x[0] */
    real *x[AM_MAX_WIDTHS + 1]; /* [rows, width[l]] */
    real *z;                    /* [rows, classes] */
    real *d[2];                 /* [rows, widest] gradients, by turns; NULL for evaluation */
} am_pass;

/** Allocate for micro-batches of `rows` samples and heads of at most `classes`; with_gradient adds
 * what backward needs. Freed by am_pass_free, which accepts a zeroed pass. Local.
 * Errors: AM_E_RECIPE for a bad spec, AM_E_NOMEM. */
int AM_R(am_pass_make)(const am_net_spec *spec, int64_t rows, int64_t classes, bool with_gradient,
                       am_pass *out);
void AM_R(am_pass_free)(am_pass *pass);

/** Fetch samples pass->index[0..B) with one gather. Local. Errors: those of the source; AM_E_DATA
 * for a label outside [0, classes). */
int AM_R(am_pass_load)(am_pass *pass, const am_samples *samples, int64_t B, int64_t classes);

/** Loss of each loaded sample into pass->loss[0..B); returns how many are classified right. */
int64_t AM_R(am_pass_forward)(am_pass *pass, const real *trunk, const real *head, int64_t B,
                              int64_t classes);

/** Gradient of scale * sum of the losses after forward: overwrites d_trunk and d_head, either may
 * be NULL. No gradient of the inputs is made. */
void AM_R(am_pass_backward)(am_pass *pass, const real *trunk, const real *head, int64_t B,
                            int64_t classes, double scale, real *d_trunk, real *d_head);

#endif
