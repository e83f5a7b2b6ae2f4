/* Saved training: see snapshot.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/checkpoint/view.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"

/* ---- tables ---- */

static int value_name(const am_snapshot_part *part, int64_t tensor, char out[AM_MAX_NAME])
{
    const char *name = part->layout->tensors.t[tensor].name;
    return snprintf(out, AM_MAX_NAME, "%s.%s::value", part->name, name) < AM_MAX_NAME
               ? AM_OK
               : am_fail(AM_E_DATA, "the name %s of %s is too long", name, part->name);
}

static int add_part(am_snapshot_part *part, am_tensor_table *all)
{
    const am_tensor_table *tensors = &part->layout->tensors;
    char name[AM_MAX_NAME];
    int rc = AM_OK;
    for (int64_t i = 0; rc == AM_OK && i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        rc = value_name(part, i, name);
        AM_KEEP(am_tensor_table_add(&part->values, name, t->dtype, t->ndim, t->shape));
        AM_KEEP(am_tensor_table_add(all, name, t->dtype, t->ndim, t->shape));
    }
    AM_KEEP(am_tensor_table_finish(&part->values));
    part->offset = am_new(tensors->n + 1, sizeof *part->offset, "saved training");
    AM_KEEP(part->offset == NULL ? AM_E_NOMEM : AM_OK);
    for (int64_t i = 0; rc == AM_OK && i < tensors->n; i++) {
        rc = value_name(part, i, name);
        part->offset[am_tensor_table_find(&part->values, name)] = part->layout->home[i];
    }
    return rc;
}

int am_snapshot_make(MPI_Comm comm, am_train_state *state, int n, const am_snapshot_part *parts,
                     am_snapshot *out)
{
    *out = (am_snapshot){.comm = comm, .state = state, .n = n};
    out->part = am_new(n, sizeof *out->part, "saved training");
    int rc = out->part == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; rc == AM_OK && i < n; i++) {
        out->part[i] = (am_snapshot_part){
            .name = parts[i].name, .layout = parts[i].layout, .params = parts[i].params};
        rc = add_part(&out->part[i], &out->all);
    }
    const am_tensor_table *of_state = state != NULL ? am_train_state_tensors(state) : NULL;
    for (int64_t i = 0; rc == AM_OK && of_state != NULL && i < of_state->n; i++) {
        const am_tensor *t = &of_state->t[i];
        rc = am_tensor_table_add(&out->all, t->name, t->dtype, t->ndim, t->shape);
    }
    AM_KEEP(am_tensor_table_finish(&out->all));
    return rc;
}

void am_snapshot_free(am_snapshot *snapshot)
{
    for (int i = 0; snapshot->part != NULL && i < snapshot->n; i++) {
        am_tensor_table_free(&snapshot->part[i].values);
        free(snapshot->part[i].offset);
    }
    free(snapshot->part);
    am_tensor_table_free(&snapshot->all);
    *snapshot = (am_snapshot){0};
}

/* ---- saving ---- */

/* This rank's share of a part. */
static int store_part(const am_snapshot *s, const am_snapshot_part *part, const am_sink *sink)
{
    am_slice slice = {0};
    int rank, size;
    MPI_Comm_rank(s->comm, &rank);
    MPI_Comm_size(s->comm, &size);
    int rc = am_slice_make(&part->values, AM_CHUNK, size, rank, &slice);
    for (int64_t i = 0; rc == AM_OK && i < slice.n; i++) {
        const am_span *span = &slice.spans[i];
        const am_tensor *t = &part->values.t[span->tensor];
        const char *from = (const char *)part->params +
                           (part->offset[span->tensor] + span->lo) * am_dtype_bytes(t->dtype);
        rc = sink->store_raw(sink->self, am_tensor_table_find(&s->all, t->name), span->lo,
                             span->hi - span->lo, from);
    }
    am_slice_free(&slice);
    return rc;
}

static int store_state_all(const am_snapshot *s, const am_sink *sink)
{
    const am_tensor_table *state = am_train_state_tensors(s->state);
    am_sink part = {0};
    am_view_place *place = am_new(state->n + 1, sizeof *place, "saved training");
    int rc = place == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(s->comm);
    for (int64_t i = 0; i < state->n; i++) {
        place[i] = (am_view_place){.tensor = am_tensor_table_find(&s->all, state->t[i].name)};
    }
    const am_sink_view view = {.sink = sink, .place = place};
    am_sink_view_make(&view, state, &part);
    rc = am_train_state_store_all(s->state, &part);
cleanup:
    free(place);
    return rc;
}

int am_snapshot_save_all(const am_snapshot *s, const char *path, const am_meta *meta)
{
    const am_ckpt_options options = {.overwrite = true, .meta = meta};
    am_ckpt_writer *writer = NULL;
    am_sink sink = {0};
    int rc = AM_OK;
    AM_TRY(am_ckpt_create_all(s->comm, path, &s->all, &options, &writer));
    rc = am_ckpt_sink(writer, &sink);
    for (int i = 0; i < s->n; i++) {
        AM_KEEP(store_part(s, &s->part[i], &sink));
    }
    rc = am_agree_all(s->comm, rc);
    if (rc == AM_OK && s->state != NULL) {
        rc = store_state_all(s, &sink);
    }
    rc = am_ckpt_publish_all(&writer, rc);
cleanup:
    return rc;
}

/* ---- reading ---- */

int am_snapshot_load_all(const am_snapshot *s, const char *path)
{
    am_ckpt *ckpt = NULL;
    am_source source = {0};
    int rc = AM_OK;
    for (int i = 0; i < s->n; i++) {
        const am_snapshot_part *part = &s->part[i];
        AM_TRY(am_ckpt_load_all(s->comm, path, &part->values, part->offset, part->params));
    }
    if (s->state != NULL) {
        AM_TRY(am_ckpt_open_all(s->comm, path, &ckpt));
        rc = am_ckpt_source(ckpt, 0, &source);
        AM_KEEP(am_train_state_load(s->state, &source));
        AM_AGREE(s->comm);
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

/* ---- numbers ---- */

int am_snapshot_set(am_meta *meta, const char *key, int64_t value)
{
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, value);
    return am_meta_set(meta, key, number);
}

int64_t am_snapshot_get(const am_meta *meta, const char *key)
{
    const char *text = am_meta_get(meta, key);
    return text != NULL ? strtoll(text, NULL, 10) : 0;
}
