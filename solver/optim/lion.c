/* Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, algorithm 2):
 *     c = beta1 m + (1 - beta1) u;  w := w - lr (sign(c) + weight_decay w)
 *     m := beta2 m + (1 - beta2) u;  u = scale g
 * The sign of zero is zero. The paper's betas are 0.9 and 0.99.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_optim.h"

static int am_lion_states(const am_optim_options *options)
{
    (void)options;
    return 1;
}

AM_CLONES static void am_lion_update(const am_optim_options *options, int64_t step, double scale,
                                     int64_t n, real *restrict w, const real *restrict g,
                                     real *const *state)
{
    (void)step;
    const real s = (real)scale, lr = (real)options->lr;
    const real beta1 = (real)options->beta1, rest1 = (real)(1 - options->beta1);
    const real beta2 = (real)options->beta2, rest2 = (real)(1 - options->beta2);
    const real keep = (real)(1 - options->lr * options->weight_decay);
    real *restrict m = state[0];
    for (int64_t i = 0; i < n; i++) {
        const real u = s * g[i], c = beta1 * m[i] + rest1 * u;
        const real sign = (real)(c > 0) - (real)(c < 0);
        m[i] = beta2 * m[i] + rest2 * u;
        w[i] = keep * w[i] - lr * sign;
    }
}

const am_optim AM_R(am_optim_lion) = {
    .name = "lion",
    .summary = "sign of an interpolated momentum, decoupled decay",
    .state_names = {"momentum"},
    .states = am_lion_states,
    .update = am_lion_update,
};
