/* Products of unit with unit: see similarity.h. Shapes of products follow from the network alone:
 * tiles of units, and pieces of the weights of a unit, one after the other.
 * SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 64
#include "solver/align/similarity.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/partition.h"
#include "mpi/watchdog.h"
#include "solver/training/real.h"

enum { TILE = 128, PIECE = 1 << 20, LEAST = 32 };

/* A tensor as [outer, A, inner], with the axis of a field in the middle. */
typedef struct view {
    int64_t outer, A, inner;
    int64_t k; /* weights of a unit */
} view;

static view view_of(const am_align *align, const am_align_use *use)
{
    const am_align_tensor *t = &align->tensor[use->tensor];
    view w = {.outer = 1, .A = t->shape[use->dim], .inner = 1};
    for (int d = 0; d < t->ndim; d++) {
        w.outer *= d < use->dim ? t->shape[d] : 1;
        w.inner *= d > use->dim ? t->shape[d] : 1;
    }
    w.k = w.outer * use->m * w.inner;
    return w;
}

/* out[n,K]: weights [k, k + K) of units [u, u + n). */
static void gather(const view *w, const am_align_use *use, const double *tensor, int64_t u,
                   int64_t n, int64_t k, int64_t K, double *out)
{
    const int64_t span = use->m * w->inner;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *cell = use->cell + (u + i) * use->m;
        for (int64_t at = k; at < k + K; at++) {
            const int64_t o = at / span, j = at % span / w->inner;
            out[i * K + at - k] = tensor[(o * w->A + cell[j]) * w->inner + at % w->inner];
        }
    }
}

static int share_rows_all(MPI_Comm comm, int64_t n, double *S)
{
    int size, rc = 0;
    MPI_Comm_size(comm, &size);
    int64_t *bytes = am_new(2 * (int64_t)size, sizeof *bytes, "similarities");
    rc = bytes == NULL ? AM_E_NOMEM : 0;
    AM_AGREE(comm);
    for (int r = 0; r < size; r++) {
        int64_t lo, hi;
        am_part_range(am_part_units(n, TILE), size, r, &lo, &hi);
        lo = lo * TILE < n ? lo * TILE : n;
        hi = hi * TILE < n ? hi * TILE : n;
        bytes[r] = (hi - lo) * n * (int64_t)sizeof *S;
        bytes[size + r] = lo * n * (int64_t)sizeof *S;
    }
    AM_TRY(am_gather_all(comm, S, bytes, bytes + size));
cleanup:
    free(bytes);
    return rc;
}

/* Weights of a unit that are multiplied at a time. */
static int64_t piece_of(int64_t n)
{
    return PIECE / n > LEAST ? PIECE / n : LEAST;
}

int64_t am_align_similarity_bytes(int64_t n)
{
    return (2 * PIECE + 2 * LEAST * n) * (int64_t)sizeof(double);
}

int am_align_similarity_all(MPI_Comm comm, const am_align *align, const am_align_field *field,
                            const bool *uses, const double *base, const double *model, double *S)
{
    const int64_t n = field->n, most = piece_of(n);
    int64_t lo, hi;
    int rank, size, rc = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    am_part_range(am_part_units(n, TILE), size, rank, &lo, &hi);
    double *a = am_new((n < TILE ? n : TILE) * most, sizeof *a, "similarities");
    double *b = am_new(n * most, sizeof *b, "similarities");
    rc = a == NULL || b == NULL ? AM_E_NOMEM : 0;
    AM_AGREE(comm);
    memset(S, 0, (size_t)(n * n) * sizeof *S);
    for (int i = 0; i < field->n_uses; i++) {
        const am_align_use *use = &field->use[i];
        const am_align_tensor *t = &align->tensor[use->tensor];
        const view w = view_of(align, use);
        for (int64_t k = 0; t->counts && (uses == NULL || uses[i]) && k < w.k; k += most) {
            const int64_t K = w.k - k < most ? w.k - k : most;
            if (lo < hi) {
                gather(&w, use, model + t->offset, 0, n, k, K, b);
            }
            for (int64_t u = lo * TILE; u < hi * TILE && u < n; u += TILE) {
                const int64_t N = n - u < TILE ? n - u : TILE;
                gather(&w, use, base + t->offset, u, N, k, K, a);
                am_gemm_to_f64(false, true, N, n, K, a, b, true, S + u * n);
            }
            am_alive("align");
        }
    }
    rc = share_rows_all(comm, n, S);
cleanup:
    free(a);
    free(b);
    return rc;
}

int am_align_permute(const am_align *align, const am_align_field *field, const int64_t *match,
                     double *block)
{
    int64_t most = 0;
    for (int i = 0; i < field->n_uses; i++) {
        const view w = view_of(align, &field->use[i]);
        most = most > w.A * w.inner ? most : w.A * w.inner;
    }
    double *old = am_new(most + 1, sizeof *old, "a part of a tensor");
    if (old == NULL) {
        return AM_E_NOMEM;
    }
    for (int i = 0; i < field->n_uses; i++) {
        const am_align_use *use = &field->use[i];
        const view w = view_of(align, use);
        for (int64_t o = 0; o < w.outer; o++) {
            double *to = block + align->tensor[use->tensor].offset + o * w.A * w.inner;
            memcpy(old, to, (size_t)(w.A * w.inner) * sizeof *old);
            for (int64_t c = 0; c < field->n * use->m; c++) {
                const int64_t from = use->cell[match[c / use->m] * use->m + c % use->m];
                memcpy(to + use->cell[c] * w.inner, old + from * w.inner,
                       (size_t)w.inner * sizeof *old);
            }
        }
    }
    free(old);
    return 0;
}
