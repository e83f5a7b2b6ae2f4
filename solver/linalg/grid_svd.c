/* Singular values on a grid: of the polar decomposition a = h q, by QDWH, and of h = v^T diag(s) v,
 * whose eigenvalues they are (Nakatsukasa and Higham 2013): a = v^T diag(s) (v q). Products and
 * factorisations that spread well, where pdgesvd turns both factors by QR iteration.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/scalapack.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/eigen.h"
#include "solver/linalg/qdwh.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t am_grid_svd_bytes(const am_layout *on, int64_t m, int64_t n, int64_t count)
{
    const int64_t k = least(m, n), square = am_matrix_bytes_on(on, k, k);
    const int64_t checks = am_matrix_bytes_on(on, count, n) + am_matrix_bytes_on(on, count, count);
    const int64_t after = square + most(am_grid_eigen_bytes(on, k), am_grid_fix_signs_bytes(count));
    return am_matrix_bytes_on(on, m, n) + most(am_qdwh_bytes_on(on, m, n), most(after, checks));
}

/* Of a and its polar factor q: the values and the leading vectors. */
static int decompose_all(am_arena *work, am_matrix a, am_matrix q, am_matrix u, double *s,
                         am_matrix vt)
{
    const bool is_tall = a.rows > a.cols;
    const int64_t k = least(a.rows, a.cols);
    const am_matrix h = am_matrix_take_like(work, a, k, k);
    /* -h: its eigenvalues rise */
    am_multiply(-1, a, is_tall ? AM_TRANSPOSED : AM_AS_IS, q, is_tall ? AM_AS_IS : AM_TRANSPOSED, 0,
                h);
    const int rc = a.grid->ops->eigen(work, h, s);
    if (rc != 0) {
        return rc;
    }
    for (int64_t i = 0; i < k; i++) {
        s[i] = fmax(0, -s[i]); /* below 0 by rounding */
    }
    const am_matrix v = am_matrix_part(h, 0, 0, vt.rows, k);
    if (is_tall) {
        am_matrix_copy(v, vt);
        am_multiply(1, q, AM_AS_IS, v, AM_TRANSPOSED, 0, u);
    } else {
        am_matrix_transpose(v, u);
        am_multiply(1, v, AM_AS_IS, q, AM_AS_IS, 0, vt);
    }
    return am_grid_fix_signs_all(work, vt, u);
}

/* u^T a - diag(s) vt is rounding, and so is what u and vt lack to be orthonormal. */
static int check_all(am_arena *work, am_matrix a, am_matrix u, const double *s, am_matrix vt)
{
    const double length = am_matrix_norm(a), size = (double)most(a.rows, a.cols);
    const double limit = 64 * size * DBL_EPSILON;
    const am_matrix rest = am_matrix_take_like(work, a, vt.rows, vt.cols);
    const am_matrix square = am_matrix_take_like(work, a, vt.rows, vt.rows);
    am_matrix_copy(vt, rest);
    am_matrix_scale_rows(rest, s);
    am_multiply(-1, u, AM_TRANSPOSED, a, AM_AS_IS, 1, rest);
    const double left_out = am_matrix_norm(rest);
    const double left = am_matrix_skewness(u, square), right = am_matrix_skewness(vt, square);
    const int rc = left_out <= limit * length && left <= limit && right <= limit
                       ? 0
                       : am_fail(AM_E_NUMERIC,
                                 "singular values: ScaLAPACK's answer is wrong: what is left is "
                                 "%g of the matrix, vectors are orthogonal to %g and %g",
                                 length > 0 ? left_out / length : left_out, left, right);
    return am_agree_all(a.grid->comm, rc);
}

int am_grid_svd_all(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt)
{
    const size_t mark = am_arena_mark(work);
    int exponent = 0, rc = 0;
    AM_ASSERT(a.row == 0 && a.col == 0);
    (void)am_matrix_normalise(a, &exponent);
    const am_matrix q = am_matrix_take_like(work, a, a.rows, a.cols);
    const size_t after = am_arena_mark(work);
    am_matrix_copy(a, q);
    AM_TRY(am_qdwh(work, q));
    AM_TRY(decompose_all(work, a, q, u, s, vt));
    am_arena_release(work, after);
    AM_TRY(check_all(work, a, u, s, vt));
    for (int64_t i = 0; i < least(a.rows, a.cols); i++) {
        s[i] = ldexp(s[i], exponent);
    }
    rc = am_lapack_check_largest(s[0]);
cleanup:
    am_arena_release(work, mark);
    return rc;
}

/* ---- signs ---- */

/* The element of largest magnitude of a row, and where it is. */
typedef struct am_extreme {
    double magnitude;
    int column;
} am_extreme;

int64_t am_grid_fix_signs_bytes(int64_t rows)
{
    return (int64_t)(am_arena_need((size_t)rows * sizeof(am_extreme)) +
                     am_arena_need((size_t)rows * sizeof(int64_t)) +
                     am_arena_need((size_t)rows * sizeof(double)));
}

static void find_extremes(am_matrix v, am_extreme *extreme)
{
    const am_matrix here = am_matrix_local(v);
    for (int64_t i = 0; i < v.rows; i++) {
        extreme[i] = (am_extreme){.magnitude = -1, .column = am_int(v.cols)};
    }
    for (int64_t i = 0; i < here.rows; i++) {
        am_extreme *best = &extreme[am_matrix_row(v, i)];
        for (int64_t j = 0; j < here.cols; j++) {
            const double x = fabs(here.at[i * here.step + j]);
            if (x > best->magnitude) {
                *best = (am_extreme){.magnitude = x, .column = am_int(am_matrix_col(v, j))};
            }
        }
    }
}

int am_grid_fix_signs_all(am_arena *work, am_matrix v, am_matrix u)
{
    const size_t mark = am_arena_mark(work);
    const am_matrix here = am_matrix_local(v);
    am_extreme *extreme = am_arena_take(work, (size_t)v.rows * sizeof *extreme);
    int64_t *is_negative = am_arena_take(work, (size_t)v.rows * sizeof *is_negative);
    double *sign = am_arena_take(work, (size_t)v.rows * sizeof *sign);
    int rc = 0;
    find_extremes(v, extreme);
    AM_TRY(am_mpi_code(MPI_Allreduce(MPI_IN_PLACE, extreme, am_int(v.rows), MPI_DOUBLE_INT,
                                     MPI_MAXLOC, v.grid->comm),
                       "MPI_Allreduce"));
    for (int64_t i = 0; i < v.rows; i++) {
        is_negative[i] = 0;
    }
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(v, i);
        for (int64_t j = 0; j < here.cols; j++) {
            const bool is_it = am_matrix_col(v, j) == extreme[row].column;
            is_negative[row] |= is_it && here.at[i * here.step + j] < 0;
        }
    }
    AM_TRY(am_max_i64_all(v.grid->comm, is_negative, v.rows));
    for (int64_t i = 0; i < v.rows; i++) {
        sign[i] = is_negative[i] != 0 ? -1 : 1;
    }
    am_matrix_scale_rows(v, sign);
    const am_matrix beside = u.at != NULL ? am_matrix_local(u) : (am_matrix){0};
    for (int64_t i = 0; i < beside.rows; i++) {
        for (int64_t j = 0; j < beside.cols; j++) {
            beside.at[i * beside.step + j] *= sign[am_matrix_col(u, j)];
        }
    }
cleanup:
    am_arena_release(work, mark);
    return rc;
}
