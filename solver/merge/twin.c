/* Compressed twins: see twin.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/twin.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "solver/linalg/svd.h"
#include "solver/merge/spectral.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static am_twin_form form_of(const am_tensor *tensor, am_twin_way way, double density)
{
    const bool is_matrix = tensor->ndim >= 2 && tensor->numel > 0;
    const int64_t m = is_matrix ? tensor->shape[0] : 1;
    am_twin_form f = {.way = is_matrix ? way : AM_TWIN_WHOLE, .m = m, .n = tensor->numel / m};
    if (f.way == AM_TWIN_SVD) {
        f.kept = am_spectral_directions(density, least(f.m, f.n));
        f.values = f.kept * (f.m + f.n + 1);
    } else if (f.way == AM_TWIN_MAGNITUDE) {
        f.kept = am_spectral_directions(density, tensor->numel);
        f.values = f.indices = f.kept;
    }
    if (f.way == AM_TWIN_WHOLE || f.values + f.indices >= tensor->numel) {
        f.way = AM_TWIN_WHOLE; /* cutting would save nothing */
        f.kept = f.values = tensor->numel;
        f.indices = 0;
    }
    return f;
}

static int64_t work_bytes(const am_twin_form *f)
{
    const int64_t k = least(f->m, f->n), r = f->kept;
    const int64_t cut = am_matrix_bytes(1, k) + am_svd_bytes_on(NULL, f->m, f->n, r);
    const int64_t expand = am_matrix_bytes(f->m, r) + am_matrix_bytes(r, f->n);
    return f->way != AM_TWIN_SVD ? 0 : cut > expand ? cut : expand;
}

int am_twin_layout_make(const am_tensor_table *tensors, am_twin_way way, double density,
                        am_twin_layout *out)
{
    *out = (am_twin_layout){.n = tensors->n};
    out->form = am_new(tensors->n + 1, sizeof *out->form, "twins");
    for (int64_t i = 0; out->form != NULL && i < tensors->n; i++) {
        am_twin_form *f = &out->form[i];
        *f = form_of(&tensors->t[i], way, density);
        f->value = out->values;
        f->index = out->indices;
        out->values += f->values;
        out->indices += f->indices;
        const int64_t work = work_bytes(f);
        out->work_bytes = work > out->work_bytes ? work : out->work_bytes;
        out->largest = tensors->t[i].numel > out->largest ? tensors->t[i].numel : out->largest;
    }
    return out->form != NULL ? AM_OK : AM_E_NOMEM;
}

void am_twin_layout_free(am_twin_layout *layout)
{
    free(layout->form);
    *layout = (am_twin_layout){0};
}

/* ---- singular directions ---- */

static int compress_svd(am_arena *work, const am_twin_form *f, double *delta, double *value)
{
    const int64_t r = f->kept, k = least(f->m, f->n);
    const size_t mark = am_arena_mark(work);
    double *s = am_matrix_take(work, 1, k).at, *kept = value + f->m * r;
    const am_matrix u = am_matrix_of(f->m, r, value), vt = am_matrix_of(r, f->n, kept + r);
    const int rc = am_svd(work, am_matrix_of(f->m, f->n, delta), u, s, vt);
    if (rc == 0) {
        memcpy(kept, s, (size_t)r * sizeof *s);
    }
    am_arena_release(work, mark);
    return rc;
}

static void expand_svd(am_arena *work, const am_twin_form *f, const double *value, double *delta)
{
    const size_t mark = am_arena_mark(work);
    const int64_t r = f->kept;
    const am_matrix u = am_matrix_take(work, f->m, r), vt = am_matrix_take(work, r, f->n);
    const double *s = value + f->m * r;
    memcpy(u.at, value, (size_t)(f->m * r) * sizeof *value);
    memcpy(vt.at, s + r, (size_t)(r * f->n) * sizeof *value);
    am_matrix_scale_rows(vt, s);
    am_multiply(1, u, AM_AS_IS, vt, AM_AS_IS, 0, am_matrix_of(f->m, f->n, delta));
    am_arena_release(work, mark);
}

/* ---- largest elements ---- */

/* Bits of the magnitude: they order as the magnitudes do. */
static uint64_t size_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & ~(UINT64_C(1) << 63);
}

/* The kept-th largest magnitude, by its digits from the first on: nothing is copied or moved.
 * ties: elements of this magnitude that stay. */
static uint64_t find_cut(const double *delta, int64_t n, int64_t kept, int64_t *ties)
{
    enum { BITS = 8, DIGITS = 1 << BITS };
    uint64_t cut = 0;
    *ties = kept;
    for (int shift = 64 - BITS; shift >= 0; shift -= BITS) {
        int64_t count[DIGITS] = {0};
        for (int64_t i = 0; i < n; i++) {
            const uint64_t at = size_of(delta[i]) >> shift;
            if (at >> BITS == cut) {
                count[at & (DIGITS - 1)]++;
            }
        }
        int digit = DIGITS - 1;
        while (count[digit] < *ties) {
            *ties -= count[digit--];
        }
        cut = cut << BITS | (uint64_t)digit;
    }
    return cut;
}

static void compress_magnitude(const am_twin_form *f, const double *delta, double *value,
                               int64_t *index)
{
    int64_t ties, at = 0;
    const uint64_t cut = find_cut(delta, f->m * f->n, f->kept, &ties);
    for (int64_t i = 0; at < f->kept; i++) {
        const uint64_t size = size_of(delta[i]);
        if (size > cut || (size == cut && ties-- > 0)) {
            index[at] = i;
            value[at++] = delta[i];
        }
    }
}

/* ---- a tensor ---- */

int am_twin_compress(am_arena *work, const am_twin_form *form, double *delta, double *value,
                     int64_t *index)
{
    if (form->way == AM_TWIN_SVD) {
        return compress_svd(work, form, delta, value);
    }
    if (form->way == AM_TWIN_MAGNITUDE) {
        compress_magnitude(form, delta, value, index);
    } else {
        memcpy(value, delta, (size_t)form->values * sizeof *value);
    }
    return AM_OK;
}

void am_twin_expand(am_arena *work, const am_twin_form *form, const double *value,
                    const int64_t *index, double *delta)
{
    if (form->way == AM_TWIN_SVD) {
        expand_svd(work, form, value, delta);
    } else if (form->way == AM_TWIN_MAGNITUDE) {
        memset(delta, 0, (size_t)(form->m * form->n) * sizeof *delta);
        for (int64_t i = 0; i < form->kept; i++) {
            delta[index[i]] = value[i];
        }
    } else {
        memcpy(delta, value, (size_t)form->values * sizeof *value);
    }
}
