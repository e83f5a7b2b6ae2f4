/* Shared units that are reduced together. A set is as large as job->unit_bytes allows, so that what
 * a rank holds of units does not grow with the number of ranks; sets are worked on one after
 * another.
 *
 *   parts   |--a--|--b--|--c--|--d--|--e--|     units on several ranks
 *   sets    |    0      |    1      |  2  |     the same on every rank
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "mpi/error.h"
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
