/* Draws that come true with a given probability: 16 bits each, two to a word of the stream.
 *
 *   limit = floor(p 2^32) = | top 16 bits | low 16 bits |
 *   true:  bits < top,  or  bits == top  and  16 more bits < low
 *
 * The second 16 bits decide one draw in 65,536; they come from counters that no index reaches, so a
 * draw is exact to 2^-32 and depends on its index alone. SPDX-License-Identifier: BSD-3-Clause */
#include <stdbool.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/rng.h"

enum { PART = 512 }; /* words that are drawn at once: first cache */
static const int64_t MORE_BITS = INT64_C(1) << 62;

typedef struct limit {
    uint16_t top, low;
} limit;

static uint32_t more_bits(const am_rng *rng, int64_t index)
{
    return am_rng_u32(rng, index + MORE_BITS) & 0xFFFF;
}

/* Even indices take the low half of a word. */
static uint8_t draw(const am_rng *rng, int64_t index, limit l)
{
    const uint32_t word = am_rng_u32(rng, index / 2);
    const uint32_t bits = index % 2 == 0 ? word & 0xFFFF : word >> 16;
    return bits < l.top || (bits == l.top && more_bits(rng, index) < l.low);
}

/* is_true [2 n]: false where more bits decide. */
AM_CLONES static void compare(const uint32_t *restrict word, int64_t n, uint16_t top,
                              uint8_t *restrict is_true)
{
    for (int64_t i = 0; i < n; i++) {
        is_true[2 * i] = (uint16_t)word[i] < top;
        is_true[2 * i + 1] = (uint16_t)(word[i] >> 16) < top;
    }
}

AM_CLONES static bool is_met(const uint32_t *word, int64_t n, uint16_t top)
{
    uint32_t met = 0;
    for (int64_t i = 0; i < n; i++) {
        met |= ((word[i] & 0xFFFF) == top) | (word[i] >> 16 == top);
    }
    return met != 0;
}

static void draw_words(const am_rng *rng, int64_t first, int64_t n, limit l, uint8_t *is_true)
{
    uint32_t word[PART];
    am_rng_fill_u32(rng, first, n, word);
    compare(word, n, l.top, is_true);
    if (l.low == 0 || !is_met(word, n, l.top)) {
        return;
    }
    for (int64_t i = 0; i < 2 * n; i++) {
        const uint32_t bits = i % 2 == 0 ? word[i / 2] & 0xFFFF : word[i / 2] >> 16;
        if (bits == l.top) {
            is_true[i] = more_bits(rng, 2 * first + i) < l.low;
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
    const limit l = {.top = (uint16_t)(bits >> 16), .low = (uint16_t)bits};
    int64_t i = 0;
    if (n > 0 && index % 2 != 0) {
        is_true[i++] = draw(rng, index, l);
    }
    while (n - i > 1) {
        const int64_t words = (n - i) / 2 < PART ? (n - i) / 2 : PART;
        draw_words(rng, (index + i) / 2, words, l, is_true + i);
        i += 2 * words;
    }
    if (i < n) {
        is_true[i] = draw(rng, index + i, l);
    }
}
