/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/lora.h"

#include <stdlib.h>
#include "io/dtype.h"
#include "mpi/arena.h"
#include "mpi/clones.h"
#include "mpi/error.h"

enum {
    ROWS = 64,                 /* rows of the left factor in memory */
    COLUMNS = 512,             /* elements of a row that are summed at a time */
    RAW_ELEMENTS = 1 << 13,    /* for load_raw */
    BOUNCE_ELEMENTS = 1 << 13, /* of a factor that is transposed while it is read */
    LOAD_BYTES = 1 << 20       /* that a checkpoint reads at a time */
};

/* delta[i,j] = sum_k left[i,k] * right[k,j] */
struct am_lora {
    am_source model, factors;
    const am_adapter *adapter;
    int64_t tensor;        /* whose factors are here, -1: none */
    int64_t first, n_rows; /* rows of the left factor that are here */
    double *right, *left;  /* [rank, cols], [ROWS, rank] */
    int64_t right_capacity, left_capacity;
    double *bounce; /* [BOUNCE_ELEMENTS] */
};

static int grow(double **buffer, int64_t *capacity, int64_t n)
{
    if (n > *capacity) {
        free(*buffer);
        *capacity = 0;
        *buffer = am_new(n, sizeof **buffer, "the factors of an adapter");
        if (*buffer == NULL) {
            return AM_E_NOMEM;
        }
        *capacity = n;
    }
    return 0;
}

/* dst[c, r] from elements [lo, lo + r*c) of a factor that holds them as [r, c]. */
static int load_transposed(am_lora *l, int64_t factor, int64_t rows, int64_t cols, double *dst)
{
    for (int64_t at = 0; at < rows * cols; at += BOUNCE_ELEMENTS) {
        const int64_t left = rows * cols - at;
        const int64_t n = left < BOUNCE_ELEMENTS ? left : BOUNCE_ELEMENTS;
        int rc = l->factors.load(l->factors.self, factor, at, n, l->bounce);
        if (rc != 0) {
            return rc;
        }
        int64_t i = at / cols, j = at % cols;
        for (int64_t e = 0; e < n; e++) {
            dst[j * rows + i] = l->bounce[e];
            if (++j == cols) {
                j = 0;
                i++;
            }
        }
    }
    return 0;
}

static int need_right(am_lora *l, int64_t tensor)
{
    const am_adapter_part *p = &l->adapter->part[tensor];
    int rc = 0;
    if (l->tensor == tensor) {
        return 0;
    }
    l->tensor = -1;
    l->n_rows = 0;
    AM_TRY(grow(&l->right, &l->right_capacity, p->rank * p->cols));
    AM_TRY(grow(&l->left, &l->left_capacity, ROWS * p->rank));
    if (p->is_transposed) { /* B [cols, rank] */
        AM_TRY(load_transposed(l, p->b, p->cols, p->rank, l->right));
    } else {
        AM_TRY(l->factors.load(l->factors.self, p->a, 0, p->rank * p->cols, l->right));
    }
    l->tensor = tensor;
cleanup:
    return rc;
}

/* Rows from `row` on, ROWS of them or up to the end of the tensor. */
static int need_left(am_lora *l, int64_t row)
{
    const am_adapter_part *p = &l->adapter->part[l->tensor];
    int rc = 0;
    if (row >= l->first && row < l->first + l->n_rows) {
        return 0;
    }
    const int64_t n = p->rows - row < ROWS ? p->rows - row : ROWS;
    l->n_rows = 0;
    if (p->is_transposed) { /* A [rank, rows]: a run of every row */
        for (int64_t k = 0; k < p->rank; k++) {
            double run[ROWS];
            AM_TRY(l->factors.load(l->factors.self, p->a, k * p->rows + row, n, run));
            for (int64_t i = 0; i < n; i++) {
                l->left[i * p->rank + k] = run[i];
            }
        }
    } else {
        AM_TRY(l->factors.load(l->factors.self, p->b, row * p->rank, n * p->rank, l->left));
    }
    l->first = row;
    l->n_rows = n;
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

static int load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    am_lora *l = self;
    const am_adapter_part *p = &l->adapter->part[tensor];
    if (p->is_whole) {
        return l->factors.load(l->factors.self, p->a, lo, n, dst);
    }
    int rc = l->model.load(l->model.self, tensor, lo, n, dst);
    if (rc != 0 || p->a < 0 || n == 0) {
        return rc;
    }
    AM_TRY(need_right(l, tensor));
    for (int64_t at = lo; at < lo + n;) {
        const int64_t row = at / p->cols, column = at % p->cols;
        const int64_t left = lo + n - at;
        const int64_t step = p->cols - column < left ? p->cols - column : left;
        AM_TRY(need_left(l, row));
        add_row(l->left + (row - l->first) * p->rank, l->right + column, p->rank, p->cols, p->scale,
                step, dst + (at - lo));
        at += step;
    }
cleanup:
    return rc;
}

/* The adapter's numbers rounded once to the tensor's own type; other tensors as they are. */
static int load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    am_lora *l = self;
    const am_dtype dtype = l->model.tensors->t[tensor].dtype;
    if (l->adapter->part[tensor].a < 0) {
        return l->model.load_raw(l->model.self, tensor, lo, n, dst);
    }
    double *real = am_new(RAW_ELEMENTS, sizeof *real, "a conversion");
    int rc = real != NULL ? 0 : AM_E_NOMEM;
    for (int64_t at = 0; rc == 0 && at < n; at += RAW_ELEMENTS) {
        const int64_t m = n - at < RAW_ELEMENTS ? n - at : RAW_ELEMENTS;
        rc = load(l, tensor, lo + at, m, real);
        if (rc == 0) {
            am_dtype_from_f64(dtype, real, m, (char *)dst + at * am_dtype_bytes(dtype));
        }
    }
    free(real);
    return rc;
}

static int stage(void *self, const am_span *spans, int64_t n)
{
    const am_lora *l = self;
    return l->model.stage != NULL ? l->model.stage(l->model.self, spans, n) : 0;
}

static int hold(void *self, const am_span *spans, int64_t n)
{
    const am_lora *l = self;
    return l->model.hold != NULL ? l->model.hold(l->model.self, spans, n) : 0;
}

static void weigh(const void *self, int64_t tensor, int64_t n, int64_t *stored, int64_t *staged)
{
    const am_lora *l = self;
    am_source_weigh(&l->model, tensor, n, stored, staged);
}

int am_lora_create(const am_source *model, const am_adapter *adapter, am_lora **lora,
                   am_source *out)
{
    am_lora *l = am_new(1, sizeof *l, "an adapter");
    if (l == NULL) {
        return AM_E_NOMEM;
    }
    *lora = l;
    l->model = *model;
    l->adapter = adapter;
    l->tensor = -1;
    l->bounce = am_new(BOUNCE_ELEMENTS, sizeof *l->bounce, "an adapter");
    int rc = l->bounce != NULL ? am_ckpt_source(adapter->ckpt, 0, &l->factors) : AM_E_NOMEM;
    *out = (am_source){.self = l,
                       .label = model->label,
                       .tensors = model->tensors,
                       .stage = stage,
                       .hold = hold,
                       .weigh = weigh,
                       .load = load,
                       .load_raw = load_raw};
    return rc;
}

int64_t am_lora_bytes(const am_lora *lora)
{
    const int64_t real = sizeof(double);
    int64_t most = 0;
    for (int64_t i = 0; i < lora->model.tensors->n; i++) {
        const am_adapter_part *p = &lora->adapter->part[i];
        const int64_t factors = p->a < 0 || p->is_whole ? 0 : (p->cols + ROWS) * p->rank * real;
        most = factors > most ? factors : most;
    }
    /* and a factor as it is in the file, before it is widened */
    return most + BOUNCE_ELEMENTS * real + (most / 2 < LOAD_BYTES ? most / 2 : LOAD_BYTES);
}

void am_lora_free(am_lora **lora)
{
    if (*lora != NULL) {
        free((*lora)->right);
        free((*lora)->left);
        free((*lora)->bounce);
        free(*lora);
        *lora = NULL;
    }
}
