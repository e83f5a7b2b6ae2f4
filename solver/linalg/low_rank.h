/* A matrix by its leading singular directions. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_LOW_RANK_H
#define AM_SOLVER_LINALG_LOW_RANK_H

#include <stdbool.h>
#include "mpi/rng.h"
#include "solver/linalg/matrix.h"

/* RANDOM: a randomised range finder with two subspace iterations (random_svd.h). AUTO: that, where
 * at most an eighth of the smaller side, which is 512 at least, is wanted; else EXACT. */
typedef enum am_low_rank_way {
    AM_LOW_RANK_AUTO,
    AM_LOW_RANK_EXACT,
    AM_LOW_RANK_RANDOM
} am_low_rank_way;

/* Which directions stay: as few as all three allow. Those that are rounding never do. */
typedef struct am_low_rank_rule {
    int64_t most;    /* directions; 0: all */
    double fraction; /* of the smaller side, one direction at least; 0: all */
    double energy;   /* as few as have this share of |a|_F^2; 1: all */
    double smallest; /* singular values up to this do not */
    am_low_rank_way way;
} am_low_rank_rule;

typedef struct am_low_rank {
    int64_t rank;    /* 0: a is zero */
    am_matrix u, vt; /* [m, rank], [rank, n] */
    double *s;       /* [rank] falling */
    bool is_random;
} am_low_rank;

/** The directions of a [m,n] that a rule keeps: of all matrices of that rank the nearest one; with
 * RANDOM nearly so.
 *
 * a    destroyed
 * rng  for RANDOM: the same matrix and rng give the same bits
 * out  lies in `work`; am_low_rank_bytes(m, n, rule) of it are taken
 * Local. Errors: those of am_svd. */
int am_low_rank_find(am_arena *work, am_matrix a, const am_low_rank_rule *rule, const am_rng *rng,
                     am_low_rank *out);
int64_t am_low_rank_bytes(int64_t m, int64_t n, const am_low_rank_rule *rule);
/** The most directions that a matrix of m x n can keep. Pure. */
int64_t am_low_rank_most(int64_t m, int64_t n, const am_low_rank_rule *rule);

#endif
