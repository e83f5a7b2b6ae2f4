/* Many words of a stream at once. Philox wants 64-bit products of 32-bit numbers. Every vector unit
 * of x86-64 has them (vpmuludq), but GCC 12 multiplies 64 by 64 bits instead, which takes three
 * times as long; hence the intrinsics. All variants give the same words.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>
#include "mpi/rng.h"

enum { ROUNDS = 10, WORDS = 4, GROUP = 8 };

/* Counters first .. first + n - 1: out [n][4]. n is a multiple of GROUP. */
typedef void fill(const am_rng *rng, uint64_t first, int64_t n, uint32_t *out);

static void fill_plain(const am_rng *rng, uint64_t first, int64_t n, uint32_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        const uint64_t counter = first + (uint64_t)i;
        const uint32_t c[WORDS] = {(uint32_t)counter, (uint32_t)(counter >> 32), rng->stream[0],
                                   rng->stream[1]};
        am_philox(c, rng->key, out + i * WORDS);
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

static const uint32_t MULTIPLY_0 = 0xD2511F53u, MULTIPLY_2 = 0xCD9E8D57u;
static const uint32_t STEP_0 = 0x9E3779B9u, STEP_1 = 0xBB67AE85u;

/* A word of 8 counters is the low half of 8 lanes of 64 bits. The high halves hold what is left of
 * products and count for nothing: no product reads them. */
__attribute__((target("avx512f"))) static void fill_avx512(const am_rng *rng, uint64_t first,
                                                           int64_t n, uint32_t *out)
{
    __m512i key[2][ROUNDS];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        key[0][round] = _mm512_set1_epi64(rng->key[0] + round * STEP_0);
        key[1][round] = _mm512_set1_epi64(rng->key[1] + round * STEP_1);
    }
    const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    for (int64_t at = 0; at < n; at += 8) {
        __m512i c0 = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(first + (uint64_t)at)), lane);
        __m512i c1 = _mm512_srli_epi64(c0, 32);
        __m512i c2 = _mm512_set1_epi64(rng->stream[0]), c3 = _mm512_set1_epi64(rng->stream[1]);
        for (int round = 0; round < ROUNDS; round++) {
            const __m512i a = _mm512_mul_epu32(c0, _mm512_set1_epi64(MULTIPLY_0));
            const __m512i b = _mm512_mul_epu32(c2, _mm512_set1_epi64(MULTIPLY_2));
            const __m512i mix0 = _mm512_xor_si512(c1, key[0][round]);
            const __m512i mix2 = _mm512_xor_si512(c3, key[1][round]);
            c0 = _mm512_xor_si512(_mm512_srli_epi64(b, 32), mix0);
            c1 = b;
            c2 = _mm512_xor_si512(_mm512_srli_epi64(a, 32), mix2);
            c3 = a;
        }
        c0 = _mm512_mask_blend_epi32(0xAAAA, c0, _mm512_slli_epi64(c1, 32));
        c2 = _mm512_mask_blend_epi32(0xAAAA, c2, _mm512_slli_epi64(c3, 32));
        _mm512_storeu_si512(out + at * WORDS, _mm512_permutex2var_epi64(c0, low, c2));
        _mm512_storeu_si512(out + at * WORDS + 16, _mm512_permutex2var_epi64(c0, high, c2));
    }
}

/* The same in 4 lanes. */
__attribute__((target("avx2"))) static void fill_avx2(const am_rng *rng, uint64_t first, int64_t n,
                                                      uint32_t *out)
{
    __m256i key[2][ROUNDS];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        key[0][round] = _mm256_set1_epi64x(rng->key[0] + round * STEP_0);
        key[1][round] = _mm256_set1_epi64x(rng->key[1] + round * STEP_1);
    }
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    for (int64_t at = 0; at < n; at += 4) {
        __m256i *to = (__m256i *)(void *)(out + at * WORDS);
        __m256i c0 = _mm256_add_epi64(_mm256_set1_epi64x((int64_t)(first + (uint64_t)at)), lane);
        __m256i c1 = _mm256_srli_epi64(c0, 32);
        __m256i c2 = _mm256_set1_epi64x(rng->stream[0]), c3 = _mm256_set1_epi64x(rng->stream[1]);
        for (int round = 0; round < ROUNDS; round++) {
            const __m256i a = _mm256_mul_epu32(c0, _mm256_set1_epi64x(MULTIPLY_0));
            const __m256i b = _mm256_mul_epu32(c2, _mm256_set1_epi64x(MULTIPLY_2));
            const __m256i mix0 = _mm256_xor_si256(c1, key[0][round]);
            const __m256i mix2 = _mm256_xor_si256(c3, key[1][round]);
            c0 = _mm256_xor_si256(_mm256_srli_epi64(b, 32), mix0);
            c1 = b;
            c2 = _mm256_xor_si256(_mm256_srli_epi64(a, 32), mix2);
            c3 = a;
        }
        c0 = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA);
        c2 = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA);
        const __m256i even = _mm256_unpacklo_epi64(c0, c2), odd = _mm256_unpackhi_epi64(c0, c2);
        _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
    }
}

static fill *find_fill(void)
{
    return __builtin_cpu_supports("avx512f") ? fill_avx512
           : __builtin_cpu_supports("avx2")  ? fill_avx2
                                             : fill_plain;
}
#else
static fill *find_fill(void)
{
    return fill_plain;
}
#endif

void am_rng_fill_u32(const am_rng *rng, int64_t index, int64_t n, uint32_t *out)
{
    uint32_t last[GROUP * WORDS];
    int64_t i = 0;
    for (; i < n && (index + i) % WORDS != 0; i++) {
        out[i] = am_rng_u32(rng, index + i);
    }
    const int64_t counters = (n - i) / (WORDS * GROUP) * GROUP;
    find_fill()(rng, (uint64_t)(index + i) / WORDS, counters, out + i);
    i += counters * WORDS;
    if (i < n) { /* less than a group */
        find_fill()(rng, (uint64_t)(index + i) / WORDS, GROUP, last);
        memcpy(out + i, last, (size_t)(n - i) * sizeof *last);
    }
}
