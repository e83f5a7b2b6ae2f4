/* Exact selection by radix. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/clones.h"
#include "mpi/error.h"

static const uint32_t magnitude = UINT32_C(0x7fffffff); /* without the sign: -0 is 0 */

int am_order_bits(int64_t n, int64_t cuts, bool one_rank)
{
    const int64_t bytes = cuts * (int64_t)sizeof(int64_t) * (one_rank ? 1 : 2);
    int bits = n <= 4096 ? AM_ORDER_MIN_BITS : n <= 1 << 17 ? 11 : AM_ORDER_MAX_BITS;
    while (bits > AM_ORDER_MIN_BITS && bytes << bits > AM_ORDER_BYTES) {
        bits--;
    }
    return bits;
}

int64_t am_order_bytes(int bits, int64_t cuts, bool one_rank)
{
    const int64_t counts = (one_rank ? cuts : 2 * cuts) << bits;
    return cuts * (int64_t)sizeof(am_pick) + counts * (int64_t)sizeof(int64_t);
}

int am_order_visits(int bits)
{
    return (AM_ORDER_KEY_BITS + bits - 1) / bits;
}

int am_order_reserve(am_order *o, int64_t n, int bits, bool one_rank)
{
    const int64_t counts = (one_rank ? n : 2 * n) << bits;
    if (n > o->pick_room) {
        free(o->pick);
        o->pick = am_new(n, sizeof *o->pick, "cuts of an order");
        o->pick_room = o->pick != NULL ? n : 0;
    }
    if (counts > o->count_room) {
        free(o->here);
        o->here = am_new(counts, sizeof *o->here, "counts of an order");
        o->count_room = o->here != NULL ? counts : 0;
    }
    if ((n > 0 && o->pick == NULL) || (counts > 0 && o->here == NULL)) {
        return AM_E_NOMEM;
    }
    o->n = n;
    o->bits = bits;
    o->total = one_rank || n == 0 ? o->here : o->here + (n << bits);
    return 0;
}

void am_order_free(am_order *o)
{
    free(o->pick);
    free(o->here);
    *o = (am_order){0};
}

static int next_shift(const am_order *o, int before)
{
    return before > o->bits ? before - o->bits : 0;
}

void am_order_start(am_order *o)
{
    o->before = AM_ORDER_KEY_BITS;
    o->shift = next_shift(o, o->before);
    for (int64_t i = 0; i < o->n; i++) {
        am_pick *p = &o->pick[i];
        p->left = p->cut.take;
        p->prefix = 0;
        p->ties = p->ties_here = p->cut.ties = 0;
        p->cut.threshold = INFINITY;
    }
}

static bool share_counts(const am_pick *a, const am_pick *b)
{
    return a->unit == b->unit && a->cut.stream == b->cut.stream && a->prefix == b->prefix &&
           a->counts >= 0;
}

/* Picks that look for digits behind the same prefix of the same stream use the same counts. Picks
 * of a unit lie side by side. */
static void assign_counts(am_order *o)
{
    o->n_counts = 0;
    for (int64_t i = 0; i < o->n; i++) {
        am_pick *p = &o->pick[i];
        p->counts = -1;
        for (int64_t k = i - 1; k >= 0 && o->pick[k].unit == p->unit && p->counts < 0; k--) {
            p->counts = share_counts(&o->pick[k], p) ? o->pick[k].counts : -1;
        }
        if (p->cut.take == 0) {
            p->counts = -1;
        } else if (p->counts < 0) {
            p->counts = o->n_counts++;
        }
    }
}

void am_order_visit(am_order *o)
{
    assign_counts(o);
    if (o->n_counts > 0) {
        memset(o->here, 0, (size_t)(o->n_counts << o->bits) * sizeof *o->here);
    }
}

static uint32_t bits_of(float key)
{
    uint32_t bits;
    memcpy(&bits, &key, sizeof bits);
    return bits & magnitude;
}

static void count_first(const float *key, int64_t n, int shift, int64_t *counts)
{
    for (int64_t i = 0; i < n; i++) {
        counts[bits_of(key[i]) >> shift]++;
    }
}

/* Few keys have the prefix: whole groups are passed over. */
AM_CLONES static void count_next(const float *key, int64_t n, const am_order *o, uint32_t prefix,
                                 int64_t *counts)
{
    enum { GROUP = 32 };
    const uint32_t mask = ((uint32_t)1 << (o->before - o->shift)) - 1;
    const int shift = o->shift, before = o->before;
    for (int64_t lo = 0; lo < n; lo += GROUP) {
        const int64_t hi = lo + GROUP < n ? lo + GROUP : n;
        uint32_t hits = 0;
        for (int64_t i = lo; i < hi; i++) {
            hits |= (bits_of(key[i]) >> before) == prefix;
        }
        for (int64_t i = lo; hits != 0 && i < hi; i++) {
            if (bits_of(key[i]) >> before == prefix) {
                counts[bits_of(key[i]) >> shift & mask]++;
            }
        }
    }
}

void am_order_count(am_order *o, int64_t first, int64_t picks, const float *const *key, int64_t n)
{
    int64_t done = -1; /* counts are numbered in the order of the picks */
    for (int64_t i = first; i < first + picks; i++) {
        const am_pick *p = &o->pick[i];
        if (p->counts <= done) {
            continue;
        }
        done = p->counts;
        int64_t *counts = o->here + (p->counts << o->bits);
        if (o->before == AM_ORDER_KEY_BITS) {
            count_first(key[p->cut.stream], n, o->shift, counts);
        } else {
            count_next(key[p->cut.stream], n, o, p->prefix, counts);
        }
    }
}

/* The digit of the left-th largest key among those counted. */
static void narrow_pick(const am_order *o, am_pick *p)
{
    const int64_t *total = o->total + (p->counts << o->bits);
    const int digit_bits = o->before - o->shift;
    int64_t digit = ((int64_t)1 << digit_bits) - 1;
    while (digit > 0 && total[digit] < p->left) {
        p->left -= total[digit--];
    }
    p->prefix = p->prefix << digit_bits | (uint32_t)digit;
    p->ties = total[digit];
    p->ties_here = o->here[(p->counts << o->bits) + digit];
}

bool am_order_narrow(am_order *o)
{
    const bool is_last = o->shift == 0;
    for (int64_t i = 0; i < o->n; i++) {
        am_pick *p = &o->pick[i];
        if (p->counts < 0) {
            continue;
        }
        narrow_pick(o, p);
        if (is_last) {
            memcpy(&p->cut.threshold, &p->prefix, sizeof p->prefix);
            p->cut.ties = p->cut.all_ties ? p->ties : p->left;
        }
    }
    o->before = o->shift;
    o->shift = next_shift(o, o->before);
    return is_last;
}
