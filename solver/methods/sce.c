/* SCE: select the elements that vary most over the task vectors, weigh each task vector by its
 * energy there, erase what is against the majority's sign. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/lanes.h"
#include "solver/merge/narrow.h"
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

/* Signs or marks, sums, keys; PART elements are worked on at a time, for the cache. */
enum { SIGN, SUM, TOTAL, KEYS, VECTORS };
enum { PART = 512 };

static int scratch(int models)
{
    (void)models;
    return VECTORS;
}

static bool selects(const am_unit *unit)
{
    return unit->param[SELECT_TOPK] < 1;
}

/* square = sum_t (x_t - mean)^2, everything about x_0 so that equal models give exactly 0. */
AM_INLINE void square_group(double *square, const double *const *x, int models, double share,
                            int64_t at, size_t bytes)
{
    am_lanes first = {0}, other = {0}, mean = {0}, sum = {0};
    memcpy(&first, x[0] + at, bytes);
    for (int t = 1; t < models; t++) {
        memcpy(&other, x[t] + at, bytes);
        mean += other - first;
    }
    mean *= share;
    for (int t = 0; t < models; t++) {
        memcpy(&other, x[t] + at, bytes);
        const am_lanes off = (other - first) - mean;
        sum += off * off;
    }
    memcpy(square, &sum, bytes);
}

AM_CLONES static void add_up_squares(double *square, const double *const *x, int models,
                                     double share, int64_t lo, int64_t n)
{
    AM_EACH_GROUP(n, square_group(square + i, x, models, share, lo + i, bytes));
}

AM_CLONES static void square_keys(float *restrict key, const double *restrict square, double part,
                                  int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float variance = (float)(square[i] * part);
        key[i] = variance == variance ? variance : (float)INFINITY;
    }
}

/* Population variance over the models. */
static void variance_keys(const am_tile *tile, float *key)
{
    const double share = 1.0 / tile->models;
    for (int64_t lo = 0; lo < tile->n; lo += PART) {
        const int64_t n = tile->n - lo < PART ? tile->n - lo : PART;
        double square[PART];
        add_up_squares(square, tile->x, tile->models, share, lo, n);
        square_keys(key + lo, square, share, n);
    }
}

/* mergekit's in bf16 or f16: of rounded task vectors, and rounded. */
static void narrow_variance_keys(const am_tile *tile, float *key)
{
    for (int64_t lo = 0; lo < tile->n; lo += PART) {
        const int64_t n = tile->n - lo < PART ? tile->n - lo : PART;
        double square[PART];
        am_narrow_squares(tile, lo, n, square);
        square_keys(key + lo, square, 1.0 / tile->models, n);
    }
    am_narrow(tile->unit->narrow, key, tile->n);
}

static void load_keys(const am_tile *tile, float *key)
{
    if (tile->unit->narrow == AM_DTYPE_F64) {
        variance_keys(tile, key);
    } else {
        narrow_variance_keys(tile, key);
    }
}

static float *work_keys(const am_tile *tile)
{
    return (float *)(void *)(tile->scratch + KEYS * tile->n);
}

/* ---- how many elements vary ---- */

static int varying_count(const am_unit *unit)
{
    return selects(unit) ? 1 : 0;
}

AM_CLONES static int64_t count_positive(const float *key, int64_t n)
{
    int64_t sum = 0;
    for (int64_t lo = 0; lo < n; lo += PART) {
        const int64_t hi = n - lo < PART ? n : lo + PART;
        int32_t some = 0;
        for (int64_t i = lo; i < hi; i++) {
            some += key[i] > 0;
        }
        sum += some;
    }
    return sum;
}

static void varying_sums(const am_tile *tile, double *sum)
{
    float *key = work_keys(tile);
    load_keys(tile, key);
    sum[0] += (double)count_positive(key, tile->n);
}

/* ---- which ones ---- */

static void keys(const am_tile *tile, float *const *key)
{
    load_keys(tile, key[0]);
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

/* mark [n] becomes 0 where an element is not selected; call it once a tile. */
static void select(const am_tile *tile, double *mark)
{
    if (selects(tile->unit)) {
        float *key = work_keys(tile);
        load_keys(tile, key);
        am_tile_keep(tile, 0, key, mark);
    }
}

/* ---- energies ---- */

static int states(const am_unit *unit)
{
    return unit->models;
}

enum { LANES = 8 }; /* element i goes to lane i mod 8, so that the sum has one order */

AM_CLONES static void add_squares(double *restrict lane, const double *restrict x,
                                  const double *restrict base, const double *restrict mark,
                                  int64_t n)
{
    const int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            const double delta = x[i + k] - base[i + k];
            lane[k] += mark[i + k] != 0 ? delta * delta : 0;
        }
    }
    for (int64_t i = whole; i < n; i++) {
        const double delta = x[i] - base[i];
        lane[i - whole] += mark[i] != 0 ? delta * delta : 0;
    }
}

static void energy_sums(const am_tile *tile, double *sum)
{
    double *mark = tile->scratch + SIGN * tile->n;
    for (int64_t i = 0; i < tile->n; i++) {
        mark[i] = 1;
    }
    select(tile, mark);
    for (int t = 0; t < tile->models; t++) {
        double lane[LANES] = {0}, energy = 0;
        add_squares(lane, tile->x[t], tile->base, mark, tile->n);
        for (int k = 0; k < LANES; k++) {
            energy += lane[k];
        }
        sum[t] += energy;
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

AM_CLONES static void add_deltas(double *restrict sum, const double *restrict x,
                                 const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += x[i] - base[i];
    }
}

AM_CLONES static void take_signs(double *restrict sign, const double *restrict sum, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sign[i] = sum[i] >= 0 ? 1 : -1;
    }
}

AM_CLONES static void add_agreeing(double *restrict out, double *restrict total,
                                   const double *restrict x, const double *restrict base,
                                   const double *restrict sign, double weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double delta = x[i] - base[i];
        const bool agrees = sign[i] * delta > 0;
        out[i] += agrees ? weight * delta : 0;
        total[i] += agrees ? weight : 0;
    }
}

AM_CLONES static void finish(double *restrict out, const double *restrict total,
                             const double *restrict base, double least, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double by = total[i] > least ? total[i] : least;
        const double update = out[i] / (by > 0 ? by : 1);
        out[i] = base[i] + (by > 0 ? update : 0);
    }
}

/* out = base + sum_t w_t delta_t / sum_t w_t over the task vectors with the sign of sum_t delta_t,
 * 0 counts as +; a sign of 0 is that of what is not selected. */
static void combine(const am_tile *tile)
{
    double *sign = tile->scratch + SIGN * tile->n, *sum = tile->scratch + SUM * tile->n;
    double *total = tile->scratch + TOTAL * tile->n;
    const size_t bytes = (size_t)tile->n * sizeof(double);
    memset(total, 0, bytes);
    memset(tile->out, 0, bytes);
    if (tile->unit->narrow != AM_DTYPE_F64) {
        am_narrow_sum(tile, sum);
    } else {
        memset(sum, 0, bytes);
        for (int t = 0; t < tile->models; t++) {
            add_deltas(sum, tile->x[t], tile->base, tile->n);
        }
    }
    take_signs(sign, sum, tile->n);
    select(tile, sign);
    for (int t = 0; t < tile->models; t++) {
        add_agreeing(tile->out, total, tile->x[t], tile->base, sign, tile->unit->state[t], tile->n);
    }
    finish(tile->out, total, tile->base, tile->unit->semantics == AM_SEMANTICS_MERGEKIT ? 1e-6 : 0,
           tile->n);
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
    .pass =
        {{.count = varying_count, .sums = varying_sums, .rounded = AM_ROUNDED_ALONE},
         {.count = varying_count, .keys = keys, .cuts = cuts, .rounded = AM_ROUNDED_ALONE},
         {.count = states, .sums = energy_sums, .solve = energy_solve, .rounded = AM_ROUNDED_TOO}},
    .combine = combine,
    .rounded = AM_ROUNDED_TOO,
};
