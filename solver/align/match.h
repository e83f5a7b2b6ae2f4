/* Weight matching: the order of a network's units in which its weights are most like those of
 * another one. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_MATCH_H
#define AM_SOLVER_ALIGN_MATCH_H

#include <mpi.h>
#include "solver/align/axes.h"

typedef struct am_align_options {
    int64_t seed;
    int64_t sweeps; /* at most */
    bool is_rough;  /* start from the order that there is; else from what is known (below) */
} am_align_options;

typedef struct am_align_result {
    int64_t sweeps;       /* made, with the last one, which found nothing */
    bool is_converged;    /* the last one found nothing */
    double before, after; /* inner products of base and model */
    double base2, model2; /* squared norms */
} am_align_result;

/** Coordinate descent over the groups, each an assignment given the order of all others.
 *
 * It starts with the groups whose other axes are known, first those of the samples and the labels,
 * and takes what they give as known for the next ones; so a network in another order is found as it
 * was. Sweeps over all groups follow, in an order keyed by seed and sweep, until none gains more
 * than 1e-12 of the norms. Only what makes the inner product larger is taken. Only tensors that
 * count are looked at.
 *
 * Collective [comm]; arguments [same]; the same bits for any number of ranks.
 * base, model  blocks of all tensors, finite; model is put into the order found
 * align        its fields' orders are set
 *
 * Memory: n^2 f64 of the largest field (of attention: its four), and 16 MiB.  Cost: a sweep is two
 * passes over the weights, n^2 times the weights of a unit, and an assignment of n units a group.
 * Errors: AM_E_NUMERIC similarities that are not finite; AM_E_STOPPED; AM_E_NOMEM; agreed.
 * Source: Ainsworth, Hayase & Srinivasa, Git Re-Basin (2022), algorithm 1;  differs: the start,
 * heads of attention, no step that makes the sum smaller. */
int am_align_match_all(MPI_Comm comm, am_align *align, const double *base, double *model,
                       const am_align_options *options, am_align_result *out);

#endif
