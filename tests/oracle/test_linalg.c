/* Factorisations against their definitions: orthogonality, reconstruction and spectra that are
 * known because the matrices are made of them. Orthonormal factors come from Gram-Schmidt, twice,
 * in long double; no factorisation checks itself. SPDX-License-Identifier: BSD-3-Clause */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/cholesky.h"
#include "solver/linalg/eigen.h"
#include "solver/linalg/least_squares.h"
#include "solver/linalg/polar.h"
#include "solver/linalg/qdwh.h"
#include "solver/linalg/qr.h"
#include "solver/linalg/random_svd.h"
#include "solver/linalg/svd.h"
#include "tests/am_test.h"
#include "tests/ref_spectra.h"

enum { MOST = 160, SHAPES = 10 };
enum { QDWH = AM_POLAR_ITERATE + 1 }; /* one more way to a polar factor */
static const double TOLERANCE = 1e-12;

static const int64_t shapes[SHAPES][2] = {{1, 1},    {1, 9},   {9, 1},    {40, 40}, {130, 20},
                                          {20, 130}, {61, 60}, {100, 99}, {0, 5},   {5, 0}};

/* ---- dbdsdc that does not converge ---- */

typedef void (*am_dbdsdc)(const char *, const char *, const int *, double *, double *, double *,
                          const int *, double *, const int *, double *, int *, double *, int *,
                          int *, size_t, size_t);
void dbdsdc_(const char *uplo, const char *compq, const int *n, double *d, double *e, double *u,
             const int *ldu, double *vt, const int *ldvt, double *q, int *iq, double *work,
             int *iwork, int *info, size_t uplo_length, size_t compq_length);
void dgesdd_(const char *job, const int *m, const int *n, double *a, const int *lda, double *s,
             double *u, const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork,
             int *iwork, int *info, size_t length);
static bool is_failing;
static int failures;

/* Stands before LAPACK's. */
void dbdsdc_(const char *uplo, const char *compq, const int *n, double *d, double *e, double *u,
             const int *ldu, double *vt, const int *ldvt, double *q, int *iq, double *work,
             int *iwork, int *info, size_t uplo_length, size_t compq_length)
{
    am_dbdsdc real;
    *(void **)&real = dlsym(RTLD_NEXT, "dbdsdc_");
    real(uplo, compq, n, d, e, u, ldu, vt, ldvt, q, iq, work, iwork, info, uplo_length,
         compq_length);
    if (is_failing) {
        failures++;
        *info = 1;
        d[0] = e[0] = u[0] = vt[0] = NAN;
    }
}

/* ---- matrices ---- */

static am_arena arena;

static void open(void)
{
    AM_CHECK_OK(am_arena_create(&arena, 96 << 20, "the test"));
}

static void close_arena(void)
{
    am_arena_destroy(&arena);
}

static am_matrix take(int64_t rows, int64_t cols)
{
    return am_matrix_take(&arena, rows, cols);
}

static am_rng stream_of(int number)
{
    return am_rng_make(am_test_seed(), "linalg", number, 0, "");
}

static am_matrix draw(int64_t rows, int64_t cols, int number)
{
    const am_matrix a = take(rows, cols);
    const am_rng rng = stream_of(number);
    for (int64_t i = 0; i < rows * cols; i++) {
        a.at[i] = am_rng_normal(&rng, i);
    }
    return a;
}

static long double dot_columns(am_matrix a, int64_t i, int64_t j)
{
    long double sum = 0;
    for (int64_t r = 0; r < a.rows; r++) {
        sum += (long double)a.at[r * a.step + i] * a.at[r * a.step + j];
    }
    return sum;
}

/* [rows, cols <= rows] with orthonormal columns. */
static am_matrix orthonormal(int64_t rows, int64_t cols, int number)
{
    const am_matrix q = draw(rows, cols, number);
    for (int64_t j = 0; j < cols; j++) {
        for (int64_t i = 0; i < 2 * j; i++) {
            const double along = (double)dot_columns(q, i % j, j);
            for (int64_t r = 0; r < rows; r++) {
                q.at[r * q.step + j] -= along * q.at[r * q.step + i % j];
            }
        }
        const double length = (double)sqrtl(dot_columns(q, j, j));
        for (int64_t r = 0; r < rows; r++) {
            q.at[r * q.step + j] /= length;
        }
    }
    return q;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* left diag(of the spectrum) right^T, by loops. */
static am_matrix compose(am_matrix left, int kind, am_matrix right)
{
    const am_matrix a = take(left.rows, right.rows);
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            long double sum = 0;
            for (int64_t l = 0; l < left.cols; l++) {
                sum += (long double)left.at[i * left.step + l] * spectrum(kind, l, left.cols) *
                       right.at[j * right.step + l];
            }
            a.at[i * a.step + j] = (double)sum;
        }
    }
    return a;
}

/* A matrix of a shape with known singular values; *left, *right: its factors, if wanted. */
static am_matrix make(int shape, int kind, am_matrix *left, am_matrix *right)
{
    const int64_t m = shapes[shape][0], n = shapes[shape][1], k = least(m, n);
    const am_matrix u = orthonormal(m, k, 10 * shape), v = orthonormal(n, k, 10 * shape + 1);
    if (left != NULL) {
        *left = u;
        *right = v;
    }
    return compose(u, kind, v);
}

static double largest(am_matrix a)
{
    double x = 0;
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            x = fmax(x, fabs(a.at[i * a.step + j]));
        }
    }
    return x;
}

static bool is_near(am_matrix got, am_matrix expected, double tolerance, const char *what)
{
    for (int64_t i = 0; i < got.rows; i++) {
        for (int64_t j = 0; j < got.cols; j++) {
            if (!AM_CHECK_NEAR(got.at[i * got.step + j], expected.at[i * expected.step + j],
                               tolerance)) {
                fprintf(stderr, "%s: element (%lld, %lld) of %lld x %lld\n", what, (long long)i,
                        (long long)j, (long long)got.rows, (long long)got.cols);
                return false;
            }
        }
    }
    return true;
}

/* Columns of q are orthonormal. */
static void check_orthonormal(am_matrix q, const char *what)
{
    for (int64_t i = 0; i < q.cols; i++) {
        for (int64_t j = 0; j <= i; j++) {
            if (!AM_CHECK_NEAR((double)dot_columns(q, i, j), i == j, TOLERANCE)) {
                fprintf(stderr, "%s: columns %lld and %lld of %lld\n", what, (long long)i,
                        (long long)j, (long long)q.cols);
                return;
            }
        }
    }
}

static am_matrix turned(am_matrix a)
{
    const am_matrix b = take(a.cols, a.rows);
    am_matrix_transpose(a, b);
    return b;
}

static am_matrix copied(am_matrix a)
{
    const am_matrix b = take(a.rows, a.cols);
    am_matrix_copy(a, b);
    return b;
}

/* The element of largest magnitude of every row is positive. */
static void check_signs(am_matrix rows)
{
    for (int64_t i = 0; i < rows.rows; i++) {
        const am_matrix row = am_matrix_part(rows, i, 0, 1, rows.cols);
        double high = 0;
        for (int64_t j = 0; j < row.cols; j++) {
            high = fmax(high, row.at[j]);
        }
        AM_CHECK(high == largest(row));
    }
}

/* ---- products ---- */

static void products_are_sums(void)
{
    static const am_turn turns[] = {AM_AS_IS, AM_TRANSPOSED};
    open();
    for (int c = 0; c < 4; c++) {
        const am_matrix a = draw(7, 5, 100), b = draw(5, 6, 101), wide = draw(7, 9, 102);
        const am_matrix before = copied(wide), out = am_matrix_part(wide, 0, 2, 7, 6);
        am_multiply(2, turns[c % 2] == AM_AS_IS ? a : turned(a), turns[c % 2],
                    turns[c / 2] == AM_AS_IS ? b : turned(b), turns[c / 2], -0.5, out);
        for (int64_t i = 0; i < 7; i++) {
            for (int64_t j = 0; j < 9; j++) {
                double sum = before.at[9 * i + j];
                for (int64_t k = 0; k < 5 && j >= 2 && j < 8; k++) {
                    sum = (k == 0 ? -0.5 * sum : sum) + 2 * a.at[5 * i + k] * b.at[6 * k + j - 2];
                }
                AM_CHECK_NEAR(wide.at[9 * i + j], sum, 1e-13);
            }
        }
    }
    const am_matrix none = take(4, 0), out = draw(4, 3, 103);
    am_multiply(1, none, AM_AS_IS, take(0, 3), AM_AS_IS, 0, out);
    AM_CHECK(largest(out) == 0);
    const am_matrix big = draw(3, 3, 104);
    const double length = am_matrix_norm(big);
    for (int i = 0; i < 9; i++) {
        big.at[i] = ldexp(big.at[i], 1000);
    }
    AM_CHECK_NEAR(ldexp(am_matrix_norm(big), -1000), length, 1e-15 * length);
    close_arena();
}

/* ---- singular values ---- */

static void check_svd(int shape, int kind)
{
    const am_matrix a = make(shape, kind, NULL, NULL), kept = copied(a);
    const int64_t k = least(a.rows, a.cols);
    const am_matrix u = take(a.rows, k), vt = take(k, a.cols), again = take(a.rows, a.cols);
    double s[MOST];
    am_arena work;
    AM_CHECK_OK(am_arena_create(&work, (size_t)am_svd_bytes(a.rows, a.cols), "svd"));
    AM_CHECK_OK(am_svd(&work, a, u, s, vt));
    am_arena_destroy(&work);
    const double scale = k > 0 ? spectrum(kind, 0, k) : 0;
    for (int64_t i = 0; i < k; i++) {
        AM_CHECK_NEAR(s[i], spectrum(kind, i, k), TOLERANCE * scale);
        AM_CHECK(i == 0 || s[i] <= s[i - 1]);
    }
    check_orthonormal(u, "left vectors");
    check_orthonormal(turned(vt), "right vectors");
    check_signs(vt);
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            long double sum = 0;
            for (int64_t l = 0; l < k; l++) {
                sum += (long double)u.at[i * k + l] * s[l] * vt.at[l * a.cols + j];
            }
            again.at[i * a.cols + j] = (double)sum;
        }
    }
    is_near(again, kept, TOLERANCE * scale, "u diag(s) vt");
    const int64_t rank = kind == SINGULAR        ? (k + 1) / 2
                         : kind == ONE_DIRECTION ? least(k, 1)
                         : kind == ZERO          ? 0
                                                 : k;
    AM_CHECK_I64(am_svd_rank(a.rows, a.cols, s), rank);
}

/* A part of a larger matrix whose other elements are MARK: within_frame says whether they stayed.
 */
static const double MARK = -77;

static am_matrix frame(int64_t rows, int64_t cols, am_matrix *part)
{
    const am_matrix whole = take(rows + 5, cols + 4);
    am_matrix_fill(whole, MARK);
    *part = am_matrix_part(whole, 3, 1, rows, cols);
    return whole;
}

static bool within_frame(am_matrix whole)
{
    int64_t marked = 0;
    for (int64_t i = 0; i < whole.rows * whole.cols; i++) {
        marked += whole.at[i] == MARK;
    }
    return marked == whole.rows * whole.cols - (whole.rows - 5) * (whole.cols - 4);
}

/* The first `count` vectors of all, with all values, in room for no more: a vt^T = u diag(s). */
static void check_some(am_matrix kept, int64_t count, const double *all)
{
    am_matrix u, vt;
    const am_matrix a = copied(kept), left_frame = frame(kept.rows, count, &u);
    const am_matrix right_frame = frame(count, kept.cols, &vt);
    const am_matrix left = take(kept.rows, count), right = take(kept.rows, count);
    const int64_t k = least(a.rows, a.cols);
    double s[MOST];
    am_arena work;
    AM_CHECK_OK(am_arena_create(&work, (size_t)am_svd_bytes_on(NULL, a.rows, a.cols, count),
                                "leading vectors"));
    AM_CHECK_OK(am_svd(&work, a, u, s, vt));
    am_arena_destroy(&work);
    AM_CHECK(within_frame(left_frame) && within_frame(right_frame));
    for (int64_t i = 0; i < k; i++) {
        AM_CHECK(s[i] == all[i]);
    }
    check_orthonormal(u, "leading left vectors");
    check_orthonormal(turned(vt), "leading right vectors");
    check_signs(vt);
    am_multiply(1, kept, AM_AS_IS, vt, AM_TRANSPOSED, 0, left);
    for (int64_t i = 0; i < u.rows; i++) {
        for (int64_t j = 0; j < count; j++) {
            right.at[i * count + j] = u.at[i * u.step + j] * s[j];
        }
    }
    is_near(left, right, TOLERANCE * (k > 0 ? s[0] : 0), "a vt^T = u diag(s)");
}

static void check_leading(int shape, int kind)
{
    const am_matrix a = make(shape, kind, NULL, NULL), kept = copied(a);
    const int64_t k = least(a.rows, a.cols);
    const am_matrix u = take(a.rows, k), vt = take(k, a.cols);
    double s[MOST];
    AM_CHECK_OK(am_svd(&arena, a, u, s, vt));
    const int64_t counts[] = {0, least(1, k), k / 3, k > 0 ? k - 1 : 0, k};
    for (int i = 0; i < (int)(sizeof counts / sizeof *counts); i++) {
        check_some(kept, counts[i], s);
    }
}

/* Near the ends of what f64 holds, where squares overflow or vanish: the same bits, scaled. */
static void check_far(int shape, int kind)
{
    const am_matrix a = make(shape, kind, NULL, NULL), kept = copied(a);
    const int64_t m = a.rows, n = a.cols, k = least(m, n);
    const am_matrix u = take(m, k), vt = take(k, n), far_u = take(m, k), far_vt = take(k, n);
    double s[MOST], far[MOST];
    AM_CHECK_OK(am_svd(&arena, a, u, s, vt));
    int of_norm = 0;
    (void)frexp(am_matrix_norm(kept), &of_norm);
    for (int to = -700; to <= 1000; to += 1700) {
        const int exponent = to - of_norm;
        for (int64_t i = 0; i < m * n; i++) {
            a.at[i] = ldexp(kept.at[i], exponent);
        }
        AM_CHECK_OK(am_svd(&arena, a, far_u, far, far_vt));
        AM_CHECK(memcmp(u.at, far_u.at, (size_t)(m * k) * sizeof *u.at) == 0);
        AM_CHECK(memcmp(vt.at, far_vt.at, (size_t)(k * n) * sizeof *u.at) == 0);
        for (int64_t i = 0; i < k; i++) {
            AM_CHECK(far[i] == ldexp(s[i], exponent));
        }
    }
}

static void for_each_matrix(void (*check)(int shape, int kind))
{
    for (int shape = 0; shape < SHAPES; shape++) {
        for (int kind = 0; kind < SPECTRA; kind++) {
            open();
            check(shape, kind);
            close_arena();
        }
    }
}

static void singular_values(void)
{
    for_each_matrix(check_svd);
}

/* A row that is less than nothing, and one that the norm of all cannot hold. */
static void ends_of_range(void)
{
    double tiny[] = {1, 1e-290, 0, 1}, large[] = {1.5e308, 0, 0, 1.5e308},
           over[] = {1.5e308, 1.5e308};
    double s[2], u[4], vt[4];
    open();
    AM_CHECK_OK(
        am_svd(&arena, am_matrix_of(2, 2, tiny), am_matrix_of(2, 2, u), s, am_matrix_of(2, 2, vt)));
    AM_CHECK(s[0] == 1 && s[1] == 1);
    AM_CHECK_OK(am_svd(&arena, am_matrix_of(2, 2, large), am_matrix_of(2, 2, u), s,
                       am_matrix_of(2, 2, vt)));
    AM_CHECK(s[0] == 1.5e308 && s[1] == 1.5e308);
    AM_CHECK_CODE(
        am_svd(&arena, am_matrix_of(1, 2, over), am_matrix_of(1, 1, u), s, am_matrix_of(1, 2, vt)),
        AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "more than f64 holds");
    am_error_clear();
    close_arena();
}

/* What parts of a matrix take is planned for, whichever way they are reduced. */
static void parts_fit(void)
{
    for (int64_t m = 1; m <= 64; m++) {
        for (int64_t n = 1; n <= 130; n++) {
            const int64_t svd = am_svd_bytes_within(m, n),
                          polar = am_polar_bytes_within_on(NULL, m, n);
            int64_t most_svd = 0, most_polar = 0;
            for (int64_t some = 1; some <= n; some++) {
                most_svd = most(most_svd, am_svd_bytes(m, some));
                most_polar = most(most_polar, am_polar_bytes(m, some));
            }
            for (int64_t some = 1; some < m; some++) {
                most_svd = most(most_svd, am_svd_bytes(some, n));
                most_polar = most(most_polar, am_polar_bytes(some, n));
            }
            AM_CHECK(most_svd <= svd && most_polar <= polar);
        }
    }
}

/* Longer than the blocks that am_bidiagonal_reduce goes by: against dgesdd. */
static void large_matrix(void)
{
    enum { ROWS = 1150, COLS = 2100, COUNT = 3 };
    const int m = COLS, n = ROWS, one = 1, room = 1 << 20;
    am_matrix u, vt;
    int info = 0;
    AM_CHECK_OK(am_arena_create(&arena, 192 << 20, "the test"));
    const am_matrix a = draw(ROWS, COLS, 900), kept = copied(a), product = take(ROWS, COUNT);
    double *s = take(1, ROWS).at, *expected = take(1, ROWS).at, *work = take(1, room).at;
    int *iwork = am_arena_take(&arena, 8 * ROWS * sizeof *iwork);
    u = take(ROWS, COUNT);
    vt = take(COUNT, COLS);
    AM_CHECK_OK(am_svd(&arena, a, u, s, vt));
    am_multiply(1, kept, AM_AS_IS, vt, AM_TRANSPOSED, 0, product);
    for (int64_t i = 0; i < ROWS * COUNT; i++) {
        AM_CHECK_NEAR(product.at[i], u.at[i] * s[i % COUNT], TOLERANCE * s[0]);
    }
    dgesdd_("N", &m, &n, kept.at, &m, expected, work, &one, work, &one, work, &room, iwork, &info,
            1);
    AM_CHECK_I64(info, 0);
    for (int i = 0; i < ROWS; i++) {
        AM_CHECK_NEAR(s[i], expected[i], TOLERANCE * s[0]);
    }
    close_arena();
}

static void leading_vectors(void)
{
    for_each_matrix(check_leading);
}

static void far_magnitudes(void)
{
    for_each_matrix(check_far);
}

static void without_divide_and_conquer(void)
{
    failures = 0;
    is_failing = true;
    for_each_matrix(check_svd);
    for_each_matrix(check_leading);
    is_failing = false;
    AM_CHECK(failures > 0);
}

/* ---- eigenvalues ---- */

/* What lies above the diagonal is not read. */
static void spoil_upper(am_matrix a)
{
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = i + 1; j < a.cols; j++) {
            a.at[i * a.step + j] = 1e5;
        }
    }
}

static void check_eigen(int shape, int kind)
{
    const int64_t n = shapes[shape][0];
    const am_matrix v = orthonormal(n, n, 20 * shape), a = compose(v, kind, v), kept = copied(a);
    double values[MOST];
    am_arena work;
    spoil_upper(a);
    AM_CHECK_OK(am_arena_create(&work, (size_t)am_symmetric_eigen_bytes(n), "eigen"));
    AM_CHECK_OK(am_symmetric_eigen(&work, a, values));
    am_arena_destroy(&work);
    const double scale = n > 0 ? spectrum(kind, 0, n) : 0;
    check_orthonormal(turned(a), "eigenvectors");
    check_signs(a);
    for (int64_t i = 0; i < n; i++) {
        AM_CHECK_NEAR(values[i], spectrum(kind, n - 1 - i, n), TOLERANCE * scale);
        for (int64_t r = 0; r < n; r++) {
            long double sum = 0;
            for (int64_t c = 0; c < n; c++) {
                sum += (long double)kept.at[r * n + c] * a.at[i * n + c];
            }
            AM_CHECK_NEAR((double)sum, values[i] * a.at[i * n + r], TOLERANCE * scale);
        }
    }
}

static void symmetric_eigenvalues(void)
{
    for_each_matrix(check_eigen);
}

/* ---- QR ---- */

static void check_qr(int shape, int kind)
{
    const am_matrix a = make(shape, kind, NULL, NULL);
    const int64_t k = least(a.rows, a.cols);
    const double scale = k > 0 ? spectrum(kind, 0, k) : 0;
    for (int pivoted = 0; pivoted < 2; pivoted++) {
        const am_matrix q = take(a.rows, k), r = take(k, a.cols), again = take(a.rows, a.cols);
        int pivot[MOST];
        am_arena work;
        for (int j = 0; j < MOST; j++) {
            pivot[j] = j;
        }
        AM_CHECK_OK(am_arena_create(&work, (size_t)am_qr_bytes(a.rows, a.cols), "qr"));
        AM_CHECK_OK(am_qr(&work, a, q, r, pivoted ? pivot : NULL));
        am_arena_destroy(&work);
        check_orthonormal(q, "q");
        for (int64_t i = 0; i < k; i++) {
            const double diagonal = r.at[i * r.step + i];
            AM_CHECK(diagonal >= 0);
            AM_CHECK(!pivoted || i == 0 ||
                     diagonal <= r.at[(i - 1) * r.step + i - 1] + TOLERANCE * scale);
            for (int64_t j = 0; j < i; j++) {
                AM_CHECK(r.at[i * r.step + j] == 0);
            }
        }
        am_multiply(1, q, AM_AS_IS, r, AM_AS_IS, 0, again);
        for (int64_t j = 0; j < a.cols; j++) {
            is_near(am_matrix_part(again, 0, j, a.rows, 1),
                    am_matrix_part(a, 0, pivot[j], a.rows, 1), TOLERANCE * scale, "q r");
        }
    }
}

static void qr_factors(void)
{
    for_each_matrix(check_qr);
}

/* ---- Cholesky ---- */

static void cholesky_solves(void)
{
    static const int64_t sizes[] = {1, 2, 30, 100};
    open();
    for (int s = 0; s < 4; s++) {
        const int64_t n = sizes[s];
        const am_matrix v = orthonormal(n, n, 300 + s), a = compose(v, PLAIN, v);
        const am_matrix x = draw(5, n, 400 + s), b = take(5, n), l = copied(a), again = take(n, n);
        am_multiply(1, x, AM_AS_IS, a, AM_AS_IS, 0, b);
        spoil_upper(l);
        AM_CHECK_OK(am_cholesky(l));
        am_multiply(1, l, AM_AS_IS, l, AM_TRANSPOSED, 0, again);
        is_near(again, a, TOLERANCE, "l l^T");
        AM_CHECK_OK(am_cholesky_solve(l, b));
        is_near(b, x, TOLERANCE, "x");
        AM_CHECK(n == 1 || l.at[1] == 0);
    }
    const am_matrix bad = draw(3, 3, 500);
    am_matrix_fill(bad, 1);
    bad.at[0] = -1;
    AM_CHECK_CODE(am_cholesky(bad), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "not positive definite (LAPACK dpotrf: 1)");
    am_error_clear();
    close_arena();
}

/* ---- least squares ---- */

/* x a = b has the shortest best x = b a^+, a^+ from the factors that a is made of. */
static void check_least_squares(int shape, int kind)
{
    if (kind == STEEP || kind == SPREAD) {
        return; /* errors of x grow with the condition */
    }
    am_matrix left, right;
    const am_matrix a = make(shape, kind, &left, &right);
    const int64_t n = a.rows, m = a.cols, k = least(n, m), wide = n > m ? n : m;
    const am_matrix b = take(3, wide), rows = draw(3, m, 600 + shape), x = take(3, n);
    am_matrix_fill(x, 0);
    am_matrix_fill(b, NAN); /* only the first m count */
    am_matrix_copy(rows, am_matrix_part(b, 0, 0, 3, m));
    int64_t rank = 0, expected = 0;
    const double scale = k > 0 ? spectrum(kind, 0, k) : 1;
    for (int64_t l = 0; l < k; l++) {
        const double s = spectrum(kind, l, k);
        expected += s > 0;
        for (int64_t r = 0; r < 3 && s > 0; r++) {
            double along = 0;
            for (int64_t j = 0; j < m; j++) {
                along += rows.at[r * m + j] * right.at[j * right.step + l];
            }
            for (int64_t i = 0; i < n; i++) {
                x.at[r * n + i] += along / s * left.at[i * left.step + l];
            }
        }
    }
    am_arena work;
    AM_CHECK_OK(am_arena_create(&work, (size_t)am_least_squares_bytes(n, m, 3), "least squares"));
    AM_CHECK_OK(am_least_squares(&work, a, b, 1e-13, &rank));
    am_arena_destroy(&work);
    AM_CHECK_I64(rank, expected);
    is_near(am_matrix_part(b, 0, 0, 3, n), x, 10 * TOLERANCE / (scale > 0 ? scale : 1), "x");
}

static void least_squares(void)
{
    for_each_matrix(check_least_squares);
}

/* ---- polar factors ---- */

static void check_polar(int shape, int kind)
{
    am_matrix left, right;
    const am_matrix a = make(shape, kind, &left, &right), expected = take(a.rows, a.cols);
    const int64_t k = least(a.rows, a.cols);
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            long double sum = 0;
            for (int64_t l = 0; l < k; l++) {
                sum += spectrum(kind, l, k) > 0
                           ? (long double)left.at[i * left.step + l] * right.at[j * right.step + l]
                           : 0;
            }
            expected.at[i * a.cols + j] = (double)sum;
        }
    }
    const bool is_full = k > 0 && spectrum(kind, k - 1, k) > 0;
    /* a rounding of a, over its smallest singular value */
    const double tolerance = kind == SPREAD ? 1e-6 : kind == STEEP ? 1e-11 : TOLERANCE;
    for (int way = AM_POLAR_AUTO; way <= QDWH; way++) {
        const am_matrix q = copied(a);
        am_arena work;
        const int64_t bytes =
            way == QDWH ? am_qdwh_bytes_on(NULL, a.rows, a.cols) : am_polar_bytes(a.rows, a.cols);
        AM_CHECK_OK(am_arena_create(&work, (size_t)bytes, "polar"));
        if (way == AM_POLAR_ITERATE && !is_full) {
            AM_CHECK_CODE(am_polar(&work, q, 0, (am_polar_way)way), AM_E_NUMERIC);
            AM_CHECK_CONTAINS(am_error_message(), "not full rank");
            am_error_clear();
        } else {
            AM_CHECK_OK(way == QDWH ? am_qdwh(&work, q) : am_polar(&work, q, 0, (am_polar_way)way));
        }
        if (is_full || way < AM_POLAR_ITERATE) {
            is_near(q, expected, tolerance, "polar factor");
        }
        if (is_full || way == QDWH) {
            check_orthonormal(a.rows >= a.cols ? q : turned(q), "polar factor");
        }
        am_arena_destroy(&work);
    }
}

static void polar_factors(void)
{
    for_each_matrix(check_polar);
}

/* Two columns that differ by 1e-9: one direction for `smallest` 1e-8, two without. */
static void nearly_equal_columns(void)
{
    open();
    const am_matrix q = orthonormal(9, 2, 800), a = take(9, 2), one = take(9, 2);
    for (int i = 0; i < 9; i++) {
        a.at[2 * i] = q.at[2 * i];
        a.at[2 * i + 1] = q.at[2 * i] + 1e-9 * q.at[2 * i + 1];
        one.at[2 * i] = one.at[2 * i + 1] = q.at[2 * i] / sqrt(2);
    }
    const am_matrix both = copied(a);
    AM_CHECK_OK(am_polar(&arena, a, 1e-8, AM_POLAR_AUTO));
    is_near(a, one, 1e-8, "one direction");
    AM_CHECK_OK(am_polar(&arena, both, 0, AM_POLAR_AUTO));
    check_orthonormal(both, "two directions");
    close_arena();
}

/* ---- leading singular values ---- */

static void check_random_svd(int shape, int kind)
{
    const am_matrix a = make(shape, kind, NULL, NULL);
    const int64_t k = least(a.rows, a.cols), r = k < 6 ? k : 6;
    const am_matrix u = take(a.rows, r), vt = take(r, a.cols), again = take(a.rows, r);
    const am_rng rng = stream_of(7);
    double s[6], error = 0, first[6];
    am_arena work;
    AM_CHECK_OK(am_arena_create(&work, (size_t)am_random_svd_bytes(a.rows, a.cols, r), "leading"));
    AM_CHECK_OK(am_random_svd(&work, a, r, 2, &rng, u, first, vt, &error));
    am_matrix_copy(u, again);
    AM_CHECK_OK(am_random_svd(&work, a, r, 2, &rng, u, s, vt, &error));
    am_arena_destroy(&work);
    AM_CHECK(memcmp(u.at, again.at, (size_t)(a.rows * r) * sizeof(double)) == 0);
    AM_CHECK(memcmp(s, first, (size_t)r * sizeof(double)) == 0);
    check_orthonormal(u, "leading left vectors");
    check_orthonormal(turned(vt), "leading right vectors");
    const double scale = k > 0 ? spectrum(kind, 0, k) : 0;
    double rest = 0;
    for (int64_t i = r; i < k; i++) {
        rest += scale > 0 ? pow(spectrum(kind, i, k) / scale, 2) : 0;
    }
    /* no less than the best of rank r, and not much more */
    const double best = scale * sqrt(rest);
    AM_CHECK(error >= best * (1 - TOLERANCE) - TOLERANCE * scale);
    AM_CHECK(error <= best * 1.25 + 1e-7 * scale);
    for (int64_t i = 0; i < r;
         i++) { /* never above the true ones; few directions are met exactly */
        AM_CHECK(s[i] <= spectrum(kind, i, k) + TOLERANCE * scale);
        const double part = k <= 16 ? 1 - TOLERANCE : kind == SPREAD ? 1 - 1e-7 : 0.7;
        AM_CHECK(s[i] >= part * spectrum(kind, i, k) - 1e-9 * scale * (kind != SPREAD));
    }
}

static void leading_singular_values(void)
{
    for_each_matrix(check_random_svd);
}

/* ---- what is refused ---- */

static void what_is_not_finite_is_refused(void)
{
    static const double bad[] = {INFINITY, -INFINITY, NAN};
    open();
    for (int i = 0; i < 3; i++) {
        const am_matrix a = draw(6, 6, 700), q = take(6, 6), r = take(6, 6);
        double s[6], error = 0;
        int64_t rank = 0;
        const am_rng rng = stream_of(1);
        a.at[2 * 6 + 3] = bad[i];
        AM_CHECK_CODE(am_svd(&arena, a, q, s, r), AM_E_NUMERIC);
        AM_CHECK_CONTAINS(am_error_message(), i < 2 ? "element (2, 3) of the matrix is infinite"
                                                    : "element (2, 3) of the matrix is NaN");
        am_error_clear();
        AM_CHECK_CODE(am_symmetric_eigen(&arena, a, s), AM_E_NUMERIC);
        AM_CHECK_CODE(am_qr(&arena, a, q, r, NULL), AM_E_NUMERIC);
        AM_CHECK_CODE(am_cholesky(a), AM_E_NUMERIC);
        AM_CHECK_CODE(am_least_squares(&arena, a, q, -1, &rank), AM_E_NUMERIC);
        AM_CHECK_CODE(am_least_squares(&arena, draw(6, 6, 701), a, -1, &rank), AM_E_NUMERIC);
        AM_CHECK_CODE(am_polar(&arena, a, 0, AM_POLAR_AUTO), AM_E_NUMERIC);
        AM_CHECK_CODE(am_random_svd(&arena, a, 6, 1, &rng, q, s, r, &error), AM_E_NUMERIC);
        am_error_clear();
        AM_CHECK_OK(am_cholesky(compose(orthonormal(6, 6, 702), PLAIN, orthonormal(6, 6, 702))));
        AM_CHECK_CODE(am_cholesky_solve(draw(6, 6, 703), a), AM_E_NUMERIC);
        am_error_clear();
    }
    close_arena();
}

static void what_is_too_large_is_refused(void)
{
    double nothing = 0;
    const am_matrix tall = {.rows = 3LL << 30, .cols = 2, .step = 2, .at = &nothing};
    AM_CHECK(am_lapack_fits(18000, 18000) && am_lapack_fits(128256, 8192));
    AM_CHECK(!am_lapack_fits(19000, 19000) && !am_lapack_fits(1LL << 40, 1));
    AM_CHECK(!am_lapack_fits(1 << 20, 4096));
    AM_CHECK_CODE(am_lapack_check("it", tall), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(),
                      "it: a matrix of 3221225472 x 2 is too large for LAPACK's 32-bit integers");
    am_error_clear();
}

static const am_test tests[] = {AM_TEST(products_are_sums),
                                AM_TEST(singular_values),
                                AM_TEST(leading_vectors),
                                AM_TEST(far_magnitudes),
                                AM_TEST(ends_of_range),
                                AM_TEST(parts_fit),
                                AM_TEST(large_matrix),
                                AM_TEST(without_divide_and_conquer),
                                AM_TEST(symmetric_eigenvalues),
                                AM_TEST(qr_factors),
                                AM_TEST(cholesky_solves),
                                AM_TEST(least_squares),
                                AM_TEST(polar_factors),
                                AM_TEST(nearly_equal_columns),
                                AM_TEST(leading_singular_values),
                                AM_TEST(what_is_not_finite_is_refused),
                                AM_TEST(what_is_too_large_is_refused)};
AM_TEST_MAIN("linalg", tests)
