/* am_gemm_in against sums in f64: sizes about the edges of tiles and blocks, matrices inside larger
 * ones. SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 32
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "solver/training/real_tile.h"
#include "tests/am_test.h"

static const int64_t size[] = {1, 2, 5, 6, 7, 15, 16, 17, 33, 64, 65, 147, 255, 257, 513};
enum { SIZES = sizeof size / sizeof *size, GAP = 3, MOST = 1100 };

static float number(int64_t i)
{
    return (float)((i * 2654435761U) % 2001) / 1000 - 1;
}

static double element(am_operand m, int64_t i, int64_t j)
{
    return (double)m.at[m.transpose ? j * m.ld + i : i * m.ld + j];
}

static am_operand matrix(float *at, int64_t rows, int64_t columns, bool transpose)
{
    return (am_operand){.at = at, .ld = (transpose ? rows : columns) + GAP, .transpose = transpose};
}

/* Largest error over the sum of the sizes of the terms; infinite where C is touched outside. */
static double error(int64_t M, int64_t N, int64_t K, am_operand a, am_operand b, bool add, float *c)
{
    const int64_t ldc = N + GAP;
    const float alpha = 0.75F;
    double worst = 0;
    for (int64_t i = 0; i < M * ldc; i++) {
        c[i] = number(i + 7);
    }
    am_gemm_in_f32(M, N, K, alpha, a, b, add, c, ldc);
    for (int64_t i = 0; i < M * ldc; i++) {
        const int64_t m = i / ldc, n = i % ldc;
        double sum = (double)number(i + 7), terms = fabs(sum);
        if (n >= N) {
            worst = c[i] == number(i + 7) ? worst : INFINITY;
            continue;
        }
        sum = add ? sum : 0;
        for (int64_t k = 0; k < K; k++) {
            const double term = 0.75 * element(a, m, k) * element(b, k, n);
            sum += term;
            terms += fabs(term);
        }
        worst = fmax(worst, fabs((double)c[i] - sum) / (terms + 1e-3));
    }
    return worst;
}

static void products(void)
{
    float *buffer = am_new(3 * MOST * MOST, sizeof *buffer, "matrices");
    AM_CHECK(buffer != NULL);
    for (int64_t i = 0; i < 3 * MOST * MOST; i++) {
        buffer[i] = number(i);
    }
    for (int64_t i = 0; buffer != NULL && i < 400; i++) {
        const int64_t M = size[i * 7 % SIZES], N = size[i * 11 % 13], K = size[(i * 4 + 1) % SIZES];
        const am_operand a = matrix(buffer, M, K, i % 2 == 1);
        const am_operand b = matrix(buffer + MOST * MOST, K, N, i / 2 % 2 == 1);
        AM_CHECK(error(M, N, K, a, b, i / 4 % 2 == 1, buffer + 2 * MOST * MOST) < 1e-6);
    }
    if (buffer != NULL) { /* more than one block of columns and of rows */
        const am_operand a = matrix(buffer, 150, 300, true);
        const am_operand b = matrix(buffer + MOST * MOST, 300, 1060, false);
        AM_CHECK(error(150, 1060, 300, a, b, true, buffer + 2 * MOST * MOST) < 1e-6);
    }
    free(buffer);
}

/* A row of the product has the same bits alone and among others. */
static void rows_alone(void)
{
    enum { M = 151, N = 70, K = 300 };
    static float a[M * K], b[K * N], c[M * N], alone[N];
    for (int64_t i = 0; i < M * K; i++) {
        a[i] = number(i);
    }
    for (int64_t i = 0; i < K * N; i++) {
        b[i] = number(i + 5);
    }
#ifdef AM_HAS_TILES
    if (am_tile_suits_f32()) {
        am_gemm_f32(false, false, M, N, K, a, b, c);
        for (int64_t m = 0; m < M; m++) {
            am_gemm_f32(false, false, 1, N, K, a + m * K, b, alone);
            AM_CHECK(memcmp(alone, c + m * N, sizeof alone) == 0);
        }
    }
#endif
}

static const am_test tests[] = {
    AM_TEST(products),
    AM_TEST(rows_alone),
};

AM_TEST_MAIN("gemm", tests)
