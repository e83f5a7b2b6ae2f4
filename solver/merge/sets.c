/* Shared units that are reduced together. A set is as large as job->unit_bytes allows, so that what
 * a rank holds of units does not grow with the number of ranks; sets are worked on one after
 * another.
 *
 *   parts   |--a--|--b--|--c--|--d--|--e--|     units on several ranks
 *   sets    |    0      |    1      |  2  |     the same on every rank
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "solver/merge/engine.h"

enum { USUAL_BYTES = 16 << 20 };

/* Last index whose value is at most x; value [n] rises, value[0] <= x. */
static int64_t last_up_to(const int64_t *value, int64_t n, int64_t x)
{
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const int64_t middle = lo + (hi - lo + 1) / 2;
        if (value[middle] <= x) {
            lo = middle;
        } else {
            hi = middle - 1;
        }
    }
    return lo;
}

int64_t am_sets_find(const am_engine *e, int64_t tensor)
{
    if (e->n_sets == 1) {
        return 0;
    }
    return last_up_to(e->set, e->n_sets, last_up_to(e->parts, e->n_parts, tensor));
}

am_unit_run *am_unit_of(am_engine *e, int64_t tensor, bool is_shared)
{
    if (!am_is_reduced(e, tensor)) {
        return NULL;
    }
    if (!is_shared) {
        return &e->local;
    }
    if (e->scope == AM_SCOPE_GLOBAL) {
        return &e->shared[0];
    }
    int64_t lo = 0, hi = e->n_shared - 1;
    while (lo < hi) {
        const int64_t middle = lo + (hi - lo) / 2;
        if (e->shared[middle].tensor < tensor) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    return &e->shared[lo];
}

void am_sets_open(am_engine *e, int64_t set)
{
    e->n_shared = e->set[set + 1] - e->set[set];
    for (int64_t i = 0; i < e->n_shared; i++) {
        am_unit_open(e, e->parts[e->set[set] + i], &e->shared[i]);
    }
}

/* Bytes of a unit in a set: with the shortest digits, of which more fit. */
static int weigh(am_engine *e, int64_t tensor, int size, int64_t *bytes)
{
    am_weight weight;
    am_unit_open(e, tensor, &e->local);
    int rc = am_pass_weigh(e, &e->local, &weight);
    const int64_t counts = am_order_bytes(AM_ORDER_MIN_BITS, weight.cuts, size == 1);
    *bytes = weight.kept + (weight.sums > counts ? weight.sums : counts);
    e->local.tensor = -1;
    return rc;
}

static int cut_sets(am_engine *e, int size)
{
    const int64_t most = e->job->unit_bytes > 0 ? e->job->unit_bytes : USUAL_BYTES;
    int64_t held = 0;
    int rc = 0;
    e->n_sets = 0;
    for (int64_t i = 0; rc == 0 && i < e->n_parts; i++) {
        int64_t bytes = 0;
        rc = weigh(e, e->parts[i], size, &bytes);
        if (i == 0 || held + bytes > most) {
            e->set[e->n_sets++] = i;
            held = 0;
        }
        held += bytes;
    }
    e->set[e->n_sets] = e->n_parts;
    return rc;
}

int am_sets_plan(am_engine *e, int size, int64_t *parts, int64_t n_parts)
{
    int64_t largest = 0;
    e->parts = parts;
    e->n_parts = n_parts;
    e->set = am_new(n_parts + 1, sizeof *e->set, "sets of units");
    int rc = e->set != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0) {
        rc = cut_sets(e, size);
    }
    for (int64_t s = 0; rc == 0 && s < e->n_sets; s++) {
        largest = e->set[s + 1] - e->set[s] > largest ? e->set[s + 1] - e->set[s] : largest;
    }
    if (rc == 0 && e->shared == NULL && largest > 0) {
        e->shared = am_new(largest, sizeof *e->shared, "shared units");
        e->shared_room = e->shared != NULL ? largest : 0;
        rc = e->shared != NULL ? 0 : AM_E_NOMEM;
    }
    return rc;
}

/* ---- the slice of a rank ---- */

/* The tensors of which some rank has a part. A slice has at most two, its first and its last. */
static int find_parts_all(MPI_Comm comm, const am_engine *e, const am_span *spans, int64_t n,
                          int64_t **id, int64_t *n_id)
{
    int rank = 0, size = 1, rc = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    *id = am_new(2 * (int64_t)size, sizeof **id, "shared tensors");
    rc = *id == NULL ? AM_E_NOMEM : 0;
    AM_AGREE(comm);
    for (int64_t i = 0; i < 2 * (int64_t)size; i++) {
        (*id)[i] = -1;
    }
    for (int64_t i = 0, mine = 2 * (int64_t)rank; i < n; i++) {
        if (am_units_is_part(e, &spans[i])) {
            AM_ASSERT(mine < 2 * (int64_t)rank + 2);
            (*id)[mine++] = spans[i].tensor;
        }
    }
    AM_TRY(am_max_i64_all(comm, *id, 2 * (int64_t)size));
    *n_id = am_units_distinct(*id, 2 * (int64_t)size);
cleanup:
    return rc;
}

int am_sets_plan_all(MPI_Comm comm, am_engine *e, const am_slice *slice)
{
    int rc = am_units_check(e), size = 1;
    AM_KEEP(am_dense_find(e));
    int64_t n = 0, *part = NULL, n_part = 0;
    am_span *spans = am_new(slice->n + 1, sizeof *spans, "spans of a merge");
    MPI_Comm_size(comm, &size);
    e->order = am_new(slice->n + 1, sizeof *e->order, "spans of a merge");
    AM_KEEP(spans == NULL || e->order == NULL ? AM_E_NOMEM : 0);
    if (e->scope == AM_SCOPE_GLOBAL) {
        AM_KEEP(am_units_open_global(e));
    }
    AM_AGREE(comm);
    n = am_units_cut(e, slice, spans);
    if (e->method->n_passes > 0 && e->scope == AM_SCOPE_TENSOR) {
        AM_TRY(find_parts_all(comm, e, spans, n, &part, &n_part));
        rc = am_sets_plan(e, size, part, n_part);
        part = NULL;
        AM_AGREE(comm);
    } else if (e->n_parts > 0) {
        rc = am_sets_plan(e, size, e->parts, e->n_parts);
        AM_AGREE(comm);
    }
    am_units_order(e, spans, n);
cleanup:
    free(part);
    free(spans);
    return rc;
}
