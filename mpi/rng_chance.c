/* Draws that come true with a given probability: 8 bits each, four to a word of the stream.
 *
 *   limit = floor(p 2^32) = | top 8 bits | low 24 bits |
 *   true:  bits < top,  or  bits == top  and  24 more bits < low
 *
 * The other bits decide one draw in 256; they come from counters that no index reaches, so a draw
 * is exact to 2^-32 and depends on its index alone. SPDX-License-Identifier: BSD-3-Clause */
#include <stdbool.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/rng.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first draw is a word's lowest byte");

enum {
    DRAWS = 4,  /* to a word */
    PART = 512, /* words that are drawn at once: first cache */
    MARKS = 8,  /* looked at together */
    LOW_BITS = 0xFFFFFF
};
static const int64_t MORE_BITS = INT64_C(1) << 62;

typedef struct limit {
    uint8_t top;
    uint32_t low;
} limit;

static uint8_t decide(const am_rng *rng, int64_t index, limit l)
{
    return (am_rng_u32(rng, index + MORE_BITS) & LOW_BITS) < l.low;
}

/* One draw by itself. */
static uint8_t draw(const am_rng *rng, int64_t index, limit l)
{
    const uint8_t bits = (uint8_t)(am_rng_u32(rng, index / DRAWS) >> 8 * (index % DRAWS));
    return bits < l.top || (bits == l.top && decide(rng, index, l));
}

AM_CLONES static void compare(const uint8_t *restrict bits, int64_t n, uint8_t top,
                              uint8_t *restrict is_true)
{
    for (int64_t i = 0; i < n; i++) {
        is_true[i] = bits[i] < top;
    }
}

AM_CLONES static void mark_equal(uint8_t *restrict bits, int64_t n, uint8_t top)
{
    for (int64_t i = 0; i < n; i++) {
        bits[i] = bits[i] == top;
    }
}

static void draw_words(const am_rng *rng, int64_t first, int64_t n, limit l, uint8_t *is_true)
{
    uint32_t word[PART + MARKS / DRAWS] = {0};
    uint8_t *bits = (uint8_t *)word; /* of the draws; then whether more bits decide */
    am_rng_fill_u32(rng, first, n, word);
    compare(bits, DRAWS * n, l.top, is_true);
    if (l.low == 0) {
        return;
    }
    mark_equal(bits, DRAWS * n, l.top);
    for (int64_t at = 0; at < DRAWS * n; at += MARKS) {
        uint64_t marks;
        memcpy(&marks, bits + at, sizeof marks);
        for (; marks != 0; marks &= marks - 1) {
            const int64_t i = at + (__builtin_ctzll(marks) >> 3);
            is_true[i] = decide(rng, DRAWS * first + i, l);
        }
    }
}

void am_rng_chance(const am_rng *rng, int64_t index, int64_t n, double p, uint8_t *is_true)
{
    if (!(p > 0 && p < 1)) {
        memset(is_true, p >= 1, (size_t)n);
        return;
    }
    const uint32_t bits = (uint32_t)(p * 0x1p32);
    const limit l = {.top = (uint8_t)(bits >> 24), .low = bits & LOW_BITS};
    int64_t i = 0;
    for (; i < n && (index + i) % DRAWS != 0; i++) {
        is_true[i] = draw(rng, index + i, l);
    }
    while (n - i >= DRAWS) {
        const int64_t words = (n - i) / DRAWS < PART ? (n - i) / DRAWS : PART;
        draw_words(rng, (index + i) / DRAWS, words, l, is_true + i);
        i += DRAWS * words;
    }
    for (; i < n; i++) {
        is_true[i] = draw(rng, index + i, l);
    }
}
