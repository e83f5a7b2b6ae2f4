/* WUDI: the update that disturbs every task least in the directions of its own task vector.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include "mpi/error.h"
#include "solver/linalg/least_squares.h"
#include "solver/merge/spectral.h"

enum { CLOSED = AM_SPECTRAL_OWN, ITERATIONS, RATE };

static const am_method_param params[] = {
    AM_SPECTRAL_PARAMS(0),
    [CLOSED] = {.key = "closed_form",
                .is_bool = true,
                .help = "the least squares solution itself, not the published steps towards it"},
    [ITERATIONS] = {.key = "iterations",
                    .fallback = 300,
                    .low = 0,
                    .high = 1e6,
                    .help = "steps of Adam from the sum of the task vectors"},
    [RATE] =
        {.key = "learning_rate", .fallback = 1e-5, .low = 1e-12, .high = 1, .help = "of a step"},
    {0}};

static int64_t widest(const am_spectral_size *s)
{
    const int64_t all = s->models * s->m;
    return all > s->n ? all : s->n;
}

/* Task vectors that are zero are left out, and LAPACK may take more room for fewer columns. */
static int64_t closed_bytes(const am_spectral_size *s)
{
    int64_t most = 0;
    for (int t = 1; t <= s->models; t++) {
        const int64_t bytes = am_matrix_bytes_on(s->on, s->n, t * s->m) +
                              am_least_squares_bytes_on(s->on, s->n, t * s->m, s->m);
        most = bytes > most ? bytes : most;
    }
    return am_matrix_bytes_on(s->on, s->m, widest(s)) + most;
}

/* The task vectors that are not zero, over their lengths; *n of them. length[t] belongs to the
 * t-th. */
static void normalise(const am_dense *matrix, am_matrix *unit, double *length, int *n)
{
    *n = 0;
    for (int t = 0; t < matrix->unit->models; t++) {
        const double norm = am_matrix_norm(matrix->delta[t]);
        if (norm > 0) {
            unit[*n] = matrix->delta[t];
            am_matrix_scale(unit[*n], 1 / norm);
            length[(*n)++] = norm;
        }
    }
}

/* out [a_1^T .. a_T^T] = [delta_1 a_1^T .. delta_T a_T^T], a_t = delta_t / |delta_t|, in the sense
 * of least squares: no Gram matrix, whose small singular values would be lost. */
static int solve_closed(const am_dense *matrix, const am_matrix *unit, const double *length, int n)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const am_matrix a = am_matrix_take_like(matrix->work, matrix->out, s.n, n * s.m);
    const am_matrix b = am_matrix_take_like(matrix->work, matrix->out, s.m, widest(&s));
    const double rounding = (double)widest(&s) * DBL_EPSILON;
    int64_t rank = 0;
    for (int t = 0; t < n; t++) {
        am_matrix_transpose(unit[t], am_matrix_part(a, 0, t * s.m, s.n, s.m));
        am_multiply(length[t], unit[t], AM_AS_IS, unit[t], AM_TRANSPOSED, 0,
                    am_matrix_part(b, 0, t * s.m, s.m, s.m));
    }
    const int rc = am_least_squares(matrix->work, a, b, rounding, &rank);
    if (rc == 0) {
        am_matrix_copy(am_matrix_part(b, 0, 0, s.m, s.n), matrix->out);
    }
    return rc;
}

/* One step of Adam (0.9, 0.999, 1e-8) with gradient g [n]. */
static void adam(double rate, int step, int64_t n, const double *g, double *mean, double *square,
                 double *x)
{
    const double low = 1 - pow(0.9, step), high = 1 - pow(0.999, step);
    for (int64_t i = 0; i < n; i++) {
        mean[i] = 0.9 * mean[i] + 0.1 * g[i];
        square[i] = 0.999 * square[i] + 0.001 * g[i] * g[i];
        x[i] -= rate * (mean[i] / low) / (sqrt(square[i] / high) + 1e-8);
    }
}

/* G = sum_t a_t^T a_t [n,n], or where that costs more than the a_t themselves, only these. */
typedef struct am_metric {
    const am_matrix *unit; /* [count] a_t */
    int count;
    bool is_whole;
    am_matrix whole, one; /* G, one of its terms; or nothing, [m,m] */
} am_metric;

static bool is_cheaper_whole(const am_spectral_size *s)
{
    return s->n <= 2 * s->models * s->m;
}

static int64_t metric_bytes(const am_spectral_size *s)
{
    return is_cheaper_whole(s) ? 2 * am_matrix_bytes_on(s->on, s->n, s->n)
                               : am_matrix_bytes_on(s->on, s->m, s->m);
}

static am_metric metric_make(const am_dense *matrix, const am_matrix *unit, int count)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    am_metric g = {.unit = unit, .count = count, .is_whole = is_cheaper_whole(&s)};
    if (g.is_whole) {
        g.whole = am_matrix_take_like(matrix->work, matrix->out, s.n, s.n);
        g.one = am_matrix_take_like(matrix->work, matrix->out, s.n, s.n);
        am_matrix_fill(g.whole, 0);
    } else {
        g.one = am_matrix_take_like(matrix->work, matrix->out, s.m, s.m);
    }
    for (int t = 0; t < count && g.is_whole; t++) {
        am_multiply(1, unit[t], AM_TRANSPOSED, unit[t], AM_AS_IS, 1, g.whole);
    }
    return g;
}

/* y += factor x a_t^T a_t */
static void metric_add_one(const am_metric *g, double factor, am_matrix x, int t, am_matrix y)
{
    if (g->is_whole) {
        am_multiply(1, g->unit[t], AM_TRANSPOSED, g->unit[t], AM_AS_IS, 0, g->one);
        am_multiply(factor, x, AM_AS_IS, g->one, AM_AS_IS, 1, y);
    } else {
        am_multiply(1, x, AM_AS_IS, g->unit[t], AM_TRANSPOSED, 0, g->one);
        am_multiply(factor, g->one, AM_AS_IS, g->unit[t], AM_AS_IS, 1, y);
    }
}

/* y += factor x G */
static void metric_add(const am_metric *g, double factor, am_matrix x, am_matrix y)
{
    if (g->is_whole) {
        am_multiply(factor, x, AM_AS_IS, g->whole, AM_AS_IS, 1, y);
    }
    for (int t = 0; t < g->count && !g->is_whole; t++) {
        metric_add_one(g, factor, x, t, y);
    }
}

/* With out = sum_t delta_t + E, the gradient of sum_t |(out - delta_t) a_t^T|^2 is 2 (E G + R),
 * R = sum_t (sum_s delta_s - delta_t) a_t^T a_t. At a minimum it is rounding, and of that Adam
 * makes steps: E, not out, so that a task alone stays where it is. */
static void iterate(const am_dense *matrix, const am_matrix *unit, const double *length, int n)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const am_metric g = metric_make(matrix, unit, n);
    const am_matrix like = matrix->out, here = am_matrix_local(like);
    const am_matrix start = am_matrix_take_like(matrix->work, like, s.m, s.n);
    const am_matrix rest = am_matrix_take_like(matrix->work, like, s.m, s.n);
    const am_matrix gradient = am_matrix_take_like(matrix->work, like, s.m, s.n);
    const am_matrix mean = am_matrix_take_like(matrix->work, like, s.m, s.n);
    const am_matrix square = am_matrix_take_like(matrix->work, like, s.m, s.n);
    const am_matrix zeros[] = {start, rest, mean, square, matrix->out};
    const int steps = (int)matrix->unit->param[ITERATIONS];
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        am_matrix_fill(zeros[i], 0);
    }
    for (int t = 0; t < n; t++) {
        am_matrix_add(length[t], unit[t], start);
    }
    for (int t = 0; t < n; t++) {
        am_matrix_copy(start, gradient);
        am_matrix_add(-length[t], unit[t], gradient);
        metric_add_one(&g, 2, gradient, t, rest);
    }
    for (int step = 1; step <= steps; step++) {
        am_matrix_copy(rest, gradient);
        metric_add(&g, 2, matrix->out, gradient);
        /* all of these lie alike, without gaps */
        adam(matrix->unit->param[RATE], step, here.rows * here.cols, gradient.at, mean.at,
             square.at, here.at);
    }
    am_matrix_add(1, start, matrix->out);
}

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    return unit->param[CLOSED] != 0 ? closed_bytes(&s)
                                    : metric_bytes(&s) + 5 * am_matrix_bytes_on(s.on, s.m, s.n);
}

/* The closed form stands all task vectors side by side. */
static void largest(const am_unit *unit, int64_t *rows, int64_t *cols)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    *rows = s.n;
    *cols = (unit->param[CLOSED] != 0 ? s.models : 1) * s.m;
}

static int merge_dense(const am_dense *matrix)
{
    am_matrix unit[AM_MAX_MODELS];
    double length[AM_MAX_MODELS];
    int n = 0, rc = 0;
    normalise(matrix, unit, length, &n);
    if (matrix->unit->param[CLOSED] != 0) {
        rc = solve_closed(matrix, unit, length, n);
    } else {
        iterate(matrix, unit, length, n);
    }
    if (rc == 0) {
        am_spectral_scale(matrix, matrix->out);
    }
    return rc;
}

const am_method am_method_wudi = {
    .name = "wudi",
    .summary = "the update that disturbs each task least along its own task vector (WUDI)",
    .source = "Cheng et al. 2025 (arXiv:2503.08099), equation of WUDI-Merging: least sum_t |(M - "
              "delta_t) delta_t^T|^2 / |delta_t|^2, Adam from sum_t delta_t; or its solution",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .dense_bytes = dense_bytes,
    .largest = largest,
    .on_grid = true,
    .merge_dense = merge_dense,
};
