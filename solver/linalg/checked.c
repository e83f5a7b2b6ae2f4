/* Checks around LAPACK: see checked.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/checked.h"

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/linalg/grid.h"

/* Workspaces of the routines used here have at most some blocks of 64 rows or columns and 5 squares
 * of the smaller side (3 of singular values, 2 of eigenvalues), and so have offsets into them. */
bool am_lapack_fits(int64_t rows, int64_t cols)
{
    const int64_t longer = rows > cols ? rows : cols, shorter = rows > cols ? cols : rows;
    return longer <= INT_MAX / 65 && (shorter == 0 || longer <= INT_MAX / shorter) &&
           shorter * shorter <= INT_MAX / 6;
}

static int check_finite(const char *what, am_matrix a)
{
    const am_matrix here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            const double x = here.at[i * here.step + j];
            if (!isfinite(x)) {
                return am_fail(AM_E_NUMERIC, "%s: element (%lld, %lld) of the matrix is %s", what,
                               (long long)am_matrix_row(a, i), (long long)am_matrix_col(a, j),
                               isnan(x) ? "NaN" : "infinite");
            }
        }
    }
    return 0;
}

int am_lapack_check(const char *what, am_matrix a)
{
    const am_grid *g = a.grid;
    am_blas_single_thread();
    am_alive(what);
    if (g == NULL ? !am_lapack_fits(a.rows, a.cols) : !am_layout_fits(&g->layout, a.rows, a.cols)) {
        return am_fail(AM_E_NUMERIC, "%s: a matrix of %lld x %lld is too large for %s", what,
                       (long long)a.rows, (long long)a.cols,
                       g == NULL ? "LAPACK's 32-bit integers"
                                 : "ScaLAPACK's 32-bit integers on this grid");
    }
    return am_lapack_check_finite(what, a);
}

int am_lapack_check_finite(const char *what, am_matrix a)
{
    const int rc = check_finite(what, a);
    return a.grid == NULL ? rc : a.grid->ops->agree(a.grid, rc);
}

int am_lapack_check_largest(double s)
{
    return isfinite(s)
               ? 0
               : am_fail(AM_E_NUMERIC, "singular values: the largest is more than f64 holds");
}

int am_lapack_info(const char *what, const char *routine, int info, const char *trouble)
{
    AM_ASSERT(info >= 0);
    return info == 0
               ? 0
               : am_fail(AM_E_NUMERIC, "%s: %s (LAPACK %s: %d)", what, trouble, routine, info);
}

int am_lapack_work(double answer)
{
    AM_ASSERT(answer < INT_MAX);
    return answer < 1 ? 1 : (int)ceil(answer);
}

static bool is_negative(const double *x, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) {
        at = fabs(x[i]) > fabs(x[at]) ? i : at;
    }
    return n > 0 && x[at] < 0;
}

static void turn(double *x, int64_t n, int64_t step)
{
    for (int64_t i = 0; i < n; i++) {
        x[i * step] = -x[i * step];
    }
}

void am_fix_signs(am_matrix v, am_matrix u, bool across)
{
    for (int64_t i = 0; i < v.rows; i++) {
        if (!is_negative(v.at + i * v.step, v.cols)) {
            continue;
        }
        turn(v.at + i * v.step, v.cols, 1);
        if (u.at != NULL && across) {
            turn(u.at + i, u.rows, u.step);
        } else if (u.at != NULL) {
            turn(u.at + i * u.step, u.cols, 1);
        }
    }
}
