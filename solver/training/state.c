/* The state of a training run: arrays, saving, restoring. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/partition.h"

static const char position_name[] = "::position", loss_name[] = "::loss";

/* The integers of a saved position: these, then steps and has_master of each segment. */
enum { POSITION = 5, LOSS = AM_EXACT_LIMBS + 4 };

void am_train_state_slice(const am_train_state *state, int rank, int64_t *lo, int64_t *hi)
{
    *lo = 0;
    *hi = state->reals;
    if (state->is_sharded) {
        am_tree_part(state->reals, state->size, rank, lo, hi);
    }
}

void am_train_state_held(const am_train_state *state, int segment, int rank, int64_t *lo,
                         int64_t *hi)
{
    const am_train_segment *s = &state->segment[segment];
    const int64_t n = s->layout.n;
    am_train_state_slice(state, rank, lo, hi);
    *lo = *lo < s->at ? 0 : *lo - s->at < n ? *lo - s->at : n;
    *hi = *hi < s->at ? 0 : *hi - s->at < n ? *hi - s->at : n;
}

/* ---- make ---- */

static int name_of(const am_train_state *state, const am_train_segment *s, int64_t k, int array,
                   char *out, size_t bytes)
{
    const int length = snprintf(out, bytes, "%s.%s::%s", s->name, s->layout.tensors.t[k].name,
                                state->array_name[array]);
    return length < (int)bytes ? 0 : am_fail(AM_E_DATA, "the task name %s is too long", s->name);
}

static int list_tensors(am_train_state *state)
{
    char name[AM_MAX_NAME];
    int rc = 0;
    for (int i = 0; i < state->n; i++) {
        const am_train_segment *s = &state->segment[i];
        for (int64_t k = 0; k < s->layout.tensors.n * state->arrays; k++) {
            const am_tensor *t = &s->layout.tensors.t[k / state->arrays];
            AM_TRY(
                name_of(state, s, k / state->arrays, (int)(k % state->arrays), name, sizeof name));
            AM_TRY(am_tensor_table_add(&state->tensors, name, t->dtype, t->ndim, t->shape));
        }
    }
    const int64_t integers = POSITION + 2 * (int64_t)state->n;
    AM_TRY(am_tensor_table_add(&state->tensors, position_name, AM_DTYPE_I64, 1, &integers));
    AM_TRY(am_tensor_table_add(&state->tensors, loss_name, AM_DTYPE_I64, 1, (int64_t[]){LOSS}));
    AM_TRY(am_tensor_table_finish(&state->tensors));
cleanup:
    return rc;
}

static size_t array_bytes(const am_train_state *state, const am_train_segment *s)
{
    return (size_t)((s->hi - s->lo) * state->bytes_per_real);
}

static int make_arrays(am_train_state *state)
{
    size_t need = 0;
    for (int i = 0; i < state->n; i++) {
        am_train_segment *s = &state->segment[i];
        am_train_state_held(state, i, state->rank, &s->lo, &s->hi);
        need += (size_t)state->arrays * am_arena_need(array_bytes(state, s));
    }
    const int rc = am_arena_create(&state->arena, need, "the state of the optimiser");
    for (int i = 0; rc == 0 && i < state->n * state->arrays; i++) {
        am_train_segment *s = &state->segment[i / state->arrays];
        s->array[i % state->arrays] = am_arena_take(&state->arena, array_bytes(state, s));
    }
    return rc;
}

int am_train_state_make(MPI_Comm comm, int bytes_per_real, bool is_sharded, int n,
                        am_train_segment *segment, int64_t reals, int arrays,
                        const char *const *array_name, am_train_state **out)
{
    int rc = 0;
    AM_ASSERT(arrays <= AM_STATE_ARRAYS);
    am_train_state *state = am_new(1, sizeof *state, "the state of training");
    *out = state;
    if (state == NULL) {
        for (int i = 0; i < n; i++) {
            am_param_layout_free(&segment[i].layout);
        }
        free(segment);
        return AM_E_NOMEM;
    }
    *state = (am_train_state){.comm = comm,
                              .bytes_per_real = bytes_per_real,
                              .arrays = arrays,
                              .n = n,
                              .segment = segment,
                              .reals = reals};
    for (int i = 0; i < arrays; i++) {
        state->array_name[i] = array_name[i];
    }
    MPI_Comm_rank(comm, &state->rank);
    MPI_Comm_size(comm, &state->size);
    state->is_sharded = is_sharded && state->size > 1;
    if (n > AM_STATE_SEGMENTS) {
        rc = am_fail(AM_E_RECIPE, "training: %d tasks are too many (%d)", n - 1,
                     AM_STATE_SEGMENTS - 1);
    }
    AM_KEEP(list_tensors(state));
    AM_KEEP(make_arrays(state));
    if (rc == 0) {
        am_train_state_reset(state);
    }
    return rc;
}

void am_train_state_free(am_train_state **state)
{
    if (*state != NULL) {
        for (int i = 0; i < (*state)->n; i++) {
            am_param_layout_free(&(*state)->segment[i].layout);
        }
        free((*state)->segment);
        am_arena_destroy(&(*state)->arena);
        am_tensor_table_free(&(*state)->tensors);
        free(*state);
        *state = NULL;
    }
}

void am_train_state_reset(am_train_state *state)
{
    for (int i = 0; i < state->n; i++) {
        am_train_segment *s = &state->segment[i];
        for (int k = 0; k < state->arrays && s->hi > s->lo; k++) {
            memset(s->array[k], 0, array_bytes(state, s));
        }
        s->steps = 0;
        s->has_master = false;
    }
    state->epoch = state->step = state->steps = state->samples = state->epoch_samples = 0;
    am_exact_zero(&state->loss);
}

const am_tensor_table *am_train_state_tensors(const am_train_state *state)
{
    return &state->tensors;
}

/* ---- integers ---- */

static void pack_position(const am_train_state *state, int64_t *out)
{
    const int64_t head[POSITION] = {state->epoch, state->step, state->steps, state->samples,
                                    state->epoch_samples};
    memcpy(out, head, sizeof head);
    for (int i = 0; i < state->n; i++) {
        out[POSITION + 2 * i] = state->segment[i].steps;
        out[POSITION + 2 * i + 1] = state->segment[i].has_master;
    }
}

static int unpack_position(am_train_state *state, const char *label, const int64_t *in)
{
    for (int64_t i = 0; i < POSITION + 2 * (int64_t)state->n; i++) {
        if (in[i] < 0) {
            return am_fail(AM_E_DATA, "%s: %s holds %lld: not a state of training", label,
                           position_name, (long long)in[i]);
        }
    }
    state->epoch = in[0];
    state->step = in[1];
    state->steps = in[2];
    state->samples = in[3];
    state->epoch_samples = in[4];
    for (int i = 0; i < state->n; i++) {
        state->segment[i].steps = in[POSITION + 2 * i];
        state->segment[i].has_master = in[POSITION + 2 * i + 1] != 0;
    }
    return 0;
}

static void pack_loss(const am_exact *loss, int64_t *out)
{
    memcpy(out, loss->limb, sizeof loss->limb);
    out[AM_EXACT_LIMBS] = loss->adds;
    memcpy(out + AM_EXACT_LIMBS + 1, loss->special, sizeof loss->special);
}

static void unpack_loss(const int64_t *in, am_exact *loss)
{
    memcpy(loss->limb, in, sizeof loss->limb);
    loss->adds = in[AM_EXACT_LIMBS];
    memcpy(loss->special, in + AM_EXACT_LIMBS + 1, sizeof loss->special);
}

/* ---- saving ---- */

/* One tensor of a segment, whole, on every rank. */
static int whole_tensor_all(const am_train_state *state, const am_train_segment *s, int64_t k,
                            int array, unsigned char *out)
{
    const int64_t from = s->layout.offset[k], n = s->layout.tensors.t[k].numel;
    const int64_t size = state->bytes_per_real;
    int64_t *at = am_new(2 * (int64_t)state->size, sizeof *at, "the slices of a tensor");
    int rc = at == NULL ? AM_E_NOMEM : 0;
    AM_AGREE(state->comm);
    int64_t *bytes = at + state->size;
    for (int r = 0; r < state->size; r++) {
        int64_t lo = 0, hi = 0;
        am_train_state_held(state, (int)(s - state->segment), r, &lo, &hi);
        lo = lo < from ? from : lo < from + n ? lo : from + n;
        hi = hi < from ? from : hi < from + n ? hi : from + n;
        at[r] = (lo - from) * size;
        bytes[r] = (hi - lo) * size;
        if (r == state->rank && hi > lo) {
            memcpy(out + at[r], (const unsigned char *)s->array[array] + (lo - s->lo) * size,
                   (size_t)bytes[r]);
        }
    }
    if (state->is_sharded) {
        AM_TRY(am_gather_all(state->comm, out, bytes, at));
    }
cleanup:
    free(at);
    return rc;
}

/* This rank's share of the tensor called `name`, which lies whole in `data`. */
static int store_share(const am_train_state *state, const am_slice *slice, const am_sink *sink,
                       const char *name, const unsigned char *data)
{
    const int64_t tensor = am_tensor_table_find(&state->tensors, name);
    const int64_t size = am_dtype_bytes(state->tensors.t[tensor].dtype);
    int rc = 0;
    for (int64_t i = 0; i < slice->n && rc == 0; i++) {
        const am_span *span = &slice->spans[i];
        if (span->tensor == tensor) {
            rc = sink->store_raw(sink->self, tensor, span->lo, span->hi - span->lo,
                                 data + span->lo * size);
        }
    }
    return rc;
}

static int store_segments_all(const am_train_state *state, const am_slice *slice,
                              const am_sink *sink, unsigned char *scratch)
{
    char name[AM_MAX_NAME];
    int rc = 0, stored = 0;
    for (int i = 0; i < state->n; i++) {
        const am_train_segment *s = &state->segment[i];
        for (int64_t k = 0; k < s->layout.tensors.n * state->arrays; k++) {
            const int array = (int)(k % state->arrays);
            AM_TRY(name_of(state, s, k / state->arrays, array, name, sizeof name)); /* the same */
            AM_TRY(whole_tensor_all(state, s, k / state->arrays, array, scratch));
            if (stored == 0) {
                stored = store_share(state, slice, sink, name, scratch);
            }
        }
    }
cleanup:
    return rc != 0 ? rc : am_agree_all(state->comm, stored);
}

int am_train_state_store_all(const am_train_state *state, const am_sink *sink)
{
    am_slice slice = {0};
    am_exact loss = state->loss;
    int64_t largest =
        POSITION + 2 * (int64_t)state->n > LOSS ? POSITION + 2 * (int64_t)state->n : LOSS;
    for (int64_t i = 0; i < state->tensors.n; i++) {
        const int64_t numel = state->tensors.t[i].numel;
        largest = numel > largest ? numel : largest;
    }
    int rc = am_slice_make(&state->tensors, AM_CHUNK, state->size, state->rank, &slice);
    unsigned char *scratch = am_new(largest, 8, "one tensor of a state");
    AM_KEEP(scratch == NULL ? AM_E_NOMEM : 0);
    AM_AGREE(state->comm);
    AM_TRY(am_exact_sum_all(state->comm, &loss, 1));
    am_exact_normalise(&loss);
    pack_loss(&loss, (int64_t *)(void *)scratch);
    AM_KEEP(store_share(state, &slice, sink, loss_name, scratch));
    pack_position(state, (int64_t *)(void *)scratch);
    AM_KEEP(store_share(state, &slice, sink, position_name, scratch));
    AM_AGREE(state->comm);
    AM_TRY(store_segments_all(state, &slice, sink, scratch));
cleanup:
    am_slice_free(&slice);
    free(scratch);
    return rc;
}

/* ---- restoring ---- */

/* Number of a tensor of the state in the source. */
static int find_in(const am_train_state *state, const am_source *source, const char *name,
                   int64_t *out)
{
    const am_tensor *want = &state->tensors.t[am_tensor_table_find(&state->tensors, name)];
    *out = am_tensor_table_find(source->tensors, name);
    if (*out < 0) {
        return am_fail(AM_E_DATA, "%s: no tensor %s: a state of another network or optimiser",
                       source->label, name);
    }
    const am_tensor *have = &source->tensors->t[*out];
    if (have->dtype != want->dtype || have->ndim != want->ndim ||
        memcmp(have->shape, want->shape, (size_t)want->ndim * sizeof *want->shape) != 0) {
        return am_fail(AM_E_DATA, "%s: tensor %s is %s, not %s: a state of another network",
                       source->label, name, am_tensor_describe(have), am_tensor_describe(want));
    }
    return 0;
}

static int load_integers(const am_train_state *state, const am_source *source, const char *name,
                         int64_t n, int64_t *out)
{
    int64_t tensor = 0;
    int rc = find_in(state, source, name, &tensor);
    AM_KEEP(source->load_raw(source->self, tensor, 0, n, out));
    return rc;
}

/* The part of one tensor that this rank holds. */
static int load_tensor(const am_train_state *state, const am_source *source,
                       const am_train_segment *s, int64_t k, int array)
{
    char name[AM_MAX_NAME];
    int64_t tensor = 0;
    const int64_t from = s->layout.offset[k], end = from + s->layout.tensors.t[k].numel;
    const int64_t lo = s->lo > from ? s->lo : from, hi = s->hi < end ? s->hi : end;
    int rc = name_of(state, s, k, array, name, sizeof name);
    AM_KEEP(find_in(state, source, name, &tensor));
    if (rc == 0 && hi > lo) {
        rc = source->load_raw(source->self, tensor, lo - from, hi - lo,
                              (unsigned char *)s->array[array] +
                                  (lo - s->lo) * state->bytes_per_real);
    }
    return rc;
}

int am_train_state_load(am_train_state *state, const am_source *source)
{
    const int64_t integers = POSITION + 2 * (int64_t)state->n;
    int64_t loss[LOSS];
    int64_t *position = am_new(integers, sizeof *position, "a position");
    int rc = position == NULL ? AM_E_NOMEM : 0;
    AM_KEEP(load_integers(state, source, position_name, integers, position));
    AM_KEEP(load_integers(state, source, loss_name, LOSS, loss));
    AM_KEEP(unpack_position(state, source->label, position));
    for (int i = 0; i < state->n; i++) {
        const am_train_segment *s = &state->segment[i];
        for (int64_t k = 0; k < s->layout.tensors.n * state->arrays; k++) {
            AM_KEEP(load_tensor(state, source, s, k / state->arrays, (int)(k % state->arrays)));
        }
    }
    if (rc == 0) {
        am_exact_zero(&state->loss);
        if (state->rank == 0) { /* the sum over all ranks lies here */
            unpack_loss(loss, &state->loss);
        }
    }
    free(position);
    return rc;
}
