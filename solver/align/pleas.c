/* One network out of two: see pleas.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/align/pleas.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/partition.h"
#include "mpi/watchdog.h"

enum { WEIGHT, BIAS, MEAN, VARIANCE }; /* parameters of batch_norm; the first two of products */

/* Indices of an axis in both networks. */
typedef struct map {
    int64_t n;
    int64_t *one, *two; /* [n] owned */
} map;

/* What a product's rows are to give of each network. */
typedef struct row_shares {
    double *of[2]; /* [rows] owned; NULL: no product */
} row_shares;

/* ---- maps ---- */

static int map_make(int64_t n, map *out)
{
    *out = (map){.n = n};
    out->one = am_new(n + 1, sizeof *out->one, "units");
    out->two = am_new(n + 1, sizeof *out->two, "units");
    return out->one == NULL || out->two == NULL ? AM_E_NOMEM : 0;
}

static void map_free(map *m)
{
    free(m->one);
    free(m->two);
}

static int map_axis(const am_widen *w, int tensor, int dim, map *out)
{
    const int rc = map_make(w->align.tensor[tensor].shape[dim], out);
    if (rc == 0) {
        am_widen_axis(w, tensor, dim, out->one, out->two);
    }
    return rc;
}

/* Terms of a weight: axis 1, and what lies behind it. */
static int map_terms(const am_widen *w, int tensor, map *out)
{
    const am_align_tensor *t = &w->align.tensor[tensor];
    const int64_t inner = t->numel / (t->shape[0] * t->shape[1]);
    map axis = {0};
    int rc = map_axis(w, tensor, 1, &axis);
    AM_KEEP(map_make(t->shape[1] * inner, out));
    for (int64_t i = 0; rc == 0 && i < out->n; i++) {
        const int64_t a = axis.one[i / inner], b = axis.two[i / inner];
        out->one[i] = a >= 0 ? a * inner + i % inner : -1;
        out->two[i] = b >= 0 ? b * inner + i % inner : -1;
    }
    map_free(&axis);
    return rc;
}

/* ---- what is no product ---- */

/* Means of pairs, and what only one network has. */
static int mean_tensor(const am_pleas *p, int tensor, double *to)
{
    const am_align_tensor *wide = &p->widen->align.tensor[tensor];
    const am_align_tensor *from = &p->widen->from->tensor[tensor];
    map axis[AM_LAYER_PARAM_DIMS] = {{0}};
    int64_t at[AM_LAYER_PARAM_DIMS] = {0};
    int rc = 0;
    for (int d = 0; d < wide->ndim; d++) {
        AM_KEEP(map_axis(p->widen, tensor, d, &axis[d]));
    }
    for (int64_t i = 0; rc == 0 && i < wide->numel; i++) {
        int64_t a = 0, b = 0;
        for (int d = 0; d < wide->ndim; d++) {
            const int64_t x = axis[d].one[at[d]], y = axis[d].two[at[d]];
            a = a < 0 || x < 0 ? -1 : a * from->shape[d] + x;
            b = b < 0 || y < 0 ? -1 : b * from->shape[d] + y;
        }
        const double x = a >= 0 ? p->block[0][from->offset + a] : 0;
        const double y = b >= 0 ? p->block[1][from->offset + b] : 0;
        to[i] = a >= 0 && b >= 0 ? x / 2 + y / 2 : x + y;
        for (int d = wide->ndim - 1; d >= 0 && ++at[d] == wide->shape[d]; d--) {
            at[d] = 0;
        }
    }
    for (int d = 0; d < wide->ndim; d++) {
        map_free(&axis[d]);
    }
    return rc;
}

static bool is_product(const am_net_node *node)
{
    return node->layer->product_terms != NULL;
}

static int mean_tensors(const am_pleas *p)
{
    const am_net *net = &p->widen->net;
    int rc = 0;
    for (int i = 0; rc == 0 && i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        for (int k = 0; rc == 0 && !is_product(node) && k < node->n_params; k++) {
            rc = mean_tensor(p, node->tensor[k], p->merged + node->offset[k]);
        }
    }
    return rc;
}

/* ---- batch_norm behind a product ---- */

static bool is_linear(const am_net_node *node)
{
    const int at = am_param_find(node->layer->attrs, "activation");
    return at < 0 || *(const int *)(const void *)(node->attrs + node->layer->attrs[at].offset) == 0;
}

/* The product whose outputs go to this node alone and as they are; -1: none. */
static int product_before(const am_net *net, int i)
{
    const int value = net->node[i].in[0], p = value - 1;
    int readers = 0;
    for (int j = 0; j < net->n; j++) {
        for (int k = 0; k < net->node[j].layer->inputs; k++) {
            readers += net->node[j].in[k] == value;
        }
    }
    return p >= 0 && readers == 1 && is_product(&net->node[p]) && is_linear(&net->node[p]) ? p : -1;
}

static double epsilon_of(const am_net_node *node)
{
    const int at = am_param_find(node->layer->attrs, "epsilon");
    return *(const double *)(const void *)(node->attrs + node->layer->attrs[at].offset);
}

/* y = s z + t of each network for unit j; of a pair the merged one gives the mean of both: its
 * scale s is the root mean square (with the sign of the sum), its mean what that leaves. */
static void fold_pair(const am_pleas *p, const am_net_node *narrow, const am_net_node *wide,
                      int64_t j, const int64_t unit[2], row_shares *shares)
{
    const double epsilon = epsilon_of(narrow);
    double s[2], t[2], *to = p->merged;
    for (int k = 0; k < 2; k++) {
        const double *from = p->block[k];
        const int64_t u = unit[k];
        s[k] =
            from[narrow->offset[WEIGHT] + u] / sqrt(from[narrow->offset[VARIANCE] + u] + epsilon);
        t[k] = from[narrow->offset[BIAS] + u] - s[k] * from[narrow->offset[MEAN] + u];
    }
    const double size = sqrt((s[0] * s[0] + s[1] * s[1]) / 2), shift = (t[0] + t[1]) / 2;
    if (size == 0) { /* a constant: any outputs do */
        to[wide->offset[WEIGHT] + j] = 0;
        to[wide->offset[BIAS] + j] = shift;
        return;
    }
    const double scale = s[0] + s[1] < 0 ? -size : size;
    const double variance = to[wide->offset[VARIANCE] + j]; /* the mean of both */
    to[wide->offset[WEIGHT] + j] = scale * sqrt(variance + epsilon);
    to[wide->offset[MEAN] + j] = (to[wide->offset[BIAS] + j] - shift) / scale;
    shares->of[0][j] = s[0] / (2 * scale);
    shares->of[1][j] = s[1] / (2 * scale);
}

static int fold_norms(const am_pleas *p, row_shares *all)
{
    const am_net *narrow = p->widen->narrow, *wide = &p->widen->net;
    const am_layer *norm = am_layer_at(am_layer_find("batch_norm"));
    int rc = 0;
    for (int i = 0; rc == 0 && i < wide->n; i++) {
        const am_net_node *node = &wide->node[i];
        const int before = node->layer == norm ? product_before(wide, i) : -1;
        map unit = {0};
        rc = before >= 0 ? map_axis(p->widen, node->tensor[WEIGHT], 0, &unit) : 0;
        for (int64_t j = 0; rc == 0 && j < unit.n; j++) {
            const int64_t both[2] = {unit.one[j], unit.two[j]};
            if (both[0] >= 0 && both[1] >= 0) {
                fold_pair(p, &narrow->node[i], node, j, both, &all[before]);
            }
        }
        map_free(&unit);
    }
    return rc;
}

static int shares_make(const map *row, row_shares *out)
{
    for (int s = 0; s < 2; s++) {
        out->of[s] = am_new(row->n + 1, sizeof *out->of[s], "units");
    }
    for (int64_t k = 0; out->of[0] != NULL && out->of[1] != NULL && k < row->n; k++) {
        out->of[0][k] = row->one[k] < 0 ? 0 : row->two[k] < 0 ? 1 : 0.5;
        out->of[1][k] = row->two[k] < 0 ? 0 : row->one[k] < 0 ? 1 : 0.5;
    }
    return out->of[0] == NULL || out->of[1] == NULL ? AM_E_NOMEM : 0;
}

/* What the products' rows are to give. */
static int share_rows(const am_pleas *p, row_shares *all)
{
    const am_net *net = &p->widen->net;
    int rc = 0;
    for (int i = 0; rc == 0 && i < net->n; i++) {
        map row = {0};
        if (is_product(&net->node[i])) {
            rc = map_axis(p->widen, net->node[i].tensor[WEIGHT], 0, &row);
            AM_KEEP(rc != 0 ? rc : shares_make(&row, &all[i]));
        }
        map_free(&row);
    }
    return rc;
}

/* ---- fits ---- */

/* A value that no parameter has a part in is the same in both networks. */
static bool is_raw(const am_net *net, int value)
{
    if (value == AM_NET_SAMPLES) {
        return true;
    }
    const am_net_node *node = &net->node[value - 1];
    bool is = node->n_params == 0;
    for (int k = 0; is && k < node->layer->inputs; k++) {
        is = is_raw(net, node->in[k]);
    }
    return is;
}

static int fit_node(const am_pleas *p, int i, const row_shares *shares)
{
    const am_net_node *narrow = &p->widen->narrow->node[i], *wide = &p->widen->net.node[i];
    const bool has_bias = narrow->n_params > BIAS;
    map row = {0}, term = {0};
    int rc = map_axis(p->widen, wide->tensor[WEIGHT], 0, &row);
    AM_KEEP(map_terms(p->widen, wide->tensor[WEIGHT], &term));
    am_fit fit = {.C = p->layout->terms[i],
                  .K_wide = row.n,
                  .C_wide = term.n,
                  .row = {row.one, row.two},
                  .term = {term.one, term.two},
                  .share = {shares->of[0], shares->of[1]},
                  .has_bias = has_bias,
                  .is_shared = is_raw(p->widen->narrow, narrow->in[0]),
                  .joint = p->sums + p->layout->gram[i]};
    for (int s = 0; s < 2; s++) {
        fit.weight[s] = p->block[s] + narrow->offset[WEIGHT];
        fit.bias[s] = has_bias ? p->block[s] + narrow->offset[BIAS] : NULL;
    }
    AM_KEEP(rc != 0 ? rc
                    : am_fit_solve(&fit, p->ridge, p->merged + wide->offset[WEIGHT],
                                   has_bias ? p->merged + wide->offset[BIAS] : NULL, &p->error[i]));
    map_free(&row);
    map_free(&term);
    return rc;
}

static int fit_head(const am_pleas *p, int h)
{
    const am_net *net = &p->widen->net;
    const am_pleas_head *head = &p->head[h];
    map row = {0}, term = {0};
    row_shares shares = {{NULL}};
    int rc = map_make(head->K, &row);
    AM_KEEP(map_make(am_shape_features(&net->out), &term));
    if (rc == 0) {
        am_widen_head_axis(p->widen, term.one, term.two);
        for (int64_t k = 0; k < head->K; k++) {
            row.one[k] = head->weight[0] != NULL ? k : -1;
            row.two[k] = head->weight[1] != NULL ? k : -1;
        }
        rc = shares_make(&row, &shares);
    }
    const am_fit fit = {.C = p->layout->terms[net->n],
                        .K_wide = head->K,
                        .C_wide = term.n,
                        .weight = {head->weight[0], head->weight[1]},
                        .bias = {head->bias[0], head->bias[1]},
                        .row = {row.one, row.two},
                        .term = {term.one, term.two},
                        .share = {shares.of[0], shares.of[1]},
                        .has_bias = true,
                        .is_shared = is_raw(p->widen->narrow, net->n),
                        .joint = p->sums + p->layout->gram[net->n]};
    AM_KEEP(rc != 0 ? rc
                    : am_fit_solve(&fit, p->ridge, head->to_weight, head->to_bias,
                                   &p->error[net->n + h]));
    free(shares.of[0]);
    free(shares.of[1]);
    map_free(&row);
    map_free(&term);
    return rc;
}

/* Steps of a fit, about; 0: there is none. */
static int64_t cost_of(const am_pleas *p, int64_t i)
{
    const am_net *net = &p->widen->net;
    const int64_t C = p->layout->terms[i < net->n ? i : net->n];
    const double terms = (double)(2 * C + 1);
    return C == 0 ? 0 : (int64_t)fmin(terms * terms * terms, 1e15);
}

static int send_all(MPI_Comm comm, const am_pleas *p, int64_t i, int owner)
{
    const am_net *net = &p->widen->net;
    const int64_t real = (int64_t)sizeof(double);
    int rc = 0;
    AM_TRY(am_bcast_all(comm, owner, &p->error[i], (int64_t)sizeof *p->error));
    if (i >= net->n) {
        const am_pleas_head *head = &p->head[i - net->n];
        AM_TRY(am_bcast_all(comm, owner, head->to_bias, head->K * real));
        AM_TRY(am_bcast_all(comm, owner, head->to_weight,
                            head->K * am_shape_features(&net->out) * real));
        goto cleanup;
    }
    for (int k = 0; k < net->node[i].n_params; k++) {
        AM_TRY(am_bcast_all(comm, owner, p->merged + net->node[i].offset[k],
                            p->widen->align.tensor[net->node[i].tensor[k]].numel * real));
    }
cleanup:
    return rc;
}

/* Fit layer or head i; what fails says which it is, and what helps. */
static int fit_one(const am_pleas *p, int64_t i, const row_shares *shares)
{
    const am_net *net = &p->widen->net;
    const int64_t h = i - net->n;
    const int rc = h < 0 ? fit_node(p, (int)i, &shares[i]) : fit_head(p, (int)h);
    if (rc != AM_E_NUMERIC) {
        return rc;
    }
    char why[AM_MESSAGE_BYTES / 2];
    snprintf(why, sizeof why, "%s", am_error_message());
    am_error_clear();
    return am_fail(
        rc, "pleas: the least squares of %s '%s' have no solution: %s; raise --ridge (%g)",
        h < 0 ? "layer" : "head", h < 0 ? net->node[i].name : p->head[h].name, why, p->ridge);
}

static int fit_all(MPI_Comm comm, const am_pleas *p, const row_shares *shares)
{
    const int64_t n = p->widen->net.n + p->n_heads;
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    int64_t *cost = am_new(n, sizeof *cost, "fits");
    int *owner = am_new(n, sizeof *owner, "fits");
    int rc = cost == NULL || owner == NULL ? AM_E_NOMEM : 0;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        cost[i] = cost_of(p, i);
    }
    if (rc == 0) {
        am_part_balance(cost, n, size, owner);
    }
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        if (owner[i] == rank && cost[i] > 0) {
            rc = fit_one(p, i, shares);
            am_alive("pleas");
        }
    }
    AM_TRY(am_agree_step_all(comm, rc));
    for (int64_t i = 0; i < n; i++) {
        if (cost[i] > 0) {
            AM_TRY(send_all(comm, p, i, owner[i]));
        }
    }
cleanup:
    free(cost);
    free(owner);
    return rc;
}

int am_pleas_merge_all(MPI_Comm comm, const am_pleas *pleas)
{
    const int n = pleas->widen->net.n;
    row_shares *all = am_new(n + 1, sizeof *all, "units");
    int rc = all == NULL ? AM_E_NOMEM : 0;
    memset(pleas->error, 0, (size_t)(n + pleas->n_heads) * sizeof *pleas->error);
    AM_KEEP(rc != 0 ? rc : mean_tensors(pleas));
    AM_KEEP(rc != 0 ? rc : share_rows(pleas, all));
    AM_KEEP(rc != 0 ? rc : fold_norms(pleas, all));
    AM_AGREE(comm);
    AM_TRY(fit_all(comm, pleas, all));
cleanup:
    for (int i = 0; all != NULL && i < n; i++) {
        free(all[i].of[0]);
        free(all[i].of[1]);
    }
    free(all);
    return rc;
}

/* The largest fit. */
static int64_t fit_bytes(const am_widen *widen, int64_t classes)
{
    const am_net *narrow = widen->narrow, *wide = &widen->net;
    int64_t most =
        am_fit_bytes(am_shape_features(&narrow->out), classes, am_shape_features(&wide->out));
    for (int i = 0; i < wide->n; i++) {
        const am_layer *layer = wide->node[i].layer;
        if (layer->product_terms != NULL) {
            const int64_t C = layer->product_terms(&wide->node[i].site);
            const int64_t bytes =
                am_fit_bytes(layer->product_terms(&narrow->node[i].site),
                             widen->align.tensor[wide->node[i].tensor[0]].shape[0], C);
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

int64_t am_pleas_work_bytes(const am_align *align, const am_widen *widen, int64_t classes)
{
    const int64_t match = am_align_match_bytes(align), fit = fit_bytes(widen, classes);
    return 2 * widen->trunk.n * (int64_t)sizeof(double) + (match > fit ? match : fit);
}
