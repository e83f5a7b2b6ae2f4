/* The weight of one merged layer by least squares. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_FIT_H
#define AM_SOLVER_ALIGN_FIT_H

#include <stdbool.h>
#include <stdint.h>

/* One product z = W x + b in both networks and in the merged one. All borrowed. */
typedef struct am_fit {
    int64_t C;                       /* terms of x in one network */
    int64_t K_wide, C_wide;          /* rows and terms of the merged weight */
    const double *weight[2];         /* [K,C] of both; NULL: that network has none */
    const double *bias[2];           /* [K]; NULL: none */
    const int64_t *row[2], *term[2]; /* [K_wide], [C_wide]: which of each network, -1: none */
    const double *share[2];          /* [K_wide]: what is wanted is share[0] z of the one plus
                                        share[1] z of the other */
    bool has_bias;
    bool is_shared;      /* both networks read the same: y is x, and term[1] is term[0] */
    const double *joint; /* [2 C + 1, 2 C + 1]: sum over rows of u u^T, u = (x, y, 1) */
} am_fit;

/* Sums over rows and outputs of squares: what is wanted, and how far the merged layer was from it
 * with the weights put together, and is with those fitted. */
typedef struct am_fit_error {
    double wanted, before, after;
} am_fit_error;

/** The merged layer gets the mean of a pair and what an unpaired unit of either network gives. It
 * begins with W0, where each term counts as the pair's own (paired weights: their mean), and is
 * W0 + D, D the solution of
 *
 *     least  sum over rows |D (x, 1) - (wanted - W0 (x, 1))|^2 + ridge g |D|^2,
 *
 * g the mean of the diagonal of the sum of (x, 1) (x, 1)^T. So D is 0 where W0 gives what is
 * wanted, and directions that the samples do not reach stay those of W0.
 *
 * weight [K_wide,C_wide], bias [K_wide] (NULL without) overwritten. Local; am_fit_bytes of memory.
 * By the sums of products, in f64: inputs are f32 values, whose own rounding is 6e-8, and the ridge
 * bounds the condition of what is solved by 1 / ridge times the number of terms, so that singular
 * values that products lose do not count. Errors: AM_E_NUMERIC, AM_E_NOMEM.
 * Source: Nasery et al., PLeaS (2024), section 3;  differs: solved, not descended; all terms may
 * count for all rows. */
int am_fit_solve(const am_fit *fit, double ridge, double *weight, double *bias, am_fit_error *out);
int64_t am_fit_bytes(int64_t C, int64_t K_wide, int64_t C_wide);

#endif
