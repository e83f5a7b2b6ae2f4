/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/product.h"

#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/clones.h"
#include "mpi/error.h"

enum {
    ROWS = 64,                 /* rows of the left factor in memory */
    COLUMNS = 512,             /* elements of a row that are summed at a time */
    BOUNCE_ELEMENTS = 1 << 13, /* of a factor that is transposed while it is read */
    LOAD_BYTES = 1 << 20       /* that a checkpoint reads at a time */
};

struct am_product {
    am_source factors;
    int64_t key;                   /* whose factors are here, -1: none */
    int64_t first, n_rows;         /* rows of the left factor that are here */
    double *right, *left, *weight; /* [rank, cols], [ROWS, rank], [rank] */
    int64_t right_capacity, left_capacity, weight_capacity;
    double *bounce; /* [BOUNCE_ELEMENTS] */
};

static int grow(double **buffer, int64_t *capacity, int64_t n)
{
    if (n > *capacity) {
        free(*buffer);
        *capacity = 0;
        *buffer = am_new(n, sizeof **buffer, "stored factors");
        if (*buffer == NULL) {
            return AM_E_NOMEM;
        }
        *capacity = n;
    }
    return 0;
}

/* dst[c, r] from elements [lo, lo + r*c) of a factor that holds them as [r, c]. */
static int load_transposed(am_product *p, int64_t factor, int64_t rows, int64_t cols, double *dst)
{
    for (int64_t at = 0; at < rows * cols; at += BOUNCE_ELEMENTS) {
        const int64_t left = rows * cols - at;
        const int64_t n = left < BOUNCE_ELEMENTS ? left : BOUNCE_ELEMENTS;
        int rc = p->factors.load(p->factors.self, factor, at, n, p->bounce);
        if (rc != 0) {
            return rc;
        }
        int64_t i = at / cols, j = at % cols;
        for (int64_t e = 0; e < n; e++) {
            dst[j * rows + i] = p->bounce[e];
            if (++j == cols) {
                j = 0;
                i++;
            }
        }
    }
    return 0;
}

/* A factor [rows, cols] that lies so, or transposed. */
static int load_factor(am_product *p, int64_t factor, bool is_transposed, int64_t rows,
                       int64_t cols, double *dst)
{
    return is_transposed ? load_transposed(p, factor, cols, rows, dst)
                         : p->factors.load(p->factors.self, factor, 0, rows * cols, dst);
}

/* right [rank, cols] with weights, without scale. */
static int load_right(am_product *p, const am_product_part *part, double *right)
{
    int rc = load_factor(p, part->right, part->is_transposed, part->rank, part->cols, right);
    if (rc != 0 || part->weight < 0) {
        return rc;
    }
    AM_TRY(grow(&p->weight, &p->weight_capacity, part->rank));
    AM_TRY(p->factors.load(p->factors.self, part->weight, 0, part->rank, p->weight));
    for (int64_t k = 0; k < part->rank; k++) {
        for (int64_t j = 0; j < part->cols; j++) {
            right[k * part->cols + j] *= p->weight[k];
        }
    }
cleanup:
    return rc;
}

static int need_right(am_product *p, int64_t key, const am_product_part *part)
{
    int rc = 0;
    if (p->key == key) {
        return 0;
    }
    p->key = -1;
    p->n_rows = 0;
    AM_TRY(grow(&p->right, &p->right_capacity, part->rank * part->cols));
    AM_TRY(grow(&p->left, &p->left_capacity, ROWS * part->rank));
    AM_TRY(load_right(p, part, p->right));
    p->key = key;
cleanup:
    return rc;
}

/* Rows from `row` on, ROWS of them or up to the end of the matrix. */
static int need_left(am_product *p, const am_product_part *part, int64_t row)
{
    int rc = 0;
    if (row >= p->first && row < p->first + p->n_rows) {
        return 0;
    }
    const int64_t n = part->rows - row < ROWS ? part->rows - row : ROWS;
    p->n_rows = 0;
    if (part->is_transposed) { /* a run of every row */
        for (int64_t k = 0; k < part->rank; k++) {
            double run[ROWS];
            AM_TRY(p->factors.load(p->factors.self, part->left, k * part->rows + row, n, run));
            for (int64_t i = 0; i < n; i++) {
                p->left[i * part->rank + k] = run[i];
            }
        }
    } else {
        AM_TRY(p->factors.load(p->factors.self, part->left, row * part->rank, n * part->rank,
                               p->left));
    }
    p->first = row;
    p->n_rows = n;
cleanup:
    return rc;
}

/* dst[n] += scale * left[rank] * right[rank, stride] */
AM_CLONES static void add_row(const double *left, const double *right, int64_t rank, int64_t stride,
                              double scale, int64_t n, double *dst)
{
    double sum[COLUMNS];
    for (int64_t at = 0; at < n; at += COLUMNS) {
        const int64_t m = n - at < COLUMNS ? n - at : COLUMNS;
        for (int64_t j = 0; j < m; j++) {
            sum[j] = 0;
        }
        for (int64_t k = 0; k < rank; k++) {
            const double *row = right + k * stride + at;
            for (int64_t j = 0; j < m; j++) {
                sum[j] += left[k] * row[j];
            }
        }
        for (int64_t j = 0; j < m; j++) {
            dst[at + j] += scale * sum[j];
        }
    }
}

int am_product_add(am_product *product, int64_t key, const am_product_part *part, int64_t lo,
                   int64_t n, double *dst)
{
    am_product *p = product;
    int rc = 0;
    if (n == 0 || part->rank == 0) {
        return 0;
    }
    AM_TRY(need_right(p, key, part));
    for (int64_t at = lo; at < lo + n;) {
        const int64_t row = at / part->cols, column = at % part->cols;
        const int64_t left = lo + n - at;
        const int64_t step = part->cols - column < left ? part->cols - column : left;
        AM_TRY(need_left(p, part, row));
        add_row(p->left + (row - p->first) * part->rank, p->right + column, part->rank, part->cols,
                part->scale, step, dst + (at - lo));
        at += step;
    }
cleanup:
    return rc;
}

int am_product_load(am_product *product, const am_product_part *part, double *left, double *right)
{
    int rc = load_factor(product, part->left, part->is_transposed, part->rows, part->rank, left);
    AM_KEEP(load_right(product, part, right));
    for (int64_t i = 0; rc == 0 && i < part->rank * part->cols; i++) {
        right[i] *= part->scale;
    }
    return rc;
}

int am_product_create(const am_source *factors, am_product **out)
{
    am_product *p = am_new(1, sizeof *p, "stored factors");
    if (p == NULL) {
        return AM_E_NOMEM;
    }
    p->factors = *factors;
    p->key = -1;
    p->bounce = am_new(BOUNCE_ELEMENTS, sizeof *p->bounce, "stored factors");
    *out = p;
    return p->bounce != NULL ? 0 : AM_E_NOMEM;
}

void am_product_free(am_product **product)
{
    if (*product != NULL) {
        free((*product)->right);
        free((*product)->left);
        free((*product)->weight);
        free((*product)->bounce);
        free(*product);
        *product = NULL;
    }
}

int64_t am_product_bytes(int64_t rank, int64_t cols)
{
    const int64_t real = sizeof(double), most = (cols + ROWS) * rank * real;
    /* and a factor as it is in the file, before it is widened */
    return most + BOUNCE_ELEMENTS * real + (most / 2 < LOAD_BYTES ? most / 2 : LOAD_BYTES);
}
