/* Task vectors cut to their leading singular directions: what `extract` with ranks and
 * `extract-lora` share. Matrices go whole to the ranks, by cost; the factors stay with their rank,
 * rounded, until all ranks are known and a file can be laid out.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_EXTRACT_FACTORS_H
#define AM_JOBS_EXTRACT_FACTORS_H

#include "jobs/extract/tally.h"
#include "jobs/merge/plan.h"
#include "mpi/param.h"
#include "solver/linalg/low_rank.h"

/* Where the singular values go: u | s | vt; u sqrt(s) | sqrt(s) vt; u s | vt. */
typedef enum am_factor_scale { AM_FACTOR_APART, AM_FACTOR_EVEN, AM_FACTOR_LEFT } am_factor_scale;

typedef struct am_factor {
    bool is_wanted;     /* [same] in */
    bool is_transposed; /* [same] in: left is kept as [rank, rows], right as [cols, rank] */
    int64_t rank;       /* [same] 0: the task vector is zero */
    bool is_random;     /* [same] found by the randomised way */
    am_loss loss;       /* [same] of the whole task vector; kept: the directions */
    void *left, *right; /* of the owner, owned: [rows, rank], [rank, cols], of `dtype` */
    double *s;          /* of the owner, owned: [rank] */
} am_factor;

typedef struct am_factors {
    const am_inputs *inputs; /* borrowed: base and model */
    am_low_rank_rule rule;
    am_factor_scale scale;
    am_dtype dtype;
    int64_t memory; /* bytes of a rank, 0: any */
    am_factor *of;  /* [base's tensors] owned */
    int *owner;     /* [base's tensors] owned: rank, -1: not wanted */
} am_factors;

/** Room for `of`: nothing is wanted yet. Local. Errors: AM_E_NOMEM. */
int am_factors_create(am_factors *factors);
void am_factors_free(am_factors *factors); /* accepts zeros */
/** Factorise what is wanted, which are matrices (solver/analysis/matrices.h).
 *
 * Collective [comm]. The same bits on any number of ranks: a matrix is one rank's work, and random
 * numbers come from its name. A rank stops at a matrix's end if it is asked to.
 * Errors, agreed: AM_E_DATA not finite, too large for LAPACK; AM_E_USAGE more than `memory`, naming
 * the smallest that does; AM_E_NUMERIC factors do not fit `dtype`; AM_E_STOPPED; AM_E_NOMEM. */
int am_factors_find_all(MPI_Comm comm, am_factors *factors);

/* What says which directions stay, in the options of a command. */
typedef struct am_rank_options {
    int64_t most;
    double fraction, energy, smallest;
    int way;
    int64_t memory;
} am_rank_options;

#define AM_RANK_OPTIONS(options, member, most_default)                                             \
    {"max-rank",                                                                                   \
     AM_PARAM_INT,                                                                                 \
     offsetof(options, member.most),                                                               \
     most_default,                                                                                 \
     0,                                                                                            \
     1 << 16,                                                                                      \
     NULL,                                                                                         \
     "singular directions of a matrix that stay, at most; 0: any number"},                         \
        {"rank-fraction",                                                                          \
         AM_PARAM_REAL,                                                                            \
         offsetof(options, member.fraction),                                                       \
         "0",                                                                                      \
         0,                                                                                        \
         1,                                                                                        \
         NULL,                                                                                     \
         "the same as a share of its smaller side (TSV-C: 1 / tasks); 0: any number"},             \
        {"energy",                                                                                 \
         AM_PARAM_REAL,                                                                            \
         offsetof(options, member.energy),                                                         \
         "1",                                                                                      \
         1e-9,                                                                                     \
         1,                                                                                        \
         NULL,                                                                                     \
         "as few directions as have this share of the sum of squares"},                            \
        {"sv-epsilon", AM_PARAM_REAL, offsetof(options, member.smallest),      "0", 0,             \
         1e300,        NULL,          "singular values up to this do not stay"},                   \
        {"svd",                                                                                    \
         AM_PARAM_CHOICE,                                                                          \
         offsetof(options, member.way),                                                            \
         "auto",                                                                                   \
         0,                                                                                        \
         0,                                                                                        \
         "auto|exact|random",                                                                      \
         "exact, or by a randomised range finder; auto: random for at most an eighth of "          \
         "the smaller side, of 512 at least"},                                                     \
    {                                                                                              \
        "memory", AM_PARAM_BYTES, offsetof(options, member.memory), "0", 0, INT64_MAX, NULL,       \
            "of each rank; refused if the matrices take more (0: no limit)"                        \
    }

am_low_rank_rule am_rank_rule(const am_rank_options *options);

#endif
