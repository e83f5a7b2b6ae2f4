/* PCB: weigh every element by how large it is in its task vector and how well the task vectors
 * agree on it, drop low scores. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "solver/merge/sparsify.h"

enum { WEIGHT, LAMBDA, RATIO };

static const am_method_param params[] = {
    [WEIGHT] = {.key = "weight",
                .per_model = true,
                .fallback = 1,
                .low = -100,
                .high = 100,
                .help = "factor of a task vector, not of its score"},
    [LAMBDA] = {.key = "lambda",
                .fallback = 1,
                .low = -100,
                .high = 100,
                .help = "factor of the merged task vector"},
    [RATIO] = {.key = "pcb_ratio",
               .fallback = 0.1,
               .high = 1,
               .help = "part of every task vector that is kept"},
    {0}};

static const double OUTLIERS = 1e-4; /* part of the magnitudes that is clipped at either end */

enum { DELTA, SUM, SCORE, TOTAL, VECTORS };

static int scratch(int models)
{
    (void)models;
    return VECTORS;
}

/* The element of rank `at` from the smallest, as a cut. */
static am_cut rank_cut(const am_unit *unit, int stream, double at)
{
    const int64_t last = unit->n - 1;
    const int64_t rank = at > 0 ? ((int64_t)at < last ? (int64_t)at : last) : 0;
    return (am_cut){.stream = stream, .take = unit->n - rank};
}

/* ---- pass 0: where magnitudes are clipped ---- */

static int magnitude_count(const am_unit *unit)
{
    return unit->models;
}

static void magnitude_keys(const am_tile *tile, float *const *key)
{
    double *delta = tile->scratch + DELTA * tile->n;
    for (int t = 0; t < tile->models; t++) {
        am_task_vector(tile, t, delta);
        am_magnitude_keys(delta, tile->n, key[t]);
    }
}

static int magnitude_cuts(const am_unit *unit, am_cut *cut)
{
    const double n = (double)unit->n;
    for (int t = 0; t < unit->models; t++) {
        cut[2 * t] = rank_cut(unit, t, n * OUTLIERS);
        cut[2 * t + 1] = rank_cut(unit, t, n * (1 - OUTLIERS) - 1);
    }
    return 2 * unit->models;
}

static double clip(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- pass 1: where scores are cut ---- */

/* score = exp(T (self - 1)) tanh(delta_t sum), self = the clipped magnitude's place in [0, 1],
 * squared. The factor exp(-T) keeps it in range; scores are only compared with each other. delta_t
 * stays in DELTA. */
static void score_model(const am_tile *tile, int t, double *score)
{
    const double low = (double)tile->unit->cut[2 * t].threshold;
    const double high = (double)tile->unit->cut[2 * t + 1].threshold;
    const double *sum = tile->scratch + SUM * tile->n;
    double *delta = tile->scratch + DELTA * tile->n;
    am_task_vector(tile, t, delta);
    for (int64_t i = 0; i < tile->n; i++) {
        const double magnitude = clip(fabs(delta[i]), low, high);
        const double place = high > low ? (magnitude - low) / (high - low) : 0;
        score[i] = exp(tile->unit->models * (place * place - 1)) * tanh(delta[i] * sum[i]);
    }
}

/* Positive scores, and the magnitudes of negative ones, of every model. */
static int score_count(const am_unit *unit)
{
    return 2 * unit->models;
}

static void score_keys(const am_tile *tile, float *const *key)
{
    double *score = tile->scratch + SCORE * tile->n;
    am_sum_task_vectors(tile, tile->scratch + DELTA * tile->n, tile->scratch + SUM * tile->n);
    for (int t = 0; t < tile->models; t++) {
        score_model(tile, t, score);
        for (int64_t i = 0; i < tile->n; i++) {
            const float s = (float)score[i];
            key[2 * t][i] = s > 0 ? s : 0;
            key[2 * t + 1][i] = s < 0 ? -s : 0;
        }
    }
}

enum { POSITIVE, NEGATIVE, LARGEST, LEAST_NEGATIVE, SCORE_CUTS };

/* Rank r from the smallest of all scores is, if positive, of that rank among the positive keys; if
 * negative, the (r + 1)-th largest of the negative ones. */
static int score_cuts(const am_unit *unit, am_cut *cut)
{
    const double at = (double)unit->n * (1 - unit->param[RATIO]);
    for (int t = 0; t < unit->models; t++) {
        am_cut *own = cut + SCORE_CUTS * t;
        own[POSITIVE] = rank_cut(unit, 2 * t, at);
        own[NEGATIVE] = (am_cut){.stream = 2 * t + 1, .take = unit->n - own[POSITIVE].take + 1};
        own[LARGEST] = (am_cut){.stream = 2 * t, .take = 1};
        own[LEAST_NEGATIVE] = (am_cut){.stream = 2 * t + 1, .take = unit->n};
    }
    return SCORE_CUTS * unit->models;
}

static double either(const am_cut *positive, const am_cut *negative)
{
    return positive->threshold > 0 ? (double)positive->threshold : -(double)negative->threshold;
}

/* ---- combine ---- */

/* out = base + lambda sum_t w_t s_t clip(delta_t) / sum_t s_t, s_t = the score's place between its
 * threshold and its largest. */
static void add_model(const am_tile *tile, int t)
{
    const am_cut *clips = tile->unit->cut + 2 * t;
    const am_cut *own = tile->unit->cut + 2 * tile->models + SCORE_CUTS * t;
    const double low = either(&own[POSITIVE], &own[NEGATIVE]);
    const double high = either(&own[LARGEST], &own[LEAST_NEGATIVE]);
    const double weight = tile->model_param[t][WEIGHT];
    const double *delta = tile->scratch + DELTA * tile->n;
    double *score = tile->scratch + SCORE * tile->n, *total = tile->scratch + TOTAL * tile->n;
    score_model(tile, t, score);
    for (int64_t i = 0; i < tile->n; i++) {
        const double s = (double)(float)score[i];
        const double part = high > low ? (clip(s, low, high) - low) / (high - low) : s >= low;
        const double magnitude =
            clip(fabs(delta[i]), (double)clips[0].threshold, (double)clips[1].threshold);
        tile->out[i] += delta[i] != 0 ? weight * part * copysign(magnitude, delta[i]) : 0;
        total[i] += part;
    }
}

static void combine(const am_tile *tile)
{
    double *total = tile->scratch + TOTAL * tile->n;
    memset(total, 0, (size_t)tile->n * sizeof *total);
    memset(tile->out, 0, (size_t)tile->n * sizeof *tile->out);
    am_sum_task_vectors(tile, tile->scratch + DELTA * tile->n, tile->scratch + SUM * tile->n);
    for (int t = 0; t < tile->models; t++) {
        add_model(tile, t);
    }
    for (int64_t i = 0; i < tile->n; i++) {
        const double by = total[i] > 1e-12 ? total[i] : 1e-12;
        tile->out[i] = tile->base[i] + tile->param[LAMBDA] * tile->out[i] / by;
    }
}

const am_method am_method_pcb = {
    .name = "pcb",
    .summary = "task vectors weighted by magnitude and agreement, low scores dropped",
    .source = "Du et al. 2024 (arXiv:2410.02396), section 3",
    .needs_base = true,
    .min_models = 1,
    .max_models = 64, /* exp(-T) in f32 */
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .default_scope = AM_SCOPE_GLOBAL,
    .scratch = scratch,
    .n_passes = 2,
    .pass = {{.count = magnitude_count, .keys = magnitude_keys, .cuts = magnitude_cuts},
             {.count = score_count, .keys = score_keys, .cuts = score_cuts}},
    .combine = combine,
};
