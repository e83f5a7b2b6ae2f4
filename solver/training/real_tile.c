/* Tiles of 6 rows by two vectors of C in registers. Blocks of B are packed into panels as wide as a
 * tile, so that a panel stays in the first cache; A is read where it lies, or packed when it is
 * transposed. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_tile.h"

#ifdef AM_HAS_TILES
#include <string.h>
#include "solver/training/real_vector.h"

enum {
    AM_TILE_K = 256,                        /* of a block: a panel of B is 16 KiB */
    AM_TILE_M = 24 * AM_TILE_ROWS,          /* rows of a block: A in half of the second cache */
    AM_TILE_N = 64 * AM_TILE_COLUMNS,       /* columns of a block */
    AM_TILE_AHEAD = 64 / (int)sizeof(real), /* a line of the cache */
    AM_TILE_DIRECT = 4 * AM_TILE_COLUMNS, /* columns for which rows of A are read where they lie */
    AM_TILE_LINE = AM_TILE_K + 16,        /* between packed rows of A */
};

static _Alignas(64) real am_tile_b[AM_TILE_K * AM_TILE_N];
static _Alignas(64) real am_tile_a[AM_TILE_LINE * AM_TILE_M];

bool AM_R(am_tile_suits)(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           !__builtin_cpu_supports("avx512f");
}

/* Rows of A: element (i, k) of a tile lies at at[i row + k step], the next tile `panel` behind. */
typedef struct am_tile_rows {
    const real *at;
    int64_t row, step, panel;
} am_tile_rows;

/* ---- packing ---- */

#if AM_REAL == 32
/* to[k][j] = from[j][k] for 8 by 8; lines of `to` lie AM_TILE_COLUMNS apart. */
AM_TILE_CODE static inline void am_tile_turn(const real *from, int64_t ld, real *to)
{
    __m256 r[8], s[8];
    for (int j = 0; j < 8; j++) {
        r[j] = _mm256_loadu_ps(from + j * ld);
    }
    for (int j = 0; j < 8; j += 2) {
        s[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
        s[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
    }
    for (int j = 0; j < 8; j += 4) {
        r[j] = _mm256_shuffle_ps(s[j], s[j + 2], 0x44);
        r[j + 1] = _mm256_shuffle_ps(s[j], s[j + 2], 0xEE);
        r[j + 2] = _mm256_shuffle_ps(s[j + 1], s[j + 3], 0x44);
        r[j + 3] = _mm256_shuffle_ps(s[j + 1], s[j + 3], 0xEE);
    }
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(to + j * AM_TILE_COLUMNS, _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
        _mm256_storeu_ps(to + (j + 4) * AM_TILE_COLUMNS,
                         _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
    }
}
#else
static inline void am_tile_turn(const real *from, int64_t ld, real *to)
{
    for (int j = 0; j < AM_TILE_VECTOR; j++) {
        for (int k = 0; k < AM_TILE_VECTOR; k++) {
            to[k * AM_TILE_COLUMNS + j] = from[j * ld + k];
        }
    }
}
#endif

/* A panel [K][columns] out of `width` rows of a transposed B. */
AM_TILE_CODE static void am_tile_pack_turned(const real *from, int64_t ld, int64_t K, int64_t width,
                                             real *to)
{
    int64_t j = 0;
    for (; j + AM_TILE_VECTOR <= width; j += AM_TILE_VECTOR) {
        int64_t k = 0;
        for (; k + AM_TILE_VECTOR <= K; k += AM_TILE_VECTOR) {
            am_tile_turn(from + j * ld + k, ld, to + k * AM_TILE_COLUMNS + j);
        }
        for (; k < K; k++) {
            for (int64_t i = j; i < j + AM_TILE_VECTOR; i++) {
                to[k * AM_TILE_COLUMNS + i] = from[i * ld + k];
            }
        }
    }
    for (; j < AM_TILE_COLUMNS; j++) {
        for (int64_t k = 0; k < K; k++) {
            to[k * AM_TILE_COLUMNS + j] = j < width ? from[j * ld + k] : 0;
        }
    }
}

/* One row of op(B) into its place in every panel, the last one filled with zeros. */
AM_TILE_CODE static void am_tile_pack_row(const real *from, int64_t N, int64_t K, real *to)
{
    int64_t n = 0;
    for (; n + AM_TILE_COLUMNS <= N; n += AM_TILE_COLUMNS, to += K * AM_TILE_COLUMNS) {
        am_put(to, am_take(from + n));
        am_put(to + AM_TILE_VECTOR, am_take(from + n + AM_TILE_VECTOR));
    }
    for (int64_t j = 0; n < N && j < AM_TILE_COLUMNS; j++) {
        to[j] = n + j < N ? from[n + j] : 0;
    }
}

/* Panels [k][columns] of rows [k0, k0 + K) and columns [n0, n0 + N) of op(B). */
static void am_tile_pack_b(const am_operand *b, int64_t k0, int64_t K, int64_t n0, int64_t N)
{
    for (int64_t k = 0; !b->transpose && k < K; k++) {
        am_tile_pack_row(b->at + (k0 + k) * b->ld + n0, N, K, am_tile_b + k * AM_TILE_COLUMNS);
    }
    for (int64_t n = 0; b->transpose && n < N; n += AM_TILE_COLUMNS) {
        const int64_t width = N - n < AM_TILE_COLUMNS ? N - n : AM_TILE_COLUMNS;
        am_tile_pack_turned(b->at + (n0 + n) * b->ld + k0, b->ld, K, width, am_tile_b + n * K);
    }
}

/* One row of a transposed A into its place in every panel. Where another k follows whole vectors
 * are moved: what is too much of them lies where the next k comes. */
AM_TILE_CODE static void am_tile_pack_column(const real *from, int64_t M, int64_t K, bool is_last,
                                             real *to)
{
    enum { WIDE = 8 / AM_TILE_VECTOR };
    int64_t m = 0;
    for (; !is_last && m + 8 <= M; m += AM_TILE_ROWS, to += K * AM_TILE_ROWS) {
        for (int i = 0; i < WIDE; i++) {
            am_put(to + i * AM_TILE_VECTOR, am_take(from + m + i * AM_TILE_VECTOR));
        }
    }
    for (; m < M; m += AM_TILE_ROWS, to += K * AM_TILE_ROWS) {
        for (int64_t i = 0; i < AM_TILE_ROWS && m + i < M; i++) {
            to[i] = from[m + i];
        }
    }
}

/* Rows [m0, m0 + M) of op(A), where no two rows of a tile meet in a set of the cache: as panels
 * [k][rows] of a transposed A, which lies [K,M], else as rows. */
static am_tile_rows am_tile_pack_a(const am_operand *a, int64_t k0, int64_t K, int64_t m0,
                                   int64_t M)
{
    if (!a->transpose) {
        for (int64_t m = 0; m < M; m++) {
            memcpy(am_tile_a + m * AM_TILE_LINE, a->at + (m0 + m) * a->ld + k0,
                   (size_t)K * sizeof(real));
        }
        return (am_tile_rows){am_tile_a, AM_TILE_LINE, 1, AM_TILE_ROWS * AM_TILE_LINE};
    }
    for (int64_t k = 0; k < K; k++) {
        am_tile_pack_column(a->at + (k0 + k) * a->ld + m0, M, K, k == K - 1,
                            am_tile_a + k * AM_TILE_ROWS);
    }
    return (am_tile_rows){am_tile_a, 1, AM_TILE_ROWS, AM_TILE_ROWS * K};
}

/* ---- tiles ---- */

__attribute__((always_inline)) AM_TILE_CODE static inline void
am_tile_of(const int rows, int64_t K, am_tile_rows a, const real *restrict b, real alpha, bool add,
           real *restrict c, int64_t ldc)
{
    am_vector sum[AM_TILE_ROWS][2];
    const real *at = a.at;
    const int64_t row = a.row, step = a.step, far = row > 1 ? row : AM_TILE_AHEAD;
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = am_vector_zero();
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + AM_TILE_COLUMNS - 1, 1);
    }
    for (int64_t k = 0; k < K; k += AM_TILE_AHEAD) {
        const int64_t n = K - k < AM_TILE_AHEAD ? K - k : AM_TILE_AHEAD;
        for (int i = 0; i < rows; i++) {
            __builtin_prefetch(at + a.panel + i * far);
        }
        for (int64_t j = 0; j < n; j++) {
            const am_vector b0 = am_take(b), b1 = am_take(b + AM_TILE_VECTOR);
#pragma GCC unroll 6
            for (int i = 0; i < rows; i++) {
                const am_vector x = am_spread(at + i * row);
                sum[i][0] = am_fma(x, b0, sum[i][0]);
                sum[i][1] = am_fma(x, b1, sum[i][1]);
            }
            at += step;
            b += AM_TILE_COLUMNS;
        }
    }
    const am_vector factor = am_spread(&alpha);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        real *to = c + i * ldc;
        am_vector s0 = factor * sum[i][0], s1 = factor * sum[i][1];
        if (add) {
            s0 += am_take(to);
            s1 += am_take(to + AM_TILE_VECTOR);
        }
        am_put(to, s0);
        am_put(to + AM_TILE_VECTOR, s1);
    }
}

AM_TILE_CODE static void am_tile_whole(int64_t K, am_tile_rows a, const real *b, real alpha,
                                       bool add, real *c, int64_t ldc)
{
    am_tile_of(AM_TILE_ROWS, K, a, b, alpha, add, c, ldc);
}

AM_TILE_CODE static void am_tile_fewer(int rows, int64_t K, am_tile_rows a, const real *b,
                                       real alpha, bool add, real *c, int64_t ldc)
{
    switch (rows) {
    case 1:
        am_tile_of(1, K, a, b, alpha, add, c, ldc);
        break;
    case 2:
        am_tile_of(2, K, a, b, alpha, add, c, ldc);
        break;
    case 3:
        am_tile_of(3, K, a, b, alpha, add, c, ldc);
        break;
    case 4:
        am_tile_of(4, K, a, b, alpha, add, c, ldc);
        break;
    case 5:
        am_tile_of(5, K, a, b, alpha, add, c, ldc);
        break;
    default:
        am_tile_whole(K, a, b, alpha, add, c, ldc);
    }
}

/* A tile with fewer columns: made beside C. */
static void am_tile_narrow(int rows, int64_t columns, int64_t K, am_tile_rows a, const real *b,
                           real alpha, bool add, real *c, int64_t ldc)
{
    _Alignas(64) real t[AM_TILE_ROWS * AM_TILE_COLUMNS];
    am_tile_fewer(rows, K, a, b, alpha, false, t, AM_TILE_COLUMNS);
    for (int i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            const real v = t[i * AM_TILE_COLUMNS + j];
            c[i * ldc + j] = add ? c[i * ldc + j] + v : v;
        }
    }
}

/* C [M,N] of a block; B is packed. */
static void am_tile_block(int64_t M, int64_t N, int64_t K, const am_tile_rows *a, real alpha,
                          bool add, real *c, int64_t ldc)
{
    for (int64_t n = 0; n < N; n += AM_TILE_COLUMNS) {
        const real *b = am_tile_b + n * K;
        const int64_t columns = N - n < AM_TILE_COLUMNS ? N - n : AM_TILE_COLUMNS;
        const real *ahead = b + AM_TILE_COLUMNS * K; /* the next panel comes nearer meanwhile */
        const int64_t part = AM_TILE_COLUMNS * K * AM_TILE_ROWS / M;
        am_tile_rows at = *a;
        for (int64_t m = 0; m < M; m += AM_TILE_ROWS, at.at += at.panel) {
            const int rows = M - m < AM_TILE_ROWS ? (int)(M - m) : AM_TILE_ROWS;
            real *to = c + m * ldc + n;
            for (int64_t i = 0; i < part; i += AM_TILE_AHEAD) {
                __builtin_prefetch(ahead + i);
            }
            ahead += part;
            if (columns < AM_TILE_COLUMNS) {
                am_tile_narrow(rows, columns, K, at, b, alpha, add, to, ldc);
            } else if (rows < AM_TILE_ROWS) {
                am_tile_fewer(rows, K, at, b, alpha, add, to, ldc);
            } else {
                am_tile_whole(K, at, b, alpha, add, to, ldc);
            }
        }
    }
}

void AM_R(am_tile_gemm)(int64_t M, int64_t N, int64_t K, real alpha, am_operand a, am_operand b,
                        bool add, real *c, int64_t ldc)
{
    for (int64_t n = 0; n < N; n += AM_TILE_N) {
        const int64_t width = N - n < AM_TILE_N ? N - n : AM_TILE_N;
        for (int64_t k = 0; k < K; k += AM_TILE_K) {
            const int64_t depth = K - k < AM_TILE_K ? K - k : AM_TILE_K;
            am_tile_pack_b(&b, k, depth, n, width);
            for (int64_t m = 0; m < M; m += AM_TILE_M) {
                const int64_t rows = M - m < AM_TILE_M ? M - m : AM_TILE_M;
                am_tile_rows at = {a.at + m * a.ld + k, a.ld, 1, AM_TILE_ROWS * a.ld};
                if (a.transpose || width > AM_TILE_DIRECT) {
                    at = am_tile_pack_a(&a, k, depth, m, rows);
                }
                am_tile_block(rows, width, depth, &at, alpha, add || k > 0, c + m * ldc + n, ldc);
            }
        }
    }
}
#endif
