/* Sparsified task vectors. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/sparsify.h"

#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/lanes.h"

enum { LARGEST_FINITE = 0x7F7FFFFF }; /* bits of FLT_MAX */
enum { LANES = 16 };

AM_CLONES static void subtract(double *restrict out, const double *restrict x,
                               const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] - base[i];
    }
}

void am_task_vector(const am_tile *tile, int t, double *delta)
{
    subtract(delta, tile->x[t], tile->base, tile->n);
}

void am_sum_task_vectors(const am_tile *tile, double *work, double *sum)
{
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        am_task_vector(tile, t, work);
        for (int64_t i = 0; i < tile->n; i++) {
            sum[i] += work[i];
        }
    }
}

/* NaN orders as infinity. */
AM_CLONES void am_magnitude_keys(const double *delta, int64_t n, float *key)
{
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = (float)fabs(delta[i]);
        key[i] = magnitude == magnitude ? magnitude : (float)INFINITY;
    }
}

/* A task vector and its keys at once. */
AM_CLONES static void subtract_keys(double *restrict delta, float *restrict key,
                                    const double *restrict x, const double *restrict base,
                                    int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double d = x[i] - base[i];
        const float magnitude = (float)fabs(d);
        delta[i] = d;
        key[i] = magnitude == magnitude ? magnitude : (float)INFINITY;
    }
}

AM_CLONES static void difference_keys(float *restrict key, const double *restrict x,
                                      const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = (float)fabs(x[i] - base[i]);
        key[i] = magnitude == magnitude ? magnitude : (float)INFINITY;
    }
}

AM_CLONES static void rounded_keys(float *restrict key, const float *restrict delta, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = fabsf(delta[i]);
        key[i] = magnitude == magnitude ? magnitude : (float)INFINITY;
    }
}

/* Non-negative f32 in the opposite order: cuts then count from the smallest magnitude. */
AM_CLONES static void reverse_keys(float *key, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &key[i], sizeof bits);
        bits = bits < LARGEST_FINITE ? LARGEST_FINITE - bits : 0;
        memcpy(&key[i], &bits, sizeof bits);
    }
}

static void keep_none(double *kept, int64_t n)
{
    memset(kept, 0, (size_t)n * sizeof *kept);
}

/* What cuts depend on belongs to the unit; the same for all of its tensors. */
static double unit_param(const am_unit *unit, int t, int param)
{
    return unit->model_param[t][param];
}

static bool is_partial(double density)
{
    return density > 0 && density < 1;
}

/* A stream of keys for every model, or none when every density is 0 or 1. */
static int count_streams(const am_unit *unit)
{
    bool any = false;
    for (int t = 0; t < unit->models; t++) {
        any = any || is_partial(unit_param(unit, t, AM_SPARSE_DENSITY));
    }
    return any ? unit->models : 0;
}

static void load_keys(const am_tile *tile, int t, float *key)
{
    if (tile->unit->narrow == AM_DTYPE_F64) {
        difference_keys(key, tile->x[t], tile->base, tile->n);
    } else {
        rounded_keys(key, tile->rounded[t], tile->n);
    }
}

/* A task vector and its keys. */
static void load_delta(const am_tile *tile, int t, double *delta, float *key)
{
    if (tile->unit->narrow == AM_DTYPE_F64) {
        subtract_keys(delta, key, tile->x[t], tile->base, tile->n);
    } else {
        am_task_vector(tile, t, delta);
        load_keys(tile, t, key);
    }
}

static void all_keys(const am_tile *tile, float *const *key)
{
    for (int t = 0; t < tile->models; t++) {
        load_keys(tile, t, key[t]);
    }
}

/* Keys lie in the first work vector. */
static float *work_keys(const am_tile *tile)
{
    return (float *)(void *)(tile->scratch + tile->models * tile->n);
}

/* ---- the largest ---- */

int am_top_count(const am_unit *unit)
{
    return count_streams(unit);
}

void am_top_keys(const am_tile *tile, float *const *key)
{
    all_keys(tile, key);
}

int am_top_cuts(const am_unit *unit, am_cut *cut)
{
    const bool is_paper = unit->semantics == AM_SEMANTICS_PAPER;
    for (int t = 0; t < unit->models; t++) {
        const double density = unit_param(unit, t, AM_SPARSE_DENSITY);
        int64_t take = (int64_t)(density * (double)unit->n);
        take = is_paper ? take + 1 : take > 0 ? take : 1;
        if (!is_partial(density)) {
            take = density > 0 ? unit->n : 0;
        }
        cut[t] = (am_cut){.stream = t, .take = take, .all_ties = is_paper && take > 0};
    }
    return unit->models;
}

void am_sparsify_top(const am_tile *tile, int t, double *kept)
{
    float *key = work_keys(tile);
    if (count_streams(tile->unit) > 0) {
        load_delta(tile, t, kept, key);
        am_tile_keep(tile, t, key, kept);
        return;
    }
    am_task_vector(tile, t, kept);
    if (unit_param(tile->unit, t, AM_SPARSE_DENSITY) <= 0) {
        keep_none(kept, tile->n);
    }
}

/* ---- a band ---- */

/* Ranks lo <= rank < hi from the smallest magnitude are kept. */
typedef struct band {
    int64_t lo, hi;
} band;

/* What mergekit computes: the slice [lo : -top] of the sorted order, empty when top is 0. */
static band mergekit_band(double density, double gamma, int64_t n)
{
    if (density >= 1) {
        return (band){.hi = n};
    }
    const int64_t keep = density > 0 ? (int64_t)(density * (double)n) : 0;
    int64_t top = (int64_t)(gamma * (double)n);
    if (keep + top > n) {
        top = n - keep;
    }
    return top > 0 ? (band){.lo = n - keep - top, .hi = n - top} : (band){0};
}

/* The largest go first, then the largest of what is left stay. */
static band paper_band(double density, double gamma, int64_t n)
{
    const int64_t top = (int64_t)(gamma * (double)n);
    int64_t keep = density > 0 ? (int64_t)(density * (double)n) : 0;
    keep = keep < n - top ? keep : n - top;
    return (band){.lo = n - top - keep, .hi = n - top};
}

static band unit_band(const am_unit *unit, int t)
{
    const double density = unit_param(unit, t, AM_SPARSE_DENSITY);
    const double gamma = unit_param(unit, t, AM_BAND_GAMMA);
    if (unit->semantics == AM_SEMANTICS_MERGEKIT) {
        return mergekit_band(density, gamma, unit->n);
    }
    if (unit->n == 1) {
        return (band){.hi = 1}; /* scalars stay as they are */
    }
    return paper_band(density, gamma, am_band_by_rows(unit) ? unit->cols : unit->n);
}

bool am_band_by_rows(const am_unit *unit)
{
    return unit->semantics == AM_SEMANTICS_PAPER && unit->scope == AM_SCOPE_TENSOR;
}

int am_band_count(const am_unit *unit)
{
    bool any = false;
    for (int t = 0; t < unit->models && !am_band_by_rows(unit); t++) {
        const band b = unit_band(unit, t);
        any = any || (b.lo < b.hi && b.hi - b.lo < unit->n);
    }
    return any ? unit->models : 0;
}

void am_band_keys(const am_tile *tile, float *const *key)
{
    all_keys(tile, key);
    for (int t = 0; t < tile->models; t++) {
        reverse_keys(key[t], tile->n);
    }
}

/* Cut 2 t: ranks below hi; cut 2 t + 1: ranks below lo. */
int am_band_cuts(const am_unit *unit, am_cut *cut)
{
    for (int t = 0; t < unit->models; t++) {
        const band b = unit_band(unit, t);
        cut[2 * t] = (am_cut){.stream = t, .take = b.hi};
        cut[2 * t + 1] = (am_cut){.stream = t, .take = b.lo};
    }
    return 2 * unit->models;
}

/* ---- rows in the order of their magnitudes ---- */

/* Stable, by bits 32 to 63: four rounds of 8 bits; short rows by insertion. */
static void sort_row(uint64_t *row, uint64_t *other, int64_t n)
{
    enum { SHORT = 64, BINS = 256 };
    if (n <= SHORT) {
        for (int64_t i = 1; i < n; i++) {
            const uint64_t item = row[i];
            int64_t k = i;
            for (; k > 0 && row[k - 1] > item; k--) {
                row[k] = row[k - 1];
            }
            row[k] = item;
        }
        return;
    }
    for (int shift = 32; shift < 64; shift += 8) {
        int64_t start[BINS + 1] = {0};
        for (int64_t i = 0; i < n; i++) {
            start[((row[i] >> shift) & (BINS - 1)) + 1]++;
        }
        for (int k = 1; k < BINS; k++) {
            start[k] += start[k - 1];
        }
        for (int64_t i = 0; i < n; i++) {
            other[start[(row[i] >> shift) & (BINS - 1)]++] = row[i];
        }
        uint64_t *swap = row;
        row = other;
        other = swap;
    } /* an even number of rounds: the result is where it was */
}

/* order[r] & 0xFFFFFFFF is the number of the element with rank r from the smallest, of n elements
 * that lie `step` apart; [n] in the first work vector. */
static const uint64_t *order_row(const am_tile *tile, const double *row, int64_t n, int64_t step)
{
    uint64_t *order = (uint64_t *)(void *)(tile->scratch + tile->models * tile->n);
    uint64_t *other = order + tile->n;
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = (float)fabs(row[i * step]);
        uint32_t bits;
        memcpy(&bits, &magnitude, sizeof bits);
        order[i] = (uint64_t)bits << 32 | (uint64_t)i;
    }
    sort_row(order, other, n);
    return order;
}

static int64_t column(uint64_t item)
{
    return (int64_t)(item & UINT32_MAX);
}

void am_sparsify_band(const am_tile *tile, int t, double *kept)
{
    float *key = work_keys(tile);
    const band b = unit_band(tile->unit, t);
    load_delta(tile, t, kept, key);
    if (am_band_by_rows(tile->unit)) {
        for (int64_t r = 0; tile->unit->n > 1 && r < tile->rows; r++) {
            double *row = kept + r * tile->cols;
            const uint64_t *order = order_row(tile, row, tile->cols, 1);
            for (int64_t i = 0; i < tile->cols; i++) {
                row[column(order[i])] = i >= b.lo && i < b.hi ? row[column(order[i])] : 0;
            }
        }
    } else if (am_band_count(tile->unit) > 0) {
        reverse_keys(key, tile->n);
        am_tile_keep(tile, 2 * t, key, kept);
        am_tile_drop(tile, 2 * t + 1, key, kept);
    } else if (b.lo == b.hi) {
        keep_none(kept, tile->n);
    }
}

/* ---- at random ---- */

/* u32 < floor(p 2^32): true with probability p to 2^-32. */
static uint64_t chance(double p)
{
    return p <= 0 ? 0 : p >= 1 ? (uint64_t)1 << 32 : (uint64_t)(p * 0x1p32);
}

AM_CLONES static void subtract_where(double *restrict kept, const double *restrict x,
                                     const double *restrict base, const uint8_t *restrict stays,
                                     double factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double d = (x[i] - base[i]) * factor;
        kept[i] = stays[i] != 0 ? d : 0;
    }
}

/* all += |x - base|, some += it where an element stays. */
AM_INLINE void norm_group(am_lanes *all, am_lanes *some, const double *x, const double *base,
                          const uint8_t *stays, size_t bytes)
{
    am_lanes here = {0}, from = {0};
    uint32_t marks = 0;
    memcpy(&here, x, bytes);
    memcpy(&from, base, bytes);
    memcpy(&marks, stays, bytes / sizeof *x);
    here = AM_LANES_ABS(here - from);
    *all += here;
    *some += AM_LANES_WHERE(AM_LANES_OF_BYTES(marks), here);
}

/* norm[0] += |x - base|_1, norm[1] += that of what stays. Element i goes to lane i mod 16, so that
 * the sums have one order. */
AM_CLONES static void add_norms_where(const double *x, const double *base, const uint8_t *stays,
                                      int64_t n, double *norm)
{
    enum { GROUPS = LANES / AM_LANES };
    const int64_t whole = n - n % LANES;
    am_lanes all[GROUPS] = {{0}}, some[GROUPS] = {{0}};
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int k = 0; k < GROUPS; k++) {
            const int64_t at = i + k * AM_LANES;
            norm_group(&all[k], &some[k], x + at, base + at, stays + at, sizeof *all);
        }
    }
    for (int64_t at = whole, k = 0; at < n; at += AM_LANES, k++) {
        const size_t bytes = (size_t)(n - at < AM_LANES ? n - at : AM_LANES) * sizeof *x;
        norm_group(&all[k], &some[k], x + at, base + at, stays + at, bytes);
    }
    for (int k = 0; k < LANES; k++) {
        norm[0] += all[k / AM_LANES][k % AM_LANES];
        norm[1] += some[k / AM_LANES][k % AM_LANES];
    }
}

/* Which elements of a task vector stay, 0 or 1: [n] in the first work vector. */
static const uint8_t *draw_mask(const am_tile *tile, int t)
{
    uint8_t *stays = (uint8_t *)(tile->scratch + tile->models * tile->n);
    am_rng_chance(&tile->rng[t], tile->lo, tile->n, tile->model_param[t][AM_SPARSE_DENSITY], stays);
    return stays;
}

static bool rescales_alone(const am_tile *tile)
{
    return tile->unit->semantics == AM_SEMANTICS_PAPER && tile->param[AM_SPARSE_RESCALE] != 0;
}

void am_sparsify_random(const am_tile *tile, int t, double *kept)
{
    const double density = tile->model_param[t][AM_SPARSE_DENSITY];
    const double factor = rescales_alone(tile) && is_partial(density) ? 1 / density : 1;
    subtract_where(kept, tile->x[t], tile->base, draw_mask(tile, t), factor, tile->n);
}

void am_random_norms(const am_tile *tile, double *sum)
{
    for (int t = 0; t < tile->models; t++) {
        add_norms_where(tile->x[t], tile->base, draw_mask(tile, t), tile->n, sum + 2 * t);
    }
}

bool am_ranks_by_rows(const am_unit *unit)
{
    return count_streams(unit) > 0;
}

const char *am_ranks_check(const am_tile *tile)
{
    for (int t = 0; t < tile->models; t++) {
        const double density = tile->model_param[t][AM_SPARSE_DENSITY];
        const double epsilon = tile->model_param[t][AM_RANKS_EPSILON];
        if (is_partial(density) && (density - epsilon <= 0 || density + epsilon >= 1)) {
            return "density - epsilon must be above 0 and density + epsilon below 1: make epsilon "
                   "smaller";
        }
    }
    return NULL;
}

/* p_r = density - epsilon + 2 epsilon r / (n - 1), r = 0.. from the smallest of n elements. */
static double rank_chance(double density, double epsilon, int64_t r, int64_t n)
{
    const double part = n > 1 ? (double)r / (double)(n - 1) : 0.5;
    return density - epsilon + part * 2 * epsilon;
}

/* A row of the tile is a slice [C, inner] of the first dimension; ranks run over C. */
void am_sparsify_ranks(const am_tile *tile, int t, double *kept)
{
    const double density = tile->model_param[t][AM_SPARSE_DENSITY];
    const double epsilon = tile->model_param[t][AM_RANKS_EPSILON];
    const bool rescales = rescales_alone(tile);
    am_task_vector(tile, t, kept);
    if (density <= 0) {
        keep_none(kept, tile->n);
    }
    const int64_t inner = tile->unit->inner, ranked = tile->cols / inner;
    for (int64_t r = 0; is_partial(density) && r < tile->rows * inner; r++) {
        const int64_t at = r / inner * tile->cols + r % inner;
        const uint64_t *order = order_row(tile, kept + at, ranked, inner);
        for (int64_t i = 0; i < ranked; i++) {
            const double p = rank_chance(density, epsilon, i, ranked);
            const int64_t k = at + column(order[i]) * inner;
            const bool stays = am_rng_u32(&tile->rng[t], tile->lo + k) < chance(p);
            kept[k] = stays ? kept[k] * (rescales ? 1 / p : 1) : 0;
        }
    }
}

const char *am_check_one_task(const am_tile *tile, int param)
{
    int tasks = 0;
    for (int t = 0; t < tile->models; t++) {
        tasks += tile->model_param[t][param] != 0;
    }
    return tasks > 1 ? "`task: true` is for one model at most" : NULL;
}
