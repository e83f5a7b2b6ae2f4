/* Passes over units: what a tile adds, what the ranks add up, what a method makes of it.
 *
 * Sums go through exact accumulators and orders through integer counts, so the result does not
 * depend on how the tiles are spread over ranks. A unit that is whole on one rank goes the same way
 * with MPI_COMM_SELF. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "solver/merge/engine.h"

int am_room_need(am_room *room, int64_t bytes, const char *what)
{
    if (bytes <= room->bytes) {
        return 0;
    }
    void *at = am_new(bytes, 1, what);
    if (at == NULL) {
        return AM_E_NOMEM;
    }
    if (room->bytes > 0) {
        memcpy(at, room->at, (size_t)room->bytes);
    }
    free(room->at);
    *room = (am_room){.at = at, .bytes = bytes};
    return 0;
}

void am_room_free(am_room *room)
{
    free(room->at);
    *room = (am_room){0};
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- begin ---- */

/* Room for what the unit will hold after this pass; the pointers in `unit` follow it. */
static int reserve_unit(const am_engine *e, am_unit_run *run, int cuts)
{
    am_unit *u = &run->unit;
    const int states = e->method->states != NULL ? e->method->states(u) : 0;
    const int64_t n_cuts = run->n_cuts + cuts, word = sizeof(int64_t);
    int rc = am_room_need(&run->sum, (run->n_sums + run->count + 1) * (int64_t)sizeof(double),
                          "sums of a unit");
    AM_KEEP(am_room_need(&run->state, (states + 1) * (int64_t)sizeof(double), "state of a unit"));
    AM_KEEP(am_room_need(&run->cut, (n_cuts + 1) * (int64_t)sizeof(am_cut), "cuts of a unit"));
    AM_KEEP(am_room_need(&run->before, (n_cuts + 1) * word, "cuts of a unit"));
    AM_KEEP(am_room_need(&run->seen, (n_cuts + 1) * word, "cuts of a unit"));
    u->sum = run->sum.at;
    u->cut = run->cut.at;
    u->state = run->state.at;
    return rc;
}

static int begin_unit(am_engine *e, am_unit_run *run)
{
    const am_pass *pass = e->pass;
    run->count = run->unit.models > 0 ? pass->count(&run->unit) : 0;
    run->cuts = 0;
    int rc = reserve_unit(e, run, run->count > 0 && pass->cuts != NULL ? AM_METHOD_MAX_CUTS : 0);
    if (rc == 0 && run->count > 0 && pass->cuts != NULL) {
        am_cut *cut = (am_cut *)run->cut.at + run->n_cuts;
        memset(cut, 0, AM_METHOD_MAX_CUTS * sizeof *cut);
        run->cuts = pass->cuts(&run->unit, cut);
        AM_ASSERT(run->cuts >= 0 && run->cuts <= AM_METHOD_MAX_CUTS);
    }
    return rc;
}

static int begin_sums(am_engine *e, am_unit_run *run, int64_t n)
{
    int most = 0;
    e->n_exact = 0;
    for (int64_t i = 0; i < n; i++) {
        run[i].first = e->n_exact;
        e->n_exact += run[i].count;
        most = run[i].count > most ? run[i].count : most;
    }
    int rc = am_room_need(&e->exact, e->n_exact * (int64_t)sizeof(am_exact), "exact sums");
    AM_KEEP(am_room_need(&e->tile_sum, most * (int64_t)sizeof(double), "sums of a tile"));
    return rc;
}

static void open_picks(am_engine *e, const am_unit_run *run, int64_t number)
{
    const am_cut *cut = (const am_cut *)run->cut.at + run->n_cuts;
    for (int i = 0; i < run->cuts; i++) {
        am_pick *p = &e->picks.pick[run->first + i];
        AM_ASSERT(cut[i].stream >= 0 && cut[i].stream < run->count);
        *p = (am_pick){.cut = cut[i], .unit = number, .of = run->unit.n};
        p->cut.take = cut[i].take < 0 ? 0 : cut[i].take > run->unit.n ? run->unit.n : cut[i].take;
    }
}

static int begin_order(am_engine *e, am_unit_run *run, int64_t n, bool one_rank)
{
    int64_t cuts = 0, largest = 0, streams = 0;
    bool by_rows = false;
    for (int64_t i = 0; i < n; i++) {
        by_rows = by_rows || (e->method->by_rows != NULL && e->method->by_rows(&run[i].unit));
        run[i].first = cuts;
        cuts += run[i].cuts;
        streams = run[i].count > streams ? run[i].count : streams;
        largest = run[i].unit.n > largest ? run[i].unit.n : largest;
    }
    const int bits = am_order_bits(largest, cuts, one_rank);
    int rc = am_order_reserve(&e->picks, cuts, bits, one_rank);
    AM_KEEP(am_room_need(&e->key, streams * (int64_t)sizeof(float *), "keys of a tile"));
    AM_KEEP(
        am_room_need(&e->keys, streams * e->max_tile * (int64_t)sizeof(float), "keys of a tile"));
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        open_picks(e, &run[i], i);
    }
    if (rc == 0) {
        am_order_start(&e->picks, !by_rows); /* a sample has no whole rows */
        e->is_open = cuts > 0;
    }
    return rc;
}

int am_pass_weigh(am_engine *e, am_unit_run *run, am_weight *out)
{
    int rc = 0;
    *out = (am_weight){0};
    for (int p = 0; rc == 0 && p < e->method->n_passes; p++) {
        e->pass = &e->method->pass[p];
        rc = begin_unit(e, run);
        out->pass_count[p] = run->count;
        out->pass_cuts[p] = run->cuts;
        if (e->pass->sums != NULL) {
            out->sums = most(out->sums, run->count * (int64_t)sizeof(am_exact));
            run->n_sums += run->count;
        } else {
            out->streams = most(out->streams, run->count);
            out->cuts = most(out->cuts, run->cuts);
            run->n_cuts += run->cuts;
        }
    }
    e->pass = NULL;
    out->kept = (int64_t)sizeof *run + run->sum.bytes + run->cut.bytes + run->state.bytes +
                run->before.bytes + run->seen.bytes;
    return rc;
}

int am_pass_begin(am_engine *e, MPI_Comm comm, am_unit_run *run, int64_t n, int p)
{
    int rc = 0, size = 1;
    bool is_needed = false;
    MPI_Comm_size(comm, &size);
    e->pass = &e->method->pass[p];
    e->is_open = false;
    for (int64_t i = 0; i < n; i++) {
        AM_KEEP(begin_unit(e, &run[i]));
        is_needed = is_needed || run[i].count > 0;
    }
    if (rc != 0 || !is_needed) {
        return rc;
    }
    if (e->pass->sums == NULL) {
        return begin_order(e, run, n, size == 1);
    }
    rc = begin_sums(e, run, n);
    e->is_open = true;
    return rc;
}

/* ---- a visit ---- */

static void rewind_ties(am_unit_run *run)
{
    if (run->n_cuts > 0) {
        memcpy(run->seen.at, run->before.at, (size_t)run->n_cuts * sizeof(int64_t));
    }
}

void am_pass_visit(am_engine *e, am_unit_run *run, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        rewind_ties(&run[i]);
    }
    if (e->pass == NULL) {
        return;
    }
    if (e->pass->sums == NULL) {
        am_order_visit(&e->picks);
    } else {
        for (int64_t i = 0; i < e->n_exact; i++) {
            am_exact_zero((am_exact *)e->exact.at + i);
        }
    }
}

static void add_sums(am_engine *e, const am_unit_run *run, const am_tile *tile)
{
    double *sum = e->tile_sum.at;
    am_exact *exact = (am_exact *)e->exact.at + run->first;
    memset(sum, 0, (size_t)run->count * sizeof *sum);
    e->pass->sums(tile, sum);
    for (int i = 0; i < run->count; i++) {
        if (sum[i] != 0) { /* NaN too */
            am_exact_add(&exact[i], sum[i]);
        }
    }
}

static void add_keys(am_engine *e, const am_unit_run *run, const am_tile *tile)
{
    float **key = e->key.at;
    for (int i = 0; i < run->count; i++) {
        key[i] = (float *)e->keys.at + i * tile->n;
    }
    e->pass->keys(tile, key);
    am_order_count(&e->picks, run->first, run->cuts, (const float *const *)key, tile->n);
}

void am_pass_tile(am_engine *e, am_unit_run *run, am_tile *tile)
{
    if (run->count == 0) {
        return;
    }
    if (e->pass->sums != NULL) {
        add_sums(e, run, tile);
    } else if (run->cuts > 0) {
        add_keys(e, run, tile);
    }
}

/* ---- reduction ---- */

static int reduce_order_all(MPI_Comm comm, am_engine *e)
{
    const int rc = am_order_reduce_all(comm, &e->picks);
    e->is_open = e->picks.phase != AM_ORDER_FOUND;
    return rc;
}

bool am_pass_samples(const am_engine *e)
{
    return e->pass->sums == NULL && e->picks.phase == AM_ORDER_SAMPLE;
}

int am_pass_reduce_all(MPI_Comm comm, am_engine *e, am_unit_run *run, int64_t n)
{
    int rc = 0;
    for (int64_t i = 0; i < n && !am_pass_samples(e); i++) {
        run[i].is_checked = run[i].is_checked || run[i].count > 0;
    }
    if (e->pass->sums == NULL) {
        return reduce_order_all(comm, e);
    }
    e->is_open = false;
    AM_TRY(am_exact_sum_all(comm, e->exact.at, e->n_exact));
    for (int64_t i = 0; i < n; i++) {
        const am_exact *exact = (const am_exact *)e->exact.at + run[i].first;
        for (int k = 0; k < run[i].count; k++) {
            ((double *)run[i].sum.at)[run[i].n_sums + k] = am_exact_round(&exact[k]);
        }
    }
cleanup:
    return rc;
}

/* ---- end ---- */

static void keep_cuts(const am_engine *e, am_unit_run *run)
{
    for (int i = 0; i < run->cuts; i++) {
        const am_pick *p = &e->picks.pick[run->first + i];
        ((am_cut *)run->cut.at)[run->n_cuts + i] = p->cut;
        ((int64_t *)run->before.at)[run->n_cuts + i] = p->ties_here;
    }
}

static int solve(const am_engine *e, const am_unit_run *run)
{
    const char *wrong = e->pass->solve != NULL ? e->pass->solve(&run->unit) : NULL;
    return wrong == NULL ? 0
                         : am_fail(AM_E_NUMERIC, "%s: %s'%s': %s", e->method->name,
                                   e->scope == AM_SCOPE_GLOBAL ? "all tensors, from " : "tensor ",
                                   e->job->sink->tensors->t[run->tensor].name, wrong);
}

int am_pass_end(am_engine *e, am_unit_run *run, int64_t n, int p)
{
    int rc = 0;
    e->pass = &e->method->pass[p];
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        if (run[i].count > 0) {
            keep_cuts(e, &run[i]);
            run[i].n_sums += e->pass->sums != NULL ? run[i].count : 0;
            run[i].n_cuts += run[i].cuts;
            rc = solve(e, &run[i]);
        }
        run[i].count = run[i].cuts = 0;
    }
    e->pass = NULL;
    return rc;
}
