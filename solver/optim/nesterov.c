/* Gradient descent with Nesterov's momentum, in the form that looks ahead from the new velocity
 * (Sutskever et al., ICML 2013, as used in practice):
 *     u = scale g + weight_decay w;  v := momentum v + u;  w := w - lr (u + momentum v)
 * decoupled_decay as in sgd. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_optim.h"

static int am_nesterov_states(const am_optim_options *options)
{
    (void)options;
    return 1;
}

AM_CLONES static void am_nesterov_update(const am_optim_options *options, int64_t step,
                                         double scale, int64_t n, real *restrict w,
                                         const real *restrict g, real *const *state)
{
    (void)step;
    const real lr = (real)options->lr, momentum = (real)options->momentum, s = (real)scale;
    const real decay = (real)am_optim_l2(options), keep = (real)am_optim_keep(options);
    real *restrict v = state[0];
    for (int64_t i = 0; i < n; i++) {
        const real u = s * g[i] + decay * w[i];
        v[i] = momentum * v[i] + u;
        w[i] = keep * w[i] - lr * (u + momentum * v[i]);
    }
}

const am_optim AM_R(am_optim_nesterov) = {
    .name = "nesterov",
    .summary = "gradient descent with Nesterov's momentum",
    .state_names = {"momentum"},
    .states = am_nesterov_states,
    .update = am_nesterov_update,
};
