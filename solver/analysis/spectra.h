/* Singular spectra of task vectors, matrix by matrix, and how the subspaces of tasks meet.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ANALYSIS_SPECTRA_H
#define AM_SOLVER_ANALYSIS_SPECTRA_H

#include <mpi.h>
#include "solver/merge/merge.h"

/* What is wanted. */
typedef struct am_spectra_rule {
    int64_t leading;    /* singular values that are told */
    int64_t directions; /* of each task, that are compared; 0: smaller side / tasks, one at least */
} am_spectra_rule;

enum { AM_SPECTRUM_QUANTILES = 5, AM_SPECTRUM_ENERGIES = 3 };
/* Of which quantiles and shares of the energy these are: 0, 1/4 .. 1, and 0.90, 0.95, 0.99. */
extern const double am_spectrum_quantile[AM_SPECTRUM_QUANTILES];
extern const double am_spectrum_energy[AM_SPECTRUM_ENERGIES];

/* The task vector A of one task as a matrix, s its k singular values. */
typedef struct am_spectrum {
    double effective_rank; /* exp(-sum p ln p), p = s / sum s; 0 where A is zero, as below */
    double stable_rank;    /* |A|_F^2 / s[0]^2 */
    double rank;           /* singular values that are more than rounding */
    double rank_at[AM_SPECTRUM_ENERGIES];   /* as many as have that share of |A|_F^2 */
    double quantile[AM_SPECTRUM_QUANTILES]; /* of s, linear between its elements */
} am_spectrum;

/* One tensor. With U_t, V_t the leading singular vectors of task t, r_t of them (fewer than are
 * wanted where its rank is lower):
 *   overlap of a and b   |U_a^T U_b|_F^2 / min(r_a, r_b), and with V; NaN where one is zero
 *   interference         sum of |(U^T U - I) S (V^T V - I)|, U = [U_1 .. U_T], V and S likewise
 * Source: Gargiulo et al. 2025 (arXiv:2412.00081), singular task interference; Roy & Vetterli 2007,
 * effective rank. */
typedef struct am_spectra {
    am_spectrum *task;    /* [T] */
    double *leading;      /* [T, rule's leading]; beyond k: 0 */
    double *left, *right; /* [T, T] overlaps */
    double interference;
} am_spectra;

/** Bytes that am_spectra_all takes for the largest of the matrices of a rank. Pure. */
int64_t am_spectra_bytes(const am_tensor_table *tensors, const int *owner, int rank, int models,
                         const am_spectra_rule *rule);
/** All singular values of every task vector (LAPACK), each matrix whole on one rank.
 *
 * Collective [comm]. The same bits on any number of ranks.
 * owner  [tensors, same] who does a tensor, which is a matrix; -1: none (am_matrices_deal)
 * out    [tensors] on every rank, [same]; those without owner are left as they are. The caller has
 *        made room for what they point to (am_spectra_new)
 * Errors, agreed: AM_E_DATA not finite; those of am_svd; AM_E_NOMEM; AM_E_STOPPED. */
int am_spectra_all(MPI_Comm comm, const am_tensor_table *tensors, const am_merge_input *base,
                   const am_merge_input *models, int n_models, const am_spectra_rule *rule,
                   const int *owner, am_spectra *out);
/** Room for the spectra of every tensor with an owner; NULL: AM_E_NOMEM. Freed by free(). */
am_spectra *am_spectra_new(int64_t n, const int *owner, int models, const am_spectra_rule *rule);

#endif
