/* Matrices on one rank: gathered batch by batch, merged, stored.
 *
 *   base, delta_1 .. delta_T, out, Gram matrices | workspace of the method
 *   (or base, left_1, right_1 .. right_T, out: task vectors that are known as products)
 *                                                         one arena, for the largest matrix
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/dense.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/error.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/linalg/checked.h"
#include "solver/merge/engine.h"
#include "solver/merge/input.h"

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- which ---- */

/* Whether the unit of a tensor is a matrix; on a grid, if it is large and the method can. */
static bool is_wanted(const am_engine *e, int64_t tensor, am_unit *unit, bool *is_spread)
{
    const am_merge_grid *grid = e->method->on_grid ? e->job->grid : NULL;
    am_unit_run run = {0};
    *is_spread = false;
    if (!am_is_reduced(e, tensor)) {
        return false;
    }
    am_unit_open(e, tensor, &run);
    *unit = run.unit;
    if (unit->models == 0 || !e->method->is_dense(unit)) {
        return false;
    }
    *is_spread = grid != NULL && unit->outer >= grid->above && unit->n / unit->outer >= grid->above;
    return true;
}

/* All that is factorised can be indexed: the matrix, and what the method makes of it. */
static int check_size(const am_engine *e, int64_t tensor, const am_unit *unit, bool is_spread)
{
    int64_t rows = unit->outer, cols = unit->n / rows;
    for (int i = 0; i < 2; i++) {
        if (i == 1 && e->method->largest != NULL) {
            e->method->largest(unit, &rows, &cols);
        }
        if (is_spread ? !am_layout_fits(&e->job->grid->layout, rows, cols)
                      : !am_lapack_fits(rows, cols)) {
            return am_fail(
                AM_E_DATA, "%s: tensor '%s' %s a matrix of %lld x %lld, too large for %s; %s%s",
                e->method->name, e->job->sink->tensors->t[tensor].name, i == 0 ? "is" : "needs",
                (long long)rows, (long long)cols,
                is_spread ? "ScaLAPACK's 32-bit integers on this grid" : "LAPACK's 32-bit integers",
                e->method->needs_gram ? "leave its layer out of the statistics"
                                      : "leave it out with `spectral: false` for its name",
                is_spread            ? ", or give it a larger grid"
                : e->method->on_grid ? ", or spread it over ranks with `grid`"
                                     : "");
        }
    }
    return 0;
}

int am_dense_find(am_engine *e)
{
    const am_tensor_table *tensors = e->job->sink->tensors;
    int rc = 0;
    if (e->method->is_dense == NULL) {
        return 0;
    }
    AM_ASSERT(e->method->n_passes == 0 && e->method->by_rows == NULL);
    e->is_dense = am_new(tensors->n + 1, sizeof *e->is_dense, "matrices of a merge");
    e->is_spread = am_new(tensors->n + 1, sizeof *e->is_spread, "matrices of a merge");
    if (e->is_dense == NULL || e->is_spread == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        am_unit unit = {0};
        e->is_dense[i] = is_wanted(e, i, &unit, &e->is_spread[i]);
        rc = e->is_dense[i] ? check_size(e, i, &unit, e->is_spread[i]) : 0;
    }
    return rc;
}

int am_merge_find_spread(const am_merge_job *job, const am_tensor_table *tensors, bool *is_spread)
{
    const am_sink sink = {.tensors = tensors};
    am_merge_job mine = *job;
    mine.sink = &sink;
    am_engine e = am_engine_make(&mine);
    const int rc = am_dense_find(&e);
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        is_spread[i] = am_is_spread(&e, i);
    }
    am_engine_close(&e);
    return rc;
}

bool am_is_dense(const am_engine *e, int64_t tensor)
{
    return e->is_dense != NULL && e->is_dense[tensor];
}

bool am_is_spread(const am_engine *e, int64_t tensor)
{
    return e->is_spread != NULL && e->is_spread[tensor];
}

/* ---- what it takes ---- */

/* All task vectors. */
static int64_t vector_bytes(const am_unit *unit, int64_t rows, int64_t cols)
{
    int64_t bytes = 0;
    for (int t = 0; t < unit->models; t++) {
        bytes += unit->factor_rank == NULL ? am_matrix_bytes_on(unit->on, rows, cols)
                                           : am_matrix_bytes(rows, unit->factor_rank[t]) +
                                                 am_matrix_bytes(unit->factor_rank[t], cols);
    }
    return bytes;
}

int64_t am_dense_unit_bytes(const am_method *method, const am_unit *unit)
{
    const int64_t rows = unit->outer, cols = unit->n / rows;
    const int64_t grams = method->needs_gram ? unit->models : 0;
    return 2 * am_matrix_bytes_on(unit->on, rows, cols) + vector_bytes(unit, rows, cols) +
           grams * am_matrix_bytes_on(unit->on, cols, cols) + method->dense_bytes(unit);
}

int64_t am_dense_besides(const am_engine *e)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < e->n_order; i++) {
        const am_tensor *t = &e->job->sink->tensors->t[e->order[i].tensor];
        if (am_is_dense(e, e->order[i].tensor)) {
            longest = most(longest, most(t->shape[0], t->numel / t->shape[0]));
        }
    }
    return longest > 0 ? am_blas_bytes(longest * e->job->n_models) : 0;
}

int64_t am_dense_bytes(const am_engine *e)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < e->n_order; i++) {
        if (am_is_dense(e, e->order[i].tensor)) {
            am_unit_run run = {0};
            am_unit_open(e, e->order[i].tensor, &run);
            bytes = most(bytes, am_dense_unit_bytes(e->method, &run.unit));
        }
    }
    return bytes;
}

int64_t am_method_matrix_bytes(const am_method *method, const am_tensor_table *tensors, int models,
                               const double *param)
{
    int64_t bytes = 0, longest = 0;
    for (int64_t i = 0; i < tensors->n && method->is_dense != NULL; i++) {
        am_unit unit = {.scope = AM_SCOPE_TENSOR,
                        .models = models,
                        .has_gram = method->needs_gram,
                        .param = param};
        am_unit_shape(method, &tensors->t[i], &unit);
        if (unit.n > 0 && method->is_dense(&unit)) {
            bytes = most(bytes, am_dense_unit_bytes(method, &unit));
            longest = most(longest, most(unit.outer, unit.n / unit.outer));
        }
    }
    return bytes > 0 ? bytes + am_blas_bytes(longest * models) : 0;
}

/* ---- one matrix ---- */

int am_dense_reserve(am_engine *e, int rank)
{
    const int64_t bytes = most(am_dense_bytes(e), am_spread_bytes(e, rank));
    return bytes > 0 ? am_arena_create(&e->dense.arena, (size_t)bytes, "matrices of a merge") : 0;
}

void am_dense_open(am_engine *e, const am_span *span)
{
    am_dense_run *d = &e->dense;
    AM_ASSERT(span->lo == 0 && span->hi == e->job->sink->tensors->t[span->tensor].numel);
    am_unit_open(e, span->tensor, &e->local);
    const am_unit *u = &e->local.unit;
    am_arena_release(&d->arena, 0);
    d->base = am_matrix_take(&d->arena, u->outer, u->n / u->outer);
    for (int t = 0; t < u->models; t++) {
        if (u->factor_rank == NULL) {
            d->delta[t] = am_matrix_take(&d->arena, d->base.rows, d->base.cols);
        } else {
            d->left[t] = am_matrix_take(&d->arena, d->base.rows, u->factor_rank[t]);
            d->right[t] = am_matrix_take(&d->arena, u->factor_rank[t], d->base.cols);
        }
    }
    d->out = am_matrix_take(&d->arena, d->base.rows, d->base.cols);
    for (int t = 0; t < u->models && e->method->needs_gram; t++) {
        d->gram[t] = am_matrix_take(&d->arena, d->base.cols, d->base.cols);
    }
}

void am_dense_gather(am_engine *e, const am_tile *tile)
{
    am_dense_run *d = &e->dense;
    double *base = d->base.at + tile->lo;
    for (int64_t i = 0; i < tile->n; i++) {
        base[i] = tile->base != NULL ? tile->base[i] : 0;
    }
    for (int t = 0; t < tile->models && e->local.unit.factor_rank == NULL; t++) {
        double *to = d->delta[t].at + tile->lo;
        for (int64_t i = 0; i < tile->n; i++) {
            to[i] = tile->x[t][i] - base[i];
        }
    }
}

/* The Gram matrices of all models that have the tensor. */
static int load_grams(am_engine *e, int64_t tensor)
{
    am_dense_run *d = &e->dense;
    int rc = 0;
    am_bind(e, tensor);
    for (int t = 0; t < e->bound.models && rc == 0; t++) {
        const am_merge_input *input = &e->job->gram[e->bound.index[t]];
        const int64_t numel = d->gram[t].rows * d->gram[t].cols;
        for (int64_t lo = 0; rc == 0 && lo < numel; lo += AM_PART) {
            const int64_t n = numel - lo < AM_PART ? numel - lo : AM_PART;
            rc = am_input_load(input, tensor, lo, n, false, d->gram[t].at + lo);
        }
        int64_t stored = 0, staged = 0;
        am_source_weigh(input->source, input->tensor[tensor], numel, &stored, &staged);
        e->result.bytes_read += stored;
    }
    return rc;
}

/* A factor of which a value is not finite would hang LAPACK; the message names its file. */
static int check_factor(const am_source *source, int64_t tensor, am_matrix factor)
{
    for (int64_t i = 0; i < factor.rows * factor.cols; i++) {
        if (!isfinite(factor.at[i])) {
            return am_fail(AM_E_DATA, "%s: tensor '%s': a factor of its task vector is not finite",
                           source->label, source->tensors->t[tensor].name);
        }
    }
    return 0;
}

/* The products of all models that have the tensor. */
static int load_factors(am_engine *e, int64_t tensor)
{
    am_dense_run *d = &e->dense;
    int rc = 0;
    am_bind(e, tensor);
    for (int t = 0; t < e->bound.models && rc == 0; t++) {
        const am_merge_input *input = &e->job->models[e->bound.index[t]];
        const am_source *source = input->source;
        const int64_t at = input->tensor[tensor];
        rc = source->factors(source->self, at, d->left[t].at, d->right[t].at);
        AM_KEEP(check_factor(source, at, d->left[t]));
        AM_KEEP(check_factor(source, at, d->right[t]));
    }
    return rc;
}

/* base + what the method made of the task vectors, part by part. */
static int store(am_engine *e, int64_t tensor)
{
    const am_dense_run *d = &e->dense;
    const int64_t numel = d->out.rows * d->out.cols;
    int rc = 0;
    for (int64_t lo = 0; rc == 0 && lo < numel; lo += AM_PART) {
        const int64_t hi = lo + AM_PART < numel ? lo + AM_PART : numel;
        for (int64_t i = lo; i < hi; i++) {
            e->out[i - lo] = d->base.at[i] + d->out.at[i];
        }
        rc = am_store_part(e, &(am_span){.tensor = tensor, .lo = lo, .hi = hi});
    }
    return rc;
}

int am_dense_merge(am_engine *e)
{
    am_dense_run *d = &e->dense;
    const char *name = e->job->sink->tensors->t[e->local.tensor].name;
    const am_dense matrix = {.unit = &e->local.unit,
                             .delta = d->delta,
                             .left = d->left,
                             .right = d->right,
                             .gram = d->gram,
                             .out = d->out,
                             .work = &d->arena};
    int rc = e->method->merge_dense(&matrix);
    if (rc != 0) {
        char what[AM_MESSAGE_BYTES / 2];
        (void)snprintf(what, sizeof what, "%s", am_error_message());
        am_error_clear();
        rc = am_fail(rc, "%s: tensor '%s': %s", e->method->name, name, what);
    }
    return rc;
}

int am_dense_finish(am_engine *e)
{
    am_alive("merge");
    int rc = e->method->needs_gram ? load_grams(e, e->local.tensor) : 0;
    AM_KEEP(e->local.unit.factor_rank != NULL ? load_factors(e, e->local.tensor) : 0);
    AM_KEEP(am_dense_merge(e));
    AM_KEEP(store(e, e->local.tensor));
    return rc;
}

/* ---- who does it ---- */

/* What is spread: the owner of each matrix that is left, and which units are left besides. */
typedef struct am_share {
    int *owner;      /* [tensors]; -1: no matrix of one rank, or not left */
    bool *is_spread; /* [tensors] a matrix of the grid's ranks, and left */
    bool *is_rest;   /* [units] */
} am_share;

static int64_t count_units(const am_tensor_table *tensors, int64_t unit)
{
    int64_t n = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        n += am_part_units(tensors->t[i].numel, unit);
    }
    return n;
}

/* Operations of a factorisation of every model, in thousands. */
static int64_t cost_of(const am_engine *e, int64_t tensor)
{
    const am_tensor *t = &e->job->sink->tensors->t[tensor];
    const int64_t rows = t->shape[0], cols = t->numel / rows, narrow = rows < cols ? rows : cols;
    return 1 + t->numel * narrow / 1000 * e->job->n_models;
}

double am_dense_seconds(const am_engine *e)
{
    const double each = 2e-5; /* of a thousand: some 20 steps, 1e9 a second */
    double longest = 0;
    for (int64_t i = 0; i < e->job->sink->tensors->n; i++) {
        /* by the polar decomposition: five times as many operations */
        const double times =
            am_is_spread(e, i) ? 5.0 / (e->job->grid->layout.rows * e->job->grid->layout.cols) : 1;
        const double seconds = am_is_dense(e, i) ? each * times * (double)cost_of(e, i) : 0;
        longest = seconds > longest ? seconds : longest;
    }
    return longest;
}

/* The most expensive matrix without an owner that has one coming, the first of equals; -1: none. */
static int64_t next_matrix(const int64_t *cost, int64_t n)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        best = cost[i] > 0 && (best < 0 || cost[i] > cost[best]) ? i : best;
    }
    return best;
}

/* cost [tensors] of matrices to do, 0 for others; cleared. load [parts] zeros. */
static void deal(int64_t *cost, int64_t n, int64_t *load, int parts, int *owner)
{
    for (int64_t i; (i = next_matrix(cost, n)) >= 0;) {
        int idle = 0;
        for (int p = 1; p < parts; p++) {
            idle = load[p] < load[idle] ? p : idle;
        }
        owner[i] = idle;
        load[idle] += cost[i];
        cost[i] = 0;
    }
}

static void share_free(am_share *share)
{
    free(share->owner);
    free(share->is_spread);
    free(share->is_rest);
}

/* A matrix on a grid needs all of its ranks, also where none is left of it. */
static int check_ranks(const am_engine *e, int parts)
{
    const am_layout *on = e->job->grid != NULL ? &e->job->grid->layout : NULL;
    for (int64_t i = 0; on != NULL && i < e->job->sink->tensors->n; i++) {
        if (am_is_spread(e, i) && parts < on->rows * on->cols) {
            return am_fail(AM_E_USAGE,
                           "%s: tensor '%s' is merged on a grid of %d x %d ranks, and there %s %d: "
                           "run on %d or more, or set a smaller `grid` in the recipe",
                           e->method->name, e->job->sink->tensors->t[i].name, on->rows, on->cols,
                           parts == 1 ? "is" : "are", parts, on->rows * on->cols);
        }
    }
    return 0;
}

/* Blocks of a matrix on a grid that a part reads and stores, as spans appended to `out` (NULL:
 * counted). Returns how many. */
static int64_t spread_spans(const am_engine *e, int64_t tensor, int part, am_span *out)
{
    const am_layout *on = &e->job->grid->layout;
    const int64_t numel = e->job->sink->tensors->t[tensor].numel;
    int64_t n = 0;
    for (int64_t b = 0; b < am_part_units(numel, AM_BLOCK); b++) {
        if (am_spread_owner(on, b) == part) {
            const int64_t hi = (b + 1) * AM_BLOCK < numel ? (b + 1) * AM_BLOCK : numel;
            if (out != NULL) {
                out[n] = (am_span){.tensor = tensor, .lo = b * AM_BLOCK, .hi = hi};
            }
            n++;
        }
    }
    return n;
}

static int share_make(const am_engine *e, int64_t unit, const bool *is_left, int parts,
                      am_share *out)
{
    const am_tensor_table *tensors = e->job->sink->tensors;
    int64_t *cost = am_new(tensors->n + 1, sizeof *cost, "matrices of a merge");
    int64_t *load = am_new(parts, sizeof *load, "matrices of a merge"), at = 0;
    out->owner = am_new(tensors->n + 1, sizeof *out->owner, "matrices of a merge");
    out->is_spread = am_new(tensors->n + 1, sizeof *out->is_spread, "matrices of a merge");
    out->is_rest = am_new(count_units(tensors, unit) + 1, sizeof *out->is_rest, "what is left");
    int rc = cost != NULL && load != NULL && out->owner != NULL && out->is_rest != NULL &&
                     out->is_spread != NULL
                 ? 0
                 : AM_E_NOMEM;
    AM_KEEP(check_ranks(e, parts));
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        const int64_t units = am_part_units(tensors->t[i].numel, unit);
        out->owner[i] = -1;
        if (am_is_dense(e, i) && !am_is_spread(e, i) && (is_left == NULL || is_left[at])) {
            cost[i] = cost_of(e, i);
        }
        out->is_spread[i] = am_is_spread(e, i) && (is_left == NULL || is_left[at]);
        for (int64_t u = 0; u < units; u++, at++) {
            out->is_rest[at] = !am_is_dense(e, i) && (is_left == NULL || is_left[at]);
        }
    }
    if (rc == 0) {
        deal(cost, tensors->n, load, parts, out->owner);
    }
    free(cost);
    free(load);
    return rc;
}

/* A part's matrices between its share of the rest, in the order of the tensors. */
static int slice_of(const am_engine *e, const am_share *share, int64_t unit, int parts, int part,
                    am_slice *out)
{
    const am_tensor_table *tensors = e->job->sink->tensors;
    am_slice rest = {0};
    int rc = am_slice_make_left(tensors, unit, share->is_rest, parts, part, &rest);
    int64_t n = rest.n, at = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        n += share->owner[i] == part;
        n += share->is_spread[i] ? spread_spans(e, i, part, NULL) : 0;
    }
    am_span *spans = rc == 0 ? am_new(n + 1, sizeof *spans, "a slice") : NULL;
    *out = (am_slice){.spans = spans, .elements = rest.elements, .bytes = rest.bytes};
    for (int64_t i = 0; spans != NULL && i < tensors->n; i++) {
        while (at < rest.n && rest.spans[at].tensor == i) {
            spans[out->n++] = rest.spans[at++];
        }
        if (share->owner[i] == part) {
            spans[out->n++] = (am_span){.tensor = i, .hi = tensors->t[i].numel};
            out->elements += tensors->t[i].numel;
            out->bytes += tensors->t[i].numel * am_dtype_bytes(tensors->t[i].dtype);
        }
        const int64_t more = share->is_spread[i] ? spread_spans(e, i, part, spans + out->n) : 0;
        for (int64_t s = out->n; s < out->n + more; s++) {
            out->elements += spans[s].hi - spans[s].lo;
            out->bytes += (spans[s].hi - spans[s].lo) * am_dtype_bytes(tensors->t[i].dtype);
        }
        out->n += more;
    }
    am_slice_free(&rest);
    return rc != 0 ? rc : spans != NULL ? 0 : AM_E_NOMEM;
}

int am_merge_slice_make(const am_merge_job *job, const am_tensor_table *tensors, int64_t unit,
                        const bool *is_left, int parts, int part, am_slice *out)
{
    const am_sink sink = {.tensors = tensors};
    am_merge_job mine = *job;
    mine.sink = &sink;
    am_engine e = am_engine_make(&mine);
    am_share share = {0};
    int rc = am_dense_find(&e);
    if (rc == 0 && e.is_dense != NULL) {
        rc = share_make(&e, unit, is_left, parts, &share);
        AM_KEEP(slice_of(&e, &share, unit, parts, part, out));
    } else if (rc == 0 && is_left != NULL) {
        rc = am_slice_make_left(tensors, unit, is_left, parts, part, out);
    } else if (rc == 0) {
        rc = am_slice_make(tensors, unit, parts, part, out);
    }
    share_free(&share);
    am_engine_close(&e);
    return rc;
}

/* Append the spans of part p, which are the next ones. */
static int append(am_slices *out, const am_slice *slice, int p)
{
    const int64_t n = out->first[p], more = slice->n;
    am_span *spans = realloc(out->spans, (size_t)(n + more + 1) * sizeof *spans);
    if (spans == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for slices");
    }
    memcpy(spans + n, slice->spans, (size_t)more * sizeof *spans);
    out->spans = spans;
    out->first[p + 1] = n + more;
    return 0;
}

int am_merge_slices_make(const am_merge_job *job, const am_tensor_table *tensors, int64_t unit,
                         int parts, am_slices *out)
{
    const am_sink sink = {.tensors = tensors};
    am_merge_job mine = *job;
    mine.sink = &sink;
    am_engine e = am_engine_make(&mine);
    am_share share = {0};
    int rc = am_dense_find(&e);
    if (rc == 0 && e.is_dense == NULL) {
        rc = am_slices_make(tensors, unit, parts, out);
    } else if (rc == 0) {
        *out =
            (am_slices){.parts = parts, .first = am_new(parts + 1, sizeof *out->first, "slices")};
        rc = out->first != NULL ? share_make(&e, unit, NULL, parts, &share) : AM_E_NOMEM;
        for (int p = 0; rc == 0 && p < parts; p++) {
            am_slice slice = {0};
            rc = slice_of(&e, &share, unit, parts, p, &slice);
            AM_KEEP(append(out, &slice, p));
            am_slice_free(&slice);
        }
    }
    share_free(&share);
    am_engine_close(&e);
    return rc;
}
