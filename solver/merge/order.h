/* The take-th largest of f32 keys, exactly: keys are >= 0, so the order of the bit patterns is the
 * order of the numbers. Several cuts, of one unit or more, share the visits of the data.
 *
 *   sample  a small part of the keys, by which a range is chosen for each cut (bracket.h)
 *   sweep   all keys: how many lie above the range, and which lie in it; the cut is found among
 *           these unless the sample misled, or there are too many different ones
 *   digits  what is not found yet, by radix: each visit counts one digit of the keys that agree
 *           with the digits found so far
 *
 * Small units go by digits alone. The way changes no result. Local but for am_order_reduce_all.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_ORDER_H
#define AM_SOLVER_MERGE_ORDER_H

#include <mpi.h>
#include "solver/merge/bracket.h"
#include "solver/merge/method.h"

typedef enum am_order_phase {
    AM_ORDER_SAMPLE,
    AM_ORDER_SWEEP,
    AM_ORDER_DIGITS,
    AM_ORDER_FOUND
} am_order_phase;

enum {
    AM_ORDER_KEY_BITS = 31,
    AM_ORDER_MAX_BITS = 16,
    AM_ORDER_MIN_BITS = 8,
    AM_ORDER_SAMPLE_BITS = 14,
    AM_ORDER_MAX_VISITS = 5,  /* 4 of 8 bits each; or a sample, a sweep and 3 of more */
    AM_ORDER_BYTES = 16 << 20 /* of all counts, as long as digits of 8 bits fit */
};

/* One cut under way. */
typedef struct am_pick {
    am_cut cut;
    int64_t unit; /* picks of one unit and stream may share counts */
    int64_t of;   /* elements of the unit */
    bool is_found;
    am_bracket bracket;      /* of the sweep */
    int64_t left;            /* wanted among the keys that have the prefix */
    uint32_t prefix;         /* digits found so far */
    int64_t counts;          /* index of its counts, -1: nothing is wanted */
    int64_t ties_here, ties; /* keys equal to the threshold: on this rank, on all */
} am_pick;

typedef struct am_order {
    am_order_phase phase;
    int bits;          /* of a digit, the most that there is room for */
    int width;         /* counts of a pick lie 1 << width apart */
    int shift, before; /* keys >> shift are digits up to this visit's; >> before: the last one's */
    int64_t n;         /* picks */
    am_pick *pick;     /* [n] */
    int64_t n_counts;
    int64_t *here, *total; /* [n << bits]; the same array when there is one rank */
    int64_t pick_room, count_room;
} am_order;

/** Digits of how many bits suit units of up to n elements and this many cuts on one rank or more:
 * few visits for large units, little to clear for small ones. Pure. */
int am_order_bits(int64_t n, int64_t cuts, bool one_rank);
/** Bytes that so many cuts with digits of this many bits take. Pure. */
int64_t am_order_bytes(int bits, int64_t cuts, bool one_rank);
/** How many visits digits of this many bits take. Pure. */
int am_order_visits(int bits);
/** How many it takes when a sample does not mislead, the sample itself not counted. Pure. */
int am_order_usual_visits(int bits, bool may_sample);

/** Room for n picks. The caller then fills pick[i].cut, .unit and .of and calls am_order_start.
 * Memory is kept for the next order. Errors: AM_E_NOMEM. */
int am_order_reserve(am_order *o, int64_t n, int bits, bool one_rank);
/** Begin. may_sample: the first visit may be a sample, if there is room for what follows it. */
void am_order_start(am_order *o, bool may_sample);
void am_order_free(am_order *o);

/** Begin a visit: cleared counts. */
void am_order_visit(am_order *o);
/** Count the keys of a tile for the picks [first, first+picks): key [streams][n]. */
void am_order_count(am_order *o, int64_t first, int64_t picks, const float *const *key, int64_t n);

/** End the sample, of whose keys `total` has the sums over all ranks: the brackets of the sweep. */
void am_order_bracket(am_order *o, int ranks);

/* What the sweep found of a pick, to be added over the ranks. */
enum { AM_SWEEP_ABOVE, AM_SWEEP_INSIDE, AM_SWEEP_FULL, AM_SWEEP_SUMS };
/** This rank's, after the sweep: sum [AM_SWEEP_SUMS]. */
void am_order_swept(const am_pick *p, int64_t *sum);
/** From the sums of all ranks: whether the cut is among the candidates of the ranks. Then its
 * digits are to be found, from the bracket's first one on, by am_order_digit. */
bool am_order_is_inside(am_pick *p, const int64_t *sum);
/** One more digit of AM_BRACKET_DIGIT bits: counts of this rank and of all. */
void am_order_digit(am_pick *p, const int64_t *here, const int64_t *total);
/** The last digit was found. */
void am_order_found(am_pick *p);
/** End the sweep: what is not found goes by digits. */
void am_order_end_sweep(am_order *o);

/** End a visit of digits: one more of every pick, from `total` (and `here`, the rank's own counts).
 * After the last one cut.threshold, cut.ties, ties and ties_here are there. Returns whether it was.
 */
bool am_order_narrow(am_order *o);

/** End a visit of any phase over all ranks, each of which has counted its own keys; o->phase says
 * what the next visit is. After the last one (AM_ORDER_FOUND) cut.threshold, cut.ties and ties are
 * there, and ties_here is the number of ties on the ranks before this one.
 * Collective [comm]: the same picks and phase on all. Errors: those of MPI. */
int am_order_reduce_all(MPI_Comm comm, am_order *o);

#endif
