/* Training and evaluation, data-parallel over a communicator, bit-identical for any number of
 * ranks: a batch is cut into fixed micro-batches, each leaf gradient is made on one rank, leaves
 * are summed on the tree of mpi/reduce.h. One table of operations per real type.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_TRAIN_H
#define AM_SOLVER_TRAINING_TRAIN_H

#include <stdbool.h>
#include "mpi/rng.h"
#include "solver/training/augment.h"
#include "solver/training/net.h"
#include "solver/training/optim.h"
#include "solver/training/rate.h"
#include "solver/training/record.h"
#include "solver/training/state.h"
#include "solver/training/stats.h"

/* One task in a training run. Heads and trunk are blocks of reals of the ops' type. */
typedef struct am_task {
    const char *name; /* borrowed; keys the shuffle */
    am_samples train; /* borrowed */
    void *head;       /* [head layout] borrowed; updated only if train_head */
    int64_t classes;
} am_task;

typedef struct am_train_options {
    am_optim_options optim; /* method, learning rate, momentum, weight decay, clip */
    int64_t batch;          /* samples a step; 0: the whole task (full batch) */
    int64_t micro_batches;  /* leaves a step, >= 1: fixed by the recipe, never by ranks */
    int64_t epochs;
    am_rate rate; /* of all epochs of the run: epoch e of this call is its first_epoch + e */
    int64_t first_epoch;
    bool train_trunk, train_head;
    /* Several tasks (joint training): false: each step takes a batch of one task, batches of all
     * tasks in shuffled order; true: each step takes one batch of every task and sums their mean
     * losses (full batch: exactly multitask gradient descent on sum_t L_t). */
    bool sum_tasks;
    uint64_t seed;
    const char *purpose;        /* keys the shuffle: "finetune", "joint", ... */
    int64_t round;              /* keys the shuffle */
    am_augment_options augment; /* of the training samples; keyed like the shuffle, and by sample */

    /* Goes on from the state's position and leaves it at the next; back at (0, 0) after the last
     * epoch, with the optimiser's arrays as they are, so that the next call goes on with them.
     * NULL: zero at the start, dropped at the end. Borrowed; made by state_make for the same
     * network, tasks and options. */
    am_train_state *state;
    int64_t most_steps; /* of this call, 0: no limit; then result->is_finished tells */
    /* [gradient_n of the network] gets, for every step, its samples times their mean gradient
     * added, as the optimiser is given it, before clipping; NULL: nothing. Not with sharded state.
     */
    double *accumulated;
    am_train_log *log; /* the epochs of this call are added to it; NULL: not measured. Borrowed */
} am_train_options;

typedef struct am_train_result {
    double loss;            /* mean training loss of the last epoch (exact sum, rounded) */
    double gradient_norm;   /* of the last step */
    int64_t samples, steps; /* of the run: all calls from (0, 0) */
    bool diverged;          /* loss or gradient not finite: stopped, trunk as of that step */
    bool is_finished;       /* all epochs are done; false after most_steps */
} am_train_result;

typedef struct am_eval_result {
    int64_t n, correct; /* labels that count; of these, classified right */
    double loss;        /* mean cross-entropy of a sample */
    int64_t top5;       /* labels that are among the five largest outputs */
    double balanced;    /* mean over the classes that occur of their share classified right, 0..1 */
    /* Expected calibration error, 0..1: mean distance of confidence (the largest probability) and
     * share classified right, over 15 equal bins of confidence (Guo et al., ICML 2017). */
    double calibration;
    int64_t
        *of_class; /* [classes][2] in: borrowed or NULL; out: labels of a class, of these right */
} am_eval_result;

/* Samples that are run forward at once: fixes the shape of every product, so never a setting. */
enum { AM_EVAL_GROUP = 256 };

/* Samples in an order, cut into parts, each evaluated with a trunk of its own. */
typedef struct am_eval_parts {
    int64_t n;
    const int64_t *first; /* [n + 1] places of each part: first[0] is 0, first[n] all samples */
    const int64_t *order; /* [samples] which sample is at a place; NULL: as they come */
    /* The trunk of a part, until the next call; parts come in rising order. Local. */
    int (*trunk)(void *self, int64_t part, const void **trunk);
    void *self;
    bool may_stop; /* a stop request ends the evaluation after any group */
} am_eval_parts;

typedef struct am_train_ops {
    const char *name; /* "f32", "f64" */
    am_dtype dtype;

    /** Initial values as the layers declare them (layout->fill, layout->sigma), by am_rng (seed,
     * purpose, tensor name). Local. */
    int (*init)(const am_param_layout *layout, uint64_t seed, const char *purpose, void *params);

    /** Arrays of a state, each as large as what is trained. Local, pure. */
    int (*state_arrays)(const am_optim_options *options);

    /** A state for train_all with these arguments, at its start. Owned by the caller, freed by
     * am_train_state_free. Local, but its slices follow size and rank of comm. Errors: AM_E_RECIPE
     * (no task, options that exclude each other), AM_E_NOMEM: agree afterwards. */
    int (*state_make)(MPI_Comm comm, const am_net *net, const am_task *tasks, int n_tasks,
                      const am_train_options *options, am_train_state **out);

    /** Train `trunk` (and heads) in place for options->epochs over tasks[0..n_tasks).
     *
     * Collective [comm]; everything [same]; trunk and heads end equal on all ranks. Stop requests
     * are agreed at step boundaries (AM_E_STOPPED): trunk, heads and state are as after the last
     * whole step and can be saved. Memory: activations of one micro-batch (the others of a rank are
     * made in turn, with the same bits), log2(micro_batches)+2 trunk blocks, and the state of the
     * optimiser (blocks: sgd 0 or 1, nesterov and lion 1, adamw and lamb 2, bf16 masters 1; a slice
     * of each when sharded). Errors: AM_E_RECIPE (no task, a task without samples, bf16 weights in
     * f64), AM_E_NOMEM, AM_E_STOPPED. */
    int (*train_all)(MPI_Comm comm, const am_net *net, void *trunk, am_task *tasks, int n_tasks,
                     const am_train_options *options, am_train_result *result);

    /** Loss and accuracy of one task on `samples`; result->of_class is set by the caller.
     * Collective [comm]: samples are spread over ranks in fixed groups of 256; same bits for any
     * rank count. */
    int (*eval_all)(MPI_Comm comm, const am_net *net, const void *trunk, const void *head,
                    int64_t classes, const am_samples *samples, am_eval_result *result);

    /** The same where parts of the samples have trunks of their own; parts are cut into the groups.
     * Errors too: those of parts->trunk; AM_E_STOPPED. */
    int (*eval_parts_all)(MPI_Comm comm, const am_net *net, const am_eval_parts *parts,
                          const void *head, int64_t classes, const am_samples *samples,
                          am_eval_result *result);

    /** What the heads get of every sample, its rows averaged: out [n, features of net->out], on
     * every rank. classes: of the samples' labels.
     *
     * Collective [comm]: samples are spread over ranks in groups as in eval_all. Errors:
     * AM_E_RECIPE, AM_E_NOMEM, those of the source; agreed. */
    int (*features_all)(MPI_Comm comm, const am_net *net, const void *trunk, int64_t classes,
                        const am_samples *samples, float *out);
    /** Likewise the probabilities of the classes for samples with one label: out [n, classes]. */
    int (*probabilities_all)(MPI_Comm comm, const am_net *net, const void *trunk, const void *head,
                             int64_t classes, const am_samples *samples, double *out);

    /** Mean loss and its gradient for the trunk and head on samples [lo, hi), no MPI: for tests and
     * theory. d_trunk (zero for frozen tensors), d_head: overwritten; either may be NULL. Local. */
    int (*gradient)(const am_net *net, const void *trunk, const void *head, int64_t classes,
                    const am_samples *samples, int64_t lo, int64_t hi, double *loss, void *d_trunk,
                    void *d_head);

    /** Exact product of the Hessian of the mean loss on samples [lo, hi) with the direction
     * (trunk_dot, head_dot), and on the way the loss and its gradient, as `gradient` gives them:
     * forward over reverse, no differences. Layers work as in evaluation: nothing is dropped,
     * statistics are the running ones.
     *
     * trunk_dot, head_dot  blocks like trunk and head; NULL: zero. Their values at frozen tensors
     *                      and running statistics count as zero
     * outputs              overwritten; any may be NULL. h_trunk, h_head: the parts of the product;
     *                      like d_trunk zero at frozen tensors, and at running statistics
     *
     * Local, no MPI. Samples are taken in pieces of a fixed size whose sums are added in order, so
     * the bits depend on [lo, hi) alone. Memory: activations of 64 samples and their tangents,
     * twice what a gradient of them takes and what second derivatives keep; and with more than
     * 64 samples one more block for every output. Cost: about three gradients. Errors: AM_E_RECIPE
     * (samples do not fit, a linearised network, a layer without second derivatives), AM_E_NOMEM,
     * those of the source.
     * Source: Pearlmutter, Fast exact multiplication by the Hessian (1994). */
    int (*hvp)(const am_net *net, const void *trunk, const void *head, int64_t classes,
               const am_samples *samples, int64_t lo, int64_t hi, const void *trunk_dot,
               const void *head_dot, double *loss, void *d_trunk, void *d_head, void *h_trunk,
               void *h_head);

    /** Sums over samples of a leaf: gradients squared, products of layer inputs (stats.h):
     * [layout->n] f64, overwritten. Local, no MPI. Layers work as in evaluation. The bits depend on
     * [lo, hi) alone. Memory: stats_bytes of so many samples. Errors: AM_E_RECIPE (samples do not
     * fit, an exact Fisher of sequences), AM_E_NUMERIC (a sum that is not finite), AM_E_NOMEM,
     * those of the source. */
    int (*stats)(const am_stats_leaf *leaf, double *sums);
    /** Bytes that stats of `rows` samples allocates. Pure. Errors: AM_E_NOMEM. */
    int (*stats_bytes)(const am_net *net, const am_stats_options *options, int64_t rows,
                       int64_t classes, int64_t *bytes);

    /** Whether a step of the optimiser needs a gradient of its own, to turn it into a direction.
     * Local, pure. */
    bool (*is_direct)(const am_optim_options *options);

    /** One step of the optimiser, as it comes, without clip, on flat arrays: w [n] along the
     * gradient g [n]; state: its arrays (state_arrays), [n] each, zero before step 1. Elementwise,
     * local. Only where is_direct is false. */
    void (*step)(const am_optim_options *options, int64_t step, int64_t n, void *w, const void *g,
                 void *const *state);

    /** Bytes of the activations of a micro-batch of `rows` samples, exactly as train_all (or,
     * without gradient, eval_all) allocates them. Local, pure. Errors: AM_E_NOMEM. */
    int (*activation_bytes)(const am_net *net, int64_t rows, int64_t classes, bool with_gradient,
                            int64_t *bytes);
    /** Bytes that hvp of `rows` samples allocates for a product with the trunk alone. Local, pure.
     * Errors: AM_E_RECIPE as hvp, AM_E_NOMEM. */
    int (*hvp_bytes)(const am_net *net, int64_t rows, int64_t classes, int64_t *bytes);
} am_train_ops;

/** f32 or f64 operations; NULL for another dtype. */
const am_train_ops *am_train_ops_of(am_dtype dtype);

#endif
