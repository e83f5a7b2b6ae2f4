/* Statistics of a leaf, without MPI: one forward of all its samples for the products of layer
 * inputs, then a backward of every sample alone for squared gradients.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_pass.h"
#include "solver/training/real_train.h"

enum { AM_STATS_BLOCK = 1 << 17 }; /* terms of rows that are multiplied at a time, about */

typedef struct am_stats_work {
    const am_stats_leaf *leaf;
    float *x;        /* [samples, features] owned */
    int32_t *label;  /* [samples, labels] owned */
    am_samples held; /* these */
    double *block;   /* [AM_STATS_BLOCK or one row] owned */
    real *gradient;  /* [trunk] owned */
    am_rng rng;      /* of drawn labels */
    double *sums;    /* borrowed */
} am_stats_work;

/* ---- samples ---- */

/* The samples of the leaf, read once. */
static int am_stats_gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    const am_stats_work *w = self;
    const int64_t F = w->held.features, T = am_net_labels(w->leaf->net);
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = index[i] - w->leaf->lo;
        memcpy(x + i * F, w->x + at * F, (size_t)F * sizeof *x);
        memcpy(y + i * T, w->label + at * T, (size_t)T * sizeof *y);
    }
    return 0;
}

static void am_stats_announce(const am_stats_leaf *leaf, int64_t *index)
{
    const int64_t n = leaf->ahead_hi - leaf->ahead_lo;
    for (int64_t i = 0; i < n; i++) {
        index[i] = leaf->ahead_lo + i;
    }
    if (n > 0 && leaf->samples->announce != NULL) {
        leaf->samples->announce(leaf->samples->self, index, n);
    }
}

static int am_stats_read(am_stats_work *w)
{
    const am_stats_leaf *leaf = w->leaf;
    const int64_t B = leaf->hi - leaf->lo, ahead = leaf->ahead_hi - leaf->ahead_lo;
    int64_t *index = am_new((B > ahead ? B : ahead) + 1, sizeof *index, "samples");
    int rc = index == NULL ? AM_E_NOMEM : 0;
    for (int64_t i = 0; rc == 0 && i < B; i++) {
        index[i] = leaf->lo + i;
    }
    AM_KEEP(leaf->samples->gather(leaf->samples->self, index, B, w->x, w->label));
    if (rc == 0) {
        am_stats_announce(leaf, index);
    }
    w->held = *leaf->samples;
    w->held.self = w;
    w->held.gather = am_stats_gather;
    w->held.announce = NULL;
    free(index);
    return rc;
}

/* ---- products of inputs ---- */

/* gram (upper triangle) += X^T X,  mean += sum over rows, for X [R,C]. */
static void am_stats_add_rows(int64_t R, int64_t C, const double *x, double *gram, double *mean)
{
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, am_int(C), am_int(R), 1, x, am_int(C), 1,
                gram, am_int(C));
    for (int64_t r = 0; r < R; r++) {
        for (int64_t c = 0; c < C; c++) {
            mean[c] += x[r * C + c];
        }
    }
}

static void am_stats_see(void *self, int node, const am_layer_args *a)
{
    am_stats_work *w = self;
    const am_stats_leaf *leaf = w->leaf;
    const am_net *net = leaf->net;
    if (leaf->layout->gram[node] < 0) {
        return;
    }
    const am_layer *layer =
        node < net->n ? AM_R(am_layer_table)[net->node[node].index] : &AM_R(am_layer_linear);
    const int64_t C = leaf->layout->terms[node], rows = a->B * layer->product_rows(a->site);
    const int64_t step = AM_STATS_BLOCK / C > 1 ? AM_STATS_BLOCK / C : 1;
    for (int64_t lo = 0; lo < rows; lo += step) {
        const int64_t hi = rows - lo < step ? rows : lo + step;
        layer->product_inputs(a, lo, hi, w->block);
        am_stats_add_rows(hi - lo, C, w->block, w->sums + leaf->layout->gram[node],
                          w->sums + leaf->layout->mean[node]);
    }
}

static void am_stats_mirror(int64_t C, double *gram)
{
    for (int64_t i = 0; i < C; i++) {
        for (int64_t j = 0; j < i; j++) {
            gram[i * C + j] = gram[j * C + i];
        }
    }
}

static int am_stats_grams(am_stats_work *w)
{
    const am_stats_leaf *leaf = w->leaf;
    const int64_t B = leaf->hi - leaf->lo;
    am_net_pass pass = {0};
    int rc = AM_R(am_pass_make)(leaf->net, B, leaf->classes, false, &pass);
    for (int64_t b = 0; rc == 0 && b < B; b++) {
        pass.index[b] = leaf->lo + b;
    }
    AM_KEEP(AM_R(am_pass_load)(&pass, &w->held, B, leaf->classes));
    if (rc == 0) {
        pass.see = am_stats_see;
        pass.see_self = w;
        pass.end = leaf->options->last > 0 ? leaf->options->last - 1 : leaf->net->n;
        AM_R(am_pass_forward)(&pass, leaf->trunk, leaf->head, B, leaf->classes);
        for (int i = 0; i <= leaf->net->n; i++) {
            if (leaf->layout->gram[i] >= 0) {
                am_stats_mirror(leaf->layout->terms[i], w->sums + leaf->layout->gram[i]);
            }
        }
    }
    AM_R(am_pass_free)(&pass);
    return rc;
}

/* ---- Fisher information ---- */

/* sum[i] += weight d[i]^2 */
AM_CLONES static void am_stats_add_squares(int64_t n, double weight, const real *restrict d,
                                           double *restrict sum)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += weight * ((double)d[i] * (double)d[i]);
    }
}

/* The gradient of log p of all labels of the sample that is loaded and run forward: labels count
 * alike, the loss is their mean. */
static void am_stats_add_sample(am_stats_work *w, am_net_pass *pass, double weight)
{
    const am_stats_leaf *leaf = w->leaf;
    const am_param_layout *trunk = &leaf->net->trunk;
    AM_R(am_pass_backward)
    (pass, leaf->trunk, leaf->head, 1, leaf->classes, (double)pass->counted, w->gradient, NULL);
    if (leaf->net->gradient_n < trunk->n) {
        AM_R(am_gradient_spread)(trunk, leaf->net->gradient_n, w->gradient);
    }
    for (int64_t k = 0; k < trunk->tensors.n; k++) {
        if (am_param_is_trained(trunk, k)) {
            am_stats_add_squares(trunk->tensors.t[k].numel, weight, w->gradient + trunk->offset[k],
                                 w->sums + leaf->layout->fisher[k]);
        }
    }
}

/* A class by its probability: the first whose sum of probabilities so far is above u. */
static int32_t am_stats_draw(int64_t K, const real *p, double u)
{
    double sum = 0;
    int64_t k = 0;
    for (; k < K - 1; k++) {
        sum += (double)p[k];
        if (u < sum) {
            break;
        }
    }
    return (int32_t)k;
}

/* New labels for every position that counts. */
static void am_stats_draw_labels(const am_stats_work *w, am_net_pass *pass)
{
    const int64_t K = w->leaf->classes;
    const real *p = AM_R(am_pass_probabilities)(pass);
    for (int64_t r = 0; r < pass->labels; r++) {
        if (pass->label[r] >= 0) {
            const double u = am_rng_uniform(&w->rng, pass->index[0] * pass->labels + r);
            pass->label[r] = am_stats_draw(K, p + r * K, u);
        }
    }
}

static void am_stats_forward(const am_stats_leaf *leaf, am_net_pass *pass)
{
    AM_R(am_pass_forward)(pass, leaf->trunk, leaf->head, 1, leaf->classes);
}

/* All classes of a sample with one label, which has been run forward: backward spoils what forward
 * left, so that each takes its own. */
static void am_stats_add_classes(am_stats_work *w, am_net_pass *pass)
{
    for (int32_t k = 0; k < w->leaf->classes; k++) {
        if (k > 0) {
            am_stats_forward(w->leaf, pass);
        }
        const double weight = (double)AM_R(am_pass_probabilities)(pass)[k];
        pass->label[0] = k;
        am_stats_add_sample(w, pass, weight);
    }
}

static int am_stats_sample(am_stats_work *w, am_net_pass *pass, int64_t sample)
{
    pass->index[0] = sample;
    const int rc = AM_R(am_pass_load)(pass, &w->held, 1, w->leaf->classes);
    if (rc != 0) {
        return rc;
    }
    am_stats_forward(w->leaf, pass);
    if (pass->counted == 0) {
        return 0;
    }
    if (w->leaf->options->fisher == AM_FISHER_EXACT) {
        am_stats_add_classes(w, pass);
        return 0;
    }
    if (w->leaf->options->fisher == AM_FISHER_SAMPLED) {
        am_stats_draw_labels(w, pass);
    }
    am_stats_add_sample(w, pass, 1);
    return 0;
}

static int am_stats_fishers(am_stats_work *w)
{
    const am_stats_leaf *leaf = w->leaf;
    am_net_pass pass = {0};
    int rc = AM_R(am_pass_make)(leaf->net, 1, leaf->classes, true, &pass);
    w->rng = am_rng_make(leaf->options->seed, "fisher", 0, 0, leaf->samples->label);
    for (int64_t i = leaf->lo; rc == 0 && i < leaf->hi; i++) {
        rc = am_stats_sample(w, &pass, i);
        am_alive("statistics");
    }
    AM_R(am_pass_free)(&pass);
    return rc;
}

/* ---- a leaf ---- */

static int am_stats_check_finite(const am_stats_work *w)
{
    const am_stats_layout *l = w->leaf->layout;
    for (int64_t k = 0; k < l->tensors.n; k++) {
        for (int64_t i = 0; i < l->tensors.t[k].numel; i++) {
            if (!isfinite(w->sums[l->offset[k] + i])) {
                return am_fail(AM_E_NUMERIC,
                               "statistics of %s: %s is not finite in samples %lld to %lld: the "
                               "model's values overflow there",
                               w->leaf->samples->label, l->tensors.t[k].name,
                               (long long)w->leaf->lo, (long long)w->leaf->hi - 1);
            }
        }
    }
    return 0;
}

static int64_t am_stats_block(const am_net *net)
{
    int64_t most = AM_STATS_BLOCK;
    for (int i = 0; i < net->n; i++) {
        const am_layer *layer = net->node[i].layer;
        const int64_t C =
            layer->product_terms != NULL ? layer->product_terms(&net->node[i].site) : 0;
        most = C > most ? C : most;
    }
    const int64_t C = am_shape_features(&net->out);
    return C > most ? C : most;
}

static int am_stats_open(am_stats_work *w)
{
    const am_stats_leaf *leaf = w->leaf;
    const am_net *net = leaf->net;
    const int64_t B = leaf->hi - leaf->lo;
    int rc = AM_R(am_train_check)(net, leaf->samples, leaf->classes);
    if (rc == 0 && leaf->options->fisher == AM_FISHER_EXACT && am_net_labels(net) > 1) {
        rc =
            am_fail(AM_E_RECIPE,
                    "%s: a sample has %lld labels, and the exact Fisher information is a mean over "
                    "all their combinations: take a sampled one",
                    leaf->samples->label, (long long)am_net_labels(net));
    }
    w->x = am_new(B * net->features + 1, sizeof *w->x, "samples");
    w->label = am_new(B * am_net_labels(net) + 1, sizeof *w->label, "samples");
    if (leaf->options->with_grams && leaf->options->pair == NULL) {
        w->block = am_new(am_stats_block(net), sizeof *w->block, "inputs of layers");
        AM_KEEP(w->block == NULL ? AM_E_NOMEM : 0);
    }
    if (leaf->options->fisher != AM_FISHER_NONE) {
        w->gradient = am_new(net->trunk.n + 1, sizeof *w->gradient, "a gradient");
        AM_KEEP(w->gradient == NULL ? AM_E_NOMEM : 0);
    }
    AM_KEEP(w->x == NULL || w->label == NULL ? AM_E_NOMEM : 0);
    return rc;
}

int AM_R(am_train_stats)(const am_stats_leaf *leaf, double *sums)
{
    am_stats_work w = {.leaf = leaf, .sums = sums};
    memset(sums, 0, (size_t)leaf->layout->n * sizeof *sums);
    if (leaf->lo >= leaf->hi) {
        return 0;
    }
    am_blas_single_thread();
    int rc = am_stats_open(&w);
    AM_KEEP(am_stats_read(&w));
    if (leaf->options->pair != NULL) {
        AM_KEEP(rc != 0 ? rc : AM_R(am_train_pair)(leaf, &w.held, sums));
    } else if (leaf->options->with_grams) {
        AM_KEEP(am_stats_grams(&w));
    }
    if (leaf->options->fisher != AM_FISHER_NONE) {
        AM_KEEP(am_stats_fishers(&w));
    }
    AM_KEEP(am_stats_check_finite(&w));
    free(w.x);
    free(w.label);
    free(w.block);
    free(w.gradient);
    return rc;
}

int AM_R(am_train_stats_bytes)(const am_net *net, const am_stats_options *options, int64_t rows,
                               int64_t classes, int64_t *bytes)
{
    int64_t whole = 0, one = 0;
    int rc = 0;
    *bytes = rows * (net->features * (int64_t)sizeof(float) +
                     am_net_labels(net) * (int64_t)sizeof(int32_t));
    if (options->pair != NULL) {
        rc = AM_R(am_train_pair_bytes)(net, options, rows, classes, &whole);
    } else if (options->with_grams) {
        rc = AM_R(am_pass_bytes)(net, rows, classes, false, &whole);
        *bytes += am_stats_block(net) * (int64_t)sizeof(double);
    }
    if (options->fisher != AM_FISHER_NONE) {
        AM_KEEP(AM_R(am_pass_bytes)(net, 1, classes, true, &one));
        *bytes += net->trunk.n * (int64_t)sizeof(real);
    }
    *bytes += whole > one ? whole : one; /* one after the other */
    return rc;
}
