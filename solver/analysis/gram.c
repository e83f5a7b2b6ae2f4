/* Gram matrices, norms and cosines of task vectors.
 *
 *   tensors |- window 0 -|- window 1 -| ...      accumulators of a window are summed over ranks
 *   chunks  |.|.|.|.| |.|.|.|                    together; rounds of chunks are agreed on
 *
 * Each chunk gives T(T+1)/2 dot products; they are added without error, so the sums are the same
 * for any number of ranks. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/analysis/gram.h"
#include "solver/merge/input.h"

enum {
    AM_ROUND_CHUNKS = 32,         /* chunks between agreements */
    AM_WINDOW_ACCUMULATORS = 4096 /* per window, unless one tensor needs more */
};

typedef struct am_gram {
    const am_tensor_table *tensors;
    const am_merge_input *base, *models;
    int n_models;
    int64_t n_pairs;
    const am_slice *slice;
    int64_t span, offset; /* next chunk of the slice */
    am_span *round[2];    /* [AM_ROUND_CHUNKS] chunks being read, and the next ones, staged */
    int64_t n_round[2];
    am_span *mapped;              /* [2][n_models + 1][AM_ROUND_CHUNKS] */
    int64_t window_lo, window_hi; /* tensors */
    am_exact *window;             /* [window tensors, n_pairs], NULL without per_tensor */
    am_exact *global;             /* [n_pairs] */
    double *base_chunk, *vectors; /* [AM_CHUNK], [n_models, AM_CHUNK] */
    am_arena arena;
} am_gram;

static int64_t window_tensors(const am_gram *g)
{
    int64_t n = AM_WINDOW_ACCUMULATORS / g->n_pairs;
    n = n < 1 ? 1 : n;
    return n < g->tensors->n ? n : g->tensors->n;
}

/* Of everything, with a window of so many tensors. */
static size_t arena_bytes(int n_models, int64_t n_pairs, int64_t window)
{
    const size_t spans = AM_ROUND_CHUNKS * sizeof(am_span), chunk = AM_CHUNK * sizeof(double);
    const size_t exact = (size_t)n_pairs * sizeof(am_exact);
    return 2 * am_arena_need(spans) + am_arena_need(2 * spans * (size_t)(n_models + 1)) +
           am_arena_need(exact) + am_arena_need(exact * (size_t)window) + am_arena_need(chunk) +
           am_arena_need(chunk * (size_t)n_models);
}

int64_t am_gram_bytes(int n_models)
{
    return (int64_t)arena_bytes(n_models, (int64_t)n_models * (n_models + 1) / 2, 0);
}

static int prepare(am_gram *g, bool is_per_tensor)
{
    const size_t spans = AM_ROUND_CHUNKS * sizeof(am_span), chunk = AM_CHUNK * sizeof(double);
    const size_t mapped = 2 * spans * (size_t)(g->n_models + 1);
    const size_t global = (size_t)g->n_pairs * sizeof(am_exact);
    const int64_t window = is_per_tensor ? window_tensors(g) : 0;
    int rc =
        am_arena_create(&g->arena, arena_bytes(g->n_models, g->n_pairs, window), "Gram matrices");
    if (rc != 0) {
        return rc;
    }
    g->round[0] = am_arena_take(&g->arena, spans);
    g->round[1] = am_arena_take(&g->arena, spans);
    g->mapped = am_arena_take(&g->arena, mapped);
    g->global = am_arena_take(&g->arena, global);
    g->base_chunk = am_arena_take(&g->arena, chunk);
    g->vectors = am_arena_take(&g->arena, chunk * (size_t)g->n_models);
    g->window = is_per_tensor ? am_arena_take(&g->arena, global * (size_t)window) : NULL;
    for (int64_t i = 0; i < g->n_pairs; i++) {
        am_exact_zero(&g->global[i]);
    }
    return 0;
}

/* Chunks that this rank has in tensors [window_lo, window_hi) from its position on. */
static int64_t count_chunks(const am_gram *g)
{
    int64_t n = 0;
    for (int64_t s = g->span; s < g->slice->n && g->slice->spans[s].tensor < g->window_hi; s++) {
        const am_span *span = &g->slice->spans[s];
        n += am_part_units(span->hi - span->lo, AM_CHUNK);
    }
    return n;
}

/* Cut the next round of chunks in the window and announce them to the sources. */
static int stage_round(am_gram *g, int turn)
{
    am_span *round = g->round[turn];
    int64_t n = 0;
    int rc = 0;
    while (n < AM_ROUND_CHUNKS && g->span < g->slice->n &&
           g->slice->spans[g->span].tensor < g->window_hi) {
        const am_span *span = &g->slice->spans[g->span];
        const int64_t lo = span->lo + g->offset;
        const int64_t hi = span->hi - lo > AM_CHUNK ? lo + AM_CHUNK : span->hi;
        if (hi > lo && am_dtype_is_float(g->tensors->t[span->tensor].dtype)) {
            round[n++] = (am_span){.tensor = span->tensor, .lo = lo, .hi = hi};
        }
        g->offset += hi - lo;
        if (hi == span->hi) {
            g->span++;
            g->offset = 0;
        }
    }
    g->n_round[turn] = n;
    am_span *mapped = g->mapped + (int64_t)turn * (g->n_models + 1) * AM_ROUND_CHUNKS;
    AM_KEEP(am_input_stage(g->base, round, n, mapped));
    for (int t = 0; t < g->n_models; t++) {
        AM_KEEP(am_input_stage(&g->models[t], round, n, mapped + (t + 1) * AM_ROUND_CHUNKS));
    }
    return rc;
}

/* tau_t = model_t - base on one chunk, into vectors[t]; an absent model counts as the base. */
static int load_vector(am_gram *g, int t, const am_span *chunk)
{
    const int64_t n = chunk->hi - chunk->lo;
    double *tau = g->vectors + (int64_t)t * AM_CHUNK;
    if (g->models[t].tensor[chunk->tensor] < 0) {
        for (int64_t i = 0; i < n; i++) {
            tau[i] = 0;
        }
        return 0;
    }
    int rc = am_input_load(&g->models[t], chunk->tensor, chunk->lo, n, false, tau);
    for (int64_t i = 0; rc == 0 && g->base != NULL && i < n; i++) {
        tau[i] -= g->base_chunk[i];
    }
    return rc;
}

static int add_chunk(am_gram *g, const am_span *chunk)
{
    const int64_t n = chunk->hi - chunk->lo;
    int rc = 0;
    if (g->base != NULL) {
        AM_KEEP(am_input_load(g->base, chunk->tensor, chunk->lo, n, false, g->base_chunk));
    }
    for (int t = 0; t < g->n_models; t++) {
        AM_KEEP(load_vector(g, t, chunk));
    }
    am_exact *sums =
        g->window != NULL ? g->window + (chunk->tensor - g->window_lo) * g->n_pairs : g->global;
    for (int a = 0; rc == 0 && a < g->n_models; a++) {
        for (int b = 0; b <= a; b++) {
            am_dot_chunk(g->vectors + (int64_t)a * AM_CHUNK, g->vectors + (int64_t)b * AM_CHUNK, n,
                         sums++);
        }
    }
    return rc;
}

/* The lower triangle of a T x T matrix from its accumulators. */
static void round_matrix(const am_exact *sums, int n, double *matrix)
{
    for (int a = 0; a < n; a++) {
        for (int b = 0; b <= a; b++) {
            matrix[a * n + b] = matrix[b * n + a] = am_exact_round(sums++);
        }
    }
}

/* The window's accumulators into the global ones, then summed over ranks and rounded. */
static int finish_window_all(MPI_Comm comm, am_gram *g, double *per_tensor)
{
    const int64_t n = g->window_hi - g->window_lo;
    for (int64_t i = 0; i < n * g->n_pairs; i++) {
        am_exact_merge(&g->global[i % g->n_pairs], &g->window[i]);
    }
    int rc = am_exact_sum_all(comm, g->window, n * g->n_pairs);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        round_matrix(g->window + i * g->n_pairs, g->n_models,
                     per_tensor + (g->window_lo + i) * g->n_models * g->n_models);
    }
    return rc;
}

/* All chunks of the window. Every rank passes the same number of agreements. */
static int run_window_all(MPI_Comm comm, am_gram *g, double *per_tensor)
{
    for (int64_t i = 0; g->window != NULL && i < (g->window_hi - g->window_lo) * g->n_pairs; i++) {
        am_exact_zero(&g->window[i]);
    }
    int64_t n_rounds = am_part_units(count_chunks(g), AM_ROUND_CHUNKS);
    int rc = stage_round(g, 0);
    AM_AGREE(comm);
    AM_TRY(am_max_i64_all(comm, &n_rounds, 1));
    for (int64_t r = 0; r < n_rounds; r++) {
        am_alive("analyze");
        AM_KEEP(stage_round(g, (int)((r + 1) % 2)));
        for (int64_t i = 0; rc == 0 && i < g->n_round[r % 2]; i++) {
            rc = add_chunk(g, &g->round[r % 2][i]);
        }
        AM_TRY(am_agree_step_all(comm, rc));
    }
    if (g->window != NULL) {
        rc = finish_window_all(comm, g, per_tensor);
    }
cleanup:
    return rc;
}

int am_gram_all(MPI_Comm comm, const am_tensor_table *tensors, const am_merge_input *base,
                const am_merge_input *models, int n_models, const am_slice *slice,
                double *per_tensor, double *global)
{
    am_gram g = {.tensors = tensors,
                 .base = base,
                 .models = models,
                 .n_models = n_models,
                 .n_pairs = (int64_t)n_models * (n_models + 1) / 2,
                 .slice = slice};
    AM_ASSERT(n_models >= 1 && n_models <= AM_MAX_MODELS);
    int rc = prepare(&g, per_tensor != NULL);
    AM_AGREE(comm);
    const int64_t step = g.window != NULL ? window_tensors(&g) : tensors->n;
    for (g.window_lo = 0; g.window_lo < tensors->n; g.window_lo = g.window_hi) {
        g.window_hi = tensors->n - g.window_lo < step ? tensors->n : g.window_lo + step;
        AM_TRY(run_window_all(comm, &g, per_tensor));
    }
    AM_TRY(am_exact_sum_all(comm, g.global, g.n_pairs));
    round_matrix(g.global, n_models, global);
cleanup:
    am_arena_destroy(&g.arena);
    return rc;
}

/* g_ab / sqrt(g_aa g_bb) with both norms scaled by powers of two near 1, so that nothing overflows
 * and the square root of a product of equals is exact. */
static double cosine(double g_ab, double g_aa, double g_bb)
{
    int a = 0, b = 0;
    (void)frexp(g_aa, &a);
    (void)frexp(g_bb, &b);
    b += (a + b) % 2 != 0;
    const double scale = sqrt(ldexp(g_aa, -a) * ldexp(g_bb, -b));
    const double value = ldexp(g_ab, -(a + b) / 2) / scale;
    return value > 1 ? 1 : value < -1 ? -1 : value;
}

void am_gram_cosines(const double *gram, int n, double *norms, double *cosines)
{
    for (int a = 0; a < n; a++) {
        norms[a] = sqrt(gram[a * n + a]);
    }
    for (int a = 0; a < n; a++) {
        for (int b = 0; b < n; b++) {
            const double g_aa = gram[a * n + a], g_bb = gram[b * n + b];
            cosines[a * n + b] = g_aa == 0 || g_bb == 0 ? (double)NAN
                                 : a == b               ? 1
                                                        : cosine(gram[a * n + b], g_aa, g_bb);
        }
    }
}
