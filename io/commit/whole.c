/* Whole small checkpoints between memory and disk, for training jobs.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "io/dtype.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"

enum { LISTED = 20, STEP = 1 << 18 };

int am_ckpt_save_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                     const int64_t *offset, const void *params, const am_ckpt_options *options)
{
    int rc = 0, rank, size;
    am_ckpt_writer *writer = NULL;
    am_slice slice = {0};
    am_sink sink;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    AM_KEEP(am_slice_make(tensors, AM_BLOCK, size, rank, &slice));
    AM_AGREE(comm);
    AM_TRY(am_ckpt_create_all(comm, path, tensors, options, &writer));
    AM_KEEP(am_ckpt_sink(writer, &sink));
    for (int64_t i = 0; rc == 0 && i < slice.n; i++) {
        const am_span *s = &slice.spans[i];
        int64_t bytes = am_dtype_bytes(tensors->t[s->tensor].dtype);
        const char *from = (const char *)params + (offset[s->tensor] + s->lo) * bytes;
        rc = sink.store_raw(sink.self, s->tensor, s->lo, s->hi - s->lo, from);
    }
    rc = am_ckpt_publish_all(&writer, rc);
cleanup:
    am_slice_free(&slice);
    return rc;
}

/* ---- load ---- */

static bool same_shape(const am_tensor *a, const am_tensor *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

/* index[i]: tensor i of `wanted` in the file. All mismatches go into one message. */
static int match_tensors(const char *path, const am_tensor_table *wanted,
                         const am_tensor_table *found, int64_t *index)
{
    char text[AM_MESSAGE_BYTES];
    size_t at = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < wanted->n; i++) {
        const am_tensor *t = &wanted->t[i];
        index[i] = am_tensor_table_find(found, t->name);
        const am_tensor *f = index[i] >= 0 ? &found->t[index[i]] : NULL;
        const char *fault = f == NULL                      ? "missing"
                            : !same_shape(t, f)            ? "another shape"
                            : !am_dtype_is_float(f->dtype) ? "not a float"
                                                           : NULL;
        if (fault != NULL && count++ < LISTED && at < sizeof text) {
            at +=
                (size_t)snprintf(text + at, sizeof text - at, "; %.120s: %s (wanted %s%s%s)",
                                 t->name, fault, am_tensor_describe(t), f != NULL ? ", found " : "",
                                 f != NULL ? am_tensor_describe(f) : "");
        }
    }
    if (count == 0) {
        return 0;
    }
    return am_fail(AM_E_DATA, "%s does not fit the model, %lld of %lld tensors differ%s%s", path,
                   (long long)count, (long long)wanted->n, text,
                   count > LISTED ? "; and more" : "");
}

/* This rank's share of the parameters, packed in name order. */
static int load_slice(const am_source *source, const am_tensor_table *tensors, const int64_t *index,
                      const am_slice *slice, bool is_f64, char *packed, double *buffer)
{
    for (int64_t i = 0; i < slice->n; i++) {
        const am_span *s = &slice->spans[i];
        for (int64_t lo = s->lo; lo < s->hi; lo += STEP) {
            int64_t n = s->hi - lo < STEP ? s->hi - lo : STEP;
            int rc = source->load(source->self, index[s->tensor], lo, n, buffer);
            if (rc != 0) {
                return rc;
            }
            am_dtype to = tensors->t[s->tensor].dtype;
            am_dtype_from_f64(to, buffer, n, packed);
            packed += n * (is_f64 ? 8 : 4);
        }
    }
    return 0;
}

static void unpack(const am_tensor_table *tensors, const int64_t *offset, int64_t bytes,
                   const char *packed, void *params)
{
    for (int64_t i = 0; i < tensors->n; i++) {
        int64_t n = tensors->t[i].numel * bytes;
        if (n > 0) {
            memcpy((char *)params + offset[i] * bytes, packed, (size_t)n);
        }
        packed += n;
    }
}

int am_ckpt_load_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                     const int64_t *offset, void *params)
{
    int rc = 0, rank, size;
    am_ckpt *ckpt = NULL;
    am_source source = {0};
    am_slice slice = {0};
    char *packed = NULL;
    double *buffer = NULL;
    int64_t *index = NULL, *bytes_of = NULL, *at = NULL, own = 0;
    bool is_f64 = tensors->n > 0 && tensors->t[0].dtype == AM_DTYPE_F64;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    AM_TRY(am_ckpt_open_all(comm, path, &ckpt));
    index = am_new(tensors->n + 1, sizeof *index, path);
    bytes_of = am_new(size, sizeof *bytes_of, path);
    at = am_new(size + 1, sizeof *at, path);
    packed = am_new(am_tensor_table_bytes(tensors) + 1, 1, path);
    buffer = am_new(STEP, sizeof *buffer, path);
    bool have = index && bytes_of && at && packed && buffer;
    AM_KEEP(have ? 0 : AM_E_NOMEM);
    AM_KEEP(match_tensors(path, tensors, am_ckpt_tensors(ckpt), index));
    AM_KEEP(am_ckpt_source(ckpt, 0, &source));
    for (int r = 0; rc == 0 && r < size; r++) {
        AM_KEEP(am_slice_make(tensors, AM_CHUNK, size, r, &slice));
        bytes_of[r] = slice.bytes;
        at[r + 1] = at[r] + slice.bytes;
        am_slice_free(&slice);
    }
    own = rc == 0 ? at[rank] : 0;
    AM_KEEP(am_slice_make(tensors, AM_CHUNK, size, rank, &slice));
    AM_KEEP(load_slice(&source, tensors, index, &slice, is_f64, packed + own, buffer));
    AM_AGREE(comm);
    AM_TRY(am_gather_all(comm, packed, bytes_of, at));
    unpack(tensors, offset, is_f64 ? 8 : 4, packed, params);
cleanup:
    free(index);
    free(bytes_of);
    free(at);
    free(packed);
    free(buffer);
    am_slice_free(&slice);
    am_ckpt_close(&ckpt);
    return rc;
}
