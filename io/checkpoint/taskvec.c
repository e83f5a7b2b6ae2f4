/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/taskvec.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/product.h"
#include "io/commit/digest.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"

enum { SAMPLE = 1024, U = 5, VT = 7, PARTS = 8 }; /* parts of a tensor: see `endings` */

struct am_taskvec {
    am_ckpt *ckpt; /* borrowed */
    const am_tensor_table *base;
    am_source source;
    am_tv_tensor *form; /* [base->n] */
    am_span *spans[3];  /* for staging, by turns; and what is held */
    int64_t capacity[3];
    int turn;
    int64_t n_start;       /* of the sparse tensor that has most chunks; 0: there is none */
    int64_t tensor, chunk; /* sparse: what is in `start` and in `decoded`; -1: nothing */
    int64_t *start;        /* [start_capacity] */
    int64_t start_capacity;
    double *decoded; /* [AM_CHUNK] */
    uint16_t *index; /* [AM_CHUNK] */
    double *scale;   /* [AM_CHUNK / AM_TV_DENSE_BLOCK + 1] */
    am_product *product;
};

/* ---- layout ---- */

int64_t am_tv_kept(int64_t numel, double density)
{
    const int64_t kept = (int64_t)(density * (double)numel);
    return kept >= numel ? numel : kept > 0 ? kept : 1;
}

static int64_t blocks(int64_t n, int64_t block)
{
    return n / block + (n % block != 0);
}

static int64_t dense_bytes(const am_tensor *t, am_dtype dtype)
{
    const int64_t scales = dtype == AM_DTYPE_I8 ? 4 * blocks(t->numel, AM_TV_DENSE_BLOCK) : 0;
    return t->numel * am_dtype_bytes(dtype) + scales;
}

static int64_t sparse_bytes(const am_tensor *t, am_dtype dtype, int64_t kept)
{
    const int64_t scales = dtype == AM_DTYPE_I8 ? 4 * blocks(t->numel, AM_TV_SPARSE_BLOCK) : 0;
    return kept * (am_dtype_bytes(dtype) + 2) + 8 * (am_part_units(t->numel, AM_CHUNK) + 1) +
           8 * t->ndim + scales;
}

static bool is_smaller_sparse(const am_tensor *t, am_dtype dtype, int64_t kept)
{
    return kept < t->numel && sparse_bytes(t, dtype, kept) < dense_bytes(t, dtype);
}

static int64_t rows_of(const am_tensor *t)
{
    return t->ndim > 0 ? t->shape[0] : 1;
}

static int64_t cols_of(const am_tensor *t)
{
    return rows_of(t) > 0 ? t->numel / rows_of(t) : 0;
}

bool am_tv_factors_pay(const am_tensor *tensor, am_dtype dtype, double density, int64_t rank)
{
    const int64_t kept = am_tv_kept(tensor->numel, density);
    const int64_t otherwise = is_smaller_sparse(tensor, dtype, kept)
                                  ? sparse_bytes(tensor, dtype, kept)
                                  : dense_bytes(tensor, dtype);
    /* no product: rank is at most the smaller side, but a file or an option may say anything */
    const int64_t each = (rows_of(tensor) + cols_of(tensor)) * am_dtype_bytes(dtype) + 8;
    return tensor->ndim >= 2 && tensor->numel > 0 && am_dtype_is_float(dtype) &&
           rank <= (otherwise - 1) / each;
}

static const char *const endings[PARTS] = {"",        "::scale", "::start", "::index",
                                           "::shape", "::u",     "::s",     "::vt"};

/* A part of a tensor's storage: its name, type and shape; numel -1: the form has no such part.
 * Part 0 is the value. */
static int make_part(const am_tensor *t, const am_tv_tensor *form, int part, am_tensor *out)
{
    const bool is_int8 = form->dtype == AM_DTYPE_I8;
    const bool has_factors = form->rank >= 0, is_sparse = form->is_sparse;
    const int64_t rank = has_factors ? form->rank : 0;
    const bool has[PARTS] = {!has_factors, is_int8 && !has_factors,
                             is_sparse,    is_sparse,
                             is_sparse,    has_factors,
                             has_factors,  has_factors};
    const int64_t length[PARTS] = {form->kept,
                                   blocks(t->numel, form->block),
                                   am_part_units(t->numel, AM_CHUNK) + 1,
                                   form->kept,
                                   t->ndim,
                                   rows_of(t) * rank,
                                   rank,
                                   rank * cols_of(t)};
    const am_dtype dtype[PARTS] = {form->dtype,  AM_DTYPE_F32, AM_DTYPE_I64, AM_DTYPE_U16,
                                   AM_DTYPE_I64, form->dtype,  AM_DTYPE_F64, form->dtype};
    *out = (am_tensor){.dtype = dtype[part], .ndim = 1, .numel = has[part] ? length[part] : -1};
    out->shape[0] = length[part];
    if (part == 0 && !form->is_sparse) {
        out->ndim = t->ndim;
        memcpy(out->shape, t->shape, sizeof out->shape);
    } else if (part == U || part == VT) {
        out->ndim = 2;
        out->shape[0] = part == U ? rows_of(t) : rank;
        out->shape[1] = part == U ? rank : cols_of(t);
    }
    out->name = am_text("%s%s", t->name, part == 0 && form->is_sparse ? "::value" : endings[part]);
    return out->name != NULL ? 0 : AM_E_NOMEM;
}

static int64_t *slot_of(am_tv_tensor *form, int part)
{
    int64_t *const slots[PARTS] = {&form->value, &form->scale, &form->start, &form->index,
                                   &form->shape, &form->u,     &form->s,     &form->vt};
    return slots[part];
}

int64_t am_tv_tensor_bytes(const am_tensor_table *table, const am_tv_tensor *form)
{
    am_tv_tensor own = *form;
    int64_t bytes = 0;
    for (int p = 0; p < PARTS; p++) {
        const int64_t at = *slot_of(&own, p);
        bytes += at >= 0 ? table->t[at].numel * am_dtype_bytes(table->t[at].dtype) : 0;
    }
    return bytes;
}

static bool has_same_shape(const am_tensor *a, const am_tensor *b)
{
    bool same = a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) {
        same = a->shape[d] == b->shape[d];
    }
    return same;
}

static am_tv_tensor plan_tensor(const am_tensor *t, am_dtype dtype, double density)
{
    am_tv_tensor form = {.is_stored = am_dtype_is_float(t->dtype),
                         .dtype = dtype,
                         .rank = -1,
                         .kept = am_tv_kept(t->numel, density)};
    form.is_sparse = is_smaller_sparse(t, dtype, form.kept);
    form.block = form.is_sparse ? AM_TV_SPARSE_BLOCK : AM_TV_DENSE_BLOCK;
    form.value = form.scale = form.start = form.index = form.shape = -1;
    form.u = form.s = form.vt = -1;
    if (!form.is_sparse) { /* what is cut off is there as zeros */
        form.kept = t->numel;
    }
    return form;
}

/* Tensors of the parts of one form: added to `add`, or looked up in `find` and checked. */
static int each_part(const am_tensor *t, am_tv_tensor *form, am_tensor_table *add,
                     const am_tensor_table *find, const char *path)
{
    int rc = 0;
    for (int p = 0; rc == 0 && p < PARTS; p++) {
        am_tensor part = {0};
        rc = make_part(t, form, p, &part);
        if (rc == 0 && part.numel >= 0 && add != NULL) {
            rc = am_tensor_table_add(add, part.name, part.dtype, part.ndim, part.shape);
        } else if (rc == 0 && part.numel >= 0) {
            const int64_t at = am_tensor_table_find(find, part.name);
            *slot_of(form, p) = at;
            if (at < 0) {
                rc = am_fail(AM_E_DATA, "%s: tensor '%s' is missing", path, part.name);
            } else if (find->t[at].dtype != part.dtype || !has_same_shape(&find->t[at], &part)) {
                rc = am_fail(AM_E_DATA, "%s: tensor '%s' is %s, but should be %s", path, part.name,
                             am_tensor_describe(&find->t[at]), am_tensor_describe(&part));
            }
        }
        free(part.name);
    }
    return rc;
}

static void turn_to_factors(am_tv_tensor *form, int64_t rank)
{
    form->rank = rank;
    form->is_sparse = false;
}

int am_tv_plan(const am_tensor_table *base, am_dtype dtype, double density, const int64_t *rank,
               am_tensor_table *table, am_tv_tensor *form)
{
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < base->n; i++) {
        form[i] = plan_tensor(&base->t[i], dtype, density);
        if (rank != NULL && rank[i] >= 0 && form[i].is_stored &&
            am_tv_factors_pay(&base->t[i], dtype, density, rank[i])) {
            turn_to_factors(&form[i], rank[i]);
        }
        if (form[i].is_stored) {
            rc = each_part(&base->t[i], &form[i], table, NULL, NULL);
        }
    }
    AM_KEEP(am_tensor_table_finish(table));
    for (int64_t i = 0; rc == 0 && i < base->n; i++) {
        if (form[i].is_stored) {
            rc = each_part(&base->t[i], &form[i], NULL, table, "the task vector");
        }
    }
    return rc;
}

float am_tv_scale(double largest)
{
    float scale = (float)(largest / 127);
    return (double)scale * 127 < largest ? nextafterf(scale, INFINITY) : scale;
}

/* ---- the base's fingerprint ---- */

static int sample_tensor(const am_source *source, int64_t tensor, uint64_t *digest)
{
    const am_tensor *t = &source->tensors->t[tensor];
    const int64_t n = t->numel < SAMPLE ? t->numel : SAMPLE;
    const int64_t at[] = {0, (t->numel - n) / 2, t->numel - n};
    unsigned char bytes[SAMPLE * sizeof(double)];
    char *text = am_text("%016" PRIx64 " %s %s", *digest, t->name, am_tensor_describe(t));
    if (text == NULL) {
        return AM_E_NOMEM;
    }
    *digest = am_digest_bytes(text, (int64_t)strlen(text));
    free(text);
    for (int i = 0; i < 3 && n > 0; i++) {
        uint64_t pair[2] = {*digest, 0};
        int rc = source->load_raw(source->self, tensor, at[i], n, bytes);
        if (rc != 0) {
            return rc;
        }
        pair[1] = am_digest_bytes(bytes, n * am_dtype_bytes(t->dtype));
        *digest = am_digest_bytes(pair, sizeof pair);
    }
    return 0;
}

int am_tv_fingerprint_all(MPI_Comm comm, const am_source *source, char out[17])
{
    int rank = 0, rc = 0;
    uint64_t digest = 0;
    MPI_Comm_rank(comm, &rank);
    for (int64_t i = 0; rank == 0 && rc == 0 && i < source->tensors->n; i++) {
        rc = sample_tensor(source, i, &digest);
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, &digest, sizeof digest));
    (void)snprintf(out, 17, "%016" PRIx64, digest);
cleanup:
    return rc;
}

/* ---- open and close ---- */

bool am_tv_is(const am_ckpt *ckpt)
{
    return am_meta_get(am_ckpt_meta(ckpt), AM_TV_META) != NULL;
}

/* The part of a tensor called NAME::ENDING; NULL: there is none. */
static int find_part(const am_taskvec *tv, const am_tensor *t, const char *ending,
                     const am_tensor **out)
{
    const am_tensor_table *table = am_ckpt_tensors(tv->ckpt);
    char *name = am_text("%s%s", t->name, ending);
    const int64_t at = name != NULL ? am_tensor_table_find(table, name) : -1;
    *out = at >= 0 ? &table->t[at] : NULL;
    const int rc = name != NULL ? 0 : AM_E_NOMEM;
    free(name);
    return rc;
}

/* The form follows from what is there. */
static int find_form(const am_taskvec *tv, int64_t tensor, am_dtype dtype)
{
    const char *path = am_ckpt_path(tv->ckpt);
    const am_tensor *t = &tv->base->t[tensor], *index = NULL, *u = NULL;
    am_tv_tensor *form = &tv->form[tensor];
    *form = plan_tensor(t, dtype, 1);
    if (!form->is_stored) {
        return 0;
    }
    int rc = find_part(tv, t, "::index", &index);
    AM_KEEP(find_part(tv, t, "::u", &u));
    if (rc == 0 && u != NULL &&
        (u->ndim != 2 || dtype == AM_DTYPE_I8 || u->shape[1] > rows_of(t) ||
         u->shape[1] > cols_of(t))) {
        return am_fail(AM_E_DATA,
                       "%s: tensor '%s' is %s, but should be a matrix of floats with at "
                       "most as many columns as '%s' has rows and columns",
                       path, u->name, am_tensor_describe(u), t->name);
    }
    if (rc == 0 && u != NULL) {
        turn_to_factors(form, u->shape[1]);
    } else if (rc == 0 && index != NULL) {
        form->is_sparse = true;
        form->block = AM_TV_SPARSE_BLOCK;
        form->kept = index->numel;
    }
    return rc != 0 ? rc : each_part(t, form, NULL, am_ckpt_tensors(tv->ckpt), path);
}

static int check_extra(const am_taskvec *tv)
{
    const am_tensor_table *table = am_ckpt_tensors(tv->ckpt);
    bool *used = am_new(table->n + 1, sizeof *used, "a task vector");
    int rc = used != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < tv->base->n; i++) {
        for (int p = 0; p < PARTS; p++) {
            const int64_t at = *slot_of(&tv->form[i], p);
            if (at >= 0) {
                used[at] = true;
            }
        }
    }
    for (int64_t i = 0; rc == 0 && i < table->n; i++) {
        if (!used[i]) {
            rc = am_fail(AM_E_DATA, "%s: tensor '%s' belongs to no tensor of the base",
                         am_ckpt_path(tv->ckpt), table->t[i].name);
        }
    }
    free(used);
    return rc;
}

static int prepare(am_taskvec *tv, const am_source *base, const char *fingerprint,
                   int64_t buffer_bytes)
{
    const am_meta *meta = am_ckpt_meta(tv->ckpt);
    const char *path = am_ckpt_path(tv->ckpt);
    const char *version = am_meta_get(meta, AM_TV_META);
    const char *made_from = am_meta_get(meta, AM_TV_META_BASE);
    const char *name = am_meta_get(meta, AM_TV_META_DTYPE);
    const am_dtype dtype = name != NULL ? am_dtype_parse(name) : AM_DTYPE_COUNT;
    int rc = 0;
    if (strcmp(version, "1") != 0 || made_from == NULL ||
        (dtype != AM_DTYPE_I8 && !am_dtype_is_float(dtype))) {
        return am_fail(AM_E_DATA, "%s: a task vector of version %s and dtype %s cannot be read",
                       path, version, name != NULL ? name : "(none)");
    }
    if (strcmp(made_from, fingerprint) != 0) {
        return am_fail(AM_E_DATA,
                       "%s is a task vector of another base (fingerprint %s), not of %s (%s)", path,
                       made_from, base->label, fingerprint);
    }
    tv->form = am_new(tv->base->n + 1, sizeof *tv->form, "a task vector");
    tv->decoded = am_new(AM_CHUNK, sizeof *tv->decoded, "a task vector");
    tv->index = am_new(AM_CHUNK, sizeof *tv->index, "a task vector");
    tv->scale = am_new(AM_CHUNK / AM_TV_DENSE_BLOCK + 1, sizeof *tv->scale, "a task vector");
    if (tv->form == NULL || tv->decoded == NULL || tv->index == NULL || tv->scale == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; rc == 0 && i < tv->base->n; i++) {
        rc = find_form(tv, i, dtype);
        const int64_t n_start = am_part_units(tv->base->t[i].numel, AM_CHUNK) + 1;
        if (rc == 0 && tv->form[i].is_sparse && n_start > tv->n_start) {
            tv->n_start = n_start;
        }
    }
    AM_KEEP(check_extra(tv));
    AM_KEEP(am_ckpt_source(tv->ckpt, buffer_bytes, &tv->source));
    AM_KEEP(am_product_create(&tv->source, &tv->product));
    return rc;
}

int am_tv_open_all(MPI_Comm comm, am_ckpt *ckpt, const am_source *base, int64_t buffer_bytes,
                   am_taskvec **out)
{
    char fingerprint[17];
    int rc = 0;
    am_taskvec *tv = am_new(1, sizeof *tv, "a task vector");
    AM_KEEP(tv != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    *tv = (am_taskvec){.ckpt = ckpt, .base = base->tensors, .tensor = -1, .chunk = -1};
    AM_TRY(am_tv_fingerprint_all(comm, base, fingerprint));
    rc = prepare(tv, base, fingerprint, buffer_bytes);
    AM_AGREE(comm);
    *out = tv;
    tv = NULL;
cleanup:
    am_tv_close(&tv);
    return rc;
}

void am_tv_close(am_taskvec **tv)
{
    am_taskvec *t = *tv;
    if (t == NULL) {
        return;
    }
    free(t->form);
    free(t->spans[0]);
    free(t->spans[1]);
    free(t->spans[2]);
    free(t->start);
    free(t->decoded);
    free(t->index);
    free(t->scale);
    am_product_free(&t->product);
    free(t);
    *tv = NULL;
}

/* ---- sizes ---- */

/* What the factors of a tensor take in memory, at most. */
static int64_t factor_bytes(const am_taskvec *tv)
{
    int64_t most = am_product_bytes(0, 0);
    for (int64_t i = 0; i < tv->base->n; i++) {
        const int64_t rank = tv->form[i].rank;
        const int64_t bytes = rank > 0 ? am_product_bytes(rank, cols_of(&tv->base->t[i])) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Dense tensors touch no more of the buffers than one load; sparse ones are decoded by chunks. */
int64_t am_tv_bytes(const am_taskvec *tv, int64_t load)
{
    const int64_t n = tv->n_start > 0 || load > AM_CHUNK ? AM_CHUNK : load;
    const int64_t index = tv->n_start > 0 ? AM_CHUNK * (int64_t)sizeof *tv->index : 0;
    return n * (int64_t)sizeof *tv->decoded + index +
           blocks(n, AM_TV_DENSE_BLOCK) * (int64_t)sizeof *tv->scale +
           tv->n_start * (int64_t)sizeof *tv->start + factor_bytes(tv);
}

void am_tv_weigh(const am_taskvec *tv, int64_t tensor, int64_t n, int64_t *stored, int64_t *staged)
{
    const am_tv_tensor *form = &tv->form[tensor];
    const int64_t numel = tv->base->t[tensor].numel, element = am_dtype_bytes(form->dtype);
    *stored = *staged = 0;
    if (!form->is_stored || n == 0) {
        return;
    }
    if (form->rank >= 0) {
        const int64_t rows = rows_of(&tv->base->t[tensor]), cols = cols_of(&tv->base->t[tensor]);
        *stored = (int64_t)((double)n / (double)numel * (double)(rows + cols) *
                            (double)(form->rank * element));
        return;
    }
    if (form->is_sparse) {
        *stored = (int64_t)((double)n * (double)form->kept / (double)numel) * (element + 2);
    } else {
        *stored = n * element;
    }
    *stored += form->scale < 0 ? 0 : blocks(n, form->block) * (int64_t)sizeof(float);
    *staged = form->is_sparse ? 0 : *stored;
}

/* ---- decoding ---- */

static int need_spans(am_taskvec *tv, int to, int64_t n)
{
    if (n > tv->capacity[to]) {
        free(tv->spans[to]);
        tv->capacity[to] = 0;
        tv->spans[to] = am_new(n, sizeof *tv->spans[to], "read-ahead");
        if (tv->spans[to] == NULL) {
            return AM_E_NOMEM;
        }
        tv->capacity[to] = n;
    }
    return 0;
}

static bool is_dense(const am_taskvec *tv, const am_span *span)
{
    const am_tv_tensor *form = &tv->form[span->tensor];
    return form->is_stored && !form->is_sparse && form->rank < 0;
}

int am_tv_stage(am_taskvec *tv, const am_span *spans, int64_t n)
{
    const int turn = tv->turn ^= 1;
    int64_t n_mapped = 0;
    int rc = need_spans(tv, turn, n);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        if (is_dense(tv, &spans[i])) {
            tv->spans[turn][n_mapped] = spans[i];
            tv->spans[turn][n_mapped++].tensor = tv->form[spans[i].tensor].value;
        }
    }
    return rc != 0 ? rc : tv->source.stage(tv->source.self, tv->spans[turn], n_mapped);
}

int am_tv_hold(am_taskvec *tv, const am_span *spans, int64_t n)
{
    int64_t n_mapped = 0;
    int rc = need_spans(tv, 2, 2 * n);
    am_span *to = tv->spans[2];
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const am_tv_tensor *form = &tv->form[spans[i].tensor];
        if (!is_dense(tv, &spans[i]) || spans[i].lo == spans[i].hi) {
            continue;
        }
        to[n_mapped] = spans[i];
        to[n_mapped++].tensor = form->value;
        if (form->scale >= 0) {
            to[n_mapped++] = (am_span){.tensor = form->scale,
                                       .lo = spans[i].lo / form->block,
                                       .hi = blocks(spans[i].hi, form->block)};
        }
    }
    return rc != 0 ? rc : tv->source.hold(tv->source.self, to, n_mapped);
}

/* Scales of the elements [lo, lo+n), which are at most a chunk, into tv->scale. */
static int load_scales(am_taskvec *tv, const am_tv_tensor *form, int64_t lo, int64_t n)
{
    const int64_t first = lo / form->block, last = (lo + n - 1) / form->block;
    return form->scale < 0
               ? 0
               : tv->source.load(tv->source.self, form->scale, first, last - first + 1, tv->scale);
}

static int add_dense(am_taskvec *tv, const am_tv_tensor *form, int64_t lo, int64_t n, double *dst)
{
    int rc = tv->source.load(tv->source.self, form->value, lo, n, tv->decoded);
    AM_KEEP(load_scales(tv, form, lo, n));
    tv->chunk = -1; /* the buffer is in use */
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const double scale =
            form->scale < 0 ? 1 : tv->scale[(lo + i) / form->block - lo / form->block];
        dst[i] += scale * tv->decoded[i];
    }
    return rc;
}

static int damaged(const am_taskvec *tv, int64_t tensor)
{
    return am_fail(AM_E_DATA, "%s: the index of tensor '%s' is damaged", am_ckpt_path(tv->ckpt),
                   tv->base->t[tensor].name);
}

static int need_start(am_taskvec *tv, int64_t tensor)
{
    const am_tv_tensor *form = &tv->form[tensor];
    const int64_t n = am_part_units(tv->base->t[tensor].numel, AM_CHUNK) + 1;
    if (tv->tensor == tensor) {
        return 0;
    }
    tv->tensor = tv->chunk = -1;
    if (n > tv->start_capacity) {
        free(tv->start);
        tv->start_capacity = 0;
        tv->start = am_new(n, sizeof *tv->start, "a task vector");
        if (tv->start == NULL) {
            return AM_E_NOMEM;
        }
        tv->start_capacity = n;
    }
    int rc = tv->source.load_raw(tv->source.self, form->start, 0, n, tv->start);
    bool is_sound = rc == 0 && tv->start[0] == 0 && tv->start[n - 1] == form->kept;
    for (int64_t c = 1; rc == 0 && c < n; c++) {
        is_sound = is_sound && tv->start[c] >= tv->start[c - 1] &&
                   tv->start[c] - tv->start[c - 1] <= AM_CHUNK;
    }
    if (rc == 0 && !is_sound) {
        rc = damaged(tv, tensor);
    }
    tv->tensor = rc == 0 ? tensor : -1;
    return rc;
}

/* All elements of a chunk, zeros too, into tv->decoded. */
static int need_chunk(am_taskvec *tv, int64_t tensor, int64_t chunk)
{
    const am_tv_tensor *form = &tv->form[tensor];
    const int64_t lo = chunk * AM_CHUNK, rest = tv->base->t[tensor].numel - lo;
    const int64_t size = rest < AM_CHUNK ? rest : AM_CHUNK;
    int rc = need_start(tv, tensor);
    if (rc != 0 || tv->chunk == chunk) {
        return rc;
    }
    tv->chunk = -1;
    const int64_t first = tv->start[chunk], n = tv->start[chunk + 1] - first;
    /* Values come to the end of the buffer and move to their places from the front. */
    double *value = tv->decoded + (AM_CHUNK - n);
    AM_KEEP(tv->source.load_raw(tv->source.self, form->index, first, n, tv->index));
    AM_KEEP(tv->source.load(tv->source.self, form->value, first, n, value));
    AM_KEEP(load_scales(tv, form, lo, size));
    int64_t next = 0; /* first element of the chunk that has no value yet */
    for (int64_t e = 0; rc == 0 && e < n; e++) {
        const int64_t at = tv->index[e];
        if (at < next || at >= size) {
            return damaged(tv, tensor);
        }
        const double x = value[e] * (form->scale < 0 ? 1 : tv->scale[at / form->block]);
        for (; next < at; next++) {
            tv->decoded[next] = 0;
        }
        tv->decoded[next++] = x;
    }
    for (; next < size; next++) {
        tv->decoded[next] = 0;
    }
    tv->chunk = rc == 0 ? chunk : -1;
    return rc;
}

static am_product_part product_of(const am_taskvec *tv, int64_t tensor)
{
    const am_tv_tensor *form = &tv->form[tensor];
    const am_tensor *t = &tv->base->t[tensor];
    return (am_product_part){.left = form->u,
                             .right = form->vt,
                             .weight = form->s,
                             .rows = rows_of(t),
                             .cols = cols_of(t),
                             .rank = form->rank,
                             .scale = 1};
}

int64_t am_tv_rank(const am_taskvec *tv, int64_t tensor)
{
    return tv->form[tensor].is_stored ? tv->form[tensor].rank : -1;
}

int am_tv_factors(am_taskvec *tv, int64_t tensor, double *left, double *right)
{
    const am_product_part part = product_of(tv, tensor);
    return am_product_load(tv->product, &part, left, right);
}

int am_tv_add(am_taskvec *tv, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    const am_tv_tensor *form = &tv->form[tensor];
    AM_ASSERT(form->is_stored);
    if (form->rank >= 0) {
        const am_product_part part = product_of(tv, tensor);
        return am_product_add(tv->product, tensor, &part, lo, n, dst);
    }
    for (int64_t at = lo; at < lo + n;) {
        const int64_t chunk = at / AM_CHUNK, end = (chunk + 1) * AM_CHUNK;
        const int64_t step = (end < lo + n ? end : lo + n) - at;
        int rc = form->is_sparse ? need_chunk(tv, tensor, chunk)
                                 : add_dense(tv, form, at, step, dst + (at - lo));
        for (int64_t i = 0; rc == 0 && form->is_sparse && i < step; i++) {
            dst[at - lo + i] += tv->decoded[at - chunk * AM_CHUNK + i];
        }
        if (rc != 0) {
            return rc;
        }
        at += step;
    }
    return 0;
}
