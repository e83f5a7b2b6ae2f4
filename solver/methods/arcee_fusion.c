/* Arcee Fusion: take the second model's elements where its change matters most.
 *
 * An element's importance is |x - base| times the divergence of its row. Divergences of fine-tuned
 * rows are small differences of large terms, so in f32, which mergekit computes in, their rounding
 * decides which elements lie above the threshold. The mergekit reading therefore does every step in
 * f32 in PyTorch's order (8 lanes; its exponential, within 1 ulp); the paper reading is in f64.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/merge/method.h"

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

static void softmax_f32(const double *x, int64_t n, float *p)
{
    const float most = (float)largest(x, n);
    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)x[i] - most;
    }
    exponentials(p, n);
    const float factor = 1 / sum_pairs(p, n);
    for (int64_t i = 0; i < n; i++) {
        p[i] = p[i] * factor + (float)EPSILON;
    }
}

static float divergence_f32(const double *x, const double *base, int64_t n, float *p, float *q)
{
    softmax_f32(x, n, p);
    softmax_f32(base, n, q);
    for (int64_t i = 0; i < n; i++) {
        p[i] *= (float)log((double)(p[i] / q[i]));
    }
    return sum_groups(p, n);
}

/* ---- importance ---- */

/* Divergences are at least 0 but for rounding, and so are keys; NaN orders as infinity. */
static void importance(const am_tile *tile, float *key)
{
    const bool is_wide = tile->unit->semantics == AM_SEMANTICS_PAPER;
    double *p = tile->scratch + P * tile->n, *q = tile->scratch + Q * tile->n;
    for (int64_t at = 0; at < tile->n; at += tile->cols) {
        const double *x = tile->x[0] + at, *base = tile->base + at;
        const double row = is_wide ? divergence(x, base, tile->cols, p, q)
                                   : (double)divergence_f32(x, base, tile->cols, (float *)(void *)p,
                                                            (float *)(void *)q);
        for (int64_t i = 0; i < tile->cols; i++) {
            const double change = fabs(x[i] - base[i]);
            const double value = (is_wide ? change : (double)(float)change) * row;
            const float rounded = (float)value;
            key[at + i] = rounded > 0 ? rounded : value == value ? 0 : (float)INFINITY;
        }
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

/* From median + 1.5 (q3 - q1) on. A tensor that the model lacks is the base's. */
static void combine(const am_tile *tile)
{
    float *key = (float *)(void *)(tile->scratch + KEYS * tile->n);
    const am_cut *cut = tile->unit->cut;
    if (tile->models == 0) {
        memcpy(tile->out, tile->base, (size_t)tile->n * sizeof *tile->out);
        return;
    }
    const float limit = cut[1].threshold + 1.5F * (cut[2].threshold - cut[0].threshold);
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
    .pass = {{.count = count, .keys = keys, .cuts = cuts}},
    .combine = combine,
};
