/* Two diagonals by reflectors of columns and rows in turn, panel by panel as dgebrd, but with one
 * pass over the matrix for a column and a row (Howell, Demmel, Fulton, Hammarling and Marmol 2008,
 * "Cache efficient bidiagonalization using BLAS 2.5 operators"): the row that the left reflector v
 * leaves,
 *
 *   r = a_g - y,   y = tau A^T v,
 *
 * is known block of columns by block of columns, and so A r grows while the block is in the cache.
 * The right reflector is w = (r - beta e_1) / (r_1 - beta), and with it A w = (A r - beta A e_1) /
 * (r_1 - beta): beta has the other sign than r_1, so that nothing cancels.
 *
 * The matrix stands as it was when the panel began; what the panel did is A - V Y^T - X W^T.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/bidiagonal.h"

#include <stddef.h>
#include <string.h>
#include "solver/linalg/matrix.h"

extern void dgemv_(const char *turn, const int *m, const int *n, const double *alpha,
                   const double *a, const int *lda, const double *x, const int *incx,
                   const double *beta, double *y, const int *incy, size_t length);
extern double dnrm2_(const int *n, const double *x, const int *incx);
extern void dlarfg_(const int *n, double *alpha, double *x, const int *incx, double *tau);

enum {
    PANEL = 32,     /* columns between two updates of the matrix */
    CACHE = 1 << 13 /* elements of a block of columns, which L2 holds many times */
};
/* A row that is shorter, of a matrix of length 1, counts as zero: its products would be lost. */
static const double NOTHING = 1e-280;

typedef struct am_panel {
    int m, n, lda;
    double *a;
    double *v, *x;    /* [m, PANEL] by columns: left reflectors, and A w */
    double *y, *w;    /* [n, PANEL]: A^T v, and right reflectors */
    double *row;      /* [n] r */
    double *along[2]; /* [PANEL] */
} am_panel;

int64_t am_bidiagonal_room(int64_t m, int64_t n)
{
    return 2 * PANEL * (m + n + 1) + n;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int most(int a, int b)
{
    return a > b ? a : b;
}

static double *at(double *a, int ld, int row, int col)
{
    return a + (int64_t)col * ld + row;
}

/* out += alpha a x, a [m,n] by columns. */
static void add_product(double alpha, int m, int n, const double *a, int lda, const double *x,
                        int step, double *out)
{
    const int one = 1;
    const double add = 1;
    if (m > 0 && n > 0) {
        dgemv_("N", &m, &n, &alpha, a, &lda, x, &step, &add, out, &one, 1);
    }
}

/* out = a^T x + beta out. */
static void turned_product(int m, int n, const double *a, int lda, const double *x, double beta,
                           double *out)
{
    const int one = 1;
    const double alpha = 1;
    if (m > 0 && n > 0) {
        dgemv_("T", &m, &n, &alpha, a, &lda, x, &one, &beta, out, &one, 1);
    }
}

/* Column g as the panel has it, and the reflector that leaves its first element. Returns tau. */
static double reflect_column(const am_panel *p, int g, int i, double *d)
{
    const int one = 1, rows = p->m - g;
    double *column = at(p->a, p->lda, g, g), *v = at(p->v, p->m, g, i), tau = 0;
    add_product(-1, rows, i, p->v + g, p->m, p->y + g, p->n, column);
    add_product(-1, rows, i, p->x + g, p->m, p->w + g, p->n, column);
    dlarfg_(&rows, column, column + 1, &one, &tau);
    *d = column[0];
    v[0] = 1;
    memcpy(v + 1, column + 1, (size_t)(rows - 1) * sizeof *v);
    return tau;
}

/* y = tau A^T v, the row r, and product = A r without its first element; one pass. */
static void pass(const am_panel *p, int g, int i, double tau, double *product)
{
    const int rows = p->m - g, cols = p->n - g - 1, first = g + 1;
    const double *v = at(p->v, p->m, g, i);
    double *y = at(p->y, p->n, first, i), *row = p->row + first;
    for (int j = 0; j < cols; j++) {
        row[j] = *at(p->a, p->lda, g, first + j);
        y[j] = 0;
    }
    memset(product, 0, (size_t)(rows - 1) * sizeof *product);
    add_product(-1, cols, i, p->y + first, p->n, p->v + g, p->m, row);
    add_product(-1, cols, i, p->w + first, p->n, p->x + g, p->m, row);
    turned_product(rows, i, p->v + g, p->m, v, 0, p->along[0]);
    turned_product(rows, i, p->x + g, p->m, v, 0, p->along[1]);
    add_product(-1, cols, i, p->y + first, p->n, p->along[0], 1, y);
    add_product(-1, cols, i, p->w + first, p->n, p->along[1], 1, y);
    const int width = most(4, CACHE / rows);
    for (int j = 0; j < cols; j += width) {
        const int n = least(width, cols - j);
        const double *block = at(p->a, p->lda, g, first + j);
        turned_product(rows, n, block, p->lda, v, 1, y + j);
        for (int l = j; l < j + n; l++) {
            y[l] *= tau;
            row[l] -= y[l];
        }
        add_product(1, rows - 1, n, block + 1, p->lda, row + j, 1, product);
    }
}

/* The right reflector of the row, and x = A w of the matrix as the panel has it; product: A r.
 * Returns tau. */
static double reflect_row(const am_panel *p, int g, int i, double *product, double *e)
{
    const int one = 1, rows = p->m - g - 1, cols = p->n - g - 1, first = g + 1;
    double *row = p->row + first, *w = at(p->w, p->n, first, i), tau = 0;
    if (dnrm2_(&cols, row, &one) < NOTHING) {
        memset(row, 0, (size_t)cols * sizeof *row);
    }
    const double was = row[0];
    dlarfg_(&cols, row, row + 1, &one, &tau);
    *e = row[0];
    w[0] = 1;
    for (int j = 1; j < cols; j++) {
        w[j] = *at(p->a, p->lda, g, first + j) = row[j];
    }
    const double *next = at(p->a, p->lda, first, first);
    for (int r = 0; r < rows; r++) {
        product[r] = tau == 0 ? 0 : (product[r] - *e * next[r]) / (was - *e);
    }
    turned_product(cols, i + 1, p->y + first, p->n, w, 0, p->along[0]);
    turned_product(cols, i, p->w + first, p->n, w, 0, p->along[1]);
    add_product(-1, rows, i + 1, p->v + first, p->m, p->along[0], 1, product);
    add_product(-1, rows, i, p->x + first, p->m, p->along[1], 1, product);
    for (int r = 0; r < rows; r++) {
        product[r] *= tau;
    }
    return tau;
}

/* Columns [0, count) of a panel from row `first` on, as am_matrix has them: lying. */
static am_matrix lying(double *columns, int rows, int first, int count)
{
    return am_matrix_part(am_matrix_of(count, rows, columns), 0, first, count, rows - first);
}

/* What the panel of `count` columns before `first` does to the rest. */
static void update(const am_panel *p, int first, int count)
{
    const am_matrix rest = {.rows = p->n - first,
                            .cols = p->m - first,
                            .step = p->lda,
                            .at = at(p->a, p->lda, first, first)};
    am_multiply(-1, lying(p->y, p->n, first, count), AM_TRANSPOSED, lying(p->v, p->m, first, count),
                AM_AS_IS, 1, rest);
    am_multiply(-1, lying(p->w, p->n, first, count), AM_TRANSPOSED, lying(p->x, p->m, first, count),
                AM_AS_IS, 1, rest);
}

void am_bidiagonal_reduce(int m, int n, double *a, int lda, double *d, double *e, double *tauq,
                          double *taup, double *room)
{
    am_panel p = {.m = m, .n = n, .lda = lda, .a = a};
    p.v = room;
    p.x = p.v + (int64_t)PANEL * m;
    p.y = p.x + (int64_t)PANEL * m;
    p.w = p.y + (int64_t)PANEL * n;
    p.row = p.w + (int64_t)PANEL * n;
    p.along[0] = p.row + n;
    p.along[1] = p.along[0] + PANEL;
    for (int first = 0; first < n; first += PANEL) {
        const int count = least(PANEL, n - first);
        for (int i = 0; i < count; i++) {
            const int g = first + i;
            tauq[g] = reflect_column(&p, g, i, &d[g]);
            if (g + 1 < n) {
                double *x = at(p.x, m, g + 1, i);
                pass(&p, g, i, tauq[g], x);
                taup[g] = reflect_row(&p, g, i, x, &e[g]);
            }
        }
        update(&p, first + count, count);
    }
}
