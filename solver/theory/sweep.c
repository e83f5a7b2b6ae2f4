/* Trajectories and the second-order term: see sweep.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "solver/theory/bound.h"
#include "solver/theory/spectrum.h"
#include "solver/linalg/vectors.h"
#include "solver/theory/vectors.h"

typedef struct sweep {
    const am_oracle *oracle;
    const double *theta0;
    const am_theory_setting *setting;
    int64_t n, last; /* parameters; the largest k */
    double *room;    /* owned: all vectors below, [n] each */
    double *at;      /* where the oracle is asked */
    double *moved;   /* displacement of a trajectory */
    double *total;   /* sum_t grad L_t, or of a task alone its first gradient */
    double *product, *c, *gap, *size;
    double *gradient; /* [tasks][n] */
    double *rest;     /* [tasks][n] sum_m r_t */
    double *tau;      /* [n_k][n] sum_t tau_t^(k) */
    double *curve;    /* [tasks][n] with norms: the last eigenvector of each task's Hessian */
    double *path;     /* [last] owned: eta times the norms of all gradients up to step i */
} sweep;

int64_t am_theory_measure_vectors(int64_t tasks, int64_t n_k, bool has_norms)
{
    return 7 + (has_norms ? 3 : 2) * tasks + n_k;
}

static int make(sweep *s)
{
    const int64_t T = s->setting->tasks;
    s->room = am_new(am_theory_measure_vectors(T, s->setting->n_k, s->setting->has_norms) * s->n,
                     sizeof *s->room, "trajectories");
    s->path = am_new(s->last, sizeof *s->path, "trajectories");
    if (s->room == NULL || s->path == NULL) {
        return AM_E_NOMEM;
    }
    double **const each[] = {&s->at,  &s->moved, &s->total,    &s->product, &s->c,
                             &s->gap, &s->size,  &s->gradient, &s->rest,    &s->tau};
    double *next = s->room;
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        *each[i] = next;
        next += s->n * (each[i] == &s->gradient || each[i] == &s->rest ? T : 1);
    }
    s->curve = next + s->n * (s->setting->n_k - 1);
    return AM_OK;
}

static void zero(const sweep *s, double *x)
{
    memset(x, 0, (size_t)s->n * sizeof *x);
}

static void go_to(const sweep *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        s->at[i] = s->theta0[i] + s->moved[i];
    }
}

/* ---- a task alone ---- */

/* k = `steps` has been reached: its task vector joins the sum. */
static void collect(const sweep *s, int64_t steps)
{
    for (int j = 0; j < s->setting->n_k; j++) {
        if (s->setting->k[j] == steps) {
            am_vector_add(s->n, 1, s->moved, s->tau + j * s->n);
        }
    }
    for (int64_t i = 0; steps == 1 && i < s->n; i++) {
        s->size[i] += fabs(s->moved[i]);
    }
}

static int task_all(const sweep *s, int task, am_theory_epoch *epoch)
{
    double *gradient = s->gradient, sum = 0;
    int rc = AM_OK;
    zero(s, s->moved);
    for (int64_t i = 0; i < s->last; i++) {
        go_to(s);
        AM_TRY(s->oracle->gradient_all(s->oracle->self, task, s->at, &epoch[i].loss, gradient));
        if (i == 0) {
            memcpy(s->total, gradient, (size_t)s->n * sizeof *gradient);
        }
        am_vector_add(s->n, -s->setting->eta, gradient, s->moved);
        epoch[i].norm = am_theory_norm(s->n, gradient);
        epoch[i].cosine_first = am_theory_cosine(s->n, gradient, s->total);
        epoch[i].cosine_tau = -am_theory_cosine(s->n, s->moved, s->total);
        sum += epoch[i].norm;
        s->path[i] += s->setting->eta * sum;
        collect(s, i + 1);
    }
    for (int64_t i = 0; i < s->last; i++) {
        epoch[i].share = epoch[i].norm / sum;
    }
cleanup:
    return rc;
}

/* ---- the tasks together ---- */

/* The largest of a measured quantity so far. A NaN stays. */
static void take_most(double *most, double value)
{
    *most = value > *most || isnan(value) ? value : *most;
}

/* total := sum_t grad L_t;  rest_t += grad L_t - alpha total */
static int gradients_all(const sweep *s, double alpha, double *loss, double *norm)
{
    int rc = AM_OK;
    const int T = s->setting->tasks;
    *loss = *norm = 0;
    zero(s, s->total);
    for (int t = 0; t < T; t++) {
        double of_task = NAN, *gradient = s->gradient + t * s->n;
        AM_TRY(s->oracle->gradient_all(s->oracle->self, t, s->at, &of_task, gradient));
        *loss += of_task;
        take_most(norm, am_theory_norm(s->n, gradient));
        am_vector_add(s->n, 1, gradient, s->total);
    }
    for (int t = 0; t < T; t++) {
        am_vector_add(s->n, 1, s->gradient + t * s->n, s->rest + t * s->n);
        am_vector_add(s->n, -alpha, s->total, s->rest + t * s->n);
    }
cleanup:
    return rc;
}

/* c += sum_t H_t(theta_MT^(e)) rest_t, and the norms at that point into `most`. */
static int curvature_all(const sweep *s, am_theory_row *most)
{
    int rc = AM_OK;
    double gradient = NAN, hessian = NAN;
    for (int t = 0; t < s->setting->tasks; t++) {
        AM_TRY(s->oracle->product_all(s->oracle->self, t, s->at, s->rest + t * s->n, s->product));
        am_vector_add(s->n, 1, s->product, s->c);
        if (s->setting->has_norms) {
            AM_TRY(am_theory_hessian_norm_all(s->oracle, t, s->at, s->setting->seed,
                                              s->curve + t * s->n, &hessian));
        }
        take_most(&most->hessian, hessian);
    }
    if (s->oracle->constants != NULL) {
        rc = s->oracle->constants(s->oracle->self, s->setting->tasks, s->at, &gradient, &hessian);
        AM_AGREE(s->oracle->comm);
    } else {
        gradient = hessian = NAN;
    }
    take_most(&most->net_gradient, gradient);
    take_most(&most->net_hessian, hessian);
cleanup:
    return rc;
}

/* theta_MT has made k steps, c holds what they need. */
static void fill(const sweep *s, double alpha, int j, am_theory_row *row)
{
    const am_theory_setting *setting = s->setting;
    const int64_t n = s->n, k = setting->k[j];
    const double *tau = s->tau + j * n, factor = alpha * setting->eta * setting->eta;
    row->ulps = NAN;
    if (k == 1) { /* theta_TA, theta_MT, and what was added up to make them */
        for (int64_t i = 0; i < n; i++) {
            s->gap[i] = s->theta0[i] + alpha * tau[i];
            s->product[i] = s->theta0[i] + s->moved[i];
        }
        row->ulps = am_theory_ulps(n, s->gap, s->product, alpha, s->size);
    }
    for (int64_t i = 0; i < n; i++) {
        s->gap[i] = alpha * tau[i] - s->moved[i];
    }
    row->gap = am_theory_norm(n, s->gap);
    row->c = am_theory_norm(n, s->c);
    row->term = fabs(factor) * row->c;
    row->noise = AM_THEORY_GRADIENT_NOISE * fabs(alpha) * s->path[k - 1];
    am_vector_add(n, -factor, s->c, s->gap);
    row->residual = am_theory_norm(n, s->gap);
    row->printed = am_theory_bound_printed(setting->tasks, k, alpha, row->gradient, row->hessian);
    row->derived = am_theory_bound_derived(setting->tasks, k, alpha, row->gradient, row->hessian);
    row->net_printed =
        am_theory_bound_printed(setting->tasks, k, alpha, row->net_gradient, row->net_hessian);
    row->net_derived =
        am_theory_bound_derived(setting->tasks, k, alpha, row->net_gradient, row->net_hessian);
}

static int together_all(const sweep *s, double alpha, am_theory_row *rows)
{
    const int T = s->setting->tasks, n_k = s->setting->n_k;
    am_theory_row most = {0};
    double loss = NAN, norm = NAN;
    int rc = AM_OK;
    zero(s, s->moved);
    zero(s, s->c);
    memset(s->rest, 0, (size_t)(T * s->n) * sizeof *s->rest);
    for (int64_t e = 0; e < s->last; e++) {
        go_to(s);
        AM_TRY(gradients_all(s, alpha, &loss, &norm));
        am_vector_add(s->n, -(alpha * s->setting->eta), s->total, s->moved);
        for (int j = 0; j < n_k; j++) {
            if (s->setting->k[j] == e + 1) {
                rows[j] = most;
                rows[j].loss = loss;
                fill(s, alpha, j, &rows[j]);
            }
        }
        if (e + 1 < s->last) {
            take_most(&most.gradient, norm);
            AM_TRY(curvature_all(s, &most));
        }
    }
cleanup:
    return rc;
}

/* ---- public ---- */

int am_theory_measure_all(const am_oracle *oracle, const double *theta0,
                          const am_theory_setting *setting, am_theory_row *rows,
                          am_theory_epoch *epochs)
{
    sweep s = {.oracle = oracle,
               .theta0 = theta0,
               .setting = setting,
               .n = oracle->n,
               .last = setting->k[setting->n_k - 1]};
    int rc = make(&s);
    AM_AGREE(oracle->comm);
    for (int t = 0; t < setting->tasks; t++) {
        AM_TRY(task_all(&s, t, epochs + t * s.last));
    }
    for (int a = 0; a < setting->n_alphas; a++) {
        AM_TRY(together_all(&s, setting->alpha[a], rows + a * setting->n_k));
    }
cleanup:
    free(s.room);
    free(s.path);
    return rc;
}

int am_theory_descend_all(const am_oracle *oracle, const double *theta0, int tasks, double step,
                          int64_t epochs, double *theta)
{
    const int64_t n = oracle->n;
    double *room = am_new(3 * n, sizeof *room, "a trajectory");
    int rc = room == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(oracle->comm);
    sweep s = {.oracle = oracle, .theta0 = theta0, .n = n, .at = theta, .moved = room};
    s.total = room + n;
    s.gradient = room + 2 * n;
    zero(&s, s.moved);
    for (int64_t e = 0; e < epochs; e++) {
        go_to(&s);
        zero(&s, s.total);
        for (int t = 0; t < tasks; t++) {
            double loss;
            AM_TRY(oracle->gradient_all(oracle->self, t, s.at, &loss, s.gradient));
            am_vector_add(n, 1, s.gradient, s.total);
        }
        am_vector_add(n, -step, s.total, s.moved);
    }
    go_to(&s);
cleanup:
    free(room);
    return rc;
}
