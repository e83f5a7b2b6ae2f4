/* See elements.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/extract/elements.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/progress.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum {
    HIGH_BINS = 1 << 16,                        /* of the upper bits of a key */
    LOW_BITS = 15,                              /* a key is |difference| as f32: 31 bits */
    BLOCK_SCALES = AM_BLOCK / AM_TV_DENSE_BLOCK /* of the blocks of a dense tensor */
};

int am_elements_create(am_elements *elements)
{
    am_elements *x = elements;
    x->rank = am_world_rank();
    x->size = am_world_size();
    x->delta = am_new(AM_CHUNK, sizeof *x->delta, "differences");
    x->other = am_new(AM_CHUNK, sizeof *x->other, "differences");
    x->error = am_new(AM_CHUNK, sizeof *x->error, "differences");
    x->raw = am_new(AM_CHUNK, sizeof(double), "differences");
    x->index = am_new(AM_CHUNK, sizeof *x->index, "differences");
    x->scale = am_new(BLOCK_SCALES, sizeof *x->scale, "scales");
    x->bins = am_new(HIGH_BINS, sizeof *x->bins, "a histogram");
    return x->delta != NULL && x->other != NULL && x->error != NULL && x->raw != NULL &&
                   x->index != NULL && x->scale != NULL && x->bins != NULL
               ? 0
               : AM_E_NOMEM;
}

void am_elements_free(am_elements *elements)
{
    free(elements->delta);
    free(elements->other);
    free(elements->error);
    free(elements->raw);
    free(elements->index);
    free(elements->scale);
    free(elements->bins);
}

/* ---- differences ---- */

static int64_t chunk_size(const am_elements *x, int64_t lo)
{
    return x->hi - lo < AM_CHUNK ? x->hi - lo : AM_CHUNK;
}

static int check_finite(const am_elements *x, int64_t lo, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x->delta[i])) {
            return am_fail(AM_E_DATA, "tensor '%s': element %" PRId64 ": %s - %s is not finite",
                           x->base->tensors->t[x->tensor].name, lo + i, x->model->label,
                           x->base->label);
        }
    }
    return 0;
}

static int load_delta(am_elements *x, int64_t lo, int64_t n)
{
    int rc = x->base->load(x->base->self, x->tensor, lo, n, x->other);
    AM_KEEP(x->model->load(x->model->self, x->tensor, lo, n, x->delta));
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        x->delta[i] -= x->other[i];
    }
    am_alive("extract");
    return rc != 0 ? rc : check_finite(x, lo, n);
}

static uint32_t key_of(double delta)
{
    const float magnitude = (float)fabs(delta);
    uint32_t key;
    memcpy(&key, &magnitude, sizeof key);
    return key;
}

/* ---- the largest k of a tensor, exactly; ties by position ---- */

/* Histogram of one part of the keys: of the upper bits of all, or of the lower bits of those whose
 * upper bits are `high`. */
static int count_keys(am_elements *x, int64_t high)
{
    int rc = 0;
    memset(x->bins, 0, HIGH_BINS * sizeof *x->bins);
    for (int64_t lo = x->lo; rc == 0 && lo < x->hi; lo += AM_CHUNK) {
        const int64_t n = chunk_size(x, lo);
        rc = load_delta(x, lo, n);
        for (int64_t i = 0; rc == 0 && i < n; i++) {
            const uint32_t key = key_of(x->delta[i]);
            if (high < 0) {
                x->bins[key >> LOW_BITS]++;
            } else if (key >> LOW_BITS == (uint32_t)high) {
                x->bins[key & ((1u << LOW_BITS) - 1)]++;
            }
        }
    }
    return rc;
}

/* The bin in which the *k-th largest lies; *k: its number within the bin, from 1. */
static int64_t find_bin(const int64_t *bins, int64_t *k)
{
    int64_t b = HIGH_BINS - 1;
    while (b > 0 && bins[b] < *k) {
        *k -= bins[b--];
    }
    return b;
}

static int find_threshold_all(MPI_Comm comm, am_elements *x)
{
    int64_t k = am_tv_kept(x->base->tensors->t[x->tensor].numel, x->density), high = -1, low = 0;
    int rc = 0;
    for (int pass = 0; pass < 2; pass++) {
        rc = count_keys(x, high);
        AM_AGREE(comm);
        AM_TRY(am_sum_i64_all(comm, x->bins, HIGH_BINS));
        *(pass == 0 ? &high : &low) = find_bin(x->bins, &k);
    }
    x->threshold = (uint32_t)(high << LOW_BITS | low);
    x->ties = k;
cleanup:
    return rc;
}

static int count_chunks(am_elements *x, int64_t chunks)
{
    int rc = 0;
    for (int64_t lo = x->lo; rc == 0 && lo < x->hi; lo += AM_CHUNK) {
        const int64_t n = chunk_size(x, lo), c = lo / AM_CHUNK;
        rc = load_delta(x, lo, n);
        for (int64_t i = 0; rc == 0 && i < n; i++) {
            const uint32_t key = key_of(x->delta[i]);
            x->count[c] += key > x->threshold;
            x->count[chunks + c] += key == x->threshold;
        }
    }
    return rc;
}

/* Which elements stay: threshold, and how many ties of each chunk; where each chunk's entries are.
 */
static int trim_all(MPI_Comm comm, am_elements *x)
{
    const int64_t chunks = am_part_units(x->base->tensors->t[x->tensor].numel, AM_CHUNK);
    int rc = 0;
    x->count = am_new(2 * chunks + 1, sizeof *x->count, "counts of chunks");
    x->start = am_new(chunks + 1, sizeof *x->start, "counts of chunks");
    AM_KEEP(x->count != NULL && x->start != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(find_threshold_all(comm, x));
    rc = count_chunks(x, chunks);
    AM_AGREE(comm);
    AM_TRY(am_sum_i64_all(comm, x->count, 2 * chunks));
    int64_t ties = x->ties;
    for (int64_t c = 0; c < chunks; c++) {
        int64_t *equal = &x->count[chunks + c];
        *equal = *equal < ties ? *equal : ties; /* from here on: how many of them are kept */
        ties -= *equal;
        x->start[c + 1] = x->start[c] + x->count[c] + *equal;
    }
cleanup:
    return rc;
}

/* Differences of a chunk that are cut off become 0; index[] of the others. Returns how many. */
static int64_t keep_largest(am_elements *x, int64_t chunk, int64_t n)
{
    const int64_t chunks = am_part_units(x->base->tensors->t[x->tensor].numel, AM_CHUNK);
    int64_t ties = x->is_trimmed ? x->count[chunks + chunk] : 0, kept = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = key_of(x->delta[i]);
        const bool is_tie = x->is_trimmed && key == x->threshold;
        if (x->is_trimmed && (key < x->threshold || (is_tie && ties == 0))) {
            x->delta[i] = 0;
        } else {
            ties -= is_tie;
            x->index[kept++] = (uint16_t)i;
        }
    }
    return kept;
}

/* ---- rounding ---- */

/* delta[n] to int8 and back; other[n] is what a reader will see. */
static int quantise(am_elements *x, int64_t lo, int64_t n, float *scale)
{
    const int64_t block = x->form[x->tensor].block;
    int8_t *q = (int8_t *)x->raw;
    for (int64_t at = 0; at < n; at += block) {
        const int64_t end = at + block < n ? at + block : n;
        double largest = 0;
        for (int64_t i = at; i < end; i++) {
            largest = fmax(largest, fabs(x->delta[i]));
        }
        const float s = am_tv_scale(largest);
        scale[at / block] = s;
        if (!isfinite(s)) {
            return am_fail(AM_E_NUMERIC, "tensor '%s': element %" PRId64 ": too large for int8",
                           x->base->tensors->t[x->tensor].name, lo + at);
        }
        for (int64_t i = at; i < end; i++) {
            q[i] = s > 0 ? (int8_t)rint(x->delta[i] / (double)s) : 0; /* nearest even */
            x->other[i] = (double)s * q[i];
        }
    }
    return 0;
}

static int round_chunk(am_elements *x, int64_t lo, int64_t n)
{
    const am_dtype dtype = x->form[x->tensor].dtype;
    am_dtype_from_f64(dtype, x->delta, n, x->raw);
    am_dtype_to_f64(dtype, x->raw, n, x->other);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x->other[i])) {
            return am_fail(AM_E_NUMERIC,
                           "tensor '%s': element %" PRId64 ": the difference %g is too large for "
                           "%s; choose a wider --dtype",
                           x->base->tensors->t[x->tensor].name, lo + i, x->delta[i],
                           am_dtype_name(dtype));
        }
    }
    return 0;
}

static void tally_chunk(am_elements *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x->error[i] = x->delta[i] - x->other[i];
    }
    am_tally_add(&x->one, x->delta, x->error, n);
}

/* ---- writing ---- */

static int store(am_elements *x, int64_t part, int64_t lo, int64_t n, const void *data)
{
    return n > 0 ? x->sink.store_raw(x->sink.self, part, lo, n, data) : 0;
}

/* Entries of a chunk: gather the values in place, which are at least as far along as their number.
 */
static int store_sparse(am_elements *x, int64_t lo, int64_t kept)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const int64_t bytes = am_dtype_bytes(form->dtype), at = x->start[lo / AM_CHUNK];
    for (int64_t e = 0; e < kept; e++) {
        memmove(x->raw + e * bytes, x->raw + x->index[e] * bytes, (size_t)bytes);
    }
    int rc = store(x, form->index, at, kept, x->index);
    AM_KEEP(store(x, form->value, at, kept, x->raw));
    return rc;
}

static int write_chunk(am_elements *x, int64_t lo, float *scale)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const int64_t n = chunk_size(x, lo);
    int rc = load_delta(x, lo, n);
    if (rc != 0) {
        return rc;
    }
    am_dot_chunk(x->delta, x->delta, n, &x->one.all);
    const int64_t kept = keep_largest(x, lo / AM_CHUNK, n);
    rc = form->dtype == AM_DTYPE_I8 ? quantise(x, lo, n, scale) : round_chunk(x, lo, n);
    if (rc != 0) {
        return rc;
    }
    tally_chunk(x, n);
    return form->is_sparse ? store_sparse(x, lo, kept) : store(x, form->value, lo, n, x->raw);
}

/* This rank's blocks; the scales of a block follow it, so that its bytes are written in one run. */
static int write_blocks(am_elements *x)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    int rc = 0;
    for (int64_t lo = x->lo; rc == 0 && lo < x->hi; lo += AM_BLOCK) {
        const int64_t end = x->hi - lo < AM_BLOCK ? x->hi : lo + AM_BLOCK;
        for (int64_t at = lo; rc == 0 && at < end; at += AM_CHUNK) {
            rc = write_chunk(x, at, x->scale + (at - lo) / form->block);
        }
        if (form->scale >= 0) {
            AM_KEEP(store(x, form->scale, lo / form->block,
                          (end - lo + form->block - 1) / form->block, x->scale));
        }
        AM_KEEP(x->sink.flush(x->sink.self));
    }
    return rc;
}

/* What one rank writes for all. */
static int write_tables(am_elements *x)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const am_tensor *t = &x->base->tensors->t[x->tensor];
    int rc = 0;
    if (form->is_sparse && x->lo == 0 && x->hi > 0) {
        rc = store(x, form->shape, 0, t->ndim, t->shape);
        AM_KEEP(store(x, form->start, 0, am_part_units(t->numel, AM_CHUNK) + 1, x->start));
        AM_KEEP(x->sink.flush(x->sink.self));
    }
    return rc;
}

/* ---- one tensor ---- */

int am_elements_write_all(MPI_Comm comm, am_elements *elements, int64_t tensor, am_loss *loss)
{
    am_elements *x = elements;
    const am_tensor *t = &x->base->tensors->t[tensor];
    int64_t lo = 0, hi = 0;
    int rc = 0;
    x->tensor = tensor;
    /* Blocks by turns from tensor to tensor, so that small ones do not all fall on one rank. */
    am_part_range(am_part_units(t->numel, AM_BLOCK), x->size,
                  (x->rank + x->tensor % x->size) % x->size, &lo, &hi);
    x->lo = lo * AM_BLOCK;
    x->hi = hi * AM_BLOCK < t->numel ? hi * AM_BLOCK : t->numel;
    x->hi = x->hi > x->lo ? x->hi : x->lo;
    x->is_trimmed = am_tv_kept(t->numel, x->density) < t->numel;
    x->one = (am_tally){.largest = 0};
    if (x->is_trimmed) {
        AM_TRY(trim_all(comm, x));
    }
    rc = write_blocks(x);
    AM_KEEP(write_tables(x));
    AM_TRY(am_agree_step_all(comm, rc));
    AM_TRY(am_tally_all(comm, &x->one, loss));
cleanup:
    free(x->count);
    free(x->start);
    x->count = x->start = NULL;
    return rc;
}
