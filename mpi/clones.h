/* AM_CLONES before a function of plain loops: GCC compiles it for several vector widths and the
 * loader picks one. The bits are the same in each, because contraction to FMA is off
 * (-ffp-contract=off) and the loops say in which lane each addition happens.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_CLONES_H
#define AM_MPI_CLONES_H

/* Sanitizers cannot start before the loader resolves clones. "avx512f" alone has no vectors of
 * 16-bit integers: GCC then takes half the width for loops with them. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if __GNUC__ >= 12
#define AM_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define AM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define AM_CLONES
#endif

#endif
