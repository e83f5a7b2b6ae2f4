/* Merging of sparse task vectors. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/consensus.h"

#include <math.h>
#include <string.h>
#include "mpi/clones.h"

enum { LANES = 16 };
static const double CANCELLED = 1e-8; /* sums of weights below this are none */

int am_consensus_states(const am_unit *unit)
{
    return unit->models + 1;
}

int am_consensus_scratch(int models)
{
    return models + AM_SPARSE_WORK;
}

/* Element i goes to lane i mod 16, so that the sum has one order. */
AM_CLONES static double norm_l1(const double *x, int64_t n)
{
    double lane[LANES] = {0}, sum = 0;
    const int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lane[k] += fabs(x[i + k]);
        }
    }
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += fabs(x[i]);
    }
    for (int k = 0; k < LANES; k++) {
        sum += lane[k];
    }
    return sum;
}

AM_CLONES static void scale(double *x, double factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

AM_CLONES static void add_scaled(double *restrict sum, const double *restrict x, double factor,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += factor * x[i];
    }
}

/* ---- norms ---- */

int am_norms_count(const am_unit *unit)
{
    const bool restores =
        unit->semantics == AM_SEMANTICS_MERGEKIT && unit->param[AM_SPARSE_RESCALE] != 0;
    return restores ? 2 * unit->models : 0;
}

void am_norms_sums(const am_tile *tile, am_sparsify *sparsify, double *sum)
{
    double *delta = tile->scratch;
    for (int t = 0; t < tile->models; t++) {
        am_task_vector(tile, t, delta);
        sum[2 * t] += norm_l1(delta, tile->n);
        sparsify(tile, t, delta);
        sum[2 * t + 1] += norm_l1(delta, tile->n);
    }
}

/* Norms below 1e-7 are left alone, as mergekit does. */
const char *am_norms_solve(const am_unit *unit)
{
    for (int t = 0; t < unit->models; t++) {
        const double before = unit->sum[2 * t], after = unit->sum[2 * t + 1];
        unit->state[t] = before < 1e-7 || after < 1e-7 ? 1 : before / after;
    }
    return NULL;
}

/* delta [T][n] in the tile's scratch: sparse and with their norms restored. */
static void load_deltas(const am_tile *tile, am_sparsify *sparsify)
{
    const bool restores = am_norms_count(tile->unit) > 0;
    for (int t = 0; t < tile->models; t++) {
        double *delta = tile->scratch + t * tile->n;
        sparsify(tile, t, delta);
        if (restores) {
            scale(delta, tile->unit->state[t], tile->n);
        }
    }
}

/* ---- election ---- */

AM_CLONES static void add_vote(double *restrict sum, const double *restrict delta, float weight,
                               int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float vote = (float)delta[i] * weight;
        sum[i] = (float)sum[i] + vote;
    }
}

/* mergekit's votes: weighted, and in f32, where a sum that is 0 in real numbers may have a sign. */
static void sum_votes(const am_tile *tile, double *sum)
{
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        const float weight = (float)tile->model_param[t][AM_SPARSE_WEIGHT];
        add_vote(sum, tile->scratch + t * tile->n, weight, tile->n);
    }
}

/* sum_t w_t delta_t, models in the order of the recipe. */
static void sum_deltas(const am_tile *tile, bool is_weighted, double *sum)
{
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        const double weight = is_weighted ? tile->model_param[t][AM_SPARSE_WEIGHT] : 1;
        add_scaled(sum, tile->scratch + t * tile->n, weight, tile->n);
    }
}

int am_majority_count(const am_unit *unit)
{
    return unit->semantics == AM_SEMANTICS_PAPER ? 1 : 0;
}

void am_majority_sums(const am_tile *tile, am_sparsify *sparsify, double *sum)
{
    double *vote = tile->scratch + tile->models * tile->n;
    int64_t signs = 0;
    load_deltas(tile, sparsify);
    sum_deltas(tile, false, vote);
    for (int64_t i = 0; i < tile->n; i++) {
        signs += (vote[i] > 0) - (vote[i] < 0);
    }
    sum[0] += (double)signs;
}

/* The first sum: only mergekit's merges have norms. */
const char *am_majority_solve(const am_unit *unit)
{
    unit->state[unit->models] = unit->sum[0] > 0 ? 1 : -1;
    return NULL;
}

AM_CLONES static void take_signs(double *x, double zero, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double negative = x[i] < 0 ? -1 : zero;
        x[i] = x[i] > 0 ? 1 : negative;
    }
}

/* vote[i] becomes the sign that was elected, 1 or -1. */
static void elect(const am_tile *tile, double *vote)
{
    const bool is_paper = tile->unit->semantics == AM_SEMANTICS_PAPER;
    const double zero = is_paper ? tile->unit->state[tile->unit->models] : 1;
    if (is_paper) {
        sum_deltas(tile, false, vote);
    } else {
        sum_votes(tile, vote);
    }
    take_signs(vote, zero, tile->n);
}

/* sum += w delta and total += w where the vote, which is w delta or delta, has the sign. */
AM_CLONES static void add_elected(double *restrict sum, double *restrict total,
                                  const double *restrict delta, const double *restrict sign,
                                  double weight, double vote, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const bool agrees = vote * delta[i] * sign[i] > 0;
        sum[i] += agrees ? weight * delta[i] : 0;
        total[i] += agrees ? weight : 0;
    }
}

/* mergekit divides by 1 where the weights cancel. */
AM_CLONES static void divide(double *restrict sum, const double *restrict total, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] /= fabs(total[i]) < CANCELLED ? 1 : total[i];
    }
}

/* `sum` may be `out`. */
AM_CLONES static void add_to_base(double *out, const double *base, const double *sum, double factor,
                                  int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = base[i] + factor * sum[i];
    }
}

static void finish(const am_tile *tile, const double *sum, double factor)
{
    add_to_base(tile->out, tile->base, sum, factor, tile->n);
}

void am_combine_plain(const am_tile *tile, am_sparsify *sparsify)
{
    double *sum = tile->scratch + tile->models * tile->n;
    double total = 0;
    load_deltas(tile, sparsify);
    sum_deltas(tile, true, sum);
    for (int t = 0; t < tile->models; t++) {
        total += tile->model_param[t][AM_SPARSE_WEIGHT];
    }
    const bool divides = tile->param[AM_SPARSE_NORMALIZE] != 0 && fabs(total) >= CANCELLED;
    const double by = divides ? total : 1;
    finish(tile, sum, tile->param[AM_SPARSE_LAMBDA] / by);
}

void am_combine_elected(const am_tile *tile, am_sparsify *sparsify)
{
    const bool is_paper = tile->unit->semantics == AM_SEMANTICS_PAPER;
    double *sign = tile->scratch + tile->models * tile->n, *total = sign + tile->n;
    double *sum = tile->out;
    load_deltas(tile, sparsify);
    elect(tile, sign);
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    memset(total, 0, (size_t)tile->n * sizeof *total);
    for (int t = 0; t < tile->models; t++) {
        const double weight = tile->model_param[t][AM_SPARSE_WEIGHT];
        const double vote = is_paper ? 1 : (weight > 0) - (weight < 0);
        add_elected(sum, total, tile->scratch + t * tile->n, sign, weight, vote, tile->n);
    }
    if (tile->param[AM_SPARSE_NORMALIZE] != 0) {
        divide(sum, total, tile->n);
    }
    finish(tile, sum, tile->param[AM_SPARSE_LAMBDA]);
}

void am_combine_largest(const am_tile *tile, am_sparsify *sparsify)
{
    double *sign = tile->scratch + tile->models * tile->n, *largest = tile->out;
    load_deltas(tile, sparsify);
    elect(tile, sign);
    memset(largest, 0, (size_t)tile->n * sizeof *largest);
    for (int t = 0; t < tile->models; t++) {
        const double weight = tile->model_param[t][AM_SPARSE_WEIGHT];
        const double *delta = tile->scratch + t * tile->n;
        for (int64_t i = 0; i < tile->n; i++) {
            const double magnitude = weight * delta[i] * sign[i];
            if (delta[i] * sign[i] > 0 && magnitude > largest[i] * sign[i]) {
                largest[i] = weight * delta[i];
            }
        }
    }
    finish(tile, largest, tile->param[AM_SPARSE_LAMBDA]);
}
