/* Keys in a range. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/bracket.h"

#include <string.h>
#include "mpi/clones.h"

enum {
    MAGNITUDE = 0x7fffffff, /* without the sign: -0 is 0 */
    PART = 1024,
    WORD = 8,           /* marks looked at together */
    FREQUENT = 1 << 11, /* so often seen, a key is counted apart */
    ALL_BITS = 31
};

void am_bracket_open(am_bracket *b, int32_t lo, int32_t hi, void *memory, int64_t bytes)
{
    am_cell *cell = memory;
    *b = (am_bracket){.lo = lo,
                      .hi = hi,
                      .frequent = -1,
                      .room = am_bracket_room(bytes),
                      .cell = cell,
                      .cells = AM_BRACKET_CELLS,
                      .list = (int32_t *)(void *)(cell + AM_BRACKET_CELLS)};
    memset(cell, 0, AM_BRACKET_CELLS * sizeof *cell);
}

int64_t am_bracket_room(int64_t bytes)
{
    return (bytes - (int64_t)(AM_BRACKET_CELLS * sizeof(am_cell))) / (int64_t)sizeof(int32_t);
}

static int32_t bits_of(float key)
{
    int32_t bits;
    memcpy(&bits, &key, sizeof bits);
    return bits & MAGNITUDE;
}

AM_CLONES static int32_t count_from(const float *key, int64_t n, int32_t hi)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += bits_of(key[i]) >= hi;
    }
    return sum;
}

AM_CLONES static int32_t count_equal(const float *key, int64_t n, int32_t frequent)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += bits_of(key[i]) == frequent;
    }
    return sum;
}

AM_CLONES static void mark_inside(const float *restrict key, int64_t n, int32_t lo, int32_t hi,
                                  int32_t frequent, uint8_t *restrict inside)
{
    for (int64_t i = 0; i < n; i++) {
        const int32_t bits = bits_of(key[i]);
        inside[i] = (bits >= lo) & (bits < hi) & (bits != frequent);
    }
}

static void take_key(am_bracket *b, int32_t key)
{
    am_cell *cell = &b->cell[(uint32_t)key * UINT32_C(0x9E3779B1) >> (32 - 12)];
    b->inside++;
    if (cell->count == 0) {
        *cell = (am_cell){.key = key, .count = 1};
    } else if (cell->key == key && cell->count < UINT32_MAX) {
        cell->count++;
        if (cell->count == FREQUENT && b->frequent < 0) {
            b->frequent = key;
        }
    } else if (b->listed < b->room) {
        b->list[b->listed++] = key;
    } else {
        b->is_full = true;
    }
}

/* At most PART keys. */
static void add_part(am_bracket *b, const float *key, int64_t n)
{
    uint8_t inside[PART + WORD];
    const int32_t frequent = b->frequent;
    mark_inside(key, n, b->lo, b->hi, frequent, inside);
    memset(inside + n, 0, WORD);
    b->above += count_from(key, n, b->hi);
    if (frequent >= 0) {
        const int32_t equal = count_equal(key, n, frequent);
        b->frequent_count += equal;
        b->inside += equal;
    }
    for (int64_t at = 0; at < n; at += WORD) {
        uint64_t marks;
        memcpy(&marks, inside + at, sizeof marks);
        for (; marks != 0; marks &= marks - 1) {
            take_key(b, bits_of(key[at + (__builtin_ctzll(marks) >> 3)]));
        }
    }
}

void am_bracket_add(am_bracket *b, const float *key, int64_t n)
{
    for (int64_t lo = 0; lo < n; lo += PART) {
        add_part(b, key + lo, n - lo < PART ? n - lo : PART);
    }
}

int am_bracket_shift(const am_bracket *b)
{
    int shift = (ALL_BITS - 1) / AM_BRACKET_DIGIT * AM_BRACKET_DIGIT;
    while (shift > 0 && b->lo >> shift == (b->hi - 1) >> shift) {
        shift -= AM_BRACKET_DIGIT;
    }
    return shift;
}

/* What stays moves to the front. */
void am_bracket_digits(am_bracket *b, uint32_t prefix, int shift, int64_t *count)
{
    const int before = shift + AM_BRACKET_DIGIT;
    const uint32_t mask = (1U << AM_BRACKET_DIGIT) - 1;
    int64_t kept = 0;
    memset(count, 0, sizeof *count << AM_BRACKET_DIGIT);
    for (int64_t i = 0; i < b->cells; i++) {
        const am_cell cell = b->cell[i];
        if (cell.count > 0 && (uint64_t)cell.key >> before == prefix) {
            count[(uint32_t)cell.key >> shift & mask] += cell.count;
            b->cell[kept++] = cell;
        }
    }
    b->cells = kept;
    kept = 0;
    for (int64_t i = 0; i < b->listed; i++) {
        const int32_t key = b->list[i];
        const bool stays = (uint64_t)key >> before == prefix;
        count[(uint32_t)key >> shift & mask] += stays;
        b->list[kept] = key;
        kept += stays;
    }
    b->listed = kept;
    if (b->frequent >= 0 && (uint64_t)b->frequent >> before == prefix) {
        count[(uint32_t)b->frequent >> shift & mask] += b->frequent_count;
    }
}
