/* Statistics of two networks on the same samples: the first runs and what its layers read is held,
 * then the second runs and meets it. Shapes of products follow from the leaf alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "solver/training/real_pass.h"
#include "solver/training/real_train.h"

enum { AM_PAIR_BLOCK = 1 << 17 }; /* terms of rows that are multiplied at a time, about */

typedef struct am_pair_work {
    const am_stats_leaf *leaf;
    real **held;     /* [nodes + 1] owned: what each read in the first network, NULL: not wanted */
    double *x, *y;   /* [am_pair_block] owned: rows of both */
    double *sums;    /* borrowed */
    bool is_holding; /* the first network runs */
} am_pair_work;

/* ---- what is looked at ---- */

static const am_shape *am_pair_input(const am_net *net, int node)
{
    return node < net->n ? &net->node[node].site.in[0] : &net->out;
}

static int64_t am_pair_terms(const am_net *net, int node)
{
    const am_layer *layer = node < net->n ? net->node[node].layer : &AM_R(am_layer_linear);
    return node == net->n                 ? am_shape_features(&net->out)
           : layer->product_terms != NULL ? layer->product_terms(&net->node[node].site)
                                          : 0;
}

static bool am_pair_is_wanted(const am_net *net, const am_stats_options *options, int node)
{
    bool is = options->with_grams && am_pair_terms(net, node) > 0;
    for (int r = 0; !is && r < options->pair->n_reads; r++) {
        is = options->pair->read[r].node == node;
    }
    return is;
}

/* Doubles of a block: one row at least. */
static int64_t am_pair_block(const am_net *net, const am_stats_options *options)
{
    int64_t most = AM_PAIR_BLOCK;
    for (int i = 0; i <= net->n; i++) {
        const int64_t C = am_pair_terms(net, i);
        most = options->with_grams && C > most ? C : most;
    }
    for (int f = 0; f < options->pair->n_fields; f++) {
        most = options->pair->n[f] > most ? options->pair->n[f] : most;
    }
    return most;
}

/* ---- units ---- */

/* to[hi - lo, n]: rows of units; row r of the value has m of them. */
static void am_pair_units(const am_stats_view *read, int64_t n, int64_t F, int64_t lo, int64_t hi,
                          const real *x, double *to)
{
    for (int64_t i = lo; i < hi; i++) {
        const real *row = x + i / read->m * F;
        const int64_t j = i % read->m;
        for (int64_t u = 0; u < n; u++) {
            *to++ = (double)row[read->cell[u * read->m + j]];
        }
    }
}

static void am_pair_squares(int64_t R, int64_t n, const double *x, double *sum)
{
    for (int64_t r = 0; r < R; r++) {
        for (int64_t u = 0; u < n; u++) {
            sum[u] += x[r * n + u] * x[r * n + u];
        }
    }
}

static void am_pair_meet(am_pair_work *w, const am_stats_view *read, int64_t B, const real *y)
{
    const am_shape *in = am_pair_input(w->leaf->net, read->node);
    const int64_t n = w->leaf->options->pair->n[read->field], F = am_shape_features(in);
    const int64_t rows = B * am_shape_rows(in) * read->m;
    const int64_t step = AM_PAIR_BLOCK / n > 1 ? AM_PAIR_BLOCK / n : 1;
    double *cross = w->sums + w->leaf->layout->cross[read->field];
    double *own = w->sums + w->leaf->layout->own[read->field];
    for (int64_t lo = 0; lo < rows; lo += step) {
        const int64_t hi = rows - lo < step ? rows : lo + step;
        am_pair_units(read, n, F, lo, hi, w->held[read->node], w->x);
        am_pair_units(read, n, F, lo, hi, y, w->y);
        am_pair_squares(hi - lo, n, w->x, own);
        am_pair_squares(hi - lo, n, w->y, own + n);
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, am_int(n), am_int(n), am_int(hi - lo),
                    1, w->x, am_int(n), w->y, am_int(n), 1, cross, am_int(n));
    }
}

/* ---- products ---- */

/* Upper triangle of the sum of u u^T, u = (x, y, 1), for X and Y [R,C]. */
static void am_pair_add(int64_t R, int64_t C, const double *x, const double *y, double *sum)
{
    const int64_t J = 2 * C + 1;
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, am_int(C), am_int(R), 1, x, am_int(C), 1,
                sum, am_int(J));
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, am_int(C), am_int(C), am_int(R), 1, x,
                am_int(C), y, am_int(C), 1, sum + C, am_int(J));
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, am_int(C), am_int(R), 1, y, am_int(C), 1,
                sum + C * J + C, am_int(J));
    for (int64_t r = 0; r < R; r++) {
        for (int64_t c = 0; c < C; c++) {
            sum[c * J + 2 * C] += x[r * C + c];
            sum[(C + c) * J + 2 * C] += y[r * C + c];
        }
    }
    sum[J * J - 1] += (double)R;
}

static void am_pair_multiply(am_pair_work *w, int node, const am_layer_args *a)
{
    const am_net *net = w->leaf->net;
    const am_layer *layer =
        node < net->n ? AM_R(am_layer_table)[net->node[node].index] : &AM_R(am_layer_linear);
    const int64_t C = am_pair_terms(net, node), rows = a->B * layer->product_rows(a->site);
    const int64_t step = AM_PAIR_BLOCK / C > 1 ? AM_PAIR_BLOCK / C : 1;
    am_layer_args first = *a;
    first.x[0] = w->held[node];
    for (int64_t lo = 0; lo < rows; lo += step) {
        const int64_t hi = rows - lo < step ? rows : lo + step;
        layer->product_inputs(&first, lo, hi, w->x);
        layer->product_inputs(a, lo, hi, w->y);
        am_pair_add(hi - lo, C, w->x, w->y, w->sums + w->leaf->layout->gram[node]);
    }
}

static void am_pair_mirror(int64_t J, double *sum)
{
    for (int64_t i = 0; i < J; i++) {
        for (int64_t j = 0; j < i; j++) {
            sum[i * J + j] = sum[j * J + i];
        }
    }
}

/* ---- the two passes ---- */

static void am_pair_see(void *self, int node, const am_layer_args *a)
{
    am_pair_work *w = self;
    const am_stats_options *options = w->leaf->options;
    if (w->held[node] == NULL) {
        return;
    }
    if (w->is_holding) {
        const int64_t n = a->B * am_shape_numel(am_pair_input(w->leaf->net, node));
        memcpy(w->held[node], a->x[0], (size_t)n * sizeof(real));
        return;
    }
    for (int r = 0; r < options->pair->n_reads; r++) {
        if (options->pair->read[r].node == node) {
            am_pair_meet(w, &options->pair->read[r], a->B, a->x[0]);
        }
    }
    if (options->with_grams && am_pair_terms(w->leaf->net, node) > 0) {
        am_pair_multiply(w, node, a);
    }
}

static int am_pair_open(am_pair_work *w, int64_t B)
{
    const am_net *net = w->leaf->net;
    const int64_t block = am_pair_block(net, w->leaf->options);
    int rc = 0;
    w->held = am_new(net->n + 1, sizeof *w->held, "inputs of layers");
    w->x = am_new(block, sizeof *w->x, "inputs of layers");
    w->y = am_new(block, sizeof *w->y, "inputs of layers");
    if (w->held == NULL || w->x == NULL || w->y == NULL) {
        return AM_E_NOMEM;
    }
    for (int i = 0; rc == 0 && i <= net->n; i++) {
        if (am_pair_is_wanted(net, w->leaf->options, i)) {
            const int64_t n = B * am_shape_numel(am_pair_input(net, i));
            w->held[i] = am_new(n, sizeof(real), "inputs of layers");
            rc = w->held[i] == NULL ? AM_E_NOMEM : 0;
        }
    }
    return rc;
}

static void am_pair_close(am_pair_work *w)
{
    for (int i = 0; w->held != NULL && i <= w->leaf->net->n; i++) {
        free(w->held[i]);
    }
    free(w->held);
    free(w->x);
    free(w->y);
}

int AM_R(am_train_pair)(const am_stats_leaf *leaf, const am_samples *held, double *sums)
{
    const am_net *net = leaf->net;
    const int64_t B = leaf->hi - leaf->lo;
    am_pair_work w = {.leaf = leaf, .sums = sums, .is_holding = true};
    am_net_pass pass = {0};
    int rc = am_pair_open(&w, B);
    AM_KEEP(AM_R(am_pass_make)(net, B, leaf->classes, false, &pass));
    for (int64_t b = 0; rc == 0 && b < B; b++) {
        pass.index[b] = leaf->lo + b;
    }
    for (int k = 0; k < 2; k++, w.is_holding = false) {
        /* the first one may have worked on the samples in place */
        AM_KEEP(rc != 0 ? rc : AM_R(am_pass_load)(&pass, held, B, leaf->classes));
        if (rc == 0) {
            pass.see = am_pair_see;
            pass.see_self = &w;
            AM_R(am_pass_forward)
            (&pass, k == 0 ? leaf->trunk : leaf->other, leaf->head, B, leaf->classes);
        }
    }
    for (int i = 0; rc == 0 && leaf->options->with_grams && i <= net->n; i++) {
        if (am_pair_terms(net, i) > 0) {
            am_pair_mirror(2 * am_pair_terms(net, i) + 1, sums + leaf->layout->gram[i]);
        }
    }
    AM_R(am_pass_free)(&pass);
    am_pair_close(&w);
    return rc;
}

int AM_R(am_train_pair_bytes)(const am_net *net, const am_stats_options *options, int64_t rows,
                              int64_t classes, int64_t *bytes)
{
    const int rc = AM_R(am_pass_bytes)(net, rows, classes, false, bytes);
    *bytes += 2 * am_pair_block(net, options) * (int64_t)sizeof(double);
    for (int i = 0; i <= net->n; i++) {
        if (am_pair_is_wanted(net, options, i)) {
            *bytes += rows * am_shape_numel(am_pair_input(net, i)) * (int64_t)sizeof(real);
        }
    }
    return rc;
}
