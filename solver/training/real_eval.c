/* Initial parameters, evaluation, and the gradient without MPI.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_pass.h"

int AM_R(am_train_init)(const am_param_layout *layout, uint64_t seed, const char *purpose,
                        void *params)
{
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        const am_tensor *tensor = &layout->tensors.t[i];
        real *w = (real *)params + layout->offset[i];
        const am_rng rng = am_rng_make(seed, purpose, 0, 0, tensor->name);
        const double fill = layout->fill[i], sigma = layout->sigma[i], spread = layout->spread[i];
        for (int64_t j = 0; j < tensor->numel; j++) {
            w[j] = (real)(sigma > 0    ? fill + sigma * am_rng_normal(&rng, j)
                          : spread > 0 ? fill + spread * (2 * am_rng_uniform(&rng, j) - 1)
                                       : fill);
        }
    }
    return 0;
}

/* Samples at the places [lo, hi) of an order, NULL: as they come. */
static void am_eval_index(const int64_t *order, int64_t lo, int64_t hi, int64_t *index)
{
    for (int64_t i = lo; i < hi; i++) {
        index[i - lo] = order != NULL ? order[i] : i;
    }
}

/* The samples at places [lo, hi) are gathered next. */
static void am_eval_announce(const am_samples *samples, const int64_t *order, int64_t lo,
                             int64_t hi)
{
    int64_t index[AM_EVAL_GROUP];
    hi = hi < samples->n ? hi : samples->n;
    if (samples->announce != NULL && lo < hi) {
        am_eval_index(order, lo, hi, index);
        samples->announce(samples->self, index, hi - lo);
    }
}

/* Load the samples at places [lo, hi) and run them forward, while [hi, next) may be read; adds to
 * counts: labels, labels classified right. */
static int am_eval_group(am_net_pass *pass, const real *trunk, const real *head, int64_t classes,
                         const am_samples *samples, const int64_t *order, int64_t lo, int64_t hi,
                         int64_t next, am_exact *loss, int64_t *counts)
{
    am_eval_index(order, lo, hi, pass->index);
    const int rc = AM_R(am_pass_load)(pass, samples, hi - lo, classes);
    if (rc != 0) {
        return rc;
    }
    am_eval_announce(samples, order, hi, next);
    counts[1] += AM_R(am_pass_forward)(pass, trunk, head, hi - lo, classes);
    counts[0] += pass->counted;
    for (int64_t b = 0; b < hi - lo; b++) {
        am_exact_add(loss, pass->loss[b]);
    }
    return 0;
}

/* ---- scores ---- */

enum { AM_EVAL_BINS = 15, AM_EVAL_TOP = 5 };

/* Sums over samples; all are exact, so they do not depend on who made them. */
enum {
    AM_SUM_TOP,
    AM_SUM_BIN,                                   /* [bins][2]: labels, of these right */
    AM_SUM_CLASS = AM_SUM_BIN + 2 * AM_EVAL_BINS, /* [classes][2] */
};
typedef struct am_score {
    int64_t classes;
    int64_t *count;                    /* [AM_SUM_CLASS + 2 classes] owned */
    am_exact confidence[AM_EVAL_BINS]; /* of the labels of a bin */
} am_score;

static int am_score_make(int64_t classes, am_score *out)
{
    out->classes = classes;
    out->count = am_new(AM_SUM_CLASS + 2 * classes, sizeof *out->count, "scores");
    for (int i = 0; i < AM_EVAL_BINS; i++) {
        am_exact_zero(&out->confidence[i]);
    }
    return out->count == NULL ? AM_E_NOMEM : 0;
}

/* One row of probabilities p [K]. Of equal ones the first counts as the larger. */
static void am_score_row(am_score *score, const real *p, int64_t label, bool is_right)
{
    int64_t before = 0;
    real largest = p[0];
    for (int64_t k = 0; k < score->classes; k++) {
        before += p[k] > p[label] || (p[k] == p[label] && k < label);
        largest = p[k] > largest ? p[k] : largest;
    }
    const double place = isfinite(largest) ? (double)largest * AM_EVAL_BINS : 0;
    const int bin = place < AM_EVAL_BINS ? (int)place : AM_EVAL_BINS - 1;
    score->count[AM_SUM_TOP] += isfinite(p[label]) && before < AM_EVAL_TOP;
    score->count[AM_SUM_BIN + 2 * bin]++;
    score->count[AM_SUM_BIN + 2 * bin + 1] += is_right;
    score->count[AM_SUM_CLASS + 2 * label]++;
    score->count[AM_SUM_CLASS + 2 * label + 1] += is_right;
    am_exact_add(&score->confidence[bin], (double)largest);
}

/* The samples of a pass after forward. */
static void am_score_add(am_score *score, const am_net_pass *pass, int64_t B)
{
    const real *p = AM_R(am_pass_probabilities)(pass);
    for (int64_t r = 0; r < B * pass->labels; r++) {
        if (pass->label[r] >= 0) {
            am_score_row(score, p + r * score->classes, pass->label[r], pass->hit[r]);
        }
    }
}

static int am_score_sum_all(MPI_Comm comm, am_score *score, am_eval_result *result)
{
    int rc = 0;
    int64_t occur = 0;
    double recall = 0, distance = 0;
    AM_TRY(am_sum_i64_all(comm, score->count, AM_SUM_CLASS + 2 * score->classes));
    AM_TRY(am_exact_sum_all(comm, score->confidence, AM_EVAL_BINS));
    for (int64_t k = 0; k < score->classes; k++) {
        const int64_t *count = &score->count[AM_SUM_CLASS + 2 * k];
        occur += count[0] > 0;
        recall += count[0] > 0 ? (double)count[1] / (double)count[0] : 0;
        if (result->of_class != NULL) {
            result->of_class[2 * k] = count[0];
            result->of_class[2 * k + 1] = count[1];
        }
    }
    for (int i = 0; i < AM_EVAL_BINS; i++) {
        const double right = (double)score->count[AM_SUM_BIN + 2 * i + 1];
        distance += fabs(right - am_exact_round(&score->confidence[i]));
    }
    result->top5 = score->count[AM_SUM_TOP];
    result->balanced = occur > 0 ? recall / (double)occur : 0;
    result->calibration = result->n > 0 ? distance / (double)result->n : 0;
cleanup:
    return rc;
}

/* ---- parts ---- */

/* The groups of all parts in order, each of at most AM_EVAL_GROUP samples of one part. */
typedef struct am_eval_groups {
    const am_eval_parts *parts;
    int64_t n;
    int64_t part, lo, hi; /* the group that is at hand: its part, and its places */
} am_eval_groups;

static am_eval_groups am_eval_groups_of(const am_eval_parts *parts)
{
    am_eval_groups g = {.parts = parts};
    for (int64_t p = 0; p < parts->n; p++) {
        g.n += am_part_units(parts->first[p + 1] - parts->first[p], AM_EVAL_GROUP);
    }
    return g;
}

/* The group after the one at hand: hi 0 is before the first. */
static void am_eval_group_next(am_eval_groups *g)
{
    while (g->hi == g->parts->first[g->part + 1]) {
        g->part++;
    }
    const int64_t end = g->parts->first[g->part + 1];
    g->lo = g->hi;
    g->hi = end - g->lo < AM_EVAL_GROUP ? end : g->lo + AM_EVAL_GROUP;
}

static int64_t am_eval_largest(const am_eval_parts *parts)
{
    int64_t most = 0;
    for (int64_t p = 0; p < parts->n; p++) {
        const int64_t n = parts->first[p + 1] - parts->first[p];
        most = n > most ? n : most;
    }
    return most < AM_EVAL_GROUP ? most : AM_EVAL_GROUP;
}

/* The group at hand, by the trunk of its part. */
static int am_eval_part(am_net_pass *pass, const am_eval_groups *g, const void *head,
                        int64_t classes, const am_samples *samples, bool is_next, am_exact *loss,
                        int64_t *counts, am_score *score)
{
    const void *trunk = NULL;
    int rc = g->parts->trunk(g->parts->self, g->part, &trunk);
    AM_KEEP(am_eval_group(pass, trunk, head, classes, samples, g->parts->order, g->lo, g->hi,
                          is_next ? g->hi + AM_EVAL_GROUP : g->hi, loss, counts));
    if (rc == 0) {
        am_score_add(score, pass, g->hi - g->lo);
    }
    am_alive("evaluate");
    return rc;
}

int AM_R(am_eval_parts_all)(MPI_Comm comm, const am_net *net, const am_eval_parts *parts,
                            const void *head, int64_t classes, const am_samples *samples,
                            am_eval_result *result)
{
    am_net_pass pass = {0};
    am_score score = {0};
    am_exact loss;
    int rank = 0, size = 1, rc = 0;
    int64_t lo, hi, counts[2] = {0};
    am_eval_groups groups = am_eval_groups_of(parts);
    *result = (am_eval_result){.of_class = result->of_class};
    am_exact_zero(&loss);
    am_blas_single_thread();
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    AM_KEEP(AM_R(am_train_check)(net, samples, classes));
    AM_KEEP(AM_R(am_pass_make)(net, am_eval_largest(parts), classes, false, &pass));
    AM_KEEP(am_score_make(classes, &score));
    am_part_range(groups.n, size, rank, &lo, &hi);
    for (int64_t group = 0; group < lo; group++) {
        am_eval_group_next(&groups);
    }
    if (parts->may_stop) { /* all ranks take as many steps */
        AM_AGREE(comm);
    }
    const int64_t steps = am_part_units(groups.n, size);
    for (int64_t step = 0; rc == 0 && step < steps; step++) {
        if (lo + step < hi) {
            am_eval_group_next(&groups);
            rc = am_eval_part(&pass, &groups, head, classes, samples, lo + step + 1 < hi, &loss,
                              counts, &score);
        }
        if (parts->may_stop) {
            rc = am_agree_step_all(comm, rc);
        }
    }
    AM_AGREE(comm);
    AM_TRY(am_exact_sum_all(comm, &loss, 1));
    AM_TRY(am_sum_i64_all(comm, counts, 2));
    result->n = counts[0];
    result->correct = counts[1];
    result->loss = am_exact_round(&loss) / (double)samples->n;
    AM_TRY(am_score_sum_all(comm, &score, result));
cleanup:
    AM_R(am_pass_free)(&pass);
    free(score.count);
    return rc;
}

static int am_eval_one_trunk(void *self, int64_t part, const void **trunk)
{
    (void)part;
    *trunk = self;
    return 0;
}

int AM_R(am_eval_all)(MPI_Comm comm, const am_net *net, const void *trunk, const void *head,
                      int64_t classes, const am_samples *samples, am_eval_result *result)
{
    const int64_t first[] = {0, samples->n};
    const am_eval_parts whole = {
        .n = 1, .first = first, .trunk = am_eval_one_trunk, .self = (void *)trunk};
    return AM_R(am_eval_parts_all)(comm, net, &whole, head, classes, samples, result);
}

void AM_R(am_gradient_spread)(const am_param_layout *trunk, int64_t n, real *d)
{
    for (int64_t k = trunk->tensors.n - 1; k >= 0; k--) {
        const int64_t numel = trunk->tensors.t[k].numel;
        real *at = d + trunk->offset[k];
        if (trunk->is_frozen[k]) {
            memset(at, 0, (size_t)numel * sizeof *at);
        } else {
            n -= numel;
            memmove(at, d + n, (size_t)numel * sizeof *at);
        }
    }
}

int AM_R(am_train_gradient)(const am_net *net, const void *trunk, const void *head, int64_t classes,
                            const am_samples *samples, int64_t lo, int64_t hi, double *loss,
                            void *d_trunk, void *d_head)
{
    am_net_pass pass = {0};
    am_exact sum;
    int64_t counts[2] = {0};
    int rc = AM_R(am_train_check)(net, samples, classes);
    if (rc == 0 && (lo < 0 || hi <= lo || hi > samples->n)) {
        rc = am_fail(AM_E_BUG, "gradient: [%lld, %lld) are not samples of %s", (long long)lo,
                     (long long)hi, samples->label);
    }
    am_exact_zero(&sum);
    am_blas_single_thread();
    AM_KEEP(AM_R(am_pass_make)(net, hi - lo, classes, true, &pass));
    AM_KEEP(am_eval_group(&pass, trunk, head, classes, samples, NULL, lo, hi, hi, &sum, counts));
    if (rc == 0) {
        *loss = am_exact_round(&sum) / (double)(hi - lo);
        if (d_trunk != NULL || d_head != NULL) {
            AM_R(am_pass_backward)
            (&pass, trunk, head, hi - lo, classes, 1 / (double)(hi - lo), d_trunk, d_head);
        }
        if (d_trunk != NULL) {
            AM_R(am_gradient_spread)(&net->trunk, net->gradient_n, d_trunk);
        }
    }
    AM_R(am_pass_free)(&pass);
    return rc;
}

extern const am_train_ops AM_R(am_train_ops);
const am_train_ops AM_R(am_train_ops) = {
    .name = AM_REAL_NAME,
    .dtype = AM_REAL_DTYPE,
    .init = AM_R(am_train_init),
    .state_make = AM_R(am_train_state_new),
    .train_all = AM_R(am_train_all),
    .eval_all = AM_R(am_eval_all),
    .eval_parts_all = AM_R(am_eval_parts_all),
    .features_all = AM_R(am_train_features_all),
    .probabilities_all = AM_R(am_train_probabilities_all),
    .gradient = AM_R(am_train_gradient),
    .hvp = AM_R(am_train_hvp),
    .stats = AM_R(am_train_stats),
    .stats_bytes = AM_R(am_train_stats_bytes),
    .state_arrays = AM_R(am_train_state_arrays),
    .is_direct = AM_R(am_train_is_direct),
    .step = AM_R(am_train_step),
    .activation_bytes = AM_R(am_pass_bytes),
    .hvp_bytes = AM_R(am_train_hvp_bytes),
};
