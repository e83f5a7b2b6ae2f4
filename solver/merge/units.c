/* Which units a merge has, and which of them several ranks share.
 *
 *   rank 0 |--a--|--b--|---c--      a, b, d: whole in one slice, so nothing is sent for them
 *   rank 1            ---c---|-d-|  c: shared; all ranks know it, and reduce it together
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "solver/merge/engine.h"
#include "solver/merge/narrow.h"

bool am_is_reduced(const am_engine *e, int64_t tensor)
{
    return !e->job->copy[tensor] && e->job->sink->tensors->t[tensor].numel > 0;
}

static bool has_model(const am_engine *e, int64_t tensor, int model)
{
    return e->job->models[model].tensor[tensor] >= 0;
}

/* The models that take part in a tensor: their parameters and generators, and which they are (if
 * index). With scope global an absent model is the base there: a task vector of zero. */
static int models_of(const am_engine *e, int64_t tensor, const double **model_param, am_rng *rng,
                     int *index)
{
    const am_merge_job *job = e->job;
    const char *name = job->sink->tensors->t[tensor].name;
    int n = 0;
    for (int m = 0; m < job->n_models; m++) {
        if (e->scope == AM_SCOPE_GLOBAL || has_model(e, tensor, m)) {
            model_param[n] = job->model_param + (tensor * job->n_models + m) * e->n_params;
            rng[n] = am_rng_make(job->seed, e->method->name, 0, m, name);
            if (index != NULL) {
                index[n] = m;
            }
            n++;
        }
    }
    return n;
}

void am_unit_shape(const am_method *method, const am_tensor *t, am_unit *unit)
{
    unit->n = t->numel;
    unit->dims = t->ndim;
    unit->outer = t->ndim > 0 ? t->shape[0] : 1;
    unit->inner = 1;
    for (int d = 2; d < t->ndim; d++) {
        unit->inner *= t->shape[d];
    }
    unit->cols = t->ndim > 0 ? t->shape[t->ndim - 1] : 1;
    if (method->whole_slices && t->ndim > 2) {
        unit->cols = t->shape[1] * unit->inner;
    }
    unit->rows = unit->cols > 0 ? t->numel / unit->cols : 0;
}

static bool has_grams(const am_engine *e, int64_t tensor)
{
    const am_merge_job *job = e->job;
    bool has = e->method->needs_gram && job->gram != NULL;
    for (int m = 0; has && m < job->n_models; m++) {
        has = !has_model(e, tensor, m) || job->gram[m].tensor[tensor] >= 0;
    }
    return has;
}

/* Ranks of a tensor's task vectors, if each is known as a product on top of this very tensor of the
 * base (slices take others), and they have fewer directions together than the matrix. rank [T]. */
static bool find_ranks(const am_engine *e, int64_t tensor, int64_t *rank)
{
    const am_merge_job *job = e->job;
    const am_tensor *t = &job->sink->tensors->t[tensor];
    int64_t sum = 0;
    int n = 0;
    if (!e->method->takes_factors || !e->has_base || t->ndim < 2 || t->numel == 0) {
        return false;
    }
    for (int m = 0; m < job->n_models; m++) {
        const am_source *source = job->models[m].source;
        if (!has_model(e, tensor, m)) {
            continue;
        }
        if (source->over == NULL || strcmp(source->over, job->base->source->label) != 0 ||
            job->models[m].tensor[tensor] != job->base->tensor[tensor]) {
            return false;
        }
        rank[n] = source->rank(source->self, job->models[m].tensor[tensor]);
        if (rank[n] < 0) {
            return false;
        }
        sum += rank[n++];
    }
    return sum < t->shape[0] && sum < t->numel / t->shape[0];
}

bool am_is_factored(const am_engine *e, int64_t tensor)
{
    int64_t rank[AM_MAX_MODELS];
    return am_is_dense(e, tensor) && !am_is_spread(e, tensor) && find_ranks(e, tensor, rank);
}

void am_unit_open(const am_engine *e, int64_t tensor, am_unit_run *run)
{
    const am_tensor_table *tensors = e->job->sink->tensors;
    am_unit *u = &run->unit;
    run->tensor = tensor;
    run->is_checked = false;
    run->n_sums = run->n_cuts = run->count = run->cuts = 0;
    *u = (am_unit){.scope = e->scope,
                   .semantics = e->semantics,
                   .dims = 1,
                   .rows = 1,
                   .inner = 1,
                   .param = e->job->param + tensor * e->n_params,
                   .model_param = run->model_param,
                   .rng = run->rng,
                   .sum = run->sum.at,
                   .cut = run->cut.at,
                   .state = run->state.at};
    u->models = models_of(e, tensor, run->model_param, run->rng, NULL);
    if (e->scope == AM_SCOPE_GLOBAL) {
        for (int64_t i = 0; i < tensors->n; i++) {
            u->n += am_is_reduced(e, i) ? tensors->t[i].numel : 0;
        }
        u->cols = u->outer = u->n;
    } else {
        am_unit_shape(e->method, &tensors->t[tensor], u);
        u->on = am_is_spread(e, tensor) ? &e->job->grid->layout : NULL;
        if (u->on == NULL && find_ranks(e, tensor, run->factor_rank)) {
            u->factor_rank = run->factor_rank;
        }
        u->has_gram = has_grams(e, tensor);
        u->narrow = e->job->work == NULL
                        ? AM_DTYPE_F64
                        : am_narrow_of(e->job->work[tensor], e->semantics, e->scope);
    }
}

void am_unit_free(am_unit_run *run)
{
    am_room_free(&run->sum);
    am_room_free(&run->cut);
    am_room_free(&run->state);
    am_room_free(&run->before);
    am_room_free(&run->seen);
}

int64_t am_tile_cut(const am_engine *e, int64_t tensor, bool *by_rows, int64_t *cols)
{
    am_unit shape = {0};
    *by_rows = false;
    *cols = 0;
    if (e->method->by_rows == NULL || !am_is_reduced(e, tensor)) {
        return AM_TILE;
    }
    if (e->scope == AM_SCOPE_GLOBAL) {
        *by_rows = e->method->by_rows(&e->shared[0].unit);
    } else {
        am_unit_run run = {0};
        am_unit_open(e, tensor, &run);
        *by_rows = e->method->by_rows(&run.unit);
    }
    am_unit_shape(e->method, &e->job->sink->tensors->t[tensor], &shape);
    *cols = shape.cols;
    return !*by_rows ? AM_TILE : *cols >= AM_TILE ? *cols : AM_TILE / *cols * *cols;
}

void am_bind(am_engine *e, int64_t tensor)
{
    am_binding *b = &e->bound;
    if (b->tensor == tensor) {
        return;
    }
    b->tensor = tensor;
    b->models = models_of(e, tensor, b->model_param, b->rng, b->index);
    b->tile = am_tile_cut(e, tensor, &b->by_rows, &b->cols);
    b->layer = e->job->layer != NULL ? e->job->layer[tensor] : -1;
    const bool is_factored = am_is_factored(e, tensor);
    for (int k = 0; k < b->models; k++) {
        b->absent[k] = is_factored || !has_model(e, tensor, b->index[k]);
    }
}

/* ---- planning ---- */

static int refuse(const am_engine *e, int64_t tensor, const char *what)
{
    return am_fail(AM_E_DATA, "%s: tensor '%s' %s", e->method->name,
                   e->job->sink->tensors->t[tensor].name, what);
}

static int check_tensor(const am_engine *e, int64_t tensor)
{
    const am_merge_job *job = e->job;
    int present = 0;
    if (e->has_base && job->base->tensor[tensor] < 0) {
        return refuse(e, tensor, "is not in the base");
    }
    for (int m = 0; m < job->n_models; m++) {
        const bool has = has_model(e, tensor, m);
        present += has;
        if (has && e->method->needs_aux && job->aux[m].tensor[tensor] < 0) {
            return refuse(e, tensor, "is in a model but not in the checkpoint beside it");
        }
        if (!has && e->scope == AM_SCOPE_GLOBAL && (!e->has_base || e->method->needs_aux)) {
            return refuse(e, tensor, "is not in every model, as scope global needs");
        }
    }
    if (present == 0 && !e->has_base) {
        return refuse(e, tensor, "is in no model");
    }
    return present == 0 || present >= e->method->min_models || e->scope == AM_SCOPE_GLOBAL
               ? 0
               : refuse(e, tensor, "is in fewer models than the method needs");
}

int am_units_check(const am_engine *e)
{
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < e->job->sink->tensors->n; i++) {
        rc = am_is_reduced(e, i) ? check_tensor(e, i) : 0;
    }
    return rc;
}

/* Where a slice's boundary in a tensor goes: up to where the next tile begins. Neighbours agree. */
static int64_t boundary(int64_t at, int64_t tile, int64_t numel)
{
    const int64_t up = at % tile == 0 ? at : at - at % tile + tile;
    return up < numel ? up : numel;
}

/* Methods without passes and rows see elements alone, so their cuts need not move. */
static bool needs_tiles(const am_engine *e)
{
    return e->method->n_passes > 0 || e->method->by_rows != NULL;
}

int64_t am_units_cut(am_engine *e, const am_slice *slice, am_span *out)
{
    int64_t n = 0;
    for (int64_t i = 0; i < slice->n; i++) {
        am_span s = slice->spans[i];
        if (needs_tiles(e) && am_is_reduced(e, s.tensor)) {
            bool by_rows;
            int64_t cols;
            const int64_t numel = e->job->sink->tensors->t[s.tensor].numel;
            const int64_t tile = am_tile_cut(e, s.tensor, &by_rows, &cols);
            s.lo = boundary(s.lo, tile, numel);
            s.hi = boundary(s.hi, tile, numel);
            e->max_tile = tile > e->max_tile && s.lo < s.hi ? tile : e->max_tile;
        }
        if (s.lo < s.hi && !am_is_spread(e, s.tensor)) {
            out[n++] = s;
        }
    }
    return n;
}

bool am_units_is_part(const am_engine *e, const am_span *s)
{
    return am_is_reduced(e, s->tensor) &&
           (s->lo > 0 || s->hi < e->job->sink->tensors->t[s->tensor].numel);
}

static int compare_i64(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t am_units_distinct(int64_t *id, int64_t n)
{
    int64_t kept = 0;
    qsort(id, (size_t)n, sizeof *id, compare_i64);
    for (int64_t i = 0; i < n; i++) {
        if (id[i] >= 0 && (kept == 0 || id[kept - 1] != id[i])) {
            id[kept++] = id[i];
        }
    }
    return kept;
}

int am_units_open_global(am_engine *e)
{
    const int64_t n = e->job->sink->tensors->n;
    int64_t first = 0;
    while (first < n && !am_is_reduced(e, first)) {
        first++;
    }
    if (first == n) {
        return 0;
    }
    e->parts = am_new(1, sizeof *e->parts, "shared units");
    e->shared = am_new(1, sizeof *e->shared, "shared units");
    if (e->parts == NULL || e->shared == NULL) {
        return AM_E_NOMEM;
    }
    e->parts[0] = first;
    e->n_parts = e->n_shared = e->shared_room = 1;
    am_unit_open(e, first, &e->shared[0]);
    return 0;
}

static bool is_shared_span(const am_engine *e, const am_span *s)
{
    return e->scope == AM_SCOPE_GLOBAL ? am_is_reduced(e, s->tensor) : am_units_is_part(e, s);
}

void am_units_order(am_engine *e, const am_span *spans, int64_t n)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n; i++) {
            const bool is_shared = e->method->n_passes > 0 && is_shared_span(e, &spans[i]);
            if (is_shared == (pass == 0)) {
                e->order[e->n_order++] = spans[i];
            }
        }
        e->n_order_shared = pass == 0 ? e->n_order : e->n_order_shared;
    }
}
