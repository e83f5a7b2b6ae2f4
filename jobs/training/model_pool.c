/* Slices of all models in memory: see model_pool.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/model_pool.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "solver/analysis/gram.h"

/* One model's slice, packed: span after span. */
typedef struct packed {
    const am_model_pool *pool;
    unsigned char *reals;
} packed;

struct am_model_pool {
    const am_suite *suite;
    int size, rank;
    am_slice *slice;     /* [size] of every rank */
    int64_t *start;      /* [tensors] reals from the start of the packed slice to element 0 */
    packed base, merged; /* own slice */
    packed *model;       /* [T] own slices */
    am_source base_source, *model_source;
    am_merge_input base_input, *model_input;
    int64_t *identity;     /* [tensors] 0, 1, 2, ... */
    unsigned char *outbox; /* packed sends */
};

static int64_t slice_bytes(const am_model_pool *pool, int rank)
{
    return pool->slice[rank].elements * am_suite_real_bytes(pool->suite);
}

/* ---- sources and the sink over packed slices ---- */

static unsigned char *packed_at(const packed *p, int64_t tensor, int64_t lo)
{
    return p->reals + (p->pool->start[tensor] + lo) * am_suite_real_bytes(p->pool->suite);
}

static int packed_load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    const packed *p = self;
    const void *src = packed_at(p, tensor, lo);
    if (p->pool->suite->ops->dtype == AM_DTYPE_F64) {
        memcpy(dst, src, (size_t)n * sizeof(double));
        return AM_OK;
    }
    const float *f = src;
    for (int64_t i = 0; i < n; i++) {
        dst[i] = f[i];
    }
    return AM_OK;
}

static int packed_load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    const packed *p = self;
    memcpy(dst, packed_at(p, tensor, lo), (size_t)(n * am_suite_real_bytes(p->pool->suite)));
    return AM_OK;
}

static int packed_store(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src)
{
    packed *p = self;
    void *dst = packed_at(p, tensor, lo);
    if (p->pool->suite->ops->dtype == AM_DTYPE_F64) {
        memcpy(dst, src, (size_t)n * sizeof(double));
        return AM_OK;
    }
    float *f = dst;
    for (int64_t i = 0; i < n; i++) {
        f[i] = (float)src[i];
    }
    return AM_OK;
}

static int packed_store_raw(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src)
{
    packed *p = self;
    memcpy(packed_at(p, tensor, lo), src, (size_t)(n * am_suite_real_bytes(p->pool->suite)));
    return AM_OK;
}

static am_source source_over(const am_model_pool *pool, packed *p, const char *label)
{
    return (am_source){.self = p,
                       .label = label,
                       .tensors = &pool->suite->trunk.tensors,
                       .load = packed_load,
                       .load_raw = packed_load_raw};
}

/* ---- life ---- */

void am_model_pool_free(am_model_pool **pool_at)
{
    am_model_pool *pool = *pool_at;
    if (pool == NULL) {
        return;
    }
    for (int r = 0; r < pool->size && pool->slice; r++) {
        am_slice_free(&pool->slice[r]);
    }
    for (int i = 0; i < pool->suite->n && pool->model; i++) {
        free(pool->model[i].reals);
    }
    free(pool->base.reals);
    free(pool->merged.reals);
    free(pool->slice);
    free(pool->start);
    free(pool->model);
    free(pool->model_source);
    free(pool->model_input);
    free(pool->identity);
    free(pool->outbox);
    free(pool);
    *pool_at = NULL;
}

int64_t am_model_pool_unit(const am_tensor_table *tensors, bool whole)
{
    int64_t unit = AM_CHUNK;
    for (int64_t i = 0; i < tensors->n && whole; i++) {
        unit = tensors->t[i].numel > unit ? tensors->t[i].numel : unit;
    }
    return unit;
}

static int make_slices(am_model_pool *pool, bool whole)
{
    const am_tensor_table *tensors = &pool->suite->trunk.tensors;
    const int64_t unit = am_model_pool_unit(tensors, whole);
    int rc = AM_OK;
    pool->slice = am_new(pool->size, sizeof *pool->slice, "slices");
    pool->start = am_new(tensors->n, sizeof *pool->start, "slices");
    pool->identity = am_new(tensors->n, sizeof *pool->identity, "slices");
    if (!pool->slice || !pool->start || !pool->identity) {
        return AM_E_NOMEM;
    }
    for (int r = 0; r < pool->size && rc == AM_OK; r++) {
        rc = am_slice_make(tensors, unit, pool->size, r, &pool->slice[r]);
    }
    if (rc != AM_OK) {
        return rc;
    }
    const am_slice *own = &pool->slice[pool->rank];
    int64_t packed_reals = 0;
    for (int64_t s = 0; s < own->n; s++) {
        pool->start[own->spans[s].tensor] = packed_reals - own->spans[s].lo;
        packed_reals += own->spans[s].hi - own->spans[s].lo;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        pool->identity[i] = i;
    }
    return AM_OK;
}

static int new_packed(const am_model_pool *pool, packed *out)
{
    out->pool = pool;
    out->reals = am_new(slice_bytes(pool, pool->rank), 1, "a slice of a model");
    return out->reals == NULL ? AM_E_NOMEM : AM_OK;
}

/* Reals that this rank sends at most for one task: one whole trunk. */
static int make_buffers(am_model_pool *pool)
{
    int n = pool->suite->n, rc = AM_OK;
    pool->model = am_new(n, sizeof *pool->model, "slices");
    pool->model_source = am_new(n, sizeof *pool->model_source, "slices");
    pool->model_input = am_new(n, sizeof *pool->model_input, "slices");
    pool->outbox = am_new(pool->suite->trunk.n, (size_t)am_suite_real_bytes(pool->suite),
                          "the exchange of slices");
    if (!pool->model || !pool->model_source || !pool->model_input || !pool->outbox) {
        return AM_E_NOMEM;
    }
    AM_KEEP(new_packed(pool, &pool->base));
    AM_KEEP(new_packed(pool, &pool->merged));
    pool->base_source = source_over(pool, &pool->base, "base");
    pool->base_input = (am_merge_input){&pool->base_source, pool->identity};
    for (int i = 0; i < n; i++) {
        AM_KEEP(new_packed(pool, &pool->model[i]));
        pool->model_source[i] = source_over(pool, &pool->model[i], am_suite_task(pool->suite, i));
        pool->model_input[i] = (am_merge_input){&pool->model_source[i], pool->identity};
    }
    return rc;
}

int am_model_pool_create_all(const am_suite *suite, bool whole, am_model_pool **out)
{
    int rc = AM_OK;
    am_model_pool *pool = am_new(1, sizeof *pool, "the pool of models");
    rc = pool == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK) {
        pool->suite = suite;
    }
    AM_AGREE(suite->comm);
    MPI_Comm_size(suite->comm, &pool->size);
    MPI_Comm_rank(suite->comm, &pool->rank);
    AM_KEEP(make_slices(pool, whole));
    AM_KEEP(make_buffers(pool));
    AM_AGREE(suite->comm);
    *out = pool;
    return AM_OK;
cleanup:
    am_model_pool_free(&pool);
    return rc;
}

/* ---- exchange ---- */

/* Copy the spans of a rank's slice from a whole trunk into `to`. Returns the bytes copied. */
static int64_t pack(const am_model_pool *pool, int rank, const void *trunk, unsigned char *to)
{
    const am_suite *suite = pool->suite;
    const am_slice *slice = &pool->slice[rank];
    int64_t bytes = am_suite_real_bytes(suite), done = 0;
    for (int64_t s = 0; s < slice->n; s++) {
        const am_span *span = &slice->spans[s];
        const unsigned char *from =
            (const unsigned char *)trunk + (suite->trunk.offset[span->tensor] + span->lo) * bytes;
        int64_t length = (span->hi - span->lo) * bytes;
        memcpy(to + done, from, (size_t)length);
        done += length;
    }
    return done;
}

static void unpack(const am_model_pool *pool, int rank, const unsigned char *from, void *trunk)
{
    const am_suite *suite = pool->suite;
    const am_slice *slice = &pool->slice[rank];
    int64_t bytes = am_suite_real_bytes(suite), done = 0;
    for (int64_t s = 0; s < slice->n; s++) {
        const am_span *span = &slice->spans[s];
        int64_t length = (span->hi - span->lo) * bytes;
        memcpy((unsigned char *)trunk + (suite->trunk.offset[span->tensor] + span->lo) * bytes,
               from + done, (size_t)length);
        done += length;
    }
}

/* Which member of the group that owns a task sends the slice of rank r. */
static int sender_of(const am_model_pool *pool, int task, int r)
{
    int64_t lo, hi;
    am_part_range(pool->size, pool->suite->n_groups, pool->suite->owner[task], &lo, &hi);
    return (int)(lo + r % (hi - lo));
}

static int fill_task_all(am_model_pool *pool, int task, const void *trunk, int64_t *plan)
{
    int64_t *send = plan, *send_at = plan + pool->size;
    int64_t *receive = plan + 2 * pool->size, *receive_at = plan + 3 * pool->size;
    int64_t sent = 0;
    for (int r = 0; r < pool->size; r++) {
        send[r] = receive[r] = receive_at[r] = 0;
        send_at[r] = sent;
        if (sender_of(pool, task, r) == pool->rank) {
            send[r] = pack(pool, r, trunk, pool->outbox + sent);
            sent += send[r];
        }
    }
    receive[sender_of(pool, task, pool->rank)] = slice_bytes(pool, pool->rank);
    return am_exchange_all(pool->suite->comm, pool->outbox, send, send_at, pool->model[task].reals,
                           receive, receive_at);
}

int am_model_pool_fill_all(am_model_pool *pool, const void *base, void *const *trunks)
{
    int rc = AM_OK;
    int64_t *plan = am_new(4 * (int64_t)pool->size, sizeof *plan, "the exchange of slices");
    rc = plan == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(pool->suite->comm);
    pack(pool, pool->rank, base, pool->base.reals);
    for (int i = 0; i < pool->suite->n; i++) {
        AM_TRY(fill_task_all(pool, i, trunks[i], plan));
    }
cleanup:
    free(plan);
    return rc;
}

/* ---- merge and analysis ---- */

static int method_params(const am_method *method)
{
    int n = 0;
    while (method->params != NULL && method->params[n].key != NULL) {
        n++;
    }
    return n;
}

/* Repeat `n` values `times` times. */
static double *repeated(const double *values, int n, int64_t times)
{
    double *out = am_new(times * (n > 0 ? n : 1), sizeof *out, "merge parameters");
    for (int64_t i = 0; out != NULL && i < times; i++) {
        memcpy(out + i * n, values, (size_t)n * sizeof *out);
    }
    return out;
}

/* Bring the slices of all ranks together in a whole trunk. */
static int gather_trunk_all(am_model_pool *pool, void *trunk)
{
    int rc = AM_OK;
    int64_t total = pool->suite->trunk.n * am_suite_real_bytes(pool->suite), at_bytes = 0;
    int64_t *bytes = am_new(pool->size, sizeof *bytes, "gathering slices");
    int64_t *at = am_new(pool->size, sizeof *at, "gathering slices");
    unsigned char *all = am_new(total, 1, "gathering slices");
    rc = !bytes || !at || !all ? AM_E_NOMEM : AM_OK;
    AM_AGREE(pool->suite->comm);
    for (int r = 0; r < pool->size; r++) {
        bytes[r] = slice_bytes(pool, r);
        at[r] = at_bytes;
        at_bytes += bytes[r];
    }
    memcpy(all + at[pool->rank], pool->merged.reals, (size_t)bytes[pool->rank]);
    AM_TRY(am_gather_all(pool->suite->comm, all, bytes, at));
    for (int r = 0; r < pool->size; r++) {
        unpack(pool, r, all + at[r], trunk);
    }
cleanup:
    free(bytes);
    free(at);
    free(all);
    return rc;
}

int am_model_pool_merge_all(am_model_pool *pool, const am_pool_merge *how, void *merged)
{
    const am_method *method = how->method;
    int rc = AM_OK;
    int n_params = method_params(method);
    int64_t tensors = pool->suite->trunk.tensors.n;
    am_sink sink = {.self = &pool->merged,
                    .label = "merged model",
                    .tensors = &pool->suite->trunk.tensors,
                    .store = packed_store,
                    .store_raw = packed_store_raw};
    am_merge_result result = {0};
    double *params = repeated(how->param, n_params, tensors);
    double *model_params = repeated(how->model_param, n_params, tensors * pool->suite->n);
    bool *copy = am_new(tensors, sizeof *copy, "merge parameters");
    rc = !params || !model_params || !copy ? AM_E_NOMEM : AM_OK;
    AM_AGREE(pool->suite->comm);
    am_merge_job job = {.method = method,
                        .base = method->needs_base ? &pool->base_input : NULL,
                        .n_models = pool->suite->n,
                        .models = pool->model_input,
                        .sink = &sink,
                        .param = params,
                        .model_param = model_params,
                        .copy = copy,
                        .aux = method->needs_aux ? how->aux : NULL,
                        .gram = method->needs_gram ? how->gram : NULL,
                        .scope = how->scope,
                        .semantics = how->semantics,
                        .seed = how->seed,
                        .block = AM_CHUNK};
    AM_TRY(am_merge_run_all(pool->suite->comm, &job, &pool->slice[pool->rank], &result));
    AM_TRY(gather_trunk_all(pool, merged));
cleanup:
    free(params);
    free(model_params);
    free(copy);
    return rc;
}

int am_model_pool_gram_all(am_model_pool *pool, double *per_tensor, double *global)
{
    return am_gram_all(pool->suite->comm, &pool->suite->trunk.tensors, &pool->base_input,
                       pool->model_input, pool->suite->n, &pool->slice[pool->rank], per_tensor,
                       global);
}
