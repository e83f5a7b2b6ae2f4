/* A small generated task and a naive multilayer perceptron in f64: triple loops over tensors found
 * by name, nothing shared with solver/. Reference for the tests of training.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_REF_MLP_H
#define AM_TESTS_REF_MLP_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "solver/training/preset.h"
#include "solver/training/train.h"

/* ---- preset mlp as the tests write it ---- */

enum { REF_MAX_WIDTHS = 32, REF_MAX_NETS = 64 };
typedef enum ref_activation { REF_RELU, REF_TANH } ref_activation;
typedef struct ref_spec {
    int64_t inputs;
    int n_widths;
    int64_t widths[REF_MAX_WIDTHS];
    ref_activation activation;
} ref_spec;

/* The network of a spec, made once and kept until the program ends. */
static inline const am_net *ref_mlp(const ref_spec *spec)
{
    static ref_spec known[REF_MAX_NETS];
    static am_net net[REF_MAX_NETS];
    static int n;
    for (int i = 0; i < n; i++) {
        if (memcmp(&known[i], spec, sizeof *spec) == 0) {
            return &net[i];
        }
    }
    AM_ASSERT(n < REF_MAX_NETS);
    am_preset_list widths = {.n = spec->n_widths};
    memcpy(widths.value, spec->widths, sizeof widths.value);
    const char *options = spec->activation == REF_RELU ? "activation=relu" : "activation=tanh";
    known[n] = *spec;
    AM_ASSERT(am_preset_make("mlp", options, &widths, &net[n]) == 0);
    AM_ASSERT(am_net_shape(&net[n], spec->inputs) == 0);
    return &net[n++];
}

/* ---- samples ---- */

typedef struct ref_data {
    int64_t n, C, K, calls; /* samples, features, classes; gather calls so far */
    float *x;               /* [n,C] normal */
    int32_t *y;             /* [n] */
} ref_data;

static inline int ref_gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    ref_data *d = self;
    d->calls++;
    for (int64_t i = 0; i < count; i++) {
        memcpy(x + i * d->C, d->x + index[i] * d->C, (size_t)d->C * sizeof *x);
        y[i] = d->y[index[i]];
    }
    return 0;
}

/* Normal inputs; the label is the largest of K sums of neighbouring inputs: learnable. */
static inline ref_data ref_data_make(uint64_t seed, int64_t task, int64_t n, int64_t C, int64_t K)
{
    ref_data d = {.n = n, .C = C, .K = K};
    d.x = calloc((size_t)(n * C), sizeof *d.x);
    d.y = calloc((size_t)n, sizeof *d.y);
    const am_rng rng = am_rng_make(seed, "ref_data", 0, task, "");
    for (int64_t i = 0; i < n; i++) {
        double best = -INFINITY;
        for (int64_t c = 0; c < C; c++) {
            d.x[i * C + c] = (float)am_rng_normal(&rng, i * C + c);
        }
        for (int64_t k = 0; k < K; k++) {
            const double v = (double)(d.x[i * C + (k + task) % C] + d.x[i * C + (2 * k + 1) % C]);
            d.y[i] = v > best ? (int32_t)k : d.y[i];
            best = v > best ? v : best;
        }
    }
    return d;
}

static inline void ref_data_free(ref_data *d)
{
    free(d->x);
    free(d->y);
}

static inline am_samples ref_samples(ref_data *d)
{
    return (am_samples){.self = d,
                        .label = "generated",
                        .n = d->n,
                        .features = d->C,
                        .classes = d->K,
                        .gather = ref_gather};
}

/* ---- network ---- */

/* Block of one tensor inside a parameter block. */
static inline double *ref_tensor(const am_param_layout *layout, double *block, const char *name)
{
    const int64_t i = am_tensor_table_find(&layout->tensors, name);
    AM_ASSERT(i >= 0);
    return block + layout->offset[i];
}

typedef struct ref_net {
    const ref_spec *spec;
    int64_t K;
    am_param_layout trunk, head;
} ref_net;

static inline ref_net ref_net_make(const ref_spec *spec, int64_t K)
{
    ref_net net = {.spec = spec, .K = K};
    AM_ASSERT(am_net_trunk_layout(ref_mlp(spec), AM_DTYPE_F64, &net.trunk) == 0);
    AM_ASSERT(am_net_head_layout(ref_mlp(spec), K, AM_DTYPE_F64, &net.head) == 0);
    return net;
}

static inline void ref_net_free(ref_net *net)
{
    am_param_layout_free(&net->trunk);
    am_param_layout_free(&net->head);
}

static inline double *ref_layer(const ref_net *net, double *trunk, int l, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, net->spec->n_widths < 10 ? "layers.%d.%s" : "layers.%02d.%s", l,
             what);
    return ref_tensor(&net->trunk, trunk, name);
}

/* out[k] = b[k] + sum_c W[k,c] in[c] */
static inline void ref_affine(const double *W, const double *b, const double *in, int64_t C,
                              int64_t K, double *out)
{
    for (int64_t k = 0; k < K; k++) {
        out[k] = b[k];
        for (int64_t c = 0; c < C; c++) {
            out[k] += W[k * C + c] * in[c];
        }
    }
}

/* Adds scale * the outer product to dW and scale-weighted d to db; din[c] = sum_k W[k,c] d[k]. */
static inline void ref_affine_back(const double *W, const double *in, const double *d, int64_t C,
                                   int64_t K, double *dW, double *db, double *din)
{
    for (int64_t c = 0; c < C; c++) {
        din[c] = 0;
        for (int64_t k = 0; k < K; k++) {
            din[c] += W[k * C + c] * d[k];
            dW[k * C + c] += d[k] * in[c];
        }
    }
    for (int64_t k = 0; k < K; k++) {
        db[k] += d[k];
    }
}

enum { REF_WIDEST = 512 };

typedef struct ref_sample {
    double h[REF_MAX_WIDTHS + 1][REF_WIDEST]; /* activations; h[0] the input */
    double p[REF_WIDEST];                     /* probabilities */
    double loss, nearest_kink;                /* smallest |pre-activation| */
    bool correct;
} ref_sample;

static inline void ref_forward(const ref_net *net, double *trunk, double *head, const float *x,
                               int32_t label, ref_sample *s)
{
    int64_t C = net->spec->inputs, best = 0;
    s->nearest_kink = INFINITY;
    for (int64_t c = 0; c < C; c++) {
        s->h[0][c] = (double)x[c];
    }
    for (int l = 0; l < net->spec->n_widths; l++) {
        const int64_t K = net->spec->widths[l];
        double *h = s->h[l + 1];
        ref_affine(ref_layer(net, trunk, l, "weight"), ref_layer(net, trunk, l, "bias"), s->h[l], C,
                   K, h);
        for (int64_t k = 0; k < K; k++) {
            s->nearest_kink = fmin(s->nearest_kink, fabs(h[k]));
            h[k] = net->spec->activation == REF_RELU ? fmax(0, h[k]) : tanh(h[k]);
        }
        C = K;
    }
    ref_affine(ref_tensor(&net->head, head, "head.weight"),
               ref_tensor(&net->head, head, "head.bias"), s->h[net->spec->n_widths], C, net->K,
               s->p);
    double sum = 0;
    for (int64_t k = 0; k < net->K; k++) {
        best = s->p[k] > s->p[best] ? k : best;
    }
    const double most = s->p[best];
    s->correct = best == label;
    for (int64_t k = 0; k < net->K; k++) {
        sum += exp(s->p[k] - most);
    }
    s->loss = log(sum) + most - s->p[label];
    for (int64_t k = 0; k < net->K; k++) {
        s->p[k] = exp(s->p[k] - most) / sum;
    }
}

/* Adds scale * the gradient of the sample's loss. */
static inline void ref_backward(const ref_net *net, double *trunk, double *head, int32_t label,
                                ref_sample *s, double scale, double *d_trunk, double *d_head)
{
    double d[REF_WIDEST], din[REF_WIDEST];
    const int L = net->spec->n_widths;
    for (int64_t k = 0; k < net->K; k++) {
        d[k] = scale * (s->p[k] - (k == label ? 1 : 0));
    }
    int64_t K = net->spec->widths[L - 1];
    ref_affine_back(ref_tensor(&net->head, head, "head.weight"), s->h[L], d, K, net->K,
                    ref_tensor(&net->head, d_head, "head.weight"),
                    ref_tensor(&net->head, d_head, "head.bias"), din);
    for (int l = L - 1; l >= 0; l--) {
        const int64_t C = l > 0 ? net->spec->widths[l - 1] : net->spec->inputs;
        for (int64_t k = 0; k < K; k++) {
            const double h = s->h[l + 1][k];
            d[k] = din[k] * (net->spec->activation == REF_RELU ? (h > 0 ? 1 : 0) : 1 - h * h);
        }
        ref_affine_back(ref_layer(net, trunk, l, "weight"), s->h[l], d, C, K,
                        ref_layer(net, d_trunk, l, "weight"), ref_layer(net, d_trunk, l, "bias"),
                        din);
        K = C;
    }
}

/* Mean loss over samples index[0..n) (NULL: 0..n-1); its gradient, unless d_trunk is NULL, is added
 * to d_trunk and d_head. *correct counts. */
static inline double ref_mean(const ref_net *net, double *trunk, double *head, const ref_data *data,
                              const int64_t *index, int64_t n, double *d_trunk, double *d_head,
                              int64_t *correct)
{
    ref_sample *s = calloc(1, sizeof *s);
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = index != NULL ? index[i] : i;
        ref_forward(net, trunk, head, data->x + at * data->C, data->y[at], s);
        loss += s->loss / (double)n;
        *correct += s->correct;
        if (d_trunk != NULL) {
            ref_backward(net, trunk, head, data->y[at], s, 1 / (double)n, d_trunk, d_head);
        }
    }
    free(s);
    return loss;
}

#endif
