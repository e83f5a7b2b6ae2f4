/* SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/forecast.h"

#include <stdlib.h>
#include "mpi/error.h"
#include "solver/merge/dense.h"
#include "solver/merge/engine.h"

/* The spans of a rank in the engine's order. */
typedef struct am_share {
    int64_t first, n, n_shared; /* in am_forecast.spans */
    int64_t tile;               /* its largest tile, elements */
} am_share;

struct am_forecast {
    am_merge_job job;
    am_sink sink;
    am_engine e;
    int ranks;
    am_slices slices;  /* as they are, and ... */
    am_span *spans;    /* ... cut and ordered */
    am_share *share;   /* [ranks] */
    am_weight *weight; /* [tensors] of those that are reduced; NULL: the method has no passes */
};

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- create ---- */

static am_slice slice_of(const am_forecast *f, int rank)
{
    return (am_slice){.n = f->slices.first[rank + 1] - f->slices.first[rank],
                      .spans = f->slices.spans + f->slices.first[rank]};
}

/* Cut the slices of all ranks; part [2 * ranks] becomes the tensors that several share. */
static void cut_slices(am_forecast *f, am_span *cut, int64_t *part)
{
    for (int r = 0; r < f->ranks; r++) {
        const am_slice slice = slice_of(f, r);
        am_share *share = &f->share[r];
        f->e.max_tile = AM_TILE;
        share->first = f->slices.first[r];
        share->n = am_units_cut(&f->e, &slice, cut + share->first);
        share->tile = f->e.max_tile;
        for (int64_t i = 0, mine = 0; part != NULL && i < share->n; i++) {
            const am_span *s = &cut[share->first + i];
            if (am_units_is_part(&f->e, s)) {
                AM_ASSERT(mine < 2);
                part[2 * (int64_t)r + mine++] = s->tensor;
            }
        }
    }
}

/* Point the engine at the spans of a rank. */
static void aim(am_forecast *f, int rank)
{
    const am_share *share = &f->share[rank];
    f->e.order = f->spans + share->first;
    f->e.n_order = share->n;
    f->e.n_order_shared = share->n_shared;
    f->e.max_tile = share->tile;
}

static void order_spans(am_forecast *f, const am_span *cut)
{
    for (int r = 0; r < f->ranks; r++) {
        am_share *share = &f->share[r];
        f->e.order = f->spans + share->first;
        f->e.n_order = 0;
        am_units_order(&f->e, cut + share->first, share->n);
        share->n_shared = f->e.n_order_shared;
    }
}

static int find_units(am_forecast *f, am_span *cut)
{
    const bool has_parts = f->e.method->n_passes > 0 && f->e.scope == AM_SCOPE_TENSOR;
    int64_t *part =
        has_parts ? am_new(2 * (int64_t)f->ranks, sizeof *part, "shared tensors") : NULL;
    int rc = 0;
    if (has_parts && part == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; has_parts && i < 2 * (int64_t)f->ranks; i++) {
        part[i] = -1;
    }
    if (f->e.scope == AM_SCOPE_GLOBAL) {
        rc = am_units_open_global(&f->e);
    }
    cut_slices(f, cut, part);
    if (has_parts) {
        AM_KEEP(
            am_sets_plan(&f->e, f->ranks, part, am_units_distinct(part, 2 * (int64_t)f->ranks)));
    } else if (f->e.n_parts > 0) {
        AM_KEEP(am_sets_plan(&f->e, f->ranks, f->e.parts, f->e.n_parts));
    }
    order_spans(f, cut);
    return rc;
}

/* Tensors alone; with scope global, the one unit stands at its first tensor. */
static int weigh_units(am_forecast *f)
{
    const int64_t n = f->sink.tensors->n;
    const bool is_global = f->e.scope == AM_SCOPE_GLOBAL;
    int rc = 0;
    f->weight = am_new(n + 1, sizeof *f->weight, "a forecast");
    if (f->weight == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = is_global ? f->e.parts[0] : 0; rc == 0 && i < n; i++) {
        if (am_is_reduced(&f->e, i)) {
            am_unit_open(&f->e, i, &f->e.local);
            rc = am_pass_weigh(&f->e, &f->e.local, &f->weight[i]);
        }
        i = is_global ? n : i;
    }
    return rc;
}

int am_forecast_create(const am_merge_job *job, const am_tensor_table *tensors, int ranks,
                       am_forecast **out)
{
    am_forecast *f = am_new(1, sizeof *f, "a forecast");
    *out = f;
    if (f == NULL) {
        return AM_E_NOMEM;
    }
    f->job = *job;
    f->sink.tensors = tensors;
    f->job.sink = &f->sink;
    f->e = am_engine_make(&f->job);
    f->ranks = ranks;
    f->share = am_new(ranks, sizeof *f->share, "a forecast");
    int rc = am_merge_slices_make(job, tensors, AM_BLOCK, ranks, &f->slices);
    AM_KEEP(am_dense_find(&f->e));
    am_span *cut = rc == 0 ? am_new(f->slices.first[ranks] + 1, sizeof *cut, "a forecast") : NULL;
    f->spans = rc == 0 ? am_new(f->slices.first[ranks] + 1, sizeof *cut, "a forecast") : NULL;
    if (rc == 0 && (f->share == NULL || cut == NULL || f->spans == NULL)) {
        rc = AM_E_NOMEM;
    }
    if (rc == 0) {
        rc = find_units(f, cut);
    }
    if (rc == 0 && f->e.method->n_passes > 0 &&
        (f->e.scope == AM_SCOPE_TENSOR || f->e.n_parts > 0)) {
        rc = weigh_units(f);
    }
    free(cut);
    return rc;
}

void am_forecast_free(am_forecast **forecast)
{
    am_forecast *f = *forecast;
    if (f == NULL) {
        return;
    }
    f->e.order = NULL; /* the forecast's own */
    am_engine_close(&f->e);
    am_slices_free(&f->slices);
    free(f->spans);
    free(f->share);
    free(f->weight);
    free(f);
    *forecast = NULL;
}

int64_t am_forecast_tile(const am_forecast *forecast)
{
    int64_t tile = 0;
    for (int r = 0; r < forecast->ranks; r++) {
        tile = most(tile, forecast->share[r].tile);
    }
    return tile;
}

/* ---- bytes of inputs ---- */

typedef struct am_bytes {
    int64_t stored, staged;
} am_bytes;

static void add_input(const am_merge_input *input, int64_t tensor, int64_t n, am_bytes *sum)
{
    const int64_t at = input->tensor[tensor];
    if (at >= 0) {
        am_bytes one;
        am_source_weigh(input->source, at, n, &one.stored, &one.staged);
        sum->stored += one.stored;
        sum->staged += one.staged;
    }
}

/* n elements of a tensor in all inputs that are asked for it. */
static am_bytes weigh_inputs(const am_forecast *f, int64_t tensor, int64_t n)
{
    const am_merge_job *job = &f->job;
    am_bytes sum = {0};
    if (job->copy[tensor]) {
        const am_merge_input *input = am_copy_input(job, tensor);
        if (input != NULL) {
            add_input(input, tensor, n, &sum);
        }
        return sum;
    }
    if (f->e.has_base) {
        add_input(job->base, tensor, n, &sum);
    }
    for (int t = 0; t < job->n_models && !am_is_factored(&f->e, tensor); t++) {
        add_input(&job->models[t], tensor, n, &sum);
        if (f->e.method->needs_aux) {
            add_input(&job->aux[t], tensor, n, &sum);
        }
    }
    return sum;
}

/* ---- batches ---- */

/* Batches of a group, as they go by. */
typedef struct am_walk {
    const am_forecast *f;
    int64_t stored; /* bytes of all */
    int64_t largest, second;
    int64_t room, batch; /* left in the batch under way; its bytes */
} am_walk;

static void end_batch(am_walk *w, int64_t times)
{
    const bool is_more = w->batch > w->largest;
    if (times > 0 && w->batch > 0) {
        w->second = is_more ? (times > 1 ? w->batch : w->largest) : most(w->second, w->batch);
        w->largest = is_more ? w->batch : w->largest;
    }
    w->batch = 0;
    w->room = w->f->e.block;
}

/* What a matrix needs beside its elements. */
static int64_t gram_bytes(const am_forecast *f, int64_t tensor)
{
    const am_merge_job *job = &f->job;
    am_bytes sum = {0};
    for (int t = 0; t < job->n_models && f->e.method->needs_gram && am_is_dense(&f->e, tensor);
         t++) {
        const int64_t at = job->gram[t].tensor[tensor];
        if (at >= 0) {
            add_input(&job->gram[t], tensor, job->gram[t].source->tensors->t[at].numel, &sum);
        }
    }
    return sum.stored;
}

/* Full batches of one span count at once. */
static void walk_span(am_walk *w, const am_span *s)
{
    const am_engine *e = &w->f->e;
    w->stored += weigh_inputs(w->f, s->tensor, s->hi - s->lo).stored + gram_bytes(w->f, s->tensor);
    for (int64_t lo = s->lo; lo < s->hi;) {
        const int64_t take = am_batch_take(e, s, lo, w->room);
        const int64_t times = w->room == e->block && take > 0 ? (s->hi - lo) / take : 0;
        w->batch += weigh_inputs(w->f, s->tensor, take).staged;
        if (times > 1) {
            end_batch(w, times);
            lo += times * take;
            continue;
        }
        w->room -= take;
        lo += take;
        if (w->room == 0 || lo < s->hi) {
            end_batch(w, 1);
        }
    }
}

static am_walk walk_group(const am_forecast *f, const am_group *g)
{
    am_walk w = {.f = f, .room = f->e.block};
    for (int64_t i = g->first; i < g->end; i++) {
        walk_span(&w, &f->e.order[i]);
    }
    end_batch(&w, 1);
    return w;
}

/* ---- units ---- */

/* Visits of the passes of n units, and what sums and orders of them take together. */
typedef struct am_demand {
    int64_t kept, sums, orders;
    int visits;
} am_demand;

/* Units that are reduced together: those of `tensor` [n]. */
static am_demand demand_of(const am_forecast *f, const int64_t *tensor, int64_t n, bool one_rank)
{
    const am_method *method = f->e.method;
    am_demand d = {.visits = 1};
    int64_t largest = 0;
    bool may_sample = true; /* as am_pass_begin says */
    for (int64_t i = 0; i < n; i++) {
        bool by_rows;
        int64_t cols;
        (void)am_tile_cut(&f->e, tensor[i], &by_rows, &cols);
        may_sample = may_sample && !by_rows;
        const int64_t numel = f->sink.tensors->t[tensor[i]].numel;
        largest = most(largest, f->e.scope == AM_SCOPE_GLOBAL ? f->e.shared[0].unit.n : numel);
        d.kept += f->weight[tensor[i]].kept;
    }
    for (int p = 0; p < method->n_passes; p++) {
        int64_t count = 0, cuts = 0;
        for (int64_t i = 0; i < n; i++) {
            count += f->weight[tensor[i]].pass_count[p];
            cuts += f->weight[tensor[i]].pass_cuts[p];
        }
        if (method->pass[p].sums != NULL) {
            d.sums = most(d.sums, count * (int64_t)sizeof(am_exact));
            d.visits += count > 0;
        } else if (cuts > 0) {
            const int bits = am_order_bits(largest, cuts, one_rank);
            d.orders = most(d.orders, am_order_bytes(bits, cuts, one_rank));
            d.visits += am_order_usual_visits(bits, may_sample);
        }
    }
    return d;
}

/* ---- the cost of a rank ---- */

static void add_demand(am_demand *sum, const am_demand *d)
{
    sum->kept = most(sum->kept, d->kept);
    sum->sums = most(sum->sums, d->sums);
    sum->orders = most(sum->orders, d->orders);
    sum->visits = d->visits > sum->visits ? d->visits : sum->visits;
}

/* All units of a group, one after the other or, if they are shared, together. */
static am_demand demand_of_group(const am_forecast *f, const am_group *g)
{
    const am_engine *e = &f->e;
    am_demand sum = {.visits = 1};
    if (f->weight == NULL) {
        return sum;
    }
    if (g->is_shared) {
        const int64_t set = am_sets_find(e, e->order[g->first].tensor), first = e->set[set];
        return demand_of(f, e->parts + first, e->set[set + 1] - first, f->ranks == 1);
    }
    for (int64_t i = g->first; i < g->end; i++) {
        const int64_t tensor = e->order[i].tensor;
        const am_demand d = demand_of(f, &tensor, am_is_reduced(e, tensor), true);
        add_demand(&sum, &d);
    }
    return sum;
}

static void add_group(const am_forecast *f, const am_group *g, am_demand *sum, am_merge_cost *cost)
{
    const am_demand d = demand_of_group(f, g);
    const am_walk w = walk_group(f, g);
    const bool is_again = d.visits > 1 && g->batches > 1;
    add_demand(sum, &d);
    cost->read += w.stored * (is_again ? d.visits : 1);
    if (f->e.method->n_passes > 0 && g->batches == 1) {
        cost->held = most(cost->held, w.largest);
    }
    if (w.largest > cost->batch[0]) {
        cost->batch[1] = is_again ? w.largest : most(cost->batch[0], w.second);
        cost->batch[0] = w.largest;
    } else {
        cost->batch[1] = most(cost->batch[1], w.largest);
    }
}

static void add_output(const am_forecast *f, am_merge_cost *cost)
{
    for (int64_t i = 0; i < f->e.n_order; i++) {
        const am_span *s = &f->e.order[i];
        const int64_t n = s->hi - s->lo,
                      bytes = am_dtype_bytes(f->sink.tensors->t[s->tensor].dtype);
        cost->written += n * bytes;
        cost->piece = most(cost->piece, (n < f->e.block ? n : f->e.block) * bytes);
    }
}

/* Elements of a matrix of `numel` elements on a grid that a rank reads. */
static int64_t spread_elements(const am_forecast *f, int rank, int64_t numel)
{
    int64_t elements = 0;
    for (int64_t b = 0; b * AM_BLOCK < numel; b++) {
        const int64_t n = numel - b * AM_BLOCK < AM_BLOCK ? numel - b * AM_BLOCK : AM_BLOCK;
        elements += am_spread_owner(&f->job.grid->layout, b) == rank ? n : 0;
    }
    return elements;
}

/* What a rank reads and writes of matrices on a grid. */
static void add_spread(const am_forecast *f, int rank, am_merge_cost *cost)
{
    const am_tensor_table *tensors = f->sink.tensors;
    for (int64_t i = 0; i < tensors->n; i++) {
        if (!am_is_spread(&f->e, i)) {
            continue;
        }
        const am_tensor *t = &tensors->t[i];
        const int64_t cols = t->numel / t->shape[0], n = spread_elements(f, rank, t->numel);
        am_bytes grams = {0};
        for (int m = 0; m < f->job.n_models && f->e.method->needs_gram; m++) {
            if (f->job.gram[m].tensor[i] >= 0) {
                add_input(&f->job.gram[m], i, spread_elements(f, rank, cols * cols), &grams);
            }
        }
        cost->read += weigh_inputs(f, i, n).stored + grams.stored;
        cost->written += n * am_dtype_bytes(t->dtype);
    }
}

/* Shared sets are reduced by every rank, whether it has a part of them or not. */
static void add_sets(const am_forecast *f, am_demand *sum)
{
    for (int64_t s = 0; f->weight != NULL && s < f->e.n_sets; s++) {
        const int64_t first = f->e.set[s];
        const am_demand d =
            demand_of(f, f->e.parts + first, f->e.set[s + 1] - first, f->ranks == 1);
        const int visits = sum->visits;
        add_demand(sum, &d);
        sum->visits = visits;
    }
}

am_merge_cost am_forecast_cost(am_forecast *f, int rank, int64_t block)
{
    am_merge_cost cost = {.visits = 1};
    am_demand sum = {.visits = 1};
    aim(f, rank);
    f->job.block = block;
    am_engine_size(&f->e);
    for (int64_t first = 0; first < f->e.n_order;) {
        const am_group g = am_group_at(&f->e, first);
        add_group(f, &g, &sum, &cost);
        first = g.end;
    }
    add_sets(f, &sum);
    add_output(f, &cost);
    int64_t streams = 0;
    if (f->weight != NULL && f->e.scope == AM_SCOPE_GLOBAL) {
        streams = f->weight[f->e.parts[0]].streams;
    }
    for (int64_t i = 0; f->weight != NULL && i < f->e.n_order; i++) {
        streams = most(streams, f->weight[f->e.order[i].tensor].streams);
    }
    cost.buffers = am_engine_bytes(&f->e) + streams * f->e.max_tile * (int64_t)sizeof(float);
    cost.dense = most(am_dense_bytes(&f->e), am_spread_bytes(&f->e, rank)) +
                 most(am_dense_besides(&f->e), am_spread_besides(&f->e, rank));
    add_spread(f, rank, &cost);
    cost.units = sum.kept + sum.sums + sum.orders;
    cost.rows = f->e.max_tile;
    cost.visits = sum.visits;
    return cost;
}
