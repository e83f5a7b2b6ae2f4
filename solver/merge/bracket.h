/* Keys in a range [lo, hi) that surely holds a wanted one: counted in one sweep of the data, with
 * those above the range. Few keys are in it, or few different ones, as differences of 16-bit floats
 * are: equal keys share a cell of a small table, and only what finds its cell taken is listed.
 *
 *   0 ........... lo |---- cells, list ----| hi ........ above, only counted
 *
 * Keys are the bits of f32 >= 0 that are not NaN. Local. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_BRACKET_H
#define AM_SOLVER_MERGE_BRACKET_H

#include <stdbool.h>
#include <stdint.h>

enum {
    AM_BRACKET_CELLS = 1 << 12,
    AM_BRACKET_DIGIT = 8, /* bits of am_bracket_digits */
    AM_BRACKET_END = INT32_MAX
};

typedef struct am_cell {
    int32_t key;
    uint32_t count; /* 0: free */
} am_cell;

typedef struct am_bracket {
    int32_t lo, hi;
    int32_t frequent; /* a key that is counted apart, -1: none yet */
    int64_t above, frequent_count;
    int64_t listed, room;
    bool is_full; /* keys were lost: the counts are still right but not the keys */
    int64_t inside;
    am_cell *cell; /* [cells] */
    int64_t cells;
    int32_t *list; /* [room] */
} am_bracket;

/** An empty bracket in `bytes` of the caller's memory, more than AM_BRACKET_CELLS cells. */
void am_bracket_open(am_bracket *b, int32_t lo, int32_t hi, void *memory, int64_t bytes);
/** How many keys such memory lists. Pure. */
int64_t am_bracket_room(int64_t bytes);
/** Add keys. */
void am_bracket_add(am_bracket *b, const float *key, int64_t n);
/** The shift of the first digit in which keys of the range may differ. Pure. */
int am_bracket_shift(const am_bracket *b);
/** Drop keys that do not have the prefix (the bits above the digit) and count the digits, key >>
 * shift, of the others: count [1 << AM_BRACKET_DIGIT]. Keys can no longer be added. */
void am_bracket_digits(am_bracket *b, uint32_t prefix, int shift, int64_t *count);

#endif
