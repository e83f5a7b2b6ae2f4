/* The take-th largest of f32 keys, exactly, by radix on their bits: keys are >= 0, so the order of
 * the bit patterns is the order of the numbers. Each visit of the data counts one digit of the keys
 * that agree with the digits found so far. Several cuts, of one unit or more, share the visits.
 * Local; whoever has several ranks adds `total` over them between the two halves of a visit.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_ORDER_H
#define AM_SOLVER_MERGE_ORDER_H

#include "solver/merge/method.h"

enum {
    AM_ORDER_KEY_BITS = 31,
    AM_ORDER_MAX_BITS = 16,
    AM_ORDER_MIN_BITS = 8,
    AM_ORDER_MAX_VISITS = 4,  /* of 8 bits each */
    AM_ORDER_BYTES = 16 << 20 /* of all counts, as long as digits of 8 bits fit */
};

/* One cut under way. */
typedef struct am_pick {
    am_cut cut;
    int64_t unit;            /* picks of one unit and stream may share counts */
    int64_t left;            /* wanted among the keys that have the prefix */
    uint32_t prefix;         /* digits found so far */
    int64_t counts;          /* index of its counts, -1: nothing is wanted */
    int64_t ties_here, ties; /* keys equal to the threshold: on this rank, on all */
} am_pick;

typedef struct am_order {
    int bits;          /* of a digit */
    int shift, before; /* keys >> shift are digits up to this visit's; >> before: the last one's */
    int64_t n;         /* picks */
    am_pick *pick;     /* [n] */
    int64_t n_counts;
    int64_t *here, *total; /* [n_counts << bits]; the same array when there is one rank */
    int64_t pick_room, count_room;
} am_order;

/** Digits of how many bits suit units of up to n elements and this many cuts on one rank or more:
 * few visits for large units, little to clear for small ones. Pure. */
int am_order_bits(int64_t n, int64_t cuts, bool one_rank);
/** Bytes that so many cuts with digits of this many bits take. Pure. */
int64_t am_order_bytes(int bits, int64_t cuts, bool one_rank);
/** How many visits digits of this many bits take. Pure. */
int am_order_visits(int bits);

/** Room for n picks. The caller then fills pick[i].cut and .unit and calls am_order_start.
 * Memory is kept for the next order. Errors: AM_E_NOMEM. */
int am_order_reserve(am_order *o, int64_t n, int bits, bool one_rank);
void am_order_start(am_order *o);
void am_order_free(am_order *o);

/** Begin a visit: cleared counts. */
void am_order_visit(am_order *o);
/** Count the keys of a tile for the picks [first, first+picks): key [streams][n]. */
void am_order_count(am_order *o, int64_t first, int64_t picks, const float *const *key, int64_t n);
/** End a visit: one more digit of every pick, from `total` (and `here`, the rank's own counts).
 * After the last one cut.threshold, cut.ties, ties and ties_here are there. Returns whether it was.
 */
bool am_order_narrow(am_order *o);

#endif
