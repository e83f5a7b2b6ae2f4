/* Optimisers against the theory: see optimizers.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/optimizers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "solver/linalg/vectors.h"
#include "solver/theory/vectors.h"
#include "solver/training/train.h"

enum { STATES = 2, VECTORS = 5 + STATES };

typedef struct runner {
    const am_oracle *oracle;
    const double *theta0;
    const am_theory_setting *setting;
    const am_theory_rule *rule;
    int64_t n, last; /* parameters; the largest k */
    double *room;    /* owned: all vectors below, [n] each */
    double *at;      /* where the oracle is asked */
    double *moved;   /* displacement of a trajectory; the optimiser's weights */
    double *total, *gradient, *step;
    double *state[STATES];
    double *tau;    /* [n_k][n] sum_t tau_t^(k) */
    double *length; /* [last] owned: sum_t of the length of the path of task t up to epoch i */
} runner;

int64_t am_theory_compare_vectors(int64_t n_k)
{
    return VECTORS + n_k;
}

static int make(runner *r)
{
    r->room =
        am_new(am_theory_compare_vectors(r->setting->n_k) * r->n, sizeof *r->room, "trajectories");
    r->length = am_new(r->last, sizeof *r->length, "trajectories");
    if (r->room == NULL || r->length == NULL) {
        return AM_E_NOMEM;
    }
    double **const each[] = {&r->at,   &r->moved,    &r->total,    &r->gradient,
                             &r->step, &r->state[0], &r->state[1], &r->tau};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        *each[i] = r->room + (int64_t)i * r->n;
    }
    return AM_OK;
}

/* The sum of tasks [first, end) on one batch, at theta_0 + moved, into total. */
static int gradient_all(const runner *r, int first, int end, int64_t batch)
{
    const am_oracle *oracle = r->oracle;
    int rc = AM_OK;
    for (int64_t i = 0; i < r->n; i++) {
        r->at[i] = r->theta0[i] + r->moved[i];
    }
    memset(r->total, 0, (size_t)r->n * sizeof *r->total);
    for (int t = first; t < end; t++) {
        double loss;
        if (r->rule->batches > 1) {
            AM_TRY(oracle->batch_all(oracle->self, t, batch, r->rule->batches, r->at, &loss,
                                     r->gradient));
        } else {
            AM_TRY(oracle->gradient_all(oracle->self, t, r->at, &loss, r->gradient));
        }
        am_vector_add(r->n, 1, r->gradient, r->total);
    }
cleanup:
    return rc;
}

/* What is done with a trajectory after `epochs` epochs of this `length`. */
typedef void (*visit)(const runner *r, int64_t epochs, double length, void *self);

/* A trajectory of tasks [first, end) together. Its weights are the displacement, which no decay
 * draws to zero: small steps are not rounded to the grid of theta_0. */
static int descend_all(const runner *r, int first, int end, double lr, visit at_epoch, void *self)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    const int64_t B = r->rule->batches;
    am_optim_options optim = r->rule->optim;
    double length = 0;
    int rc = AM_OK;
    optim.lr = lr;
    optim.weight_decay = 0;
    memset(r->moved, 0, (size_t)r->n * sizeof *r->moved);
    for (int i = 0; i < STATES; i++) {
        memset(r->state[i], 0, (size_t)r->n * sizeof *r->state[i]);
    }
    for (int64_t i = 0; i < r->last * B; i++) {
        AM_TRY(gradient_all(r, first, end, i % B));
        memcpy(r->step, r->moved, (size_t)r->n * sizeof *r->step);
        ops->step(&optim, i + 1, r->n, r->moved, r->total, (void *const *)r->state);
        am_vector_add(r->n, -1, r->moved, r->step);
        length += am_theory_norm(r->n, r->step);
        if ((i + 1) % B == 0) {
            at_epoch(r, (i + 1) / B, length, self);
        }
    }
cleanup:
    return rc;
}

/* A task vector joins the sum. */
static void collect(const runner *r, int64_t epochs, double length, void *self)
{
    (void)self;
    r->length[epochs - 1] += length;
    for (int j = 0; j < r->setting->n_k; j++) {
        if (r->setting->k[j] == epochs) {
            am_vector_add(r->n, 1, r->moved, r->tau + j * r->n);
        }
    }
}

typedef struct comparison {
    double alpha;
    am_theory_compared *row; /* [n_k] */
} comparison;

static void compare(const runner *r, int64_t epochs, double length, void *self)
{
    const comparison *c = self;
    (void)length;
    for (int j = 0; j < r->setting->n_k; j++) {
        if (r->setting->k[j] != epochs) {
            continue;
        }
        am_theory_compared *row = &c->row[j];
        double *gap = r->step; /* is not needed before the next step */
        for (int64_t i = 0; i < r->n; i++) {
            gap[i] = c->alpha * r->tau[j * r->n + i] - r->moved[i];
        }
        row->gap = am_theory_norm(r->n, gap);
        row->path = am_theory_norm(r->n, r->moved);
        row->relative = row->gap / row->path;
        row->cosine = copysign(1, c->alpha) * am_theory_cosine(r->n, r->tau + j * r->n, r->moved);
        row->noise = AM_THEORY_GRADIENT_NOISE * fabs(c->alpha) * r->length[epochs - 1];
    }
}

int am_theory_compare_all(const am_oracle *oracle, const double *theta0,
                          const am_theory_setting *setting, const am_theory_rule *rule,
                          am_theory_compared *rows)
{
    runner r = {.oracle = oracle,
                .theta0 = theta0,
                .setting = setting,
                .rule = rule,
                .n = oracle->n,
                .last = setting->k[setting->n_k - 1]};
    int rc = make(&r);
    if (rc == AM_OK && rule->batches > 1 && oracle->batch_all == NULL) {
        rc = am_fail(AM_E_BUG, "the problem has no samples to make batches of");
    }
    AM_AGREE(oracle->comm);
    for (int t = 0; t < setting->tasks; t++) {
        AM_TRY(descend_all(&r, t, t + 1, setting->eta, collect, NULL));
    }
    for (int a = 0; a < setting->n_alphas; a++) {
        comparison c = {.alpha = setting->alpha[a], .row = rows + a * setting->n_k};
        AM_TRY(descend_all(&r, 0, setting->tasks, c.alpha * setting->eta, compare, &c));
    }
cleanup:
    free(r.room);
    free(r.length);
    return rc;
}
