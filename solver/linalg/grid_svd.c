/* Singular values on a grid, by pdgesvd; checked, because it can fail without saying so.
 *
 * Fortran sees the transposed matrix, a^T = v diag(s) u^T, as svd.c does.
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

extern void pdgesvd_(const char *job_u, const char *job_vt, const int *m, const int *n, double *a,
                     const int *ia, const int *ja, const int *desca, double *s, double *u,
                     const int *iu, const int *ju, const int *descu, double *vt, const int *ivt,
                     const int *jvt, const int *descvt, double *work, const int *lwork, int *info,
                     size_t length_u, size_t length_vt);

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Elements of workspace, at least as many as pdgesvd asks for on any rank: the reduction to two
 * diagonals, or both factors by rows of them, k long, and blocks to turn them. */
static int64_t workspace(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t k = least(m, n), longer = most(m, n), block = on->block;
    const int64_t ranks = (int64_t)on->rows * on->cols;
    const int64_t here = am_layout_most(on, longer, 1) + block; /* of one side, on one rank */
    const int64_t row = am_layout_most(on, m, on->rows), col = am_layout_most(on, n, on->cols);
    const int64_t factors = k * ((m + ranks - 1) / ranks + (n + ranks - 1) / ranks + 2);
    const int64_t blocks = block * (2 * (row + col) + 2 * block + 8);
    const int64_t asked = 1 + 6 * longer + factors + most(blocks, 4 * k) + here;
    return asked + asked / 50 + 64;
}

int64_t am_grid_svd_bytes(const am_layout *on, int64_t m, int64_t n, int64_t count)
{
    const int64_t k = least(m, n);
    const int64_t checks = am_matrix_bytes_on(on, m, n) + am_matrix_bytes_on(on, k, n);
    const int64_t all = count < k ? am_matrix_bytes_on(on, m, k) + am_matrix_bytes_on(on, k, n) : 0;
    return all + checks + most(am_grid_room_bytes(workspace(on, m, n)), am_grid_fix_signs_bytes(k));
}

/* pdgesvd hands both factors from rows of them to blocks by PDGEMR2D: one at a time, with a buffer
 * for each form and a message of BLACS. */
int64_t am_grid_svd_besides(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t k = least(m, n), longer = most(m, n), ranks = (int64_t)on->rows * on->cols;
    const int64_t by_rows = (longer + ranks - 1) / ranks * k;
    const int64_t left = am_layout_most(on, m, on->rows) * am_layout_most(on, k, on->cols);
    const int64_t right = am_layout_most(on, k, on->rows) * am_layout_most(on, n, on->cols);
    return (by_rows + 2 * most(left, right)) * (int64_t)sizeof(double);
}

/* a to its factors; a power of two keeps squares from overflowing. */
static int factorise_all(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt)
{
    const am_grid *g = a.grid;
    const am_described from = am_describe(a), right = am_describe(vt), left = am_describe(u);
    const int m = am_int(a.cols), n = am_int(a.rows), query = -1, k = am_int(least(a.rows, a.cols));
    const int64_t room = workspace(&g->layout, a.rows, a.cols);
    double answer = 0, *space = am_arena_take(work, (size_t)room * sizeof *space);
    int info = 0;
    pdgesvd_("V", "V", &m, &n, a.at, &from.i, &from.j, from.at, s, vt.at, &right.i, &right.j,
             right.at, u.at, &left.i, &left.j, left.at, &answer, &query, &info, 1, 1);
    AM_ASSERT(info == 0);
    const int lwork = am_grid_room(answer, room);
    pdgesvd_("V", "V", &m, &n, a.at, &from.i, &from.j, from.at, s, vt.at, &right.i, &right.j,
             right.at, u.at, &left.i, &left.j, left.at, space, &lwork, &info, 1, 1);
    int rc = am_lapack_info("singular values", "pdgesvd", info,
                            info == k + 1 ? "processes disagree" : "no convergence");
    AM_AGREE(g->comm);
    rc = am_bcast_all(g->comm, 0, s, k * (int64_t)sizeof *s);
cleanup:
    return rc;
}

/* |a^T a - 1|, of columns or of rows; room: k x k. */
static double skewness(am_matrix a, bool is_by_rows, am_matrix room)
{
    const am_turn left = is_by_rows ? AM_AS_IS : AM_TRANSPOSED;
    const am_matrix here = am_matrix_local(room);
    am_multiply(1, a, left, a, is_by_rows ? AM_TRANSPOSED : AM_AS_IS, 0, room);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] -= am_matrix_row(room, i) == am_matrix_col(room, j);
        }
    }
    return am_matrix_norm(room);
}

/* |kept - u diag(s) vt| is rounding, and so is what u and vt lack to be orthonormal, which decides
 * where small singular values count as large ones do. kept, scaled: room of the sizes of a and vt.
 */
static int check_all(am_matrix kept, am_matrix u, const double *s, am_matrix vt, am_matrix scaled)
{
    const double length = am_matrix_norm(kept), size = (double)most(kept.rows, kept.cols);
    const double limit = 64 * size * DBL_EPSILON;
    am_matrix_copy(vt, scaled);
    am_matrix_scale_rows(scaled, s);
    am_multiply(-1, u, AM_AS_IS, scaled, AM_AS_IS, 1, kept);
    const double rest = am_matrix_norm(kept);
    const am_matrix square = am_matrix_part(kept, 0, 0, vt.rows, vt.rows);
    const double left = skewness(u, false, square), right = skewness(vt, true, square);
    const int rc = rest <= limit * length && left <= limit && right <= limit
                       ? 0
                       : am_fail(AM_E_NUMERIC,
                                 "singular values: ScaLAPACK's answer is wrong: what is left is "
                                 "%g of the matrix, vectors are orthogonal to %g and %g",
                                 length > 0 ? rest / length : rest, left, right);
    return am_agree_all(kept.grid->comm, rc);
}

/* pdgesvd gives all vectors or none. */
int am_grid_svd_all(am_arena *work, am_matrix a, am_matrix some_u, double *s, am_matrix some_vt)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols), count = some_vt.rows;
    AM_ASSERT(a.row == 0 && a.col == 0);
    const am_matrix u = count < k ? am_matrix_take_like(work, a, a.rows, k) : some_u;
    const am_matrix vt = count < k ? am_matrix_take_like(work, a, k, a.cols) : some_vt;
    const am_matrix kept = am_matrix_take_like(work, a, a.rows, a.cols);
    const am_matrix scaled = am_matrix_take_like(work, a, k, a.cols);
    const size_t after = am_arena_mark(work);
    int exponent = 0, rc = 0;
    (void)am_matrix_normalise(a, &exponent);
    am_matrix_copy(a, kept);
    AM_TRY(factorise_all(work, a, u, s, vt));
    am_arena_release(work, after);
    AM_TRY(check_all(kept, u, s, vt, scaled));
    for (int64_t i = 0; i < k; i++) {
        s[i] = ldexp(s[i], exponent);
    }
    AM_TRY(am_grid_fix_signs_all(work, vt, u));
    if (count < k) {
        am_matrix_copy(am_matrix_part(u, 0, 0, u.rows, count), some_u);
        am_matrix_copy(am_matrix_part(vt, 0, 0, count, vt.cols), some_vt);
    }
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
