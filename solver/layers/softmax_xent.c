/* Softmax and cross-entropy with bias, in place: logits become probabilities. Exponentials and the
 * loss are f64 in both precisions. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_layer.h"

#include <math.h>

/* One row: z[k] = y[k] + b[k], m = max z;  loss = log(sum exp(z - m)) - (z[label] - m);
 * y[k] := exp(z[k] - m) / sum. NaN and Inf in z give a loss that is not finite. */
static double am_softmax_row(real *y, const real *bias, int64_t K, int64_t label, bool *correct)
{
    int64_t best = 0;
    for (int64_t k = 0; k < K; k++) {
        y[k] += bias[k];
        best = y[k] > y[best] ? k : best;
    }
    const double m = (double)y[best], z_label = (double)y[label] - m;
    double sum = 0;
    for (int64_t k = 0; k < K; k++) {
        const double e = exp((double)y[k] - m);
        sum += e;
        y[k] = (real)e;
    }
    const double inverse = 1 / sum;
    for (int64_t k = 0; k < K; k++) {
        y[k] = (real)((double)y[k] * inverse);
    }
    const double loss = log(sum) - z_label;
    *correct = best == label && isfinite(loss);
    return loss;
}

static void am_softmax_xent_forward(const am_layer_args *a)
{
    *a->correct = 0;
    for (int64_t b = 0; b < a->B; b++) {
        bool correct;
        a->loss[b] = am_softmax_row(a->y + b * a->K, a->param, a->K, a->label[b], &correct);
        *a->correct += correct;
    }
}

/* dy[b,k] = scale (y[b,k] - [k = label[b]]);  db[k] = sum over b of dy[b,k] */
static void am_softmax_xent_backward(const am_layer_args *a)
{
    for (int64_t b = 0; b < a->B; b++) {
        const real *y = a->y + b * a->K;
        real *dy = a->dy + b * a->K;
        for (int64_t k = 0; k < a->K; k++) {
            dy[k] = (real)(a->scale * ((double)y[k] - (k == a->label[b])));
        }
    }
    AM_R(am_layer_bias_gradient)(a);
}

const am_layer AM_R(am_layer_softmax_xent) = {
    .name = "softmax_xent",
    .summary = "softmax of y + bias and its cross-entropy with a label",
    .is_loss = true,
    .forward = am_softmax_xent_forward,
    .backward = am_softmax_xent_backward,
};
