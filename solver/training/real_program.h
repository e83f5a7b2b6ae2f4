/* The order in which a network is computed and the place of every array, found once before the run.
 * A step is one call of a layer; a buffer is an array with the steps at which it is first and last
 * touched. Buffers whose lives do not overlap share memory, so that the bytes of the arena are
 * known exactly and are no more than a run needs.
 *
 *     forward 0 .. forward N-1, head, head back, backward N-1 .. backward 0
 *
 * For products with the Hessian every forward is followed by its tangent and every backward comes
 * after its own tangent, curve; each gradient has a twin, the buffer of its tangent, which is
 * handed on, added and copied as the gradient is.
 *
 * With activation checkpointing the nodes are cut into segments; what only a segment itself uses is
 * forgotten after its forward steps, which are taken again just before its backward steps.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_PROGRAM_H
#define AM_SOLVER_TRAINING_REAL_PROGRAM_H

#include "solver/training/net.h"
#include "solver/training/real_layer.h"

typedef enum am_program_mode {
    AM_PROGRAM_EVAL,
    AM_PROGRAM_GRADIENT,
    AM_PROGRAM_HESSIAN /* gradient and its tangent */
} am_program_mode;

typedef enum am_step_kind {
    AM_STEP_FORWARD,
    AM_STEP_TANGENT,
    AM_STEP_HEAD,
    AM_STEP_HEAD_BACK, /* with its tangent, where dy_dot is not none */
    AM_STEP_CURVE,
    AM_STEP_BACKWARD,
    AM_STEP_ADD, /* dx[0] += dy: a value that several nodes use */
    AM_STEP_COPY /* dx[0] := dy */
} am_step_kind;

/* Buffers by number; -1: none. A value of the samples is buffer AM_BUFFER_SAMPLES. */
typedef struct am_step {
    am_step_kind kind;
    int node;
    int x[AM_LAYER_INPUTS], y, keep, scratch;
    int dy, dx[AM_LAYER_INPUTS];
    int x_dot[AM_LAYER_INPUTS], y_dot, keep_dot;
    int dy_dot, dx_dot[AM_LAYER_INPUTS];
    bool add[AM_LAYER_INPUTS];
    int64_t n; /* add, copy: reals a sample */
} am_step;

typedef struct am_buffer {
    int64_t bytes;
    int first, last; /* steps */
    int64_t at;      /* offset in the arena */
    int twin;        /* of a gradient: the buffer of its tangent */
} am_buffer;

enum { AM_BUFFER_NONE = -1, AM_BUFFER_SAMPLES = 0 };

typedef struct am_program {
    const am_net *net; /* borrowed, shaped */
    am_step *step;     /* [n_steps] owned */
    int n_steps, head; /* head: the AM_STEP_HEAD */
    am_buffer *buffer; /* [n_buffers] owned */
    int n_buffers;
    int64_t bytes; /* of all buffers, sharing memory */
    int steps_capacity, buffers_capacity;
    int error;
} am_program;

/** Plan for micro-batches of `rows` samples and heads of at most `classes`. with_tangent adds
 * forward mode, which AM_PROGRAM_HESSIAN has anyway. Owned, freed by am_program_free. Errors:
 * AM_E_RECIPE (a layer without curve where the mode needs it), AM_E_NOMEM. */
int AM_R(am_program_make)(const am_net *net, int64_t rows, int64_t classes, am_program_mode mode,
                          bool with_tangent, am_program *out);
void AM_R(am_program_free)(am_program *program);

#endif
