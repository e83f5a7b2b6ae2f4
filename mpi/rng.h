/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). The value at an index
 * depends only on (seed, purpose, round, task, name) and the index: not on ranks, blocks or order.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_RNG_H
#define AM_MPI_RNG_H

#include <stdint.h>

typedef struct am_rng {
    uint32_t key[2];
    uint32_t stream[2]; /* upper half of the counter: from the same hash */
} am_rng;

/** One 128-bit counter block: out[4] = Philox4x32-10(counter[4], key[2]). */
void am_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/** Key a generator. purpose, e.g. "shuffle", "init", "dare"; name: tensor or data set, "" if none.
 */
am_rng am_rng_make(uint64_t seed, const char *purpose, int64_t round, int64_t task,
                   const char *name);
uint32_t am_rng_u32(const am_rng *rng, int64_t index); /* lane index mod 4 of counter index / 4 */
/** out[i] = am_rng_u32(rng, index + i), several times faster. 0 <= index, n elements. */
void am_rng_fill_u32(const am_rng *rng, int64_t index, int64_t n, uint32_t *out);
/** is_true[i] = 1 with probability p to 2^-32 for index + i, else 0: a function of rng, p and
 * index + i alone. The draws of index 4 k .. 4 k + 3 are the bytes of word k, lowest first.
 * 0 <= index < 2^62, n elements. */
void am_rng_chance(const am_rng *rng, int64_t index, int64_t n, double p, uint8_t *is_true);
double am_rng_uniform(const am_rng *rng, int64_t index); /* [0,1), 53 bits: counter `index` */
double am_rng_normal(const am_rng *rng, int64_t index);  /* Box-Muller on counter `index` */

/** Element `index` of a pseudo-random permutation of [0, n): Feistel network with cycle walking, no
 * memory. 0 <= index < n. */
int64_t am_rng_permute(const am_rng *rng, int64_t n, int64_t index);

/** 64-bit FNV-1a-then-mixed hash of bytes, chained through `seed`: for keys and [same] checks. */
uint64_t am_hash64(const void *bytes, int64_t n, uint64_t seed);

#endif
