/* Philox4x32-10, keyed streams, permutation, hash. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/rng.h"

#include <math.h>
#include <string.h>
#include "mpi/error.h"

void am_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = (uint32_t)b;
        c2 = n2;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static uint64_t mix64(uint64_t h)
{
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDu;
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53u;
    return h ^ (h >> 33);
}

uint64_t am_hash64(const void *bytes, int64_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xCBF29CE484222325u ^ mix64(seed + 0x9E3779B97F4A7C15u);
    for (int64_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001B3u;
    }
    return mix64(h ^ (uint64_t)n);
}

/* Little-endian bytes on every machine, so that keys are the same everywhere. */
static uint64_t hash_word(uint64_t word, uint64_t seed)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(word >> (8 * i));
    }
    return am_hash64(bytes, 8, seed);
}

am_rng am_rng_make(uint64_t seed, const char *purpose, int64_t round, int64_t task,
                   const char *name)
{
    uint64_t h = hash_word(seed, 0);
    h = am_hash64(purpose, (int64_t)strlen(purpose), h);
    h = hash_word((uint64_t)round, h);
    h = hash_word((uint64_t)task, h);
    h = am_hash64(name, (int64_t)strlen(name), h);
    uint64_t stream = hash_word(h, 1);
    return (am_rng){.key = {(uint32_t)h, (uint32_t)(h >> 32)},
                    .stream = {(uint32_t)stream, (uint32_t)(stream >> 32)}};
}

static void block(const am_rng *rng, uint64_t counter, uint32_t out[4])
{
    const uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), rng->stream[0],
                           rng->stream[1]};
    am_philox(c, rng->key, out);
}

/* 53 bits of two words. */
static uint64_t bits53(uint32_t low, uint32_t high)
{
    return ((uint64_t)high << 32 | low) >> 11;
}

uint32_t am_rng_u32(const am_rng *rng, int64_t index)
{
    uint32_t out[4];
    block(rng, (uint64_t)index / 4, out);
    return out[index % 4];
}

double am_rng_uniform(const am_rng *rng, int64_t index)
{
    uint32_t out[4];
    block(rng, (uint64_t)index, out);
    return (double)bits53(out[0], out[1]) * 0x1p-53;
}

double am_rng_normal(const am_rng *rng, int64_t index)
{
    const double two_pi = 6.283185307179586;
    uint32_t out[4];
    block(rng, (uint64_t)index, out);
    double u = (double)(bits53(out[0], out[1]) + 1) * 0x1p-53; /* (0,1]: its logarithm is finite */
    double v = (double)bits53(out[2], out[3]) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}

enum { FEISTEL_ROUNDS = 12 };

/* A Feistel network permutes [0, 2^(2 half)), the least such power that holds n; a value that falls
 * outside [0, n) is sent through again until it lies inside (cycle walking), under four times on
 * average. The round keys come from counters that no index reaches. */
int64_t am_rng_permute(const am_rng *rng, int64_t n, int64_t index)
{
    AM_ASSERT(index >= 0 && index < n);
    int half = 1;
    while (half < 31 && (uint64_t)n > (uint64_t)1 << (2 * half)) {
        half++;
    }
    AM_ASSERT((uint64_t)n <= (uint64_t)1 << (2 * half));
    uint32_t keys[FEISTEL_ROUNDS];
    for (int i = 0; i < FEISTEL_ROUNDS / 4; i++) {
        block(rng, UINT64_MAX - (uint64_t)i, keys + 4 * i);
    }
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t value = (uint64_t)index;
    do {
        uint64_t left = value >> half, right = value & mask;
        for (int i = 0; i < FEISTEL_ROUNDS; i++) {
            uint64_t next = left ^ (mix64(right ^ (uint64_t)keys[i] << 32) & mask);
            left = right;
            right = next;
        }
        value = left << half | right;
    } while (value >= (uint64_t)n);
    return (int64_t)value;
}
