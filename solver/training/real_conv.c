/* Tiles of 6 rows by two vectors in registers, whose operands are read where they lie.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_conv.h"

#ifdef AM_HAS_TILES
#include <string.h>
#include "solver/training/real_vector.h"

enum { AM_CONV_DEPTH = 320 }; /* terms of a block, about: a panel of the weight is 20 KiB */

static int64_t am_conv_line(const am_conv_windows *s)
{
    return (s->w + s->k - 1) * s->C;
}

static int64_t am_conv_panels(int64_t n, int64_t width)
{
    return (n + width - 1) / width;
}

int64_t AM_R(am_conv_image_reals)(const am_conv_windows *s)
{
    return (s->h + s->k - 1) * am_conv_line(s) + AM_TILE_COLUMNS;
}

int64_t AM_R(am_conv_weight_reals)(const am_conv_windows *s, int64_t N)
{
    return s->k * s->k * s->C * am_conv_panels(N, AM_TILE_COLUMNS) * AM_TILE_COLUMNS;
}

int64_t AM_R(am_conv_gradient_reals)(const am_conv_windows *s, int64_t N)
{
    return s->h * s->w * am_conv_panels(N, AM_TILE_ROWS) * AM_TILE_ROWS;
}

void AM_R(am_conv_pad)(const am_conv_windows *s, int64_t padding, const real *x, real *padded)
{
    const int64_t H = s->h + s->k - 1 - 2 * padding, W = s->w + s->k - 1 - 2 * padding;
    for (int64_t i = 0; i < H; i++) {
        memcpy(padded + (padding + i) * am_conv_line(s) + padding * s->C, x + i * W * s->C,
               (size_t)(W * s->C) * sizeof(real));
    }
}

/* Panels [window][columns], the last one filled with zeros. */
void AM_R(am_conv_pack)(const am_conv_windows *s, int64_t N, const real *weight, real *packed)
{
    const int64_t window = s->k * s->k * s->C;
    for (int64_t n = 0; n < N; n += AM_TILE_COLUMNS) {
        const int64_t width = N - n < AM_TILE_COLUMNS ? N - n : AM_TILE_COLUMNS;
        for (int64_t t = 0; t < window; t++, packed += AM_TILE_COLUMNS) {
            memcpy(packed, weight + t * N + n, (size_t)width * sizeof(real));
            memset(packed + width, 0, (size_t)(AM_TILE_COLUMNS - width) * sizeof(real));
        }
    }
}

/* ---- tiles ---- */

/* Where a tile goes: of its rows and columns only so many are wanted. */
typedef struct am_conv_target {
    real *at;
    int64_t ld, rows, columns;
    bool add;
} am_conv_target;

/* A tile at the edge goes through memory of its own. */
static void am_conv_put_edge(const real *tile, const am_conv_target *c)
{
    for (int64_t i = 0; i < c->rows; i++) {
        for (int64_t j = 0; j < c->columns; j++) {
            const real v = tile[i * AM_TILE_COLUMNS + j];
            c->at[i * c->ld + j] = c->add ? c->at[i * c->ld + j] + v : v;
        }
    }
}

__attribute__((always_inline)) AM_TILE_CODE static inline void
am_conv_put(am_vector sum[AM_TILE_ROWS][2], const am_conv_target *c)
{
    if (c->rows < AM_TILE_ROWS || c->columns < AM_TILE_COLUMNS) {
        _Alignas(64) real tile[AM_TILE_ROWS * AM_TILE_COLUMNS];
#pragma GCC unroll 6
        for (int i = 0; i < AM_TILE_ROWS; i++) {
            am_put(tile + i * AM_TILE_COLUMNS, sum[i][0]);
            am_put(tile + i * AM_TILE_COLUMNS + AM_TILE_VECTOR, sum[i][1]);
        }
        am_conv_put_edge(tile, c);
        return;
    }
#pragma GCC unroll 6
    for (int i = 0; i < AM_TILE_ROWS; i++) {
        real *to = c->at + i * c->ld;
        if (c->add) {
            sum[i][0] += am_take(to);
            sum[i][1] += am_take(to + AM_TILE_VECTOR);
        }
        am_put(to, sum[i][0]);
        am_put(to + AM_TILE_VECTOR, sum[i][1]);
    }
}

/* The windows of six pixels, at[i] their first pixels, times a panel b: `lines` lines of `length`
 * terms, `line` apart in the image. */
AM_TILE_CODE static void am_conv_tile(const real *const *at, int64_t lines, int64_t line,
                                      int64_t length, const real *restrict b,
                                      const am_conv_target *c)
{
    am_vector sum[AM_TILE_ROWS][2];
    const real *a0 = at[0], *a1 = at[1], *a2 = at[2], *a3 = at[3], *a4 = at[4], *a5 = at[5];
#pragma GCC unroll 6
    for (int i = 0; i < AM_TILE_ROWS; i++) {
        sum[i][0] = sum[i][1] = am_vector_zero();
    }
#define AM_CONV_ROW(i, p)                                                                          \
    x = am_spread(p + t);                                                                          \
    sum[i][0] = am_fma(x, b0, sum[i][0]);                                                          \
    sum[i][1] = am_fma(x, b1, sum[i][1])
    for (int64_t l = 0; l < lines; l++) {
        for (int64_t t = 0; t < length; t++, b += AM_TILE_COLUMNS) {
            const am_vector b0 = am_take(b), b1 = am_take(b + AM_TILE_VECTOR);
            am_vector x;
            AM_CONV_ROW(0, a0);
            AM_CONV_ROW(1, a1);
            AM_CONV_ROW(2, a2);
            AM_CONV_ROW(3, a3);
            AM_CONV_ROW(4, a4);
            AM_CONV_ROW(5, a5);
        }
        a0 += line, a1 += line, a2 += line, a3 += line, a4 += line, a5 += line;
    }
#undef AM_CONV_ROW
    am_conv_put(sum, c);
}

/* Rows of h by w pixels a [pixels][rows], times b, which moves by C from pixel to pixel and by
 * `line` from line to line. */
AM_TILE_CODE static void am_conv_turned_tile(const am_conv_windows *s, const real *restrict a,
                                             const real *b, const am_conv_target *c)
{
    am_vector sum[AM_TILE_ROWS][2];
    const int64_t line = am_conv_line(s), C = s->C;
#pragma GCC unroll 6
    for (int i = 0; i < AM_TILE_ROWS; i++) {
        sum[i][0] = sum[i][1] = am_vector_zero();
    }
    for (int64_t l = 0; l < s->h; l++, b += line) {
        const real *at = b;
        for (int64_t p = 0; p < s->w; p++, a += AM_TILE_ROWS, at += C) {
            const am_vector b0 = am_take(at), b1 = am_take(at + AM_TILE_VECTOR);
#pragma GCC unroll 6
            for (int i = 0; i < AM_TILE_ROWS; i++) {
                const am_vector x = am_spread(a + i);
                sum[i][0] = am_fma(x, b0, sum[i][0]);
                sum[i][1] = am_fma(x, b1, sum[i][1]);
            }
        }
    }
    am_conv_put(sum, c);
}

/* ---- images ---- */

/* y [h w, columns] of one panel: lines [lo, hi) of the windows. */
static void am_conv_panel(const am_conv_windows *s, const real *padded, int64_t lo, int64_t hi,
                          const real *b, am_conv_target c)
{
    const int64_t line = am_conv_line(s), pixels = s->h * s->w;
    int64_t column = 0;
    const real *row = padded + lo * line, *next = row;
    for (int64_t p = 0; p < pixels; p += AM_TILE_ROWS, c.at += AM_TILE_ROWS * c.ld) {
        const real *at[AM_TILE_ROWS];
        c.rows = pixels - p < AM_TILE_ROWS ? pixels - p : AM_TILE_ROWS;
        for (int i = 0; i < AM_TILE_ROWS; i++) { /* past the end the last one again */
            at[i] = next;
            if (p + i + 1 < pixels) {
                column++;
                next += s->C;
                if (column == s->w) {
                    column = 0;
                    row += line;
                    next = row;
                }
            }
        }
        am_conv_tile(at, hi - lo, line, s->k * s->C, b, &c);
    }
}

void AM_R(am_conv_apply)(const am_conv_windows *s, const real *padded, const real *packed,
                         int64_t N, bool add, real *y)
{
    const int64_t length = s->k * s->C, window = s->k * length;
    const int64_t lines = AM_CONV_DEPTH / length > 1 ? AM_CONV_DEPTH / length : 1;
    for (int64_t lo = 0; lo < s->k; lo += lines) {
        const int64_t hi = lo + lines < s->k ? lo + lines : s->k;
        for (int64_t n = 0; n < N; n += AM_TILE_COLUMNS) {
            am_conv_panel(
                s, padded, lo, hi, packed + n * window + lo * length * AM_TILE_COLUMNS,
                (am_conv_target){.at = y + n,
                                 .ld = N,
                                 .columns = N - n < AM_TILE_COLUMNS ? N - n : AM_TILE_COLUMNS,
                                 .add = add || lo > 0});
        }
    }
}

/* Panels [pixels][rows] of dy [pixels,N], the last one filled with zeros. */
static void am_conv_pack_gradient(int64_t pixels, int64_t N, const real *dy, real *to)
{
    for (int64_t n = 0; n < N; n += AM_TILE_ROWS) {
        const int64_t rows = N - n < AM_TILE_ROWS ? N - n : AM_TILE_ROWS;
        for (int64_t p = 0; p < pixels; p++, to += AM_TILE_ROWS) {
            for (int64_t i = 0; i < AM_TILE_ROWS; i++) {
                to[i] = i < rows ? dy[p * N + n + i] : 0;
            }
        }
    }
}

void AM_R(am_conv_gradient)(const am_conv_windows *s, const real *padded, const real *dy, int64_t N,
                            bool add, real *scratch, real *dw)
{
    const int64_t length = s->k * s->C, window = s->k * length, pixels = s->h * s->w;
    am_conv_pack_gradient(pixels, N, dy, scratch);
    for (int64_t l = 0; l < s->k; l++) {
        for (int64_t t = 0; t < length; t += AM_TILE_COLUMNS) {
            const real *b = padded + l * am_conv_line(s) + t;
            am_conv_target c = {.at = dw + l * length + t, .ld = window, .add = add};
            c.columns = length - t < AM_TILE_COLUMNS ? length - t : AM_TILE_COLUMNS;
            for (int64_t n = 0; n < N; n += AM_TILE_ROWS, c.at += AM_TILE_ROWS * window) {
                c.rows = N - n < AM_TILE_ROWS ? N - n : AM_TILE_ROWS;
                am_conv_turned_tile(s, scratch + n * pixels, b, &c);
            }
        }
    }
}
#endif
