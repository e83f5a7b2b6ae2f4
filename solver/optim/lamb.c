/* LAMB (You et al., Large Batch Optimization for Deep Learning, ICLR 2020, algorithm 2): the
 * direction of Adam with decay inside, scaled per tensor so that a step is a fixed share of the
 * norm of the weights:
 *     m := beta1 m + (1 - beta1) u;  v := beta2 v + (1 - beta2) u^2;  u = scale g
 *     r = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay w
 *     w := w - lr trust r;  trust = |w| / |r|, 1 where one of the norms is zero
 * The scaling function phi of the paper is the identity. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_optim.h"

#include <math.h>

static int am_lamb_states(const am_optim_options *options)
{
    (void)options;
    return 2;
}

AM_CLONES static void am_lamb_direct(const am_optim_options *options, int64_t step, double scale,
                                     int64_t n, const real *restrict w, real *restrict g,
                                     real *const *state)
{
    const double t = (double)step;
    const real s = (real)scale, epsilon = (real)options->epsilon;
    const real beta1 = (real)options->beta1, rest1 = (real)(1 - options->beta1);
    const real beta2 = (real)options->beta2, rest2 = (real)(1 - options->beta2);
    const real decay = (real)options->weight_decay;
    const real mean = (real)(1 / (1 - pow(options->beta1, t)));
    const real root = (real)(1 / sqrt(1 - pow(options->beta2, t)));
    real *restrict m = state[0], *restrict v = state[1];
    for (int64_t i = 0; i < n; i++) {
        const real u = s * g[i];
        m[i] = beta1 * m[i] + rest1 * u;
        v[i] = beta2 * v[i] + rest2 * (u * u);
        g[i] = mean * m[i] / (real_sqrt(v[i]) * root + epsilon) + decay * w[i];
    }
}

static double am_lamb_trust(double weight_norm, double direction_norm)
{
    return weight_norm > 0 && direction_norm > 0 ? weight_norm / direction_norm : 1;
}

const am_optim AM_R(am_optim_lamb) = {
    .name = "lamb",
    .summary = "Adam with a trust ratio per tensor, for large batches",
    .state_names = {"mean", "square"},
    .states = am_lamb_states,
    .direct = am_lamb_direct,
    .trust = am_lamb_trust,
};
