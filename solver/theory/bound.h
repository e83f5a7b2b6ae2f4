/* Theorem 2 of arXiv 2508.16082: bounds of |C|, and of the norms of gradients and Hessians of fully
 * connected networks. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_BOUND_H
#define AM_SOLVER_THEORY_BOUND_H

#include <stdint.h>

/** As the paper's summaries print it, h = k - 2:  T ((h + 2) / 2) |alpha T + 1| H G.
 * It grows with k, but C may grow with k (k - 1): it does not hold from some k on. 0 for k = 1. */
double am_theory_bound_printed(int tasks, int64_t k, double alpha, double gradient, double hessian);
/** As it follows from the definition of C:  T ((h + 1) (h + 2) / 2) (1 + |alpha| T) H G. */
double am_theory_bound_derived(int tasks, int64_t k, double alpha, double gradient, double hessian);

/* An elementwise function: |phi'| <= slope, |phi''| <= bend (almost everywhere), phi(0). */
typedef struct am_theory_function {
    const char *name; /* as recipes name it */
    double slope, bend, at_zero;
} am_theory_function;
/** none, relu, tanh, sigmoid, gelu, gelu_tanh, silu; NULL for another name. */
const am_theory_function *am_theory_function_of(const char *name);

/* One layer: h_l = phi_l(W_l h_{l-1} + b_l). */
typedef struct am_theory_layer {
    double weight;                      /* spectral norm of W */
    double whole;                       /* of [W b]; weight if there is no bias */
    int64_t outputs;                    /* K */
    int has_bias;                       /* 1: the input has one more coordinate, 1 */
    int is_trained;                     /* 0: a fixed head */
    const am_theory_function *function; /* none for the last one */
} am_theory_layer;

/* A loss of the outputs f: |dl/df| <= slope, |d2l/df2| <= bend. */
typedef struct am_theory_loss {
    double slope, bend;
} am_theory_loss;
/** Softmax and cross-entropy, with or without smoothed labels: sqrt 2 and 1/2. Pure. */
am_theory_loss am_theory_cross_entropy(void);

enum { AM_THEORY_LAYERS = 64 };

/** Bounds of the norms of gradient and Hessian for the trained weights and biases of n layers, for
 * inputs of norm <= input.
 *
 * a_l bounds the norm of the input of layer l + 1, D_jl that of d z_j / d(W_l b_l):
 *     a_0 = |(input, 1)|          a_l = |(sqrt(K) |phi(0)| + slope_l whole_l a_{l-1}, 1)|
 *     D_ll = a_{l-1}              D_jl = weight_j slope_{j-1} D_{j-1,l}        J_l = D_nl
 *     N_lm = [l != m] D_nl Prod_{i>l, i!=m} ... + sum_j (path from z_j) bend_j D_jl D_jm
 *     gradient = loss.slope |J|   hessian = loss.bend |J|^2 + loss.slope max_l sum_m N_lm
 * Without biases and with phi(0) = 0 these are the constants X beta^(L-1) Prod B of the theorem.
 * n <= AM_THEORY_LAYERS. Pure. */
void am_theory_network_bounds(int n, const am_theory_layer *layer, double input,
                              am_theory_loss loss, double *gradient, double *hessian);

#endif
