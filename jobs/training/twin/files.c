/* Twins and router on disk: see twin.h. SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/twin/origin.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"

/* ---- the tensors of a twin ---- */

/* Where a tensor of the file lies in a twin's values or indices. */
typedef struct place {
    int64_t form, at;
    bool is_index;
} place;

typedef struct twin_table {
    am_tensor_table tensors; /* owned */
    place *place;            /* [tensors.n] owned */
} twin_table;

static void table_free(twin_table *table)
{
    am_tensor_table_free(&table->tensors);
    free(table->place);
    *table = (twin_table){0};
}

/* A part of tensor k: added to the table, or once that is sorted, its place noted. */
static int put(const am_twins *twins, twin_table *table, int64_t k, const char *suffix,
               am_dtype dtype, int ndim, const int64_t *shape, int64_t at)
{
    char name[AM_MAX_NAME];
    const char *tensor = twins->suite->trunk.tensors.t[k].name;
    if (snprintf(name, sizeof name, "%s%s", tensor, suffix) >= (int)sizeof name) {
        return am_fail(AM_E_DATA, "the name of tensor %.100s... is too long", tensor);
    }
    if (table->place == NULL) {
        return am_tensor_table_add(&table->tensors, name, dtype, ndim, shape);
    }
    table->place[am_tensor_table_find(&table->tensors, name)] =
        (place){.form = k, .at = at, .is_index = !am_dtype_is_float(dtype)};
    return AM_OK;
}

static int put_tensors(const am_twins *twins, twin_table *table)
{
    const am_dtype real = twins->suite->ops->dtype;
    int rc = AM_OK;
    for (int64_t k = 0; rc == AM_OK && k < twins->layout.n; k++) {
        const am_twin_form *f = &twins->layout.form[k];
        const am_tensor *t = &twins->suite->trunk.tensors.t[k];
        const int64_t r = f->kept, u[] = {f->m, r}, vt[] = {r, f->n};
        if (f->way == AM_TWIN_SVD) {
            AM_KEEP(put(twins, table, k, ".u", real, 2, u, f->value));
            AM_KEEP(put(twins, table, k, ".s", real, 1, &r, f->value + f->m * r));
            AM_KEEP(put(twins, table, k, ".vt", real, 2, vt, f->value + f->m * r + r));
        } else if (f->way == AM_TWIN_MAGNITUDE) {
            AM_KEEP(put(twins, table, k, ".value", real, 1, &r, f->value));
            AM_KEEP(put(twins, table, k, ".index", AM_DTYPE_I64, 1, &r, f->index));
        } else {
            AM_KEEP(put(twins, table, k, "", real, t->ndim, t->shape, f->value));
        }
    }
    return rc;
}

static int table_make(const am_twins *twins, twin_table *out)
{
    *out = (twin_table){0};
    int rc = put_tensors(twins, out);
    AM_KEEP(am_tensor_table_finish(&out->tensors));
    if (rc == AM_OK) {
        out->place = am_new(out->tensors.n + 1, sizeof *out->place, "a twin");
        rc = out->place == NULL ? AM_E_NOMEM : put_tensors(twins, out);
    }
    return rc;
}

/* ---- a twin ---- */

int am_twins_save_all(const am_twins *twins, int task, const char *path,
                      const am_ckpt_options *options)
{
    MPI_Comm comm = twins->suite->comm;
    twin_table table = {0};
    am_ckpt_writer *writer = NULL;
    am_slice slice = {0};
    am_sink sink = {0};
    int rank, size, rc;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    rc = table_make(twins, &table);
    AM_KEEP(am_slice_make(&table.tensors, AM_BLOCK, size, rank, &slice));
    AM_AGREE(comm);
    AM_TRY(am_ckpt_create_all(comm, path, &table.tensors, options, &writer));
    rc = am_ckpt_sink(writer, &sink);
    for (int64_t i = 0; rc == AM_OK && i < slice.n; i++) {
        const am_span *s = &slice.spans[i];
        const place *p = &table.place[s->tensor];
        rc = p->is_index ? sink.store_raw(sink.self, s->tensor, s->lo, s->hi - s->lo,
                                          twins->index[task] + p->at + s->lo)
                         : sink.store(sink.self, s->tensor, s->lo, s->hi - s->lo,
                                      twins->value[task] + p->at + s->lo);
    }
    rc = am_ckpt_publish_all(&writer, rc);
cleanup:
    am_slice_free(&slice);
    table_free(&table);
    return rc;
}

static int fail_form(const am_twins *twins, const char *path, const char *tensor, const char *fault)
{
    static const char *const ways[] = {"svd", "magnitude", "none"};
    return am_fail(AM_E_DATA,
                   "%s: tensor %s %s: a twin of this model with twin.compress %s and twin.density "
                   "%g is wanted, take the recipe that made it",
                   path, tensor, fault, ways[twins->section->compress], twins->section->density);
}

static int check_index(const am_twin_form *f, const int64_t *index, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (index[i] < 0 || index[i] >= f->m * f->n || (i > 0 && index[i] <= index[i - 1])) {
            return AM_E_DATA;
        }
    }
    return AM_OK;
}

static int check_finite(const double *value, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(value[i])) {
            return AM_E_DATA;
        }
    }
    return AM_OK;
}

static int load_tensor(am_twins *twins, int task, const am_source *source, const am_tensor *wanted,
                       const place *p)
{
    const int64_t at = am_tensor_table_find(source->tensors, wanted->name);
    const am_tensor *found = at >= 0 ? &source->tensors->t[at] : NULL;
    const am_twin_form *f = &twins->layout.form[p->form];
    int rc = AM_OK;
    if (found == NULL) {
        return fail_form(twins, source->label, wanted->name, "is missing");
    }
    if (found->ndim != wanted->ndim || found->dtype != wanted->dtype ||
        memcmp(found->shape, wanted->shape, (size_t)found->ndim * sizeof *found->shape) != 0) {
        return fail_form(twins, source->label, wanted->name, "has another shape or type");
    }
    if (p->is_index) {
        int64_t *index = twins->index[task] + p->at;
        rc = source->load_raw(source->self, at, 0, wanted->numel, index);
        if (rc == AM_OK && check_index(f, index, wanted->numel) != AM_OK) {
            rc = fail_form(twins, source->label, wanted->name, "has indices that do not rise");
        }
        return rc;
    }
    double *value = twins->value[task] + p->at;
    rc = source->load(source->self, at, 0, wanted->numel, value);
    if (rc == AM_OK && check_finite(value, wanted->numel) != AM_OK) {
        rc = fail_form(twins, source->label, wanted->name, "holds NaN or infinity");
    }
    return rc;
}

int am_twins_load_all(am_twins *twins, int task, const char *path)
{
    MPI_Comm comm = twins->suite->comm;
    twin_table table = {0};
    am_ckpt *ckpt = NULL;
    am_source source = {0};
    int rank, rc;
    MPI_Comm_rank(comm, &rank);
    rc = table_make(twins, &table);
    AM_AGREE(comm);
    AM_TRY(am_ckpt_open_all(comm, path, &ckpt));
    AM_TRY(am_twin_check_shared(twins, ckpt)); /* the same on all ranks */
    if (rank == 0) {                           /* compressed: read once, and sent */
        rc = am_ckpt_source(ckpt, 0, &source);
        for (int64_t i = 0; rc == AM_OK && i < table.tensors.n; i++) {
            rc = load_tensor(twins, task, &source, &table.tensors.t[i], &table.place[i]);
        }
    }
    AM_AGREE(comm);
    AM_TRY(
        am_bcast_all(comm, 0, twins->value[task], twins->layout.values * (int64_t)sizeof(double)));
    AM_TRY(am_bcast_all(comm, 0, twins->index[task],
                        twins->layout.indices * (int64_t)sizeof(int64_t)));
cleanup:
    am_ckpt_close(&ckpt);
    table_free(&table);
    return rc;
}

/* ---- the router ---- */

/* All tensors of the router, f64, end to end in one block. */
typedef struct router_block {
    am_tensor_table tensors;
    int64_t *offset;
    double *value;
} router_block;

static void block_free(router_block *block)
{
    am_tensor_table_free(&block->tensors);
    free(block->offset);
    free(block->value);
    *block = (router_block){0};
}

static const am_param_layout *part_of(const am_router *router, int part)
{
    return part == 0 ? &router->trunk : &router->head;
}

static int block_make(const am_router *router, router_block *out)
{
    const int64_t C = router->net.features;
    int rc = AM_OK;
    for (int part = 0; part < 2; part++) {
        const am_tensor_table *t = &part_of(router, part)->tensors;
        for (int64_t k = 0; rc == AM_OK && k < t->n; k++) {
            rc = am_tensor_table_add(&out->tensors, t->t[k].name, AM_DTYPE_F64, t->t[k].ndim,
                                     t->t[k].shape);
        }
    }
    AM_KEEP(am_tensor_table_add(&out->tensors, "mean", AM_DTYPE_F64, 1, &C));
    AM_KEEP(am_tensor_table_add(&out->tensors, "scale", AM_DTYPE_F64, 1, &C));
    AM_KEEP(am_tensor_table_finish(&out->tensors));
    if (rc == AM_OK) {
        out->offset = am_new(out->tensors.n, sizeof *out->offset, "the router");
        out->value = am_new(am_tensor_table_numel(&out->tensors), sizeof *out->value, "the router");
        rc = out->offset == NULL || out->value == NULL ? AM_E_NOMEM : AM_OK;
    }
    for (int64_t k = 0, at = 0; rc == AM_OK && k < out->tensors.n; k++) {
        out->offset[k] = at;
        at += out->tensors.t[k].numel;
    }
    return rc;
}

/* Values of one tensor of the block. */
static double *value_of(const router_block *block, const char *name)
{
    return block->value + block->offset[am_tensor_table_find(&block->tensors, name)];
}

static void block_copy(const am_twins *twins, router_block *block, bool into_router)
{
    const am_router *router = &twins->router;
    const bool is_f64 = twins->suite->ops->dtype == AM_DTYPE_F64;
    const size_t moments = (size_t)router->net.features * sizeof(double);
    double *mean = value_of(block, "mean"), *scale = value_of(block, "scale");
    for (int part = 0; part < 2; part++) {
        const am_param_layout *layout = part_of(router, part);
        void *params = part == 0 ? router->trunk_params : router->head_params;
        for (int64_t k = 0; k < layout->tensors.n; k++) {
            double *there = value_of(block, layout->tensors.t[k].name);
            for (int64_t i = 0; i < layout->tensors.t[k].numel; i++) {
                const int64_t at = layout->offset[k] + i;
                if (into_router && is_f64) {
                    ((double *)params)[at] = there[i];
                } else if (into_router) {
                    ((float *)params)[at] = (float)there[i];
                } else {
                    there[i] = is_f64 ? ((double *)params)[at] : (double)((float *)params)[at];
                }
            }
        }
    }
    memcpy(into_router ? router->mean : mean, into_router ? mean : router->mean, moments);
    memcpy(into_router ? router->scale : scale, into_router ? scale : router->scale, moments);
}

int am_router_save_all(const am_twins *twins, const char *path, const am_ckpt_options *options)
{
    router_block block = {0};
    int rc = block_make(&twins->router, &block);
    AM_AGREE(twins->suite->comm);
    block_copy(twins, &block, false);
    AM_TRY(am_ckpt_save_all(twins->suite->comm, path, &block.tensors, block.offset, block.value,
                            options));
cleanup:
    block_free(&block);
    return rc;
}

int am_router_load_all(am_twins *twins, const char *path)
{
    router_block block = {0};
    am_ckpt *ckpt = NULL;
    int rc = block_make(&twins->router, &block);
    AM_AGREE(twins->suite->comm);
    AM_TRY(am_ckpt_open_all(twins->suite->comm, path, &ckpt));
    rc = am_router_check(twins, ckpt);
    AM_AGREE(twins->suite->comm);
    AM_TRY(am_ckpt_load_all(twins->suite->comm, path, &block.tensors, block.offset, block.value));
    if (check_finite(block.value, am_tensor_table_numel(&block.tensors)) != AM_OK) {
        rc = am_fail(AM_E_DATA, "%s: the router holds NaN or infinity", path);
        goto cleanup; /* every rank has read the same values */
    }
    block_copy(twins, &block, true);
cleanup:
    am_ckpt_close(&ckpt);
    block_free(&block);
    return rc;
}
