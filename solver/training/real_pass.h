/* Forward and backward through a network and a head on one micro-batch, and the tangents of both:
 * loads samples, takes the steps of a program (real_program.h). No MPI. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_PASS_H
#define AM_SOLVER_TRAINING_REAL_PASS_H

#include "mpi/arena.h"
#include "mpi/reduce.h"
#include "solver/training/real_program.h"

/* What keys the random numbers of a step: the same masks for any number of ranks and leaves. */
typedef struct am_pass_draw {
    uint64_t seed;
    const char *purpose; /* borrowed */
    int64_t round, step; /* step: counted over the run */
} am_pass_draw;

/* Looks at the arguments of a step of the trunk before its forward; node net->n is the head, whose
 * rows are the last value. */
typedef void am_pass_see(void *self, int node, const am_layer_args *args);

typedef struct am_net_pass {
    const am_net *net; /* borrowed, shaped */
    am_program program;
    int64_t rows, labels; /* samples at most; labels a sample */
    int64_t classes;      /* of a head at most */
    bool is_curved;       /* made for products with the Hessian */
    am_arena arena;       /* owns the arrays below and the buffers of the program */
    int64_t *index;       /* [rows] samples of the micro-batch, filled by the caller */
    int32_t *label;       /* [rows, labels] */
    double *loss;         /* [rows] */
    bool *hit;            /* [rows, labels] classified right, where the label is not -1 */
    int64_t counted;      /* labels of the micro-batch that are not -1 */
    float *gathered;      /* [rows, features] */
    real *x0;             /* [rows, features]; f32: gathered; NULL for ids */
    int32_t *ids;         /* [rows, features] or NULL */
    unsigned char *base;  /* buffers of the program */
    real *dot;            /* [trunk] trunk - anchor of a linearised network, or the direction of
                             a product with the Hessian, else NULL */
    real *head_dot;       /* [head] such a direction of the head, else NULL */
    bool is_training;     /* set by the caller: drop, take statistics of the batch */
    am_pass_draw draw;    /* set by the caller when is_training */
    const char *task;     /* label of the loaded samples, keys random numbers too */
    am_pass_see *see; /* set by the caller: called in forward with see_self; NULL: nobody looks */
    void *see_self;
    int end; /* set by the caller to a node that is looked at: forward ends there, before its
                arithmetic; as it is made, after the head */
} am_net_pass;

/** Plan and allocate for micro-batches of `rows` samples and heads of at most `classes`;
 * with_gradient adds what backward needs. Freed by am_pass_free, which accepts a zeroed pass.
 * Local. Errors: AM_E_RECIPE for a network without shapes, AM_E_NOMEM. */
int AM_R(am_pass_make)(const am_net *net, int64_t rows, int64_t classes, bool with_gradient,
                       am_net_pass *out);
/** The same for products with the Hessian. Errors: AM_E_RECIPE too for a linearised network and for
 * a layer without second derivatives. */
int AM_R(am_pass_make_curved)(const am_net *net, int64_t rows, int64_t classes, am_net_pass *out);
void AM_R(am_pass_free)(am_net_pass *pass);

/** Bytes that am_pass_make would allocate, and am_pass_make_curved. Errors: theirs. */
int AM_R(am_pass_bytes)(const am_net *net, int64_t rows, int64_t classes, bool with_gradient,
                        int64_t *bytes);
int AM_R(am_pass_curved_bytes)(const am_net *net, int64_t rows, int64_t classes, int64_t *bytes);

/** Fetch samples pass->index[0..B) with one gather. Local. Errors: those of the source; AM_E_DATA
 * for a label outside [-1, classes), or token ids that are not whole numbers in [0, 2^24). */
int AM_R(am_pass_load)(am_net_pass *pass, const am_samples *samples, int64_t B, int64_t classes);

/** Direction of the products that follow on a pass made for them, NULL: zero. Of frozen tensors and
 * running statistics it is taken as zero. Copied. */
void AM_R(am_pass_aim)(am_net_pass *pass, const real *trunk_dot, const real *head_dot,
                       int64_t classes);

/** Loss of each loaded sample into pass->loss[0..B), pass->counted; returns how many labels are
 * classified right. */
int64_t AM_R(am_pass_forward)(am_net_pass *pass, const real *trunk, const real *head, int64_t B,
                              int64_t classes);

/** Gradient of scale * sum of the losses after forward: overwrites d_trunk [net->gradient_n] and
 * d_head, either may be NULL. Statistics get their value in this batch times B * scale. No gradient
 * of the inputs is made. */
void AM_R(am_pass_backward)(am_net_pass *pass, const real *trunk, const real *head, int64_t B,
                            int64_t classes, double scale, real *d_trunk, real *d_head);

/** The same on a pass made for products with the Hessian, after am_pass_aim and forward, and the
 * tangents of both gradients along that direction: h_trunk [net->gradient_n], h_head, either may be
 * NULL. Of statistics they are zero. */
void AM_R(am_pass_curve)(am_net_pass *pass, const real *trunk, const real *head, int64_t B,
                         int64_t classes, double scale, real *d_trunk, real *d_head, real *h_trunk,
                         real *h_head);

/** Logits or probabilities of the loaded samples after forward: [B, labels, classes], with the
 * softmax taken. Borrowed until the next call on the pass. */
const real *AM_R(am_pass_probabilities)(const am_net_pass *pass);

#endif
