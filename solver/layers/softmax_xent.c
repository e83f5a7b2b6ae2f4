/* Softmax and cross-entropy with bias, in place: logits become probabilities. Each row has a label,
 * -1 for a row that does not count; a sample's loss is the mean over its rows that do. Exponentials
 * and the loss are f64 in both precisions. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

/* One row: z[k] = y[k] + b[k], m = max z, e the smoothing;
 * loss = log(sum exp(z - m)) - (1 - e) (z[label] - m) - e mean(z - m);  y[k] := exp(z[k] - m) /
 * sum. NaN and Inf in z give a loss that is not finite. */
static double am_softmax_row(real *y, const real *bias, int64_t K, int64_t label, double smoothing,
                             bool *correct)
{
    int64_t best = 0;
    for (int64_t k = 0; k < K; k++) {
        y[k] += bias[k];
        best = y[k] > y[best] ? k : best;
    }
    const double m = (double)y[best], z_label = (double)y[label] - m;
    double sum = 0, mean = 0;
    for (int64_t k = 0; smoothing > 0 && k < K; k++) {
        mean += ((double)y[k] - m) / (double)K;
    }
    for (int64_t k = 0; k < K; k++) {
        const double e = exp((double)y[k] - m);
        sum += e;
        y[k] = (real)e;
    }
    const double inverse = 1 / sum;
    for (int64_t k = 0; k < K; k++) {
        y[k] = (real)((double)y[k] * inverse);
    }
    const double target = smoothing > 0 ? (1 - smoothing) * z_label + smoothing * mean : z_label;
    const double loss = log(sum) - target;
    *correct = best == label && isfinite(loss);
    return loss;
}

static int64_t am_softmax_counted(const int32_t *label, int64_t rows)
{
    int64_t n = 0;
    for (int64_t r = 0; r < rows; r++) {
        n += label[r] >= 0;
    }
    return n;
}

static void am_softmax_xent_forward(const am_layer_args *a)
{
    const int64_t K = am_shape_features(&a->site->out), T = am_shape_rows(&a->site->out);
    *a->correct = 0;
    *a->counted = 0;
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t counted = am_softmax_counted(a->label + b * T, T);
        *a->counted += counted;
        a->loss[b] = 0;
        for (int64_t t = b * T; t < (b + 1) * T; t++) {
            if (a->label[t] >= 0) {
                bool correct;
                a->loss[b] += am_softmax_row(a->y + t * K, a->param[0], K, a->label[t],
                                             a->smoothing, &correct) /
                              (double)counted;
                *a->correct += correct;
                if (a->hit != NULL) {
                    a->hit[t] = correct;
                }
            }
        }
    }
}

/* dy[k] = w (y[k] - (1 - e) [k = label] - e / K), w = scale / rows that count */
static void am_softmax_xent_backward(const am_layer_args *a)
{
    const int64_t K = am_shape_features(&a->site->out), T = am_shape_rows(&a->site->out);
    const double smooth = a->smoothing / (double)K, sharp = 1 - a->smoothing;
    for (int64_t b = 0; b < a->B; b++) {
        const double w = a->scale / (double)am_softmax_counted(a->label + b * T, T);
        for (int64_t r = b * T; r < (b + 1) * T; r++) {
            const real *y = a->y + r * K;
            real *dy = a->dy + r * K;
            for (int64_t k = 0; a->label[r] >= 0 && k < K; k++) {
                const double target = k == a->label[r] ? sharp + smooth : smooth;
                dy[k] = (real)(w * ((double)y[k] - target));
            }
            if (a->label[r] < 0) {
                memset(dy, 0, (size_t)K * sizeof(real));
            }
        }
    }
    AM_R(am_layer_column_sum)(a->B * T, K, a->dy, a->dparam[0]);
}

/* With z_dot = y_dot + b_dot, the tangent of the logits:  dy_dot[k] = w y[k] (z_dot[k] -
 * sum of y z_dot): the target is constant. */
static void am_softmax_xent_curve(const am_layer_args *a)
{
    const int64_t K = am_shape_features(&a->site->out), T = am_shape_rows(&a->site->out);
    for (int64_t b = 0; b < a->B; b++) {
        const double w = a->scale / (double)am_softmax_counted(a->label + b * T, T);
        for (int64_t r = b * T; r < (b + 1) * T; r++) {
            const real *y = a->y + r * K, *z_dot = a->y_dot + r * K, *bias = a->param_dot[0];
            real *dy_dot = a->dy_dot + r * K;
            double mean = 0;
            for (int64_t k = 0; a->label[r] >= 0 && k < K; k++) {
                mean += (double)y[k] * ((double)z_dot[k] + (double)bias[k]);
            }
            for (int64_t k = 0; a->label[r] >= 0 && k < K; k++) {
                const double d = (double)z_dot[k] + (double)bias[k] - mean;
                dy_dot[k] = (real)(w * (double)y[k] * d);
            }
            if (a->label[r] < 0) {
                memset(dy_dot, 0, (size_t)K * sizeof(real));
            }
        }
    }
    AM_R(am_layer_column_sum)(a->B * T, K, a->dy_dot, a->dparam_dot[0]);
}

const am_layer AM_R(am_layer_softmax_xent) = {
    .name = "softmax_xent",
    .summary = "softmax of y + bias and its cross-entropy with a label a row",
    .inputs = 1,
    .is_loss = true,
    .forward = am_softmax_xent_forward,
    .backward = am_softmax_xent_backward,
    .curve = am_softmax_xent_curve,
};
