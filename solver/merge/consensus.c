/* Merging of sparse task vectors. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/consensus.h"

#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/merge/narrow.h"

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

AM_CLONES static void add(double *restrict sum, const double *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += x[i];
    }
}

/* sum += weight (factor x) */
AM_CLONES static void add_restored(double *restrict sum, const double *restrict x, double factor,
                                   double weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += weight * (factor * x[i]);
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

/* What restores the norm of a sparse task vector. */
static double restoring(const am_tile *tile, int t)
{
    return am_norms_count(tile->unit) > 0 ? tile->unit->state[t] : 1;
}

/* ---- election ---- */

AM_CLONES static void restore(double *delta, double factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        delta[i] *= factor;
    }
}

/* delta *= factor; sum += weight delta */
AM_CLONES static void restore_and_vote(double *restrict delta, double *restrict sum, double factor,
                                       float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double d = delta[i] * factor;
        const float vote = (float)d * weight;
        delta[i] = d;
        sum[i] = (float)sum[i] + vote;
    }
}

/* delta [T][n] in the tile's scratch: sparse and with their norms restored. And mergekit's votes:
 * weighted, and in f32, where a sum that is 0 in real numbers may have a sign; or in bf16 or f16.
 */
static void load_and_vote(const am_tile *tile, am_sparsify *sparsify, double *sum)
{
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        double *delta = tile->scratch + t * tile->n;
        const double weight = tile->model_param[t][AM_SPARSE_WEIGHT];
        const double factor = restoring(tile, t);
        sparsify(tile, t, delta);
        if (tile->unit->narrow == AM_DTYPE_F64) {
            restore_and_vote(delta, sum, factor, (float)weight, tile->n);
        } else {
            am_narrow_votes(tile, t, delta, factor, weight, sum);
            if (factor != 1) {
                restore(delta, factor, tile->n);
            }
        }
    }
}

/* The same with the published votes: not weighted, and no norms are restored. */
static void load_and_sum(const am_tile *tile, am_sparsify *sparsify, double *sum)
{
    for (int t = 0; t < tile->models; t++) {
        sparsify(tile, t, tile->scratch + t * tile->n);
    }
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        add(sum, tile->scratch + t * tile->n, tile->n);
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
    load_and_sum(tile, sparsify, vote);
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

AM_CLONES static void take_signs(double *restrict sign, const double *restrict vote, double zero,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double negative = vote[i] < 0 ? -1 : zero;
        sign[i] = vote[i] > 0 ? 1 : negative;
    }
}

/* The deltas, and the sign that was elected, 1 or -1. Votes lie in `out`: sparsifiers need the work
 * vectors, one of which `sign` is. */
static void load_and_elect(const am_tile *tile, am_sparsify *sparsify, double *sign)
{
    const bool is_paper = tile->unit->semantics == AM_SEMANTICS_PAPER;
    const double zero = is_paper ? tile->unit->state[tile->unit->models] : 1;
    if (is_paper) {
        load_and_sum(tile, sparsify, tile->out);
    } else {
        load_and_vote(tile, sparsify, tile->out);
    }
    take_signs(sign, tile->out, zero, tile->n);
}

/* add_elected without a total. */
AM_CLONES static void add_agreeing(double *restrict sum, const double *restrict delta,
                                   const double *restrict sign, double weight, double vote,
                                   int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const bool agrees = vote * delta[i] * sign[i] > 0;
        sum[i] += agrees ? weight * delta[i] : 0;
    }
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
    double *delta = tile->scratch, *sum = tile->out;
    double total = 0;
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        const double weight = tile->model_param[t][AM_SPARSE_WEIGHT];
        sparsify(tile, t, delta);
        add_restored(sum, delta, restoring(tile, t), weight, tile->n);
        total += weight;
    }
    const bool divides = tile->param[AM_SPARSE_NORMALIZE] != 0 && fabs(total) >= CANCELLED;
    const double by = divides ? total : 1;
    finish(tile, sum, tile->param[AM_SPARSE_LAMBDA] / by);
}

void am_combine_elected(const am_tile *tile, am_sparsify *sparsify)
{
    const bool is_paper = tile->unit->semantics == AM_SEMANTICS_PAPER;
    const bool divides = tile->param[AM_SPARSE_NORMALIZE] != 0;
    double *sign = tile->scratch + tile->models * tile->n, *total = sign + tile->n;
    double *sum = tile->out;
    load_and_elect(tile, sparsify, sign);
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    if (divides) {
        memset(total, 0, (size_t)tile->n * sizeof *total);
    }
    for (int t = 0; t < tile->models; t++) {
        const double weight = tile->model_param[t][AM_SPARSE_WEIGHT];
        const double vote = is_paper ? 1 : (weight > 0) - (weight < 0);
        const double *delta = tile->scratch + t * tile->n;
        if (divides) {
            add_elected(sum, total, delta, sign, weight, vote, tile->n);
        } else {
            add_agreeing(sum, delta, sign, weight, vote, tile->n);
        }
    }
    if (divides) {
        divide(sum, total, tile->n);
    }
    finish(tile, sum, tile->param[AM_SPARSE_LAMBDA]);
}

void am_combine_largest(const am_tile *tile, am_sparsify *sparsify)
{
    double *sign = tile->scratch + tile->models * tile->n, *largest = tile->out;
    load_and_elect(tile, sparsify, sign);
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
