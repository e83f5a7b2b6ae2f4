/* A step: from the gradient vector to new weights.
 *
 * The unit of work is a run: consecutive elements of one tensor between two multiples of
 * AM_TREE_UNIT in the gradient vector. A slice is whole units, so runs do not depend on the ranks,
 * and what is summed over them (norms, by am_exact) does not either.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"

/* A run: elements [lo, lo + n) of a segment, all of tensor k. */
typedef struct am_run {
    int segment;
    int64_t k, lo, n;
} am_run;

typedef int (*am_run_function)(am_stepper *p, const am_run *run, real *g, double scale);

/* Call f for every run of a segment's trained tensors, or of its statistics, that this rank holds,
 * in order, until it returns not 0. */
static int am_runs_of(am_stepper *p, int segment, bool trained, real *g, double scale,
                      am_run_function f)
{
    const am_train_segment *s = &p->state->segment[segment];
    int rc = 0;
    for (int64_t k = 0; k < s->layout.tensors.n && rc == 0; k++) {
        const int64_t from = s->layout.offset[k], to = from + s->layout.tensors.t[k].numel;
        const bool is_one = trained ? am_param_is_trained(&s->layout, k) : s->layout.rate[k] != 0;
        const int64_t end = !is_one ? from : to < s->hi ? to : s->hi;
        for (int64_t lo = from > s->lo ? from : s->lo; lo < end && rc == 0;) {
            const int64_t next = ((s->at + lo) / AM_TREE_UNIT + 1) * AM_TREE_UNIT - s->at;
            const am_run run = {segment, k, lo, (next < end ? next : end) - lo};
            rc = f(p, &run, g + s->at + lo, scale);
            lo += run.n;
        }
    }
    return rc;
}

static int am_runs(am_stepper *p, int segment, real *g, double scale, am_run_function f)
{
    return am_runs_of(p, segment, true, g, scale, f);
}

/* ---- bf16 weights ---- */

#if AM_REAL == 32
/* w := master rounded to bf16, nearest even; what is not finite stays as it is. */
AM_CLONES static void am_round_bf16(int64_t n, const float *master, float *w)
{
    for (int64_t i = 0; i < n; i++) {
        union {
            float f;
            uint32_t u;
        } x = {.f = master[i]};
        const uint32_t rounded = (x.u + 0x7fffu + (x.u >> 16 & 1)) & 0xffff0000u;
        x.u = (x.u & 0x7f800000u) == 0x7f800000u ? x.u : rounded;
        w[i] = x.f;
    }
}
#else
static void am_round_bf16(int64_t n, const double *master, double *w)
{
    memcpy(w, master, (size_t)n * sizeof *w); /* am_train_all refuses bf16 weights in f64 */
}
#endif

/* The weights of tensor k of a segment. */
static real *am_home_of(const am_stepper *p, int segment, int64_t k)
{
    return p->w[segment] + p->state->segment[segment].layout.home[k];
}

/* The weights of a run. */
static real *am_weights_at(const am_stepper *p, const am_run *run)
{
    const am_param_layout *layout = &p->state->segment[run->segment].layout;
    return am_home_of(p, run->segment, run->k) + (run->lo - layout->offset[run->k]);
}

/* The array of a segment at an element of it. */
static real *am_array_at(const am_train_segment *s, int array, int64_t lo)
{
    return (real *)s->array[array] + (lo - s->lo);
}

/* The part of tensor k of a segment that this rank holds, from the weights to the masters. */
static void am_fill_master(am_stepper *p, int segment, int64_t k)
{
    const am_train_segment *s = &p->state->segment[segment];
    const int64_t from = s->layout.offset[k], to = from + s->layout.tensors.t[k].numel;
    const int64_t lo = from > s->lo ? from : s->lo, hi = to < s->hi ? to : s->hi;
    if (hi > lo) {
        memcpy(am_array_at(s, p->state->arrays - 1, lo), am_home_of(p, segment, k) + (lo - from),
               (size_t)(hi - lo) * sizeof(real));
    }
}

static void am_fill_masters(am_stepper *p)
{
    for (int i = 0; i < p->state->n; i++) {
        am_train_segment *s = &p->state->segment[i];
        for (int64_t k = 0; k < s->layout.tensors.n; k++) { /* rounding is idempotent */
            real *w = am_home_of(p, i, k);
            if (!s->has_master) {
                am_fill_master(p, i, k);
            }
            am_round_bf16(s->layout.rate[k] == 0 ? s->layout.tensors.t[k].numel : 0, w, w);
        }
        s->has_master = true;
    }
}

/* ---- make ---- */

static int am_stepper_decays(am_stepper *p)
{
    p->decays = am_new(p->state->n, sizeof *p->decays, "a step");
    int rc = p->decays == NULL ? AM_E_NOMEM : 0;
    for (int i = 0; rc == 0 && i < p->state->n; i++) {
        const am_tensor_table *tensors = &p->state->segment[i].layout.tensors;
        p->decays[i] = am_new(tensors->n + 1, sizeof **p->decays, "a step");
        rc = p->decays[i] == NULL ? AM_E_NOMEM : 0;
        for (int64_t k = 0; rc == 0 && k < tensors->n; k++) {
            p->decays[i][k] = am_optim_decays(&p->options, tensors->t[k].name);
        }
    }
    return rc;
}

int AM_R(am_stepper_make)(am_train_state *state, const am_optim_options *options, real *const *w,
                          bool wants_energy, am_stepper *out)
{
    *out = (am_stepper){.state = state,
                        .optim = AM_R(am_optim_table)[options->method],
                        .options = *options,
                        .has_master = options->bf16_weights};
    am_stepper *p = out;
    int64_t most = 1;
    for (int i = 0; i < state->n; i++) {
        const int64_t n = state->segment[i].layout.tensors.n;
        most = n > most ? n : most;
    }
    int rc = am_stepper_decays(p);
    p->w = am_new(state->n, sizeof *p->w, "a step");
    rc = rc == 0 && p->w == NULL ? AM_E_NOMEM : rc;
    if (rc == 0) {
        memcpy(p->w, w, (size_t)state->n * sizeof *w);
    }
    if (rc == 0 && p->optim->direct != NULL) {
        p->norms = am_new(2 * most, sizeof *p->norms, "a step");
        rc = p->norms == NULL ? AM_E_NOMEM : 0;
    }
    if (rc == 0 && state->is_sharded) {
        p->lengths = am_new(2 * (int64_t)state->size, sizeof *p->lengths, "a step");
        rc = p->lengths == NULL ? AM_E_NOMEM : 0;
    }
    if (rc == 0 && wants_energy) {
        p->energy = am_new(state->segment[0].layout.tensors.n + 1, sizeof *p->energy, "a step");
        rc = p->energy == NULL ? AM_E_NOMEM : 0;
    }
    if (rc == 0 && p->has_master) {
        am_fill_masters(p);
    }
    return rc;
}

void AM_R(am_stepper_free)(am_stepper *p)
{
    for (int i = 0; p->decays != NULL && i < p->state->n; i++) {
        free(p->decays[i]);
    }
    free(p->decays);
    free(p->w);
    free(p->norms);
    free(p->lengths);
    free(p->energy);
    *p = (am_stepper){0};
}

/* ---- one run ---- */

static am_train_segment *am_segment_of(const am_stepper *p, const am_run *run)
{
    return &p->state->segment[run->segment];
}

static const am_optim_options *am_options_of(const am_stepper *p, const am_run *run)
{
    return p->decays[run->segment][run->k] ? &p->options : &p->no_decay;
}

/* The numbers that the optimiser moves: the masters, or the weights themselves. */
static real *am_moved(const am_stepper *p, const am_run *run)
{
    return p->has_master ? am_array_at(am_segment_of(p, run), p->state->arrays - 1, run->lo)
                         : am_weights_at(p, run);
}

static void am_run_arrays(const am_stepper *p, const am_run *run, real **array)
{
    for (int i = 0; i < p->state->arrays && i < AM_OPTIM_MAX_STATES; i++) {
        array[i] = am_array_at(am_segment_of(p, run), i, run->lo);
    }
}

/* After a move: weights from masters, energy of the update from what was before. */
static void am_run_moved(am_stepper *p, const am_run *run, const real *before)
{
    real *w = am_weights_at(p, run);
    if (p->has_master) {
        am_round_bf16(run->n, am_moved(p, run), w);
    }
    if (p->energy != NULL && run->segment == 0) {
        real difference[AM_TREE_UNIT];
        for (int64_t i = 0; i < run->n; i++) {
            difference[i] = w[i] - before[i];
        }
        am_exact_add(&p->energy[run->k], AM_R(am_norm2)(difference, run->n));
    }
}

static void am_run_keep(const am_stepper *p, const am_run *run, real *before)
{
    if (p->energy != NULL && run->segment == 0) {
        memcpy(before, am_weights_at(p, run), (size_t)run->n * sizeof *before);
    }
}

static int am_run_update(am_stepper *p, const am_run *run, real *g, double scale)
{
    real before[AM_TREE_UNIT], *array[AM_OPTIM_MAX_STATES] = {NULL};
    am_run_keep(p, run, before);
    am_run_arrays(p, run, array);
    p->optim->update(am_options_of(p, run), am_segment_of(p, run)->steps, scale, run->n,
                     am_moved(p, run), g, array);
    am_run_moved(p, run, before);
    return 0;
}

static int am_run_direct(am_stepper *p, const am_run *run, real *g, double scale)
{
    real *array[AM_OPTIM_MAX_STATES] = {NULL};
    const real *w = am_moved(p, run);
    am_run_arrays(p, run, array);
    p->optim->direct(am_options_of(p, run), am_segment_of(p, run)->steps, scale, run->n, w, g,
                     array);
    am_exact_add(&p->norms[2 * run->k], AM_R(am_norm2)(w, run->n));
    am_exact_add(&p->norms[2 * run->k + 1], AM_R(am_norm2)(g, run->n));
    return 0;
}

static int am_run_move(am_stepper *p, const am_run *run, real *g, double scale)
{
    real before[AM_TREE_UNIT];
    const double w_norm = sqrt(am_exact_round(&p->norms[2 * run->k]));
    const double u_norm = sqrt(am_exact_round(&p->norms[2 * run->k + 1]));
    (void)scale;
    am_run_keep(p, run, before);
    AM_R(am_optim_move)
    (p->options.lr * p->optim->trust(w_norm, u_norm), run->n, am_moved(p, run), g);
    am_run_moved(p, run, before);
    return 0;
}

/* A running statistic moves towards its mean over the leaves of the step; scale: 1 / the parts that
 * were added up. */
static int am_run_statistic(am_stepper *p, const am_run *run, real *g, double scale)
{
    real *w = am_weights_at(p, run);
    const double rate = am_segment_of(p, run)->layout.rate[run->k];
    for (int64_t i = 0; i < run->n; i++) {
        w[i] = (real)((double)w[i] + rate * (scale * (double)g[i] - (double)w[i]));
    }
    return 0;
}

/* Add the norm of a run; 1 if it is not finite. */
static int am_run_norm(am_stepper *p, const am_run *run, real *g, double scale)
{
    const double norm2 = AM_R(am_norm2)(g, run->n);
    (void)scale;
    am_exact_add(&p->norm2, norm2);
    return isfinite(norm2) ? 0 : 1;
}

static int am_run_norm_and_update(am_stepper *p, const am_run *run, real *g, double scale)
{
    return am_run_norm(p, run, g, scale) != 0 ? 1 : am_run_update(p, run, g, scale);
}

/* ---- a step ---- */

/* Between the weights of a segment and `flat`, where its tensors lie end to end: elements
 * [lo, hi). */
static void am_flatten(am_stepper *p, int segment, bool is_back, int64_t lo, int64_t hi, real *flat)
{
    const am_param_layout *layout = &p->state->segment[segment].layout;
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const int64_t at = layout->offset[k], to = at + layout->tensors.t[k].numel;
        const int64_t first = at > lo ? at : lo, last = to < hi ? to : hi;
        real *w = am_home_of(p, segment, k) + (first - at);
        if (last > first) {
            memcpy(is_back ? w : flat + first, is_back ? flat + first : w,
                   (size_t)(last - first) * sizeof(real));
        }
    }
}

/* The slices of a segment's weights to everybody. They travel through g, whose part of the gradient
 * is no longer needed, when frozen tensors lie between them. */
static int am_gather_weights_all(am_stepper *p, int segment, real *g)
{
    const am_train_state *state = p->state;
    const am_train_segment *s = &state->segment[segment];
    const int64_t end = s->layout.tensors.n - 1;
    const bool has_gaps = end >= 0 && s->layout.home[end] != s->layout.offset[end];
    real *flat = has_gaps ? g + s->at : p->w[segment];
    int64_t *at = p->lengths, *bytes = at + state->size;
    for (int r = 0; r < state->size; r++) {
        int64_t lo = 0, hi = 0;
        am_train_state_held(state, segment, r, &lo, &hi);
        at[r] = lo * (int64_t)sizeof(real);
        bytes[r] = (hi - lo) * (int64_t)sizeof(real);
    }
    if (has_gaps) {
        am_flatten(p, segment, false, s->lo, s->hi, flat);
    }
    const int rc = am_gather_all(state->comm, flat, bytes, at);
    if (rc == 0 && has_gaps) {
        am_flatten(p, segment, true, 0, s->layout.n, flat);
    }
    return rc;
}

/* The norms of all tensors of a segment: each rank has added its runs. */
static int am_sum_norms_all(am_stepper *p, int segment)
{
    const int64_t n = 2 * p->state->segment[segment].layout.tensors.n;
    return p->state->is_sharded ? am_exact_sum_all(p->state->comm, p->norms, n) : 0;
}

/* The steps of all listed segments once the norm is known. */
static int am_step_known_all(am_stepper *p, double scale, real *g, const int *segment, int n)
{
    int rc = 0;
    for (int i = 0; i < n; i++) {
        const int at = segment[i];
        p->state->segment[at].steps++;
        if (p->norms == NULL) {
            (void)am_runs(p, at, g, scale, am_run_update);
        } else {
            memset(p->norms, 0,
                   2 * (size_t)p->state->segment[at].layout.tensors.n * sizeof *p->norms);
            (void)am_runs(p, at, g, scale, am_run_direct);
            AM_TRY(am_sum_norms_all(p, at));
            (void)am_runs(p, at, g, scale, am_run_move);
        }
        (void)am_runs_of(p, at, false, g, 1 / (double)(n - 1), am_run_statistic);
        if (p->state->is_sharded) {
            AM_TRY(am_gather_weights_all(p, at, g));
        }
    }
cleanup:
    return rc;
}

/* Norm of the listed segments, and whether any rank asks for attention. */
static int am_step_norm_all(am_stepper *p, real *g, const int *segment, int n, bool *attention)
{
    int rc = 0, bad = 0;
    for (int i = 0; i < n && bad == 0; i++) {
        bad = am_runs(p, segment[i], g, 1, am_run_norm);
    }
    if (p->state->is_sharded) {
        am_exact both[2] = {p->norm2};
        am_exact_zero(&both[1]);
        am_exact_add(&both[1], *attention ? 1 : 0);
        AM_TRY(am_exact_sum_all(p->state->comm, both, 2));
        p->norm2 = both[0];
        *attention = am_exact_round(&both[1]) > 0;
    }
cleanup:
    return rc;
}

int AM_R(am_stepper_step_all)(am_stepper *p, double lr, real *g, const int *segment, int n,
                              bool *attention, bool *diverged)
{
    const double clip = p->options.clip;
    const bool is_known = clip > 0 || p->state->is_sharded || p->norms != NULL;
    double scale = 1;
    int rc = 0, bad = 0;
    p->options.lr = lr;
    p->no_decay = p->options;
    p->no_decay.weight_decay = 0;
    am_exact_zero(&p->norm2);
    if (is_known) {
        AM_TRY(am_step_norm_all(p, g, segment, n, attention));
        p->norm = sqrt(am_exact_round(&p->norm2));
        *diverged = !isfinite(p->norm);
        if (*diverged || (p->state->is_sharded && *attention)) {
            goto cleanup; /* the same on all ranks */
        }
        scale = clip > 0 && p->norm > clip ? clip / p->norm : 1;
        AM_TRY(am_step_known_all(p, scale, g, segment, n));
        goto cleanup;
    }
    for (int i = 0; i < n && bad == 0; i++) {
        p->state->segment[segment[i]].steps++;
        bad = am_runs(p, segment[i], g, scale, am_run_norm_and_update);
    }
    for (int i = 0; i < n && bad == 0; i++) {
        (void)am_runs_of(p, segment[i], false, g, 1 / (double)(n - 1), am_run_statistic);
    }
    p->norm = sqrt(am_exact_round(&p->norm2));
    *diverged = !isfinite(p->norm);
cleanup:
    return rc;
}
