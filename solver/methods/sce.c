/* SCE: select the elements that vary most over the task vectors, weigh each task vector by its
 * energy there, erase what is against the majority's sign. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/merge/sparsify.h"

enum { SELECT_TOPK, INT8_MASK };

static const am_method_param params[] = {
    [SELECT_TOPK] = {.key = "select_topk",
                     .fallback = 1,
                     .high = 1,
                     .help = "part of the elements with any variance that is merged"},
    [INT8_MASK] = {.key = "int8_mask",
                   .is_bool = true,
                   .help = "accepted from mergekit recipes; changes nothing"},
    {0}};

/* A task vector, a sum and keys or marks. */
enum { DELTA, SUM, TOTAL, MASK, VECTORS };

static int scratch(int models)
{
    (void)models;
    return VECTORS;
}

static bool selects(const am_unit *unit)
{
    return unit->param[SELECT_TOPK] < 1;
}

AM_CLONES static void add_difference(double *restrict sum, const double *restrict x,
                                     const double *restrict first, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += x[i] - first[i];
    }
}

AM_CLONES static void add_square(double *restrict square, const double *restrict x,
                                 const double *restrict first, const double *restrict sum,
                                 double part, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double off = (x[i] - first[i]) - part * sum[i];
        square[i] += off * off;
    }
}

AM_CLONES static void square_keys(float *restrict key, const double *restrict square, double part,
                                  int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        key[i] = square[i] == square[i] ? (float)(square[i] * part) : (float)INFINITY;
    }
}

/* Population variance over the models, about the first one so that equal ones give exactly 0. Works
 * in SUM and TOTAL. */
static void variance_keys(const am_tile *tile, float *key)
{
    double *sum = tile->scratch + SUM * tile->n, *square = tile->scratch + TOTAL * tile->n;
    const double part = 1.0 / tile->models, *first = tile->x[0];
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    memset(square, 0, (size_t)tile->n * sizeof *square);
    for (int t = 1; t < tile->models; t++) {
        add_difference(sum, tile->x[t], first, tile->n);
    }
    for (int t = 0; t < tile->models; t++) {
        add_square(square, tile->x[t], first, sum, part, tile->n);
    }
    square_keys(key, square, part, tile->n);
}

/* ---- how many elements vary ---- */

static int varying_count(const am_unit *unit)
{
    return selects(unit) ? 1 : 0;
}

static void varying_sums(const am_tile *tile, double *sum)
{
    float *key = (float *)(void *)(tile->scratch + DELTA * tile->n);
    int64_t varying = 0;
    variance_keys(tile, key);
    for (int64_t i = 0; i < tile->n; i++) {
        varying += key[i] > 0;
    }
    sum[0] += (double)varying;
}

/* ---- which ones ---- */

static void keys(const am_tile *tile, float *const *key)
{
    variance_keys(tile, key[0]);
}

/* mergekit multiplies in f32. */
static int cuts(const am_unit *unit, am_cut *cut)
{
    const double part = unit->param[SELECT_TOPK], varying = unit->sum[0];
    const bool is_narrow = unit->semantics == AM_SEMANTICS_MERGEKIT;
    const double product = is_narrow ? (double)((float)varying * (float)part) : varying * part;
    cut[0] = (am_cut){.take = (int64_t)product};
    return 1;
}

/* mask [n]: what is selected; call it once a tile. */
static void select(const am_tile *tile, bool *mask)
{
    if (selects(tile->unit)) {
        float *key = (float *)(void *)(tile->scratch + DELTA * tile->n);
        variance_keys(tile, key);
        am_tile_top(tile, 0, key, mask);
    } else {
        memset(mask, 1, (size_t)tile->n * sizeof *mask);
    }
}

/* ---- energies ---- */

static int states(const am_unit *unit)
{
    return unit->models;
}

AM_CLONES static double masked_square(const double *x, const bool *mask, int64_t n)
{
    enum { LANES = 8 }; /* so that the sum has one order */
    double lane[LANES] = {0}, sum = 0;
    const int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lane[k] += mask[i + k] ? x[i + k] * x[i + k] : 0;
        }
    }
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += mask[i] ? x[i] * x[i] : 0;
    }
    for (int k = 0; k < LANES; k++) {
        sum += lane[k];
    }
    return sum;
}

static void energy_sums(const am_tile *tile, double *sum)
{
    double *delta = tile->scratch + DELTA * tile->n;
    bool *mask = (bool *)(void *)(tile->scratch + MASK * tile->n);
    select(tile, mask);
    for (int t = 0; t < tile->models; t++) {
        am_task_vector(tile, t, delta);
        sum[t] += masked_square(delta, mask, tile->n);
    }
}

/* w_t = mean(delta_t^2) / sum; equal ones when nothing is there, for mergekit below 1e-6. */
static const char *energy_solve(const am_unit *unit)
{
    const double *energy = unit->sum + varying_count(unit);
    const double least = unit->semantics == AM_SEMANTICS_MERGEKIT ? 1e-6 : 0;
    double total = 0;
    for (int t = 0; t < unit->models; t++) {
        total += energy[t];
    }
    const bool is_empty = total == 0 || total / (double)unit->n < least;
    for (int t = 0; t < unit->models; t++) {
        unit->state[t] = is_empty ? 1.0 / unit->models : energy[t] / total;
    }
    return NULL;
}

AM_CLONES static void add_agreeing(double *restrict out, double *restrict total,
                                   const double *restrict delta, const double *restrict sum,
                                   const bool *restrict mask, double weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double along = sum[i] >= 0 ? delta[i] : -delta[i];
        const bool agrees = mask[i] && along > 0;
        out[i] += agrees ? weight * delta[i] : 0;
        total[i] += agrees ? weight : 0;
    }
}

/* out = base + sum_t w_t delta_t / sum_t w_t over the task vectors with the sign of sum_t delta_t,
 * 0 counts as +. */
static void combine(const am_tile *tile)
{
    double *delta = tile->scratch + DELTA * tile->n, *sum = tile->scratch + SUM * tile->n;
    double *total = tile->scratch + TOTAL * tile->n;
    bool *mask = (bool *)(void *)(tile->scratch + MASK * tile->n);
    const size_t bytes = (size_t)tile->n * sizeof(double);
    const double least = tile->unit->semantics == AM_SEMANTICS_MERGEKIT ? 1e-6 : 0;
    select(tile, mask);
    am_sum_task_vectors(tile, delta, sum);
    memset(total, 0, bytes);
    memset(tile->out, 0, bytes);
    for (int t = 0; t < tile->models; t++) {
        am_task_vector(tile, t, delta);
        add_agreeing(tile->out, total, delta, sum, mask, tile->unit->state[t], tile->n);
    }
    for (int64_t i = 0; i < tile->n; i++) {
        const double by = total[i] > least ? total[i] : least;
        tile->out[i] = tile->base[i] + (by > 0 ? tile->out[i] / by : 0);
    }
}

const am_method am_method_sce = {
    .name = "sce",
    .summary = "elements that vary most, weighted by energy, merged where they agree on a sign",
    .source = "Wan et al. 2024 (arXiv:2408.07990), section 3.2; mergekit: equal weights when the "
              "mean squares sum to less than 1e-6",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .semantics = AM_SEMANTICS_MERGEKIT | AM_SEMANTICS_PAPER,
    .states = states,
    .scratch = scratch,
    .n_passes = 3,
    .pass = {{.count = varying_count, .sums = varying_sums},
             {.count = varying_count, .keys = keys, .cuts = cuts},
             {.count = states, .sums = energy_sums, .solve = energy_solve}},
    .combine = combine,
};
