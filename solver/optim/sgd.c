/* Gradient descent with heavy-ball momentum and L2 decay:
 *     u = scale g + weight_decay w;  v := momentum v + u;  w := w - lr v
 * Without momentum there is no state. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_optim.h"

static int am_sgd_states(const am_optim_options *options)
{
    return options->momentum != 0 ? 1 : 0;
}

AM_CLONES static void am_sgd_update(const am_optim_options *options, int64_t step, double scale,
                                    int64_t n, real *restrict w, const real *restrict g,
                                    real *const *state)
{
    (void)step;
    const real lr = (real)options->lr, decay = (real)options->weight_decay;
    const real momentum = (real)options->momentum, s = (real)scale;
    if (options->momentum == 0) {
        for (int64_t i = 0; i < n; i++) {
            w[i] -= lr * (s * g[i] + decay * w[i]);
        }
        return;
    }
    real *restrict v = state[0];
    for (int64_t i = 0; i < n; i++) {
        v[i] = momentum * v[i] + (s * g[i] + decay * w[i]);
        w[i] -= lr * v[i];
    }
}

const am_optim AM_R(am_optim_sgd) = {
    .name = "sgd",
    .summary = "gradient descent with momentum and L2 decay",
    .states = am_sgd_states,
    .update = am_sgd_update,
};
