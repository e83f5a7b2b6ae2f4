/* Largest eigenvalues of a symmetric operator that is known by its products with vectors alone,
 * such as the Hessian of a loss (am_train_ops.hvp). Vectors are whole on every rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ANALYSIS_EIGEN_H
#define AM_SOLVER_ANALYSIS_EIGEN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_operator {
    void *self;
    int64_t n;
    /* out := A v, both [n]; an error ends the search. May be collective: the searches below call it
     * equally often on all ranks if it gives all the same bits. */
    int (*apply)(void *self, const double *v, double *out);
} am_operator;

typedef enum am_eigen_order {
    AM_EIGEN_LARGEST,  /* descending */
    AM_EIGEN_MAGNITUDE /* by |value|, descending */
} am_eigen_order;

#define AM_EIGEN_CHANCE 0.01

typedef struct am_eigen_options {
    am_eigen_order order;
    int wanted;       /* values, >= 1, at most n */
    int most;         /* products at most, >= wanted */
    double tolerance; /* of a residual, relative to the largest |value| that was seen */
    uint64_t seed;    /* of the first vector: normal numbers by am_rng */
    /* [n] what the first vector is near to, borrowed; NULL or zero: nothing is known. The first
     * vector is this, of length 1, and a random one of length AM_EIGEN_CHANCE, so that what is not
     * in it is found, too. May be the result's vector. */
    const double *near;
    /* am_eigen_bytes, borrowed. NULL: allocated inside; where apply is collective the caller
     * allocates and agrees before, so that no rank is left alone in it. */
    void *memory;
} am_eigen_options;

/** Bytes of the memory of either search. Pure. */
int64_t am_eigen_bytes(int64_t n, const am_eigen_options *options);

typedef struct am_eigen_result {
    /* [wanted] caller's. residual: |A x - value x| of the vector x of length 1; an eigenvalue of A
     * is as near to `value` as that. NaN, both: not found. */
    double *value, *residual;
    double *vector; /* [wanted, n] caller's, or NULL */
    int products;
    bool is_converged; /* all residuals are within the tolerance; an outcome, no error */
} am_eigen_result;

/** By Lanczos' method with full reorthogonalisation. Residuals are estimated from the recurrence,
 * to which rounding adds about 1e-15 of the largest value.
 *
 * An eigenvalue that repeats is found once as long as the Krylov space of the first vector lasts;
 * when it ends before all `wanted` are found, a new vector goes on. What is not finite in a product
 * ends the search without convergence.
 *
 * Local but for `apply`. Memory: most + 1 vectors, about most^2 numbers. Cost: most products, 4 n
 * most^2 operations. Errors: AM_E_BUG (options out of range), AM_E_NOMEM, AM_E_NUMERIC (no
 * convergence inside LAPACK), those of apply. Sources: Lanczos (1950); Paige (1972) and Parlett,
 * The Symmetric Eigenvalue Problem (1980). */
int am_eigen_lanczos(const am_operator *a, const am_eigen_options *options,
                     am_eigen_result *result);

/** The eigenvalue of the largest magnitude by power iteration: value[0], residual[0] (measured),
 * vector[0]. wanted and order are not read. Does not converge when value and -value are both
 * eigenvalues. Uses 2 vectors of the memory. Errors: AM_E_BUG, AM_E_NOMEM, those of apply. */
int am_eigen_power(const am_operator *a, const am_eigen_options *options, am_eigen_result *result);

#endif
