/* Arcee Fusion: take the second model's elements where its change matters most.
 *
 * An element's importance is |x - base| times the divergence of its row. Divergences of fine-tuned
 * rows are small differences of large terms, so in f32, which mergekit computes in, their rounding
 * decides which elements lie above the threshold. The mergekit reading therefore does every step in
 * f32 in PyTorch's order (8 lanes; its exponential, within 1 ulp); the paper reading is in f64. In
 * bf16 and f16 the result of every step is rounded once more, so that divergences may be negative.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/merge/narrow.h"

static const am_method_param params[] = {{0}};

enum { P, Q, KEYS, VECTORS }; /* softmax of a row of the model, of the base; keys */
enum { LANES = 8 };

static int scratch(int models)
{
    (void)models;
    return VECTORS;
}

static bool by_rows(const am_unit *unit)
{
    (void)unit;
    return true;
}

/* ---- f64 ---- */

static const double EPSILON = 1e-8; /* added to every probability */

static double largest(const double *x, int64_t n)
{
    double most = x[0];
    for (int64_t i = 1; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

static void softmax(const double *x, int64_t n, double *p)
{
    const double most = largest(x, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        p[i] = exp(x[i] - most);
        sum += p[i];
    }
    for (int64_t i = 0; i < n; i++) {
        p[i] = p[i] / sum + EPSILON;
    }
}

/* sum p log(p / q) */
static double divergence(const double *x, const double *base, int64_t n, double *p, double *q)
{
    double sum = 0;
    softmax(x, n, p);
    softmax(base, n, q);
    for (int64_t i = 0; i < n; i++) {
        sum += p[i] * log(p[i] / q[i]);
    }
    return sum;
}

/* ---- f32 ---- */

/* a b + c: the product is exact in f64. */
static inline float multiply_add(float a, float b, float c)
{
    return (float)((double)a * (double)b + (double)c);
}

/* e^x for x <= 0: x = q log 2 + s, then a polynomial in s. */
AM_CLONES static void exponentials(float *x, int64_t n)
{
    static const float log2_high = 0.693145751953125F, log2_low = 1.428606765330187045e-06F;
    static const float c[] = {1.98527617612853646e-4F, 1.39304355252534151e-3F,
                              8.33336077630519867e-3F, 4.16664853692054749e-2F,
                              1.66666671633720398e-1F, 0.5F};
    for (int64_t i = 0; i < n; i++) {
        const float q = rintf(x[i] * 1.44269504088896341F);
        float s = multiply_add(q, -log2_high, x[i]), u = c[0];
        s = multiply_add(q, -log2_low, s);
        for (int k = 1; k < 6; k++) {
            u = multiply_add(u, s, c[k]);
        }
        u = 1 + multiply_add(s * s, u, s);
        x[i] = x[i] < -104 ? 0 : ldexpf(u, (int)q);
    }
}

/* Element i in lane i mod 8, the lanes added in pairs (a row that fills no lane: in order). */
static float sum_pairs(const float *x, int64_t n)
{
    float lane[LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        lane[i % LANES] += x[i];
    }
    for (int width = LANES / 2; width > 0 && n >= LANES; width /= 2) {
        for (int k = 0; k < width; k++) {
            lane[k] += lane[k + width];
        }
    }
    for (int k = 1; k < LANES && n < LANES; k++) {
        lane[0] += lane[k];
    }
    return lane[0];
}

/* Four groups of whole lanes in turn, the groups added, then the last elements and the lanes in
 * order. */
static float sum_groups(const float *x, int64_t n)
{
    enum { GROUPS = 4 };
    const int64_t whole = n / LANES, turns = whole / GROUPS * GROUPS;
    float lane[GROUPS][LANES] = {{0}}, sum = 0;
    for (int64_t i = 0; i < whole * LANES; i++) {
        const int64_t group = i / LANES < turns ? i / LANES % GROUPS : 0;
        lane[group][i % LANES] += x[i];
    }
    for (int64_t i = whole * LANES; i < n; i++) {
        sum += x[i];
    }
    for (int k = 0; k < LANES; k++) {
        for (int g = 1; g < GROUPS; g++) {
            lane[0][k] += lane[g][k];
        }
        sum += lane[0][k];
    }
    return sum;
}

static void round_to(am_dtype dtype, float *x, int64_t n)
{
    if (dtype != AM_DTYPE_F64) {
        am_narrow(dtype, x, n);
    }
}

static float rounded(am_dtype dtype, float x)
{
    round_to(dtype, &x, 1);
    return x;
}

static float largest_f32(const float *x, int64_t n)
{
    float most = x[0];
    for (int64_t i = 1; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

static void softmax_f32(am_dtype dtype, const double *x, int64_t n, float *p)
{
    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)x[i];
    }
    round_to(dtype, p, n);
    const float most = largest_f32(p, n);
    for (int64_t i = 0; i < n; i++) {
        p[i] -= most;
    }
    exponentials(p, n);
    const float factor = 1 / sum_pairs(p, n);
    for (int64_t i = 0; i < n; i++) {
        p[i] *= factor;
    }
    round_to(dtype, p, n);
    for (int64_t i = 0; i < n; i++) {
        p[i] += (float)EPSILON;
    }
    round_to(dtype, p, n);
}

static float divergence_f32(am_dtype dtype, const double *x, const double *base, int64_t n,
                            float *p, float *q)
{
    softmax_f32(dtype, x, n, p);
    softmax_f32(dtype, base, n, q);
    for (int64_t i = 0; i < n; i++) {
        q[i] = p[i] / q[i];
    }
    round_to(dtype, q, n);
    for (int64_t i = 0; i < n; i++) {
        q[i] = (float)log((double)q[i]);
    }
    round_to(dtype, q, n);
    for (int64_t i = 0; i < n; i++) {
        p[i] *= q[i];
    }
    round_to(dtype, p, n);
    return rounded(dtype, sum_groups(p, n));
}

/* ---- keys ---- */

/* The order of numbers with a sign that need no more bits than f16 and bf16 have: their first 19
 * bits, negative ones reversed below the others, as a positive f32. */
enum { SIGNED_BITS = 19, DROPPED_BITS = 32 - SIGNED_BITS, KEY_SHIFT = 11 };
static const uint32_t sign_bit = (uint32_t)1 << (SIGNED_BITS - 1);
static const uint32_t all_bits = ((uint32_t)1 << SIGNED_BITS) - 1;

static float key_of_signed(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits >>= DROPPED_BITS;
    bits = ((bits & sign_bit) != 0 ? ~bits & all_bits : bits | sign_bit) << KEY_SHIFT;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float signed_of_key(float key)
{
    uint32_t bits;
    memcpy(&bits, &key, sizeof bits);
    bits >>= KEY_SHIFT;
    bits = ((bits & sign_bit) != 0 ? bits & ~sign_bit : ~bits & all_bits) << DROPPED_BITS;
    memcpy(&key, &bits, sizeof key);
    return key;
}

/* Divergences are at least 0 but for rounding, and so are keys; NaN orders as infinity. */
static void importance_wide(const am_tile *tile, bool is_wide, float *key)
{
    double *p = tile->scratch + P * tile->n, *q = tile->scratch + Q * tile->n;
    for (int64_t at = 0; at < tile->n; at += tile->cols) {
        const double *x = tile->x[0] + at, *base = tile->base + at;
        const double row = is_wide ? divergence(x, base, tile->cols, p, q)
                                   : (double)divergence_f32(AM_DTYPE_F64, x, base, tile->cols,
                                                            (float *)(void *)p, (float *)(void *)q);
        for (int64_t i = 0; i < tile->cols; i++) {
            const double change = fabs(x[i] - base[i]);
            const double value = (is_wide ? change : (double)(float)change) * row;
            const float narrow = (float)value;
            key[at + i] = narrow > 0 ? narrow : value == value ? 0 : (float)INFINITY;
        }
    }
}

static void importance_narrow(const am_tile *tile, float *key)
{
    float *p = (float *)(void *)(tile->scratch + P * tile->n);
    float *q = (float *)(void *)(tile->scratch + Q * tile->n);
    for (int64_t at = 0; at < tile->n; at += tile->cols) {
        const float row =
            divergence_f32(tile->unit->narrow, tile->x[0] + at, tile->base + at, tile->cols, p, q);
        for (int64_t i = 0; i < tile->cols; i++) {
            key[at + i] = fabsf(tile->rounded[0][at + i]) * row;
        }
    }
    am_narrow(tile->unit->narrow, key, tile->n);
    for (int64_t i = 0; i < tile->n; i++) {
        key[i] = key_of_signed(key[i] == key[i] ? key[i] : (float)INFINITY);
    }
}

static void importance(const am_tile *tile, float *key)
{
    if (tile->unit->narrow != AM_DTYPE_F64) {
        importance_narrow(tile, key);
    } else {
        importance_wide(tile, tile->unit->semantics == AM_SEMANTICS_PAPER, key);
    }
}

static int count(const am_unit *unit)
{
    return unit->models;
}

static void keys(const am_tile *tile, float *const *key)
{
    importance(tile, key[0]);
}

/* Quartile k of the sorted keys is number floor(k (n - 1) / 4) from the smallest; exact, where
 * mergekit samples a million elements of a larger tensor. */
static int cuts(const am_unit *unit, am_cut *cut)
{
    for (int k = 1; k <= 3; k++) {
        const int64_t whole = (unit->n - 1) / 4, rest = (unit->n - 1) % 4;
        cut[k - 1] = (am_cut){.take = unit->n - (k * whole + k * rest / 4)};
    }
    return 3;
}

/* The smallest key that is fused: of median + 1.5 (q3 - q1). */
static float limit_of(const am_unit *unit)
{
    const am_dtype dtype = unit->narrow;
    const am_cut *c = unit->cut;
    if (dtype == AM_DTYPE_F64) {
        return c[1].threshold + 1.5F * (c[2].threshold - c[0].threshold);
    }
    const float first = signed_of_key(c[0].threshold), third = signed_of_key(c[2].threshold);
    const float spread = rounded(dtype, 1.5F * rounded(dtype, third - first));
    return key_of_signed(rounded(dtype, signed_of_key(c[1].threshold) + spread));
}

/* A tensor that the model lacks is the base's. */
static void combine(const am_tile *tile)
{
    float *key = (float *)(void *)(tile->scratch + KEYS * tile->n);
    if (tile->models == 0) {
        memcpy(tile->out, tile->base, (size_t)tile->n * sizeof *tile->out);
        return;
    }
    const float limit = limit_of(tile->unit);
    importance(tile, key);
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = key[i] >= limit ? tile->x[0][i] : tile->base[i];
    }
}

const am_method am_method_arcee_fusion = {
    .name = "arcee_fusion",
    .summary = "the base, with a model's elements where its changes are outliers in importance",
    .source = "Arcee Fusion, as in mergekit: |x - theta_0| KL(softmax x, softmax theta_0) by rows, "
              "from median + 1.5 (q3 - q1) on",
    .needs_base = true,
    .min_models = 1,
    .max_models = 1,
    .params = params,
    .semantics = AM_SEMANTICS_MERGEKIT | AM_SEMANTICS_PAPER,
    .by_rows = by_rows,
    .scratch = scratch,
    .n_passes = 1,
    .pass = {{.rounded = AM_ROUNDED_TOO, .count = count, .keys = keys, .cuts = cuts}},
    .combine = combine,
    .rounded = AM_ROUNDED_TOO,
};
