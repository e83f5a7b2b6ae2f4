/* Factorisations on process grids against LAPACK on one rank and against their definitions, for
 * spectra that are known because the matrices are made of them; grids of fewer ranks than there
 * are, blocks that divide nothing. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/world.h"
#include "solver/linalg/cholesky.h"
#include "solver/linalg/eigen.h"
#include "solver/linalg/grid_move.h"
#include "solver/linalg/least_squares.h"
#include "solver/linalg/polar.h"
#include "solver/linalg/qdwh.h"
#include "solver/linalg/qr.h"
#include "solver/linalg/svd.h"
#include "tests/am_test.h"
#include "tests/ref_spectra.h"

enum { MOST = 96, SHAPES = 8, LAYOUTS = 7 };
enum { QDWH = AM_POLAR_ITERATE + 1 }; /* one more way to a polar factor */
static const double TOLERANCE = 1e-12;

static const int64_t shapes[SHAPES][2] = {{1, 1},   {1, 9},   {9, 1},   {33, 33},
                                          {70, 13}, {13, 70}, {31, 30}, {40, 49}};
static const am_layout layouts[LAYOUTS] = {{1, 1, 8}, {2, 1, 5}, {1, 2, 16}, {2, 2, 7},
                                           {3, 1, 4}, {1, 3, 1}, {2, 2, 64}};

/* ---- whole matrices, the same on all ranks ---- */

static am_arena arena; /* of whole ones */
static am_grid grid;
static const am_layout *on;

static am_matrix take(int64_t rows, int64_t cols)
{
    return am_matrix_take(&arena, rows, cols);
}

static am_matrix draw(int64_t rows, int64_t cols, int number)
{
    const am_matrix a = take(rows, cols);
    const am_rng rng = am_rng_make(am_test_seed(), "grid", number, 0, "");
    for (int64_t i = 0; i < rows * cols; i++) {
        a.at[i] = am_rng_normal(&rng, i);
    }
    return a;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static am_matrix orthonormal(int64_t rows, int64_t cols, int number)
{
    const am_matrix q = take(rows, cols), r = take(cols, cols);
    AM_CHECK_OK(am_qr(&arena, draw(rows, cols, number), q, r, NULL));
    return q;
}

/* left diag(of the spectrum) right^T */
static am_matrix compose(am_matrix left, int kind, am_matrix right)
{
    const am_matrix a = take(left.rows, right.rows), scaled = take(left.rows, left.cols);
    for (int64_t i = 0; i < left.rows * left.cols; i++) {
        scaled.at[i] = left.at[i] * spectrum(kind, i % left.cols, left.cols);
    }
    am_multiply(1, scaled, AM_AS_IS, right, AM_TRANSPOSED, 0, a);
    return a;
}

static am_matrix make(int shape, int kind)
{
    const int64_t m = shapes[shape][0], n = shapes[shape][1], k = least(m, n);
    return compose(orthonormal(m, k, 10 * shape), kind, orthonormal(n, k, 10 * shape + 1));
}

static am_matrix copied(am_matrix a)
{
    const am_matrix b = take(a.rows, a.cols);
    am_matrix_copy(a, b);
    return b;
}

static bool is_near(am_matrix got, am_matrix expected, double tolerance, const char *what)
{
    for (int64_t i = 0; i < got.rows; i++) {
        for (int64_t j = 0; j < got.cols; j++) {
            if (!AM_CHECK_NEAR(got.at[i * got.step + j], expected.at[i * expected.step + j],
                               tolerance)) {
                fprintf(stderr, "%s: element (%lld, %lld) of %lld x %lld on %d x %d by %lld\n",
                        what, (long long)i, (long long)j, (long long)got.rows, (long long)got.cols,
                        on->rows, on->cols, (long long)on->block);
                return false;
            }
        }
    }
    return true;
}

static void check_orthonormal(am_matrix q, bool by_rows, const char *what)
{
    const int64_t k = by_rows ? q.rows : q.cols;
    const am_matrix gram = take(k, k), one = take(k, k);
    am_multiply(1, q, by_rows ? AM_AS_IS : AM_TRANSPOSED, q, by_rows ? AM_TRANSPOSED : AM_AS_IS, 0,
                gram);
    am_matrix_fill(one, 0);
    for (int64_t i = 0; i < k; i++) {
        one.at[i * k + i] = 1;
    }
    is_near(gram, one, TOLERANCE, what);
}

/* ---- and on the grid ---- */

/* Any matrix that lies on the grid. */
static am_matrix on_grid(void)
{
    return (am_matrix){.grid = &grid};
}

static am_matrix empty(am_arena *from, int64_t rows, int64_t cols)
{
    const am_matrix a = am_matrix_take_like(from, on_grid(), rows, cols);
    am_matrix_fill(a, NAN); /* what a result must not be made of */
    return a;
}

/* Element by element, without what is tested for that. */
static am_matrix spread(am_arena *to, am_matrix whole)
{
    const am_matrix a = empty(to, whole.rows, whole.cols), here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] =
                whole.at[am_matrix_row(a, i) * whole.step + am_matrix_col(a, j)];
        }
    }
    return a;
}

static am_matrix collect_all(am_matrix a)
{
    const am_matrix whole = take(a.rows, a.cols), here = am_matrix_local(a);
    int64_t found = here.rows * here.cols;
    am_matrix_fill(whole, -INFINITY);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            whole.at[am_matrix_row(a, i) * a.cols + am_matrix_col(a, j)] =
                here.at[i * here.step + j];
        }
    }
    AM_CHECK_OK(am_max_f64_all(grid.comm, whole.at, a.rows * a.cols));
    AM_CHECK_OK(am_sum_i64_all(grid.comm, &found, 1));
    AM_CHECK_I64(found, a.rows * a.cols); /* every element is somewhere, once */
    return whole;
}

/* An arena of just so many bytes; what is taken beyond is a bug. */
static am_arena work_of(int64_t bytes)
{
    am_arena work = {0};
    AM_CHECK_OK(am_arena_create(&work, (size_t)bytes, "work on a grid"));
    return work;
}

/* On every layout that there are ranks for: body on the ranks of the grid, the others idle. */
static void on_layouts_all(void (*body_all)(void))
{
    for (int l = 0; l < LAYOUTS; l++) {
        on = &layouts[l];
        if (on->rows * on->cols > am_world_size()) {
            continue;
        }
        AM_CHECK_OK(am_grid_open_all(am_world(), on, &grid));
        if (am_grid_is_mine(&grid)) {
            AM_CHECK_OK(am_arena_create(&arena, 64 << 20, "the test"));
            body_all();
            am_arena_destroy(&arena);
        }
        am_grid_close_all(&grid);
    }
}

/* On several ranks, which share cores here, some of them; the layouts take turns. */
static void for_each_matrix_all(void (*check_all)(int shape, int kind))
{
    const int number = (int)(on - layouts), ranks = on->rows * on->cols;
    const int step = ranks > 2 ? 6 : ranks == 2 ? 3 : 1;
    for (int shape = 0; shape < SHAPES; shape++) {
        for (int kind = 0; kind < SPECTRA; kind++) {
            am_arena_release(&arena, 0);
            if ((shape + kind + number) % step == 0) {
                check_all(shape, kind);
            }
        }
    }
}

/* ---- views and moves ---- */

static void moves_body_all(void)
{
    const int ranks = on->rows * on->cols;
    am_arena room = work_of(am_mover_bytes(on));
    am_mover mover = am_mover_take(&room, &grid);
    for (int shape = 0; shape < SHAPES; shape++) {
        const am_matrix whole = draw(shapes[shape][0], shapes[shape][1], 1000 + shape);
        const am_matrix a = empty(&arena, whole.rows, whole.cols);
        const int64_t all = whole.rows * whole.cols, part = 37;
        for (int64_t first = 0; first < all; first += part * ranks) {
            for (int r = 0; r < ranks; r++) { /* the last rank first */
                const int64_t lo = least(all, first + (ranks - 1 - r) * part);
                mover.run[r] = (am_run){.lo = lo, .hi = least(all, lo + part)};
            }
            const am_run mine = mover.run[grid.rank];
            memcpy(mover.mine, whole.at + mine.lo, (size_t)(mine.hi - mine.lo) * sizeof(double));
            AM_CHECK_OK(am_mover_spread_all(&mover, a));
            memset(mover.mine, 0, (size_t)part * sizeof(double));
        }
        is_near(collect_all(a), whole, 0, "spread");
        for (int r = 0; r < ranks; r++) {
            mover.run[r] = (am_run){.lo = r * all / ranks, .hi = (r + 1) * all / ranks};
        }
        const am_run mine = mover.run[grid.rank];
        AM_CHECK_OK(am_mover_collect_all(&mover, a));
        AM_CHECK(memcmp(mover.mine, whole.at + mine.lo,
                        (size_t)(mine.hi - mine.lo) * sizeof(double)) == 0);
    }
    am_arena_destroy(&room);
}

static void moves(void)
{
    on_layouts_all(moves_body_all);
}

/* Views that begin in the middle of blocks. */
static void views_body_all(void)
{
    const am_matrix whole = draw(40, 49, 1), other = draw(40, 49, 2), inner = take(20, 20);
    const am_matrix a = spread(&arena, whole), b = spread(&arena, other);
    am_matrix_copy(am_matrix_part(whole, 3, 11, 17, 30), am_matrix_part(other, 9, 2, 17, 30));
    am_matrix_copy(am_matrix_part(a, 3, 11, 17, 30), am_matrix_part(b, 9, 2, 17, 30));
    is_near(collect_all(b), other, 0, "copy");
    am_matrix_add(-2, am_matrix_part(whole, 0, 1, 40, 20), am_matrix_part(other, 0, 29, 40, 20));
    am_matrix_add(-2, am_matrix_part(a, 0, 1, 40, 20), am_matrix_part(b, 0, 29, 40, 20));
    is_near(collect_all(b), other, 1e-15 * 16, "sum");
    am_matrix_add(3, whole, other);
    am_matrix_add(3, a, b);
    is_near(collect_all(b), other, 1e-15 * 64, "sum of all");
    AM_CHECK_NEAR(am_matrix_norm(am_matrix_part(a, 5, 6, 7, 40)),
                  am_matrix_norm(am_matrix_part(whole, 5, 6, 7, 40)), 1e-13);
    AM_CHECK_NEAR(am_matrix_inner(a, b), am_matrix_inner(whole, other), 1e-10);
    for (int c = 0; c < 4; c++) {
        const am_turn turn_a = c % 2 ? AM_TRANSPOSED : AM_AS_IS;
        const am_turn turn_b = c / 2 ? AM_TRANSPOSED : AM_AS_IS;
        const am_matrix x = am_matrix_part(whole, 2, 5, 20, 20);
        const am_matrix y = am_matrix_part(other, 11, 3, 20, 20);
        am_matrix z = empty(&arena, 20, 20);
        am_multiply(2, x, turn_a, y, turn_b, 0, inner);
        am_multiply(2, am_matrix_part(a, 2, 5, 20, 20), turn_a, am_matrix_part(b, 11, 3, 20, 20),
                    turn_b, 0, z);
        is_near(collect_all(z), inner, 1e-12, "product");
    }
    const am_matrix turned = take(49, 40), there = empty(&arena, 49, 40);
    am_matrix_transpose(whole, turned);
    am_matrix_transpose(a, there);
    is_near(collect_all(there), turned, 0, "transposed");
    const am_matrix none = am_matrix_part(a, 0, 0, 40, 0);
    am_multiply(1, none, AM_AS_IS, am_matrix_part(b, 0, 0, 0, 49), AM_AS_IS, 0, b);
    AM_CHECK(am_matrix_norm(b) == 0);
}

static void views(void)
{
    on_layouts_all(views_body_all);
}

/* ---- factorisations ---- */

static const double MARK = -77;

static int64_t count_marks(am_matrix a)
{
    int64_t marks = 0;
    for (int64_t i = 0; i < a.rows * a.cols; i++) {
        marks += a.at[i] == MARK;
    }
    return marks;
}

/* The first half of the vectors, in larger matrices, in room for no more: products round otherwise.
 */
static void check_half_all(am_matrix whole, am_matrix all_u, const double *all, am_matrix all_vt)
{
    const int64_t m = whole.rows, n = whole.cols, k = least(m, n), half = k / 2;
    const am_matrix a = spread(&arena, whole);
    const am_matrix around_u = empty(&arena, m + 3, half + 6),
                    around_vt = empty(&arena, half + 5, n + 2);
    const am_matrix u = am_matrix_part(around_u, 2, 5, m, half);
    const am_matrix vt = am_matrix_part(around_vt, 3, 1, half, n);
    double s[MOST];
    am_matrix_fill(around_u, MARK);
    am_matrix_fill(around_vt, MARK);
    am_arena work = work_of(am_svd_bytes_on(on, m, n, half));
    AM_CHECK_OK(am_svd(&work, a, u, s, vt));
    am_arena_destroy(&work);
    const am_matrix got_u = collect_all(u), got_vt = collect_all(vt);
    AM_CHECK_I64(count_marks(collect_all(around_u)), (m + 3) * (half + 6) - m * half);
    AM_CHECK_I64(count_marks(collect_all(around_vt)), (half + 5) * (n + 2) - half * n);
    for (int64_t i = 0; i < k; i++) {
        AM_CHECK(s[i] == all[i]);
    }
    is_near(got_u, am_matrix_part(all_u, 0, 0, m, half), TOLERANCE, "half of the left vectors");
    is_near(got_vt, am_matrix_part(all_vt, 0, 0, half, n), TOLERANCE, "half of the right vectors");
}

static void check_svd_all(int shape, int kind)
{
    const am_matrix whole = make(shape, kind), expected = copied(whole);
    const int64_t m = whole.rows, n = whole.cols, k = least(m, n);
    const double scale = spectrum(kind, 0, k);
    const am_matrix a = spread(&arena, whole), u = empty(&arena, m, k), vt = empty(&arena, k, n);
    const am_matrix left = take(m, k), right = take(k, n), again = take(m, n);
    double s[MOST], one[MOST];
    am_arena work = work_of(am_svd_bytes_on(on, m, n, k));
    AM_CHECK_OK(am_svd(&work, a, u, s, vt));
    am_arena_destroy(&work);
    AM_CHECK_OK(am_svd(&arena, whole, left, one, right));
    for (int64_t i = 0; i < k; i++) {
        AM_CHECK_NEAR(s[i], one[i], TOLERANCE * scale);
        AM_CHECK_NEAR(s[i], spectrum(kind, i, k), TOLERANCE * scale);
        AM_CHECK(i == 0 || s[i] <= s[i - 1]);
    }
    AM_CHECK_I64(am_svd_rank(m, n, s), am_svd_rank(m, n, one));
    const am_matrix got_u = collect_all(u), got_vt = collect_all(vt);
    check_orthonormal(got_u, false, "left vectors");
    check_orthonormal(got_vt, true, "right vectors");
    for (int64_t i = 0; i < k; i++) {
        double high = 0, low = 0;
        for (int64_t j = 0; j < n; j++) {
            high = fmax(high, got_vt.at[i * n + j]);
            low = fmin(low, got_vt.at[i * n + j]);
        }
        AM_CHECK(high >= -low);
    }
    check_half_all(expected, got_u, s, got_vt);
    am_matrix_scale_rows(got_vt, s);
    am_multiply(1, got_u, AM_AS_IS, got_vt, AM_AS_IS, 0, again);
    is_near(again, expected, TOLERANCE * scale, "u diag(s) vt");
}

static void svd_body_all(void)
{
    for_each_matrix_all(check_svd_all);
}

static void singular_values(void)
{
    on_layouts_all(svd_body_all);
}

static void check_polar_all(int shape, int kind)
{
    const am_matrix whole = make(shape, kind);
    const int64_t m = whole.rows, n = whole.cols, k = least(m, n);
    const bool is_full = spectrum(kind, k - 1, k) > 0;
    for (int way = AM_POLAR_AUTO; way <= QDWH; way++) {
        const am_matrix a = spread(&arena, whole), expected = copied(whole);
        am_arena work = work_of(am_polar_bytes_on(on, m, n));
        if (way == AM_POLAR_ITERATE && !is_full) {
            AM_CHECK_CODE(am_polar(&work, a, 0, (am_polar_way)way), AM_E_NUMERIC);
            am_error_clear();
        } else {
            AM_CHECK_OK(way == QDWH ? am_qdwh(&work, a) : am_polar(&work, a, 0, (am_polar_way)way));
            AM_CHECK_OK(am_polar(&arena, expected, 0, AM_POLAR_SVD));
        }
        if (is_full || way < AM_POLAR_ITERATE) {
            is_near(collect_all(a), expected,
                    kind == SPREAD  ? 1e-6
                    : kind == STEEP ? 1e-11
                                    : TOLERANCE,
                    "polar factor");
        }
        if (is_full || way == QDWH) {
            check_orthonormal(collect_all(a), m < n, "polar factor");
        }
        am_arena_destroy(&work);
    }
}

static void polar_body_all(void)
{
    for_each_matrix_all(check_polar_all);
}

static void polar_factors(void)
{
    on_layouts_all(polar_body_all);
}

/* x a = b in the sense of least squares. */
static void check_least_squares_all(int shape, int kind)
{
    const am_matrix whole = make(shape, kind);
    const int64_t n = whole.rows, m = whole.cols, wide = n > m ? n : m;
    const am_matrix b = draw(5, wide, 600 + shape), there = spread(&arena, b);
    const am_matrix a = spread(&arena, whole);
    const double scale = spectrum(kind, 0, least(n, m));
    int64_t rank = 0, one = 0;
    if (kind == STEEP || kind == SPREAD) {
        return; /* errors of x grow with the condition */
    }
    am_arena work = work_of(am_least_squares_bytes_on(on, n, m, 5));
    AM_CHECK_OK(am_least_squares(&work, a, there, 1e-13, &rank));
    am_arena_destroy(&work);
    AM_CHECK_OK(am_least_squares(&arena, whole, b, 1e-13, &one));
    AM_CHECK_I64(rank, one);
    is_near(collect_all(am_matrix_part(there, 0, 0, 5, n)), am_matrix_part(b, 0, 0, 5, n),
            10 * TOLERANCE / (scale > 0 ? scale : 1), "x");
}

static void least_squares_body_all(void)
{
    for_each_matrix_all(check_least_squares_all);
}

static void least_squares(void)
{
    on_layouts_all(least_squares_body_all);
}

static void check_qr_all(int shape, int kind)
{
    const am_matrix whole = make(shape, kind), again = take(whole.rows, whole.cols);
    const int64_t m = whole.rows, n = whole.cols, k = least(m, n);
    const double scale = spectrum(kind, 0, k);
    const am_matrix a = spread(&arena, whole), q = empty(&arena, m, k), r = empty(&arena, k, n);
    am_arena work = work_of(am_grid_qr_bytes(on, m, n));
    AM_CHECK_OK(am_qr(&work, a, q, r, NULL));
    am_arena_destroy(&work);
    const am_matrix got_q = collect_all(q), got_r = collect_all(r);
    check_orthonormal(got_q, false, "q");
    am_multiply(1, got_q, AM_AS_IS, got_r, AM_AS_IS, 0, again);
    is_near(again, whole, TOLERANCE * scale, "q r");
    for (int64_t i = 0; i < k; i++) {
        AM_CHECK(got_r.at[i * n + i] >= 0);
        for (int64_t j = 0; j < i; j++) {
            AM_CHECK(got_r.at[i * n + j] == 0);
        }
    }
}

static void qr_body_all(void)
{
    for_each_matrix_all(check_qr_all);
}

static void qr_factors(void)
{
    on_layouts_all(qr_body_all);
}

/* Symmetric, with eigenvalues that are the spectrum, every other one negative. */
static void check_eigen_all(int shape, int kind)
{
    const int64_t n = shapes[shape][0] + shapes[shape][1];
    const am_matrix q = orthonormal(n, n, 300 + shape), signs = copied(q), whole = take(n, n);
    for (int64_t i = 0; i < n * n; i++) {
        signs.at[i] *= (i % n % 2 == 0 ? 1 : -1) * spectrum(kind, i % n, n);
    }
    am_multiply(1, signs, AM_AS_IS, q, AM_TRANSPOSED, 0, whole);
    const am_matrix again = take(n, n), a = spread(&arena, whole), one = copied(whole);
    const double scale = spectrum(kind, 0, n);
    double values[MOST], expected[MOST];
    am_arena work = work_of(am_grid_eigen_bytes(on, n));
    AM_CHECK_OK(am_symmetric_eigen(&work, a, values));
    am_arena_destroy(&work);
    AM_CHECK_OK(am_symmetric_eigen(&arena, one, expected));
    for (int64_t i = 0; i < n; i++) {
        AM_CHECK_NEAR(values[i], expected[i], TOLERANCE * scale);
    }
    const am_matrix vectors = collect_all(a), scaled = copied(vectors);
    check_orthonormal(vectors, true, "eigenvectors");
    am_matrix_scale_rows(scaled, values);
    am_multiply(1, vectors, AM_TRANSPOSED, scaled, AM_AS_IS, 0, again);
    is_near(again, whole, TOLERANCE * scale, "v^T diag v");
}

static void eigen_body_all(void)
{
    for_each_matrix_all(check_eigen_all);
}

static void symmetric_eigenvalues(void)
{
    on_layouts_all(eigen_body_all);
}

static void cholesky_body_all(void)
{
    const am_matrix q = orthonormal(45, 45, 400), whole = compose(q, PLAIN, q), one = copied(whole);
    const am_matrix b = draw(6, 45, 401), x = spread(&arena, b), l = spread(&arena, whole);
    AM_CHECK_OK(am_cholesky(one));
    AM_CHECK_OK(am_cholesky(l));
    is_near(collect_all(l), one, TOLERANCE, "l");
    AM_CHECK_OK(am_cholesky_solve(l, x));
    AM_CHECK_OK(am_cholesky_solve(one, b));
    is_near(collect_all(x), b, TOLERANCE, "solution");
    AM_CHECK_OK(am_cholesky_invert(l));
    AM_CHECK_OK(am_cholesky_invert(one));
    is_near(collect_all(l), one, TOLERANCE, "inverse");
    whole.at[30 * 45 + 30] = -1;
    AM_CHECK_CODE(am_cholesky(spread(&arena, whole)), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "not positive definite");
    am_error_clear();
}

static void cholesky_solves(void)
{
    on_layouts_all(cholesky_body_all);
}

/* ---- what is refused ---- */

/* One element on one rank; all ranks get the code, and none waits. */
static void refused_body_all(void)
{
    static const double bad[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 3; i++) {
        const am_matrix whole = draw(12, 12, 700), good = draw(12, 12, 701);
        const am_matrix q = empty(&arena, 12, 12), r = empty(&arena, 12, 12);
        double s[MOST];
        int64_t rank = 0;
        whole.at[7 * 12 + 10] = bad[i];
        const am_matrix a = spread(&arena, whole), b = spread(&arena, good);
        AM_CHECK_CODE(am_svd(&arena, a, q, s, r), AM_E_NUMERIC);
        AM_CHECK_CONTAINS(am_error_message(), i < 2 ? "element (7, 10) of the matrix is infinite"
                                                    : "element (7, 10) of the matrix is NaN");
        am_error_clear();
        AM_CHECK_CODE(am_symmetric_eigen(&arena, a, s), AM_E_NUMERIC);
        AM_CHECK_CODE(am_qr(&arena, a, q, r, NULL), AM_E_NUMERIC);
        AM_CHECK_CODE(am_cholesky(a), AM_E_NUMERIC);
        AM_CHECK_CODE(am_cholesky_solve(b, a), AM_E_NUMERIC);
        AM_CHECK_CODE(am_least_squares(&arena, a, b, -1, &rank), AM_E_NUMERIC);
        AM_CHECK_CODE(am_least_squares(&arena, b, a, -1, &rank), AM_E_NUMERIC);
        AM_CHECK_CODE(am_polar(&arena, a, 0, AM_POLAR_AUTO), AM_E_NUMERIC);
        am_error_clear();
    }
    AM_CHECK(am_layout_fits(on, 10000, 8192) && !am_layout_fits(on, INT64_C(1) << 31, 1));
    AM_CHECK(!am_layout_fits(on, 1 << 17, 1 << 17));
}

static void what_is_not_finite_is_refused(void)
{
    on_layouts_all(refused_body_all);
}

static const am_test tests[] = {AM_TEST(moves),
                                AM_TEST(views),
                                AM_TEST(singular_values),
                                AM_TEST(polar_factors),
                                AM_TEST(least_squares),
                                AM_TEST(qr_factors),
                                AM_TEST(symmetric_eigenvalues),
                                AM_TEST(cholesky_solves),
                                AM_TEST(what_is_not_finite_is_refused)};
AM_TEST_MAIN("grid", tests)
