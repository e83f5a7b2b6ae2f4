/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/lora.h"

#include <stdlib.h>
#include "io/checkpoint/product.h"
#include "io/dtype.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { RAW_ELEMENTS = 1 << 13 }; /* for load_raw */

/* W + scale * B A */
struct am_lora {
    am_source model, factors;
    const am_adapter *adapter;
    am_product *product;
};

/* B A, or its transpose A^T B^T: the factors as they are stored. */
static am_product_part part_of(const am_adapter_part *p)
{
    return (am_product_part){.left = p->is_transposed ? p->a : p->b,
                             .right = p->is_transposed ? p->b : p->a,
                             .weight = -1,
                             .rows = p->rows,
                             .cols = p->cols,
                             .rank = p->rank,
                             .scale = p->scale,
                             .is_transposed = p->is_transposed};
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
    const am_product_part part = part_of(p);
    return am_product_add(l->product, tensor, &part, lo, n, dst);
}

static int64_t rank_of(const void *self, int64_t tensor)
{
    const am_lora *l = self;
    const am_adapter_part *p = &l->adapter->part[tensor];
    return p->is_whole ? -1 : p->a < 0 ? 0 : p->rank;
}

static int factors(void *self, int64_t tensor, double *left, double *right)
{
    const am_lora *l = self;
    const am_product_part part = part_of(&l->adapter->part[tensor]);
    return part.right < 0 ? 0 : am_product_load(l->product, &part, left, right);
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
    int rc = am_ckpt_source(adapter->ckpt, 0, &l->factors);
    AM_KEEP(am_product_create(&l->factors, &l->product));
    *out = (am_source){.self = l,
                       .label = model->label,
                       .tensors = model->tensors,
                       .stage = stage,
                       .hold = hold,
                       .weigh = weigh,
                       .load = load,
                       .load_raw = load_raw,
                       .over = model->label,
                       .rank = rank_of,
                       .factors = factors};
    return rc;
}

int64_t am_lora_bytes(const am_lora *lora)
{
    int64_t most = am_product_bytes(0, 0);
    for (int64_t i = 0; i < lora->model.tensors->n; i++) {
        const am_adapter_part *p = &lora->adapter->part[i];
        const bool has_factors = p->a >= 0 && !p->is_whole;
        const int64_t bytes = has_factors ? am_product_bytes(p->rank, p->cols) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

void am_lora_free(am_lora **lora)
{
    if (*lora != NULL) {
        am_product_free(&(*lora)->product);
        free(*lora);
        *lora = NULL;
    }
}
