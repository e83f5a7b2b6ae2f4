/* What the family of ties, dare, della and breadcrumbs has in common once task vectors are sparse
 * (solver/merge/sparsify.h): their norms restored, weights, election of a sign, normalisation,
 * lambda.
 *
 *   delta_t = sparse task vector, with `rescale` times |task vector|_1 / |delta_t|_1 (mergekit)
 *   sign    = of sum_t w_t delta_t, 0 counts as + (mergekit); of sum_t delta_t, 0 as most of the
 *             unit (paper, the published TIES)
 *   out     = base + lambda sum_t w_t delta_t / sum_t w_t, over the models with that sign when a
 *             sign is elected, over all else; not divided without `normalize`
 *
 * A divisor within 1e-8 of 0 is 1: weights that cancel except for rounding. Local and pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_CONSENSUS_H
#define AM_SOLVER_MERGE_CONSENSUS_H

#include "solver/merge/sparsify.h"

/* The parameters of every method of the family, in the order of AM_SPARSE_*. */
#define AM_SPARSE_PARAMS(normalizes, rescales)                                                     \
    [AM_SPARSE_WEIGHT] = {.key = "weight",                                                         \
                          .per_model = true,                                                       \
                          .required = true,                                                        \
                          .low = -100,                                                             \
                          .high = 100,                                                             \
                          .help = "factor of a task vector"},                                      \
    [AM_SPARSE_DENSITY] = {.key = "density",                                                       \
                           .per_model = true,                                                      \
                           .fallback = 1,                                                          \
                           .high = 1,                                                              \
                           .help = "part of a task vector that is kept"},                          \
    [AM_SPARSE_LAMBDA] = {.key = "lambda",                                                         \
                          .fallback = 1,                                                           \
                          .low = -100,                                                             \
                          .high = 100,                                                             \
                          .help = "factor of the merged task vector"},                             \
    [AM_SPARSE_NORMALIZE] = {.key = "normalize",                                                   \
                             .is_bool = true,                                                      \
                             .fallback = (normalizes),                                             \
                             .help = "divide by the sum of the weights that take part"},           \
    [AM_SPARSE_RESCALE] = {.key = "rescale",                                                       \
                           .is_bool = true,                                                        \
                           .fallback = (rescales),                                                 \
                           .help = "make up for what was dropped"},                                \
    [AM_SPARSE_INT8_MASK] = {.key = "int8_mask",                                                   \
                             .is_bool = true,                                                      \
                             .help = "accepted from mergekit recipes; changes nothing"}

#define AM_BAND_PARAMS                                                                             \
    [AM_BAND_GAMMA] = {.key = "gamma",                                                             \
                       .per_model = true,                                                          \
                       .fallback = 0.01,                                                           \
                       .high = 1,                                                                  \
                       .help = "part of the largest elements that is dropped"}
#define AM_BAND_SOURCE                                                                             \
    "Davari and Belilovsky 2023 (arXiv:2312.06795), section 3; mergekit: the band of a whole "     \
    "tensor, empty when gamma n < 1"
#define AM_BAND_FIELDS                                                                             \
    .source = AM_BAND_SOURCE, .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,                         \
    .by_rows = am_band_by_rows
#define AM_RANKS_SOURCE                                                                            \
    "Deep et al. 2024 (arXiv:2406.11617), section 3: 1 / own probability; mergekit: the L1 norm "  \
    "of a tensor is restored"
#define AM_RANKS_FIELDS                                                                            \
    .source = AM_RANKS_SOURCE, .by_rows = am_ranks_by_rows, .whole_slices = true,                  \
    .check = am_ranks_check
#define AM_RANDOM_SOURCE                                                                           \
    "Yu et al. 2024 (arXiv:2311.03099), section 3.2: 1 / (1 - p); mergekit: the L1 norm of a "     \
    "tensor is restored"
#define AM_RANKS_PARAMS                                                                            \
    [AM_RANKS_EPSILON] = {.key = "epsilon",                                                        \
                          .per_model = true,                                                       \
                          .fallback = 0.15,                                                        \
                          .high = 1,                                                               \
                          .help = "smallest of a row: density - epsilon, largest: + epsilon"}

/* unit->state: [T] factors that restore the norms; then the sign of most of the unit. */
int am_consensus_states(const am_unit *unit);
int am_consensus_scratch(int models);

/** Pass SUM: L1 norms of the task vectors before and after (mergekit with `rescale`; in the papers
 * a random method has a factor of its own and the others none). */
int am_norms_count(const am_unit *unit);
void am_norms_sums(const am_tile *tile, am_sparsify *sparsify, double *sum);
const char *am_norms_solve(const am_unit *unit);

/** Pass SUM: the sign of most elements, for those whose own sum is 0 (paper). */
int am_majority_count(const am_unit *unit);
void am_majority_sums(const am_tile *tile, am_sparsify *sparsify, double *sum);
const char *am_majority_solve(const am_unit *unit);

/** out of a tile without and with the election of a sign. */
void am_combine_plain(const am_tile *tile, am_sparsify *sparsify);
void am_combine_elected(const am_tile *tile, am_sparsify *sparsify);
/** Elected as in the paper, but the largest magnitude instead of the mean. */
void am_combine_largest(const am_tile *tile, am_sparsify *sparsify);

/* The callbacks of a method file, and what all descriptors of the family have in common; the file
 * has its `params`. */
#define AM_SPARSE_PLAIN(sparsifier)                                                                \
    static void norms(const am_tile *tile, double *sum)                                            \
    {                                                                                              \
        am_norms_sums(tile, sparsifier, sum);                                                      \
    }                                                                                              \
    static void combine(const am_tile *tile)                                                       \
    {                                                                                              \
        am_combine_plain(tile, sparsifier);                                                        \
    }
/* `combiner`: am_combine_elected, or a function of the file. */
#define AM_SPARSE_ELECTED(sparsifier, combiner)                                                    \
    static void norms(const am_tile *tile, double *sum)                                            \
    {                                                                                              \
        am_norms_sums(tile, sparsifier, sum);                                                      \
    }                                                                                              \
    static void majority(const am_tile *tile, double *sum)                                         \
    {                                                                                              \
        am_majority_sums(tile, sparsifier, sum);                                                   \
    }                                                                                              \
    static void combine(const am_tile *tile)                                                       \
    {                                                                                              \
        combiner(tile, sparsifier);                                                                \
    }
#define AM_NORMS_PASS(looks_at)                                                                    \
    {                                                                                              \
        .rounded = looks_at, .count = am_norms_count, .sums = norms, .solve = am_norms_solve       \
    }
#define AM_RANDOM_NORMS_PASS                                                                       \
    {                                                                                              \
        .count = am_norms_count, .sums = am_random_norms, .solve = am_norms_solve                  \
    }
#define AM_MAJORITY_PASS                                                                           \
    {                                                                                              \
        .count = am_majority_count, .sums = majority, .solve = am_majority_solve                   \
    }
#define AM_SPARSE_FIELDS                                                                           \
    .needs_base = true, .min_models = 1, .params = params,                                         \
    .semantics = AM_SEMANTICS_MERGEKIT | AM_SEMANTICS_PAPER, .states = am_consensus_states,        \
    .scratch = am_consensus_scratch, .combine = combine

#endif
