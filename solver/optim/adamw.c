/* AdamW (Loshchilov & Hutter, ICLR 2019, algorithm 2, without a schedule multiplier): decoupled
 * decay w := w - lr weight_decay w, then
 *     m := beta1 m + (1 - beta1) u;  v := beta2 v + (1 - beta2) u^2;  u = scale g
 *     w := w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_optim.h"

#include <math.h>

static int am_adamw_states(const am_optim_options *options)
{
    (void)options;
    return 2;
}

AM_CLONES static void am_adamw_update(const am_optim_options *options, int64_t step, double scale,
                                      int64_t n, real *restrict w, const real *restrict g,
                                      real *const *state)
{
    const double t = (double)step;
    const real s = (real)scale, epsilon = (real)options->epsilon;
    const real beta1 = (real)options->beta1, rest1 = (real)(1 - options->beta1);
    const real beta2 = (real)options->beta2, rest2 = (real)(1 - options->beta2);
    const real keep = (real)(1 - options->lr * options->weight_decay);
    const real rate = (real)(options->lr / (1 - pow(options->beta1, t)));
    const real root = (real)(1 / sqrt(1 - pow(options->beta2, t)));
    real *restrict m = state[0], *restrict v = state[1];
    for (int64_t i = 0; i < n; i++) {
        const real u = s * g[i];
        m[i] = beta1 * m[i] + rest1 * u;
        v[i] = beta2 * v[i] + rest2 * (u * u);
        w[i] = keep * w[i] - rate * (m[i] / (real_sqrt(v[i]) * root + epsilon));
    }
}

const am_optim AM_R(am_optim_adamw) = {
    .name = "adamw",
    .summary = "Adam with decoupled weight decay",
    .state_names = {"mean", "square"},
    .states = am_adamw_states,
    .update = am_adamw_update,
};
