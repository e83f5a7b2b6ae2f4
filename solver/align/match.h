/* The order of a network's units in which its weights, its activations, or both are most like those
 * of another one. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_MATCH_H
#define AM_SOLVER_ALIGN_MATCH_H

#include <mpi.h>
#include "solver/align/axes.h"

/* What is alike. */
typedef enum am_align_by { AM_BY_WEIGHTS, AM_BY_ACTIVATIONS, AM_BY_BOTH } am_align_by;

typedef struct am_align_options {
    am_align_by by;
    const double *const *cross; /* [n_fields] of [n,n]: sums of products of activations of base and
                                   model (stats.h); NULL: by weights */
    const double *const *own;   /* [n_fields] of [2,n]: of their squares */
    int64_t seed;
    int64_t sweeps; /* at most */
    bool is_rough;  /* start from the order that there is; else from what is known (below) */
} am_align_options;

typedef struct am_align_result {
    int64_t sweeps;                              /* made, with the last one, which found nothing */
    bool is_converged;                           /* the last one found nothing */
    double before, after;                        /* inner products of base and model */
    double base2, model2;                        /* squared norms */
    double active_before, active_after, active2; /* products of activations, and of their norms */
    double objective_before, objective_after;    /* what was made larger: one of these, or their
                                                    weighted sum */
} am_align_result;

/** By activations: for each group the assignment with the least sum of squared distances between
 * activations of units, which is that with the largest sum of products. By weights: coordinate
 * descent over the groups, each an assignment given the order of all others.
 *
 * It starts with the groups whose other axes are known, first those of the samples and the labels,
 * and takes what they give as known for the next ones; so a network in another order is found as it
 * was. Sweeps over all groups follow, in an order keyed by seed and sweep, until none gains more
 * than 1e-12 of the norms. Only what makes the inner product larger is taken. Only tensors that
 * count are looked at. By both: the same descent on the sum of weights and, for each field,
 * activations, scaled so that those of all fields of a group together have the norms of the weights
 * that touch the group: of attention each of its four fields has a quarter.
 *
 * Collective [comm]; arguments [same]; the same bits for any number of ranks.
 * base, model  blocks of all tensors, finite; model is put into the order found
 * align        its fields' orders are set
 *
 * Memory: n^2 f64 of the largest field (of attention: its four), and 16 MiB.  Cost: a sweep is two
 * passes over the weights, n^2 times the weights of a unit, and an assignment of n units a group.
 * Errors: AM_E_NUMERIC similarities that are not finite; AM_E_STOPPED; AM_E_NOMEM; agreed.
 * Source: Ainsworth, Hayase & Srinivasa, Git Re-Basin (2022), algorithm 1, and section
 * 3.1 (activations);  differs: the start, heads of attention, no step that makes the sum smaller,
 * both together. */
int am_align_match_all(MPI_Comm comm, am_align *align, const double *base, double *model,
                       const am_align_options *options, am_align_result *out);
/** Bytes that it takes beside the blocks. Pure. */
int64_t am_align_match_bytes(const am_align *align);

#endif
