/* What methods on matrices share: see spectral.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/spectral.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/linalg/polar.h"
#include "solver/linalg/svd.h"

/* Directions of two matrices that differ by less are one: what is left of it is rounding. */
static const double DISTINCT = 1e-8;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

am_spectral_size am_spectral_size_of(const am_unit *unit)
{
    const int64_t m = unit->outer, n = unit->n / m;
    return (am_spectral_size){
        .m = m, .n = n, .k = least(m, n), .models = unit->models, .on = unit->on};
}

bool am_spectral_is_dense(const am_unit *unit)
{
    const bool has_shape =
        unit->dims == 2 || (unit->dims > 2 && unit->param[AM_SPECTRAL_FOLD] != 0);
    return has_shape && unit->param[AM_SPECTRAL_ON] != 0;
}

AM_CLONES static void add_delta(double *restrict out, const double *restrict x,
                                const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] += x[i] - base[i];
    }
}

void am_spectral_combine(const am_tile *tile)
{
    const double factor =
        tile->param[AM_SPECTRAL_LAMBDA] * tile->param[AM_SPECTRAL_OTHERS] / tile->models;
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = 0;
    }
    for (int t = 0; t < tile->models; t++) {
        add_delta(tile->out, tile->x[t], tile->base, tile->n);
    }
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = tile->base[i] + factor * tile->out[i];
    }
}

void am_spectral_sum(const am_dense *matrix, am_matrix out)
{
    am_matrix_copy(matrix->delta[0], out);
    for (int t = 1; t < matrix->unit->models; t++) {
        am_matrix_add(1, matrix->delta[t], out);
    }
}

void am_spectral_scale(const am_dense *matrix, am_matrix a)
{
    am_matrix_scale(a, matrix->unit->param[AM_SPECTRAL_LAMBDA]);
}

int64_t am_spectral_directions(double share, int64_t k)
{
    const int64_t wanted = (int64_t)floor(share * (double)k + 1e-9);
    return wanted < 1 ? 1 : least(wanted, k);
}

/* ---- directions ---- */

int64_t am_directions_bytes(const am_layout *on, int64_t m, int64_t n, int64_t room)
{
    return am_matrix_bytes_on(on, m, room) + am_matrix_bytes_on(on, room, n) +
           am_matrix_bytes(1, room);
}

am_directions am_directions_take(am_arena *work, am_matrix like, int64_t m, int64_t n, int64_t room)
{
    return (am_directions){.left = am_matrix_take_like(work, like, m, room),
                           .right = am_matrix_take_like(work, like, room, n),
                           .value = am_matrix_take(work, 1, room).at};
}

int64_t am_directions_add_bytes(const am_layout *on, int64_t m, int64_t n, int64_t most)
{
    return am_matrix_bytes(1, least(m, n)) + am_svd_bytes_on(on, m, n, most);
}

int am_directions_add(am_arena *work, am_matrix a, double of, int64_t most, am_directions *d)
{
    const double rounding = (double)(a.rows > a.cols ? a.rows : a.cols) * DBL_EPSILON * of;
    if (most == 0) {
        return 0;
    }
    const size_t mark = am_arena_mark(work);
    double *s = am_matrix_take(work, 1, least(a.rows, a.cols)).at;
    const int rc = am_svd(work, a, am_matrix_part(d->left, 0, d->count, a.rows, most), s,
                          am_matrix_part(d->right, d->count, 0, most, a.cols));
    if (rc == 0) {
        int64_t more = least(most, am_svd_rank(a.rows, a.cols, s));
        while (more > 0 && s[more - 1] <= rounding) {
            more--;
        }
        memcpy(d->value + d->count, s, (size_t)more * sizeof *s);
        d->count += more;
    }
    am_arena_release(work, mark);
    return rc;
}

int64_t am_directions_turn_bytes(const am_layout *on, int64_t m, int64_t n, int64_t room)
{
    const int64_t left = am_polar_bytes_within_on(on, m, room);
    const int64_t right = am_polar_bytes_within_on(on, room, n);
    return left > right ? left : right;
}

/* The directions that are there. */
static am_matrix left_of(const am_directions *d)
{
    return am_matrix_part(d->left, 0, 0, d->left.rows, d->count);
}

static am_matrix right_of(const am_directions *d)
{
    return am_matrix_part(d->right, 0, 0, d->count, d->right.cols);
}

int am_directions_turn(am_arena *work, am_directions *d)
{
    const int rc = am_polar(work, left_of(d), DISTINCT, AM_POLAR_AUTO);
    return rc != 0 ? rc : am_polar(work, right_of(d), DISTINCT, AM_POLAR_AUTO);
}

void am_directions_multiply(const am_directions *d, am_matrix out)
{
    am_matrix_scale_rows(right_of(d), d->value);
    am_multiply(1, left_of(d), AM_AS_IS, right_of(d), AM_AS_IS, 0, out);
}

int am_directions_merge(const am_dense *matrix, am_directions *d)
{
    const int rc = am_directions_turn(matrix->work, d);
    if (rc == 0) {
        am_directions_multiply(d, matrix->out);
        am_spectral_scale(matrix, matrix->out);
    }
    return rc;
}
