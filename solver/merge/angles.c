/* Arithmetic that methods on angles share. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "mpi/clones.h"
#include "solver/merge/angles.h"

int am_gram_count(const am_unit *unit)
{
    return unit->models * (unit->models + 1) / 2;
}

int am_coefficient_states(const am_unit *unit)
{
    return unit->models;
}

AM_CLONES static void add_scaled(double *restrict out, double c, const double *restrict x,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] += c * x[i];
    }
}

AM_CLONES static void add_scaled_difference(double *restrict out, double c,
                                            const double *restrict x, const double *restrict base,
                                            int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] += c * (x[i] - base[i]);
    }
}

void am_tile_combine(const am_tile *tile, const double *c)
{
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = 0;
    }
    for (int t = 0; t < tile->models; t++) {
        if (tile->base != NULL) {
            add_scaled_difference(tile->out, c[t], tile->x[t], tile->base, tile->n);
        } else {
            add_scaled(tile->out, c[t], tile->x[t], tile->n);
        }
    }
    if (tile->base != NULL) {
        add_scaled(tile->out, 1, tile->base, tile->n);
    }
}

void am_coefficient_combine(const am_tile *tile)
{
    am_tile_combine(tile, tile->unit->state);
}

am_tile am_tile_row(const am_tile *tile, int64_t row, const double **x)
{
    const int64_t at = row * tile->cols;
    am_tile view = *tile;
    for (int t = 0; t < tile->models; t++) {
        x[t] = tile->x[t] + at;
    }
    view.n = tile->cols;
    view.rows = 1;
    view.lo += at;
    view.base = tile->base != NULL ? tile->base + at : NULL;
    view.x = x;
    view.out = tile->out + at;
    return view;
}

/* ---- coefficients ---- */

void am_arc(double t, double cosine, double *c)
{
    const double theta = acos(cosine);
    c[0] = sin((1 - t) * theta) / sin(theta);
    c[1] = sin(t * theta) / sin(theta);
}

double am_gram_dot(const double *gram, int n, int i, const double *c)
{
    double sum = 0;
    for (int j = 0; j < n; j++) {
        sum += c[j] * am_gram_at(gram, i, j);
    }
    return sum;
}

double am_gram_norm(const double *gram, int n, const double *c)
{
    double square = 0;
    for (int i = 0; i < n; i++) {
        square += c[i] * am_gram_dot(gram, n, i, c);
    }
    return sqrt(fmax(square, 0));
}

/* ---- eigenvalues ---- */

/* Turn rows and columns p and q of a, and columns p and q of v, by the angle that makes a[p,q]
 * zero.
 */
static void rotate(double *a, double *v, int n, int p, int q)
{
    const double skew = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
    const double tangent = copysign(1, skew) / (fabs(skew) + hypot(1, skew));
    const double c = 1 / hypot(1, tangent), s = tangent * c;
    for (int k = 0; k < n; k++) {
        const double x = a[k * n + p], y = a[k * n + q];
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for (int k = 0; k < n; k++) {
        const double x = a[p * n + k], y = a[q * n + k];
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
    }
    a[p * n + q] = a[q * n + p] = 0;
    for (int k = 0; k < n; k++) {
        const double x = v[k * n + p], y = v[k * n + q];
        v[k * n + p] = c * x - s * y;
        v[k * n + q] = s * x + c * y;
    }
}

bool am_eigen_symmetric(double *a, double *v, int n)
{
    enum { SWEEPS = 60 };
    for (int i = 0; i < n * n; i++) {
        v[i] = i % (n + 1) == 0;
    }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool is_diagonal = true;
        for (int p = 0; p < n; p++) {
            for (int q = p + 1; q < n; q++) {
                const double size = hypot(a[p * n + p], a[q * n + q]);
                if (!(fabs(a[p * n + q]) <= 0x1p-60 * size)) {
                    rotate(a, v, n, p, q);
                    is_diagonal = false;
                }
            }
        }
        if (is_diagonal) {
            return true;
        }
    }
    return false;
}
