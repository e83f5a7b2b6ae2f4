/* Gradient descent with heavy-ball momentum:
 *     u = scale g + weight_decay w;  v := momentum v + u;  w := w - lr v
 * With decoupled_decay the decay leaves u and shrinks the weights instead: w := w - lr weight_decay
 * w. Without momentum there is no state. SPDX-License-Identifier: BSD-3-Clause */
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
    const real lr = (real)options->lr, momentum = (real)options->momentum, s = (real)scale;
    const real decay = (real)am_optim_l2(options), keep = (real)am_optim_keep(options);
    if (options->momentum == 0) {
        for (int64_t i = 0; i < n; i++) {
            w[i] = keep * w[i] - lr * (s * g[i] + decay * w[i]);
        }
        return;
    }
    real *restrict v = state[0];
    for (int64_t i = 0; i < n; i++) {
        v[i] = momentum * v[i] + (s * g[i] + decay * w[i]);
        w[i] = keep * w[i] - lr * v[i];
    }
}

const am_optim AM_R(am_optim_sgd) = {
    .name = "sgd",
    .summary = "gradient descent with heavy-ball momentum",
    .state_names = {"momentum"},
    .states = am_sgd_states,
    .update = am_sgd_update,
};
