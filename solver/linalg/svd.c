/* Singular value decompositions: to two diagonals, by divide and conquer (dbdsdc), and back
 * (dormbr). The steps of dgesdd; but the first one reads the matrix once a column, only the vectors
 * that are wanted are turned back, and where divide and conquer does not converge, QR iteration
 * (dbdsqr) begins from the diagonals.
 *
 * Fortran sees the transposed matrix, a^T = v diag(s) u^T: its first factor, by columns, is our vt
 * by rows, and its second one our u. Nothing is transposed. SPDX-License-Identifier: BSD-3-Clause
 */
#include "solver/linalg/svd.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "solver/linalg/bidiagonal.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/grid.h"

extern void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau,
                    double *work, const int *lwork, int *info);
extern void dgelqf_(const int *m, const int *n, double *a, const int *lda, double *tau,
                    double *work, const int *lwork, int *info);
extern void dbdsdc_(const char *uplo, const char *compq, const int *n, double *d, double *e,
                    double *u, const int *ldu, double *vt, const int *ldvt, double *q, int *iq,
                    double *work, int *iwork, int *info, size_t uplo_length, size_t compq_length);
extern void dbdsqr_(const char *uplo, const int *n, const int *ncvt, const int *nru, const int *ncc,
                    double *d, double *e, double *vt, const int *ldvt, double *u, const int *ldu,
                    double *c, const int *ldc, double *work, int *info, size_t uplo_length);
extern void dormbr_(const char *vect, const char *side, const char *trans, const int *m,
                    const int *n, const int *k, const double *a, const int *lda, const double *tau,
                    double *c, const int *ldc, double *work, const int *lwork, int *info,
                    size_t vect_length, size_t side_length, size_t trans_length);
extern void dormqr_(const char *side, const char *trans, const int *m, const int *n, const int *k,
                    const double *a, const int *lda, const double *tau, double *c, const int *ldc,
                    double *work, const int *lwork, int *info, size_t side_length,
                    size_t trans_length);
extern void dormlq_(const char *side, const char *trans, const int *m, const int *n, const int *k,
                    const double *a, const int *lda, const double *tau, double *c, const int *ldc,
                    double *work, const int *lwork, int *info, size_t side_length,
                    size_t trans_length);

/* A matrix as Fortran sees it, on its way to two diagonals. */
typedef struct am_bidiagonal {
    int m, n, k;    /* of the matrix; k: the smaller */
    int rows, cols; /* of what is reduced: those, or k x k after QR or LQ */
    double *a, *core;
    int lda, ldcore;
    double *d, *e, *tau, *tauq, *taup; /* [k] each */
    double *room;                      /* [lwork], and for dbdsdc */
    int lwork;
} am_bidiagonal;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

/* Whether QR goes first: where it takes less time, as dgesdd has it; and LQ of Fortran's broad
 * ones, since am_bidiagonal_reduce takes none. */
static bool has_core(int64_t m, int64_t n)
{
    return m < n || 6 * m >= 11 * n;
}

/* Elements of workspace. m, n: as Fortran has them; count: vectors. */
static int workspace(int64_t m_, int64_t n_, int64_t count_)
{
    const int m = am_int(m_), n = am_int(n_), k = am_int(least(m_, n_));
    const int count = count_ > 0 ? am_int(count_) : 1;
    const bool is_core = has_core(m_, n_);
    const int rows = is_core ? k : m, cols = is_core ? k : n, query = -1;
    double none = 0, answer = 0, asked = 3.0 * k * k + 4.0 * k; /* of dbdsdc */
    int info = 0;
    asked = most(asked, (double)am_bidiagonal_room(rows, cols));
    dormbr_("Q", "L", "N", &rows, &count, &cols, &none, &rows, &none, &none, &rows, &answer, &query,
            &info, 1, 1, 1);
    asked = most(asked, answer);
    dormbr_("P", "R", "T", &count, &cols, &rows, &none, &rows, &none, &none, &count, &answer,
            &query, &info, 1, 1, 1);
    asked = most(asked, answer);
    if (is_core && m >= n) {
        dgeqrf_(&m, &n, &none, &m, &none, &answer, &query, &info);
        asked = most(asked, answer);
        dormqr_("L", "N", &m, &count, &k, &none, &m, &none, &none, &m, &answer, &query, &info, 1,
                1);
    } else if (is_core) {
        dgelqf_(&m, &n, &none, &m, &none, &answer, &query, &info);
        asked = most(asked, answer);
        dormlq_("R", "N", &count, &n, &k, &none, &m, &none, &none, &count, &answer, &query, &info,
                1, 1);
    }
    AM_ASSERT(info == 0);
    return am_lapack_work(most(asked, answer));
}

int64_t am_svd_bytes(int64_t m, int64_t n)
{
    return am_svd_bytes_on(NULL, m, n, least(m, n));
}

int64_t am_svd_bytes_within(int64_t m, int64_t n)
{
    /* All; the broadest of which LQ is taken, and of which nothing is; the longest of which QR is.
     */
    const int64_t shapes[][2] = {
        {m, n}, {m, least(n, m - 1)}, {m, least(n, (11 * m - 1) / 6)}, {least(m, 6 * n / 11), n}};
    int64_t bytes = 0;
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        const bool is_there = shapes[i][0] > 0 && shapes[i][1] > 0;
        const int64_t one = is_there ? am_svd_bytes(shapes[i][0], shapes[i][1]) : 0;
        bytes = one > bytes ? one : bytes;
    }
    return bytes;
}

int64_t am_svd_bytes_on(const am_layout *on, int64_t m, int64_t n, int64_t count)
{
    const int64_t k = least(m, n);
    if (k == 0) {
        return 0;
    }
    if (on != NULL) {
        return am_grid_svd_bytes(on, m, n, count);
    }
    const int squares = (has_core(n, m) ? 1 : 0) + (count < k ? 2 : 0);
    return squares * am_matrix_bytes(k, k) + 6 * am_matrix_bytes(1, k) +
           am_matrix_bytes(1, workspace(n, m, count)) +
           (int64_t)am_arena_need((size_t)(8 * k) * sizeof(int));
}

/* b.core: what is reduced; where the matrix is long, the triangle of its QR or LQ. */
static void reduce(am_arena *work, am_bidiagonal *b)
{
    int info = 0;
    if (!has_core(b->m, b->n)) {
        b->core = b->a;
        b->ldcore = b->lda;
    } else {
        const bool is_tall = b->m >= b->n;
        (is_tall ? dgeqrf_ : dgelqf_)(&b->m, &b->n, b->a, &b->lda, b->tau, b->room, &b->lwork,
                                      &info);
        AM_ASSERT(info == 0);
        b->core = am_matrix_take(work, b->k, b->k).at;
        b->ldcore = b->k;
        for (int j = 0; j < b->k; j++) {
            for (int i = 0; i < b->k; i++) {
                const bool is_there = is_tall ? i <= j : i >= j;
                b->core[(int64_t)j * b->k + i] = is_there ? b->a[(int64_t)j * b->lda + i] : 0;
            }
        }
    }
    am_bidiagonal_reduce(b->rows, b->cols, b->core, b->ldcore, b->d, b->e, b->tauq, b->taup,
                         b->room);
}

static void identity(am_matrix a)
{
    am_matrix_fill(a, 0);
    am_matrix_add_diagonal(1, a);
}

/* Of the two diagonals: b->d, falling, and the vectors of both sides [k,k]. */
static int decompose(am_arena *work, am_bidiagonal *b, am_matrix left, am_matrix right)
{
    const int k = b->k, none = 0, one = 1, ldl = am_int(left.step), ldr = am_int(right.step);
    double *d = am_matrix_take(work, 1, k).at, *e = am_matrix_take(work, 1, k).at, unused = 0;
    int *iwork = am_arena_take(work, (size_t)(8 * k) * sizeof *iwork), info = 0, unused_too = 0;
    memcpy(d, b->d, (size_t)k * sizeof *d);
    memcpy(e, b->e, (size_t)(k - 1) * sizeof *e);
    dbdsdc_("U", "I", &k, b->d, b->e, left.at, &ldl, right.at, &ldr, &unused, &unused_too, b->room,
            iwork, &info, 1, 1);
    AM_ASSERT(info >= 0);
    if (info == 0) {
        return 0;
    }
    memcpy(b->d, d, (size_t)k * sizeof *d);
    memcpy(b->e, e, (size_t)(k - 1) * sizeof *e);
    identity(left);
    identity(right);
    dbdsqr_("U", &k, &k, &k, &none, b->d, b->e, right.at, &ldr, left.at, &ldl, &unused, &one,
            b->room, &info, 1);
    return am_lapack_info("singular values", "dbdsqr", info, "no convergence");
}

/* to = the first rows and columns of from [k,k], which may lie there already; 0 in others. */
static void extend(am_matrix from, am_matrix to)
{
    const int64_t rows = least(to.rows, from.rows), cols = least(to.cols, from.cols);
    if (from.at != to.at) {
        am_matrix_copy(am_matrix_part(from, 0, 0, rows, cols),
                       am_matrix_part(to, 0, 0, rows, cols));
    }
    am_matrix_fill(am_matrix_part(to, rows, 0, to.rows - rows, to.cols), 0);
    am_matrix_fill(am_matrix_part(to, 0, cols, rows, to.cols - cols), 0);
}

/* The first of Fortran's left vectors, m long, turned back. */
static void turn_left(const am_bidiagonal *b, am_matrix left, am_matrix vt)
{
    const int count = am_int(vt.rows), ld = am_int(vt.step);
    int info = 0;
    extend(left, vt);
    dormbr_("Q", "L", "N", &b->rows, &count, &b->cols, b->core, &b->ldcore, b->tauq, vt.at, &ld,
            b->room, &b->lwork, &info, 1, 1, 1);
    AM_ASSERT(info == 0);
    if (has_core(b->m, b->n) && b->m >= b->n) {
        dormqr_("L", "N", &b->m, &count, &b->k, b->a, &b->lda, b->tau, vt.at, &ld, b->room,
                &b->lwork, &info, 1, 1);
        AM_ASSERT(info == 0);
    }
}

/* The first of Fortran's right vectors, n long, turned back. */
static void turn_right(const am_bidiagonal *b, am_matrix right, am_matrix u)
{
    const int count = am_int(u.cols), ld = am_int(u.step);
    int info = 0;
    extend(right, u);
    dormbr_("P", "R", "T", &count, &b->cols, &b->rows, b->core, &b->ldcore, b->taup, u.at, &ld,
            b->room, &b->lwork, &info, 1, 1, 1);
    AM_ASSERT(info == 0);
    if (b->m < b->n) {
        dormlq_("R", "N", &count, &b->n, &b->k, b->a, &b->lda, b->tau, u.at, &ld, b->room,
                &b->lwork, &info, 1, 1);
        AM_ASSERT(info == 0);
    }
}

static int factorise(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt)
{
    const int m = am_int(a.cols), n = am_int(a.rows), k = am_int(least(m, n));
    const bool is_core = has_core(m, n);
    am_bidiagonal b = {.m = m,
                       .n = n,
                       .k = k,
                       .rows = is_core ? k : m,
                       .cols = is_core ? k : n,
                       .a = a.at,
                       .lda = am_int(a.step),
                       .d = s,
                       .e = am_matrix_take(work, 1, k).at,
                       .tau = am_matrix_take(work, 1, k).at,
                       .tauq = am_matrix_take(work, 1, k).at,
                       .taup = am_matrix_take(work, 1, k).at,
                       .lwork = workspace(m, n, vt.rows)};
    /* Where all vectors are wanted they are made in place. */
    const bool is_all = vt.rows == k;
    const am_matrix left = is_all ? am_matrix_part(vt, 0, 0, k, k) : am_matrix_take(work, k, k);
    const am_matrix right = is_all ? am_matrix_part(u, 0, 0, k, k) : am_matrix_take(work, k, k);
    b.room = am_matrix_take(work, 1, b.lwork).at;
    int exponent = 0;
    (void)am_matrix_normalise(a, &exponent);
    reduce(work, &b);
    const int rc = decompose(work, &b, left, right);
    if (rc == 0 && vt.rows > 0) {
        turn_left(&b, left, vt);
        turn_right(&b, right, u);
    }
    if (rc == 0) {
        for (int i = 0; i < k; i++) {
            s[i] = ldexp(s[i], exponent);
        }
    }
    return rc != 0 ? rc : am_lapack_check_largest(s[0]);
}

int am_svd(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols);
    AM_ASSERT(u.rows == a.rows && u.cols == vt.rows && vt.rows <= k && vt.cols == a.cols);
    int rc = am_lapack_check("singular values", a);
    if (rc == 0 && k > 0) {
        rc = a.grid != NULL ? a.grid->ops->svd(work, a, u, s, vt) : factorise(work, a, u, s, vt);
    }
    if (rc == 0 && a.grid == NULL) {
        am_fix_signs(vt, u, true);
    }
    am_arena_release(work, mark);
    return rc;
}

int64_t am_svd_rank(int64_t m, int64_t n, const double *s)
{
    const int64_t k = least(m, n);
    const double least_s = k == 0 ? 0 : (double)(m > n ? m : n) * DBL_EPSILON * s[0];
    int64_t rank = 0;
    while (rank < k && s[rank] > least_s) {
        rank++;
    }
    return rank;
}
