/* Exact selection. SPDX-License-Identifier: BSD-3-Clause */
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

int am_order_usual_visits(int bits, bool may_sample)
{
    return may_sample && bits >= AM_ORDER_SAMPLE_BITS ? 1 : am_order_visits(bits);
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
        if (o->here != NULL) { /* touched now, so that the peak does not depend on the data */
            memset(o->here, 1, (size_t)counts * sizeof *o->here);
        }
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

static void start_digits(am_order *o, int width)
{
    o->width = width;
    o->before = AM_ORDER_KEY_BITS;
    o->shift = o->before > width ? o->before - width : 0;
}

void am_order_start(am_order *o, bool may_sample)
{
    const bool samples = may_sample && o->n > 0 && o->bits >= AM_ORDER_SAMPLE_BITS;
    o->phase = samples ? AM_ORDER_SAMPLE : AM_ORDER_DIGITS;
    start_digits(o, samples ? AM_ORDER_SAMPLE_BITS : o->bits);
    for (int64_t i = 0; i < o->n; i++) {
        am_pick *p = &o->pick[i];
        p->left = p->cut.take;
        p->prefix = 0;
        p->ties = p->ties_here = p->cut.ties = 0;
        p->cut.threshold = INFINITY;
        p->is_found = p->cut.take == 0;
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
        if (p->is_found) {
            p->counts = -1;
        } else if (p->counts < 0) {
            p->counts = o->n_counts++;
        }
    }
}

void am_order_visit(am_order *o)
{
    if (o->phase == AM_ORDER_SWEEP) {
        return; /* the brackets are empty */
    }
    assign_counts(o);
    if (o->n_counts > 0) {
        memset(o->here, 0, (size_t)(o->n_counts << o->width) * sizeof *o->here);
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

/* ---- the sample ---- */

/* No key has this digit: it would be NaN. Differences of 16-bit floats have few bits: the last ones
 * are zeros, or ones when the order is reversed. */
enum { SHORT_DIGIT = (1 << AM_ORDER_SAMPLE_BITS) - 1, SHORT_MASK = (1 << 12) - 1 };

AM_CLONES static int64_t count_short(const float *key, int64_t n)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += ((bits_of(key[i]) + 1) & SHORT_MASK) <= 1;
    }
    return sum;
}

static void count_sample(const float *key, int64_t n, int shift, int64_t *counts)
{
    count_first(key, n, shift, counts);
    counts[SHORT_DIGIT] += count_short(key, n);
}

/* The digit that holds the rank-th largest. */
static int64_t digit_at(const int64_t *total, double rank)
{
    int64_t digit = SHORT_DIGIT - 1;
    double seen = (double)total[digit];
    while (digit > 0 && seen < rank) {
        seen += (double)total[--digit];
    }
    return digit;
}

/* A range that holds the cut unless the sample is much worse than one of independent keys. */
typedef struct range {
    int32_t lo, hi;
    double part; /* of the sample's keys are in it */
    bool is_short;
} range;

static range range_of(const am_order *o, const am_pick *p)
{
    const int64_t *total = o->total + (p->counts << o->width);
    double sample = 0, inside = 0;
    for (int64_t digit = 0; digit < SHORT_DIGIT; digit++) {
        sample += (double)total[digit];
    }
    const double part = (double)p->cut.take / (double)p->of, rank = part * sample;
    const double slack = 6 * sqrt(rank * (1 - part)) + 32;
    const int64_t high = rank > slack ? digit_at(total, rank - slack) : SHORT_DIGIT;
    const int64_t low = rank + slack < sample ? digit_at(total, rank + slack) : 0;
    for (int64_t digit = low; digit <= high && digit < SHORT_DIGIT; digit++) {
        inside += (double)total[digit];
    }
    return (range){.lo = (int32_t)(low << o->shift),
                   .hi = high == SHORT_DIGIT ? AM_BRACKET_END : (int32_t)((high + 1) << o->shift),
                   .part = sample > 0 ? inside / sample : 1,
                   .is_short = (double)total[SHORT_DIGIT] > 0.5 * sample};
}

void am_order_bracket(am_order *o, int ranks)
{
    const int64_t bytes = (int64_t)sizeof *o->here << o->bits;
    bool fits = true;
    for (int64_t i = 0; i < o->n; i++) {
        am_pick *p = &o->pick[i];
        if (p->counts >= 0) {
            const range r = range_of(o, p);
            const double keys = r.part * (double)p->of / ranks;
            fits = fits && (r.is_short || keys <= (double)am_bracket_room(bytes));
            p->bracket = (am_bracket){.lo = r.lo, .hi = r.hi};
        }
    }
    for (int64_t i = 0; fits && i < o->n; i++) { /* the counts are no longer needed */
        am_bracket *b = &o->pick[i].bracket;
        am_bracket_open(b, b->lo, b->hi, o->here + (i << o->bits), bytes);
    }
    o->phase = fits ? AM_ORDER_SWEEP : AM_ORDER_DIGITS;
    start_digits(o, o->bits);
}

/* ---- the sweep ---- */

void am_order_swept(const am_pick *p, int64_t *sum)
{
    sum[AM_SWEEP_ABOVE] = p->bracket.above;
    sum[AM_SWEEP_INSIDE] = p->bracket.inside;
    sum[AM_SWEEP_FULL] = p->bracket.is_full;
}

bool am_order_is_inside(am_pick *p, const int64_t *sum)
{
    const int64_t left = p->cut.take - sum[AM_SWEEP_ABOVE];
    if (p->is_found || sum[AM_SWEEP_FULL] > 0 || left < 1 || left > sum[AM_SWEEP_INSIDE]) {
        return false;
    }
    p->left = left;
    p->prefix =
        (uint32_t)((uint64_t)p->bracket.lo >> (am_bracket_shift(&p->bracket) + AM_BRACKET_DIGIT));
    return true;
}

void am_order_end_sweep(am_order *o)
{
    bool is_found = true;
    for (int64_t i = 0; i < o->n; i++) {
        is_found = is_found && o->pick[i].is_found;
    }
    o->phase = is_found ? AM_ORDER_FOUND : AM_ORDER_DIGITS;
}

/* ---- digits ---- */

void am_order_count(am_order *o, int64_t first, int64_t picks, const float *const *key, int64_t n)
{
    int64_t done = -1; /* counts are numbered in the order of the picks */
    for (int64_t i = first; i < first + picks; i++) {
        am_pick *p = &o->pick[i];
        if (o->phase == AM_ORDER_SWEEP && !p->is_found) {
            am_bracket_add(&p->bracket, key[p->cut.stream], n);
        }
        if (o->phase == AM_ORDER_SWEEP || p->counts <= done) {
            continue;
        }
        done = p->counts;
        int64_t *counts = o->here + (p->counts << o->width);
        if (o->phase == AM_ORDER_SAMPLE) {
            count_sample(key[p->cut.stream], n, o->shift, counts);
        } else if (o->before == AM_ORDER_KEY_BITS) {
            count_first(key[p->cut.stream], n, o->shift, counts);
        } else {
            count_next(key[p->cut.stream], n, o, p->prefix, counts);
        }
    }
}

/* The digit of the left-th largest key among those counted. */
static void narrow_pick(am_pick *p, const int64_t *here, const int64_t *total, int digit_bits)
{
    int64_t digit = ((int64_t)1 << digit_bits) - 1;
    while (digit > 0 && total[digit] < p->left) {
        p->left -= total[digit--];
    }
    p->prefix = p->prefix << digit_bits | (uint32_t)digit;
    p->ties = total[digit];
    p->ties_here = here[digit];
}

void am_order_digit(am_pick *p, const int64_t *here, const int64_t *total)
{
    narrow_pick(p, here, total, AM_BRACKET_DIGIT);
}

void am_order_found(am_pick *p)
{
    memcpy(&p->cut.threshold, &p->prefix, sizeof p->prefix);
    p->cut.ties = p->cut.all_ties ? p->ties : p->left;
    p->is_found = true;
}

bool am_order_narrow(am_order *o)
{
    const bool is_last = o->shift == 0;
    for (int64_t i = 0; i < o->n; i++) {
        am_pick *p = &o->pick[i];
        if (p->counts >= 0) {
            const int64_t at = p->counts << o->width;
            narrow_pick(p, o->here + at, o->total + at, o->before - o->shift);
        }
        if (p->counts >= 0 && is_last) {
            am_order_found(p);
        }
    }
    o->before = o->shift;
    o->shift = o->before > o->width ? o->before - o->width : 0;
    o->phase = is_last ? AM_ORDER_FOUND : o->phase;
    return is_last;
}
