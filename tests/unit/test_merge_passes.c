/* Passes of the merge engine against a full sort and sums in long double: orders with ties, zeros
 * and equal keys, sums over what an order chose, rows, scopes; the same bytes for any number of
 * ranks and any block size. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/merge/memory.h"
#include "solver/merge/merge.h"
#include "solver/merge/order.h"
#include "tests/am_test.h"

enum { MODELS = 2, TENSORS = 9, CUTS = 3 };

/* ---- a method that shows what the engine gave it ---- */

enum { SHOW, TAKE, BY_ROWS, PARAMS };
enum { SHOW_TOP, SHOW_SUMS, SHOW_CUTS, SHOW_RANDOM, SHOW_ROWS };

static const am_method_param probe_params[] = {
    [SHOW] = {.key = "show"}, [TAKE] = {.key = "take"}, [BY_ROWS] = {.key = "by_rows"}, {0}};

static float key_of(const am_tile *tile, int t, int64_t i)
{
    return fabsf((float)(tile->x[t][i] - tile->base[i]));
}

static int one_a_model(const am_unit *unit)
{
    return unit->models;
}

static void probe_keys(const am_tile *tile, float *const *key)
{
    for (int t = 0; t < tile->models; t++) {
        for (int64_t i = 0; i < tile->n; i++) {
            key[t][i] = key_of(tile, t, i);
        }
    }
}

/* Cuts of model t: its `take` largest, twice as many with all ties, and a third as many. */
static int probe_cuts(const am_unit *unit, am_cut *cut)
{
    const int64_t take = (int64_t)unit->param[TAKE];
    for (int t = 0; t < unit->models; t++) {
        cut[CUTS * t] = (am_cut){.stream = t, .take = take};
        cut[CUTS * t + 1] = (am_cut){.stream = t, .take = 2 * take, .all_ties = true};
        cut[CUTS * t + 2] = (am_cut){.stream = t, .take = take / 3};
    }
    return CUTS * unit->models;
}

/* Over what the first cut of each model chose: sum of the models; and the sum of the base. */
static int probe_count(const am_unit *unit)
{
    return unit->models + 1;
}

static void probe_sums(const am_tile *tile, double *sum)
{
    float *key = (float *)tile->scratch;
    double *kept = tile->scratch + tile->n;
    for (int t = 0; t < tile->models; t++) {
        for (int64_t i = 0; i < tile->n; i++) {
            key[i] = key_of(tile, t, i);
            kept[i] = tile->x[t][i];
        }
        am_tile_keep(tile, CUTS * t, key, kept);
        for (int64_t i = 0; i < tile->n; i++) {
            sum[t] += kept[i];
        }
    }
    for (int64_t i = 0; i < tile->n; i++) {
        sum[tile->models] += tile->base[i];
    }
}

static const char *probe_solve(const am_unit *unit)
{
    unit->state[0] = unit->sum[0] / (double)unit->n;
    return unit->param[SHOW] < 0 ? "it was asked to fail" : NULL;
}

/* Skipped for units of an odd size. Orders by distance from a state. */
static int last_count(const am_unit *unit)
{
    return unit->n % 2 == 0;
}

static void last_keys(const am_tile *tile, float *const *key)
{
    for (int64_t i = 0; i < tile->n; i++) {
        key[0][i] = fabsf((float)(tile->base[i] - tile->unit->state[0]));
    }
}

static int last_cuts(const am_unit *unit, am_cut *cut)
{
    cut[0].take = unit->n / 2;
    return 1;
}

static void show_tops(const am_tile *tile)
{
    static bool top[1 << 20];
    float *key = (float *)tile->scratch;
    for (int t = 0; t < tile->models; t++) {
        for (int64_t i = 0; i < tile->n; i++) {
            key[i] = key_of(tile, t, i);
        }
        for (int c = 0; c < CUTS; c++) {
            am_tile_top(tile, CUTS * t + c, key, top);
            for (int64_t i = 0; i < tile->n; i++) {
                tile->out[i] += top[i] ? pow(2, CUTS * t + c) : 0;
            }
        }
    }
}

static double show_one(const am_tile *tile, int64_t i)
{
    const am_unit *u = tile->unit;
    const int64_t cuts = CUTS * u->models + last_count(u);
    const am_cut *cut = &u->cut[(tile->lo + i) / 2 % cuts];
    switch ((int)tile->param[SHOW]) {
    case SHOW_SUMS:
        return u->sum[(tile->lo + i) % (u->models + 1)];
    case SHOW_CUTS:
        return (tile->lo + i) % 2 != 0 ? (double)cut->ties
               : isinf(cut->threshold) ? -1
                                       : cut->threshold;
    case SHOW_RANDOM:
        return am_rng_uniform(&tile->rng[tile->models - 1], tile->lo + i);
    default:
        return (double)(tile->rows * tile->cols == tile->n && tile->lo % tile->cols == 0);
    }
}

static void probe_combine(const am_tile *tile)
{
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = tile->param[SHOW] == SHOW_TOP ? 0 : show_one(tile, i);
    }
    if (tile->param[SHOW] == SHOW_TOP) {
        show_tops(tile);
    }
}

static bool probe_by_rows(const am_unit *unit)
{
    return unit->param[BY_ROWS] != 0;
}

static int two(int models)
{
    (void)models;
    return 2;
}

static int one_state(const am_unit *unit)
{
    (void)unit;
    return 1;
}

static const am_method probe = {
    .name = "probe",
    .needs_base = true,
    .min_models = 1,
    .params = probe_params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .by_rows = probe_by_rows,
    .states = one_state,
    .scratch = two,
    .n_passes = 3,
    .pass = {{.count = one_a_model, .keys = probe_keys, .cuts = probe_cuts},
             {.count = probe_count, .sums = probe_sums, .solve = probe_solve},
             {.count = last_count, .keys = last_keys, .cuts = last_cuts}},
    .combine = probe_combine};

/* ---- a scene ---- */

typedef struct scene {
    am_tensor_table tensors;
    int64_t offset[TENSORS], index[TENSORS], lacking[TENSORS], n;
    double *reals[MODELS + 2]; /* base, models, output */
    am_memory memory[MODELS + 2];
    am_source source[MODELS + 1];
    am_sink sink;
    am_merge_input input[MODELS + 1];
    double param[TENSORS * PARAMS], model_param[TENSORS * MODELS * PARAMS];
    bool copy[TENSORS];
    am_merge_job job;
} scene;

static const int64_t shapes[TENSORS][2] = {{1, 0},  {1, 1},    {1, 1001},  {7001, 3}, {2, 12001},
                                           {90, 7}, {9000, 1}, {1, 40000}, {40, 500}};

static void scene_close(scene *s)
{
    am_tensor_table_free(&s->tensors);
    for (int k = 0; k < MODELS + 2; k++) {
        free(s->reals[k]);
    }
}

static void set_param(scene *s, int p, double value)
{
    for (int i = 0; i < TENSORS; i++) {
        s->param[i * PARAMS + p] = value;
    }
}

static void scene_open(scene *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < TENSORS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "tensor.%02d", i);
        AM_CHECK_OK(
            am_tensor_table_add(&s->tensors, name, AM_DTYPE_F64, i == 1 ? 0 : 2, shapes[i]));
        s->offset[i] = s->n;
        s->n += shapes[i][0] * shapes[i][1];
        s->lacking[i] = i == 5 || i == 3 ? -1 : i;
    }
    AM_CHECK_OK(am_tensor_table_finish(&s->tensors));
    am_memory_identity(s->index, TENSORS);
    for (int k = 0; k < MODELS + 2; k++) {
        s->reals[k] = calloc((size_t)s->n, sizeof(double));
        AM_CHECK(s->reals[k] != NULL);
        s->memory[k] = (am_memory){.label = "memory",
                                   .tensors = &s->tensors,
                                   .dtype = AM_DTYPE_F64,
                                   .offset = s->offset,
                                   .reals = s->reals[k],
                                   .n = s->n};
    }
    for (int k = 0; k <= MODELS; k++) {
        s->source[k] = am_memory_source(&s->memory[k]);
        s->input[k] = (am_merge_input){.source = &s->source[k], .tensor = s->index};
    }
    s->sink = am_memory_sink(&s->memory[MODELS + 1]);
    s->job = (am_merge_job){.method = &probe,
                            .base = &s->input[0],
                            .n_models = MODELS,
                            .models = &s->input[1],
                            .sink = &s->sink,
                            .param = s->param,
                            .model_param = s->model_param,
                            .copy = s->copy,
                            .seed = 5,
                            .block = 1 << 20};
}

enum { NORMAL, FEW_VALUES, ALL_EQUAL, MOSTLY_ZERO, DATA_KINDS };

static void fill(scene *s, int kind)
{
    for (int k = 0; k <= MODELS; k++) {
        const am_rng rng = am_rng_make(am_test_seed(), "passes", kind, k, "");
        for (int64_t i = 0; i < s->n; i++) {
            const double x = am_rng_normal(&rng, i);
            s->reals[k][i] = kind == NORMAL       ? x * pow(10, (double)(i % 9) - 4)
                             : kind == FEW_VALUES ? round(x)
                             : kind == ALL_EQUAL  ? k
                             : i % 97 == 0        ? x
                                                  : 0;
        }
    }
}

static int run_all(scene *s, int64_t unit)
{
    am_slice slice;
    am_merge_result result;
    memset(s->reals[MODELS + 1], 0, (size_t)s->n * sizeof(double));
    AM_CHECK_OK(am_slice_make(&s->tensors, unit, am_world_size(), am_world_rank(), &slice));
    int rc = am_merge_run_all(am_world(), &s->job, &slice, &result);
    am_slice_free(&slice);
    if (rc == 0) { /* each element has one writer: the sum of bit patterns is the pattern */
        AM_CHECK_OK(am_sum_i64_all(am_world(), (int64_t *)(void *)s->reals[MODELS + 1], s->n));
    }
    return rc;
}

/* ---- the oracle: whole units, sorted ---- */

typedef struct oracle {
    int models, index[MODELS];
    int64_t n;
    int64_t *at; /* [n] elements of the unit */
    double *base, *x[MODELS];
    double sum[MODELS + 1], magnitude;
    am_cut cut[CUTS * MODELS + 1];
    bool *top[CUTS * MODELS]; /* [n] */
} oracle;

typedef struct ranked {
    float key;
    int64_t at;
} ranked;

static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key)
                            : (x->at > y->at) - (x->at < y->at);
}

static void sort_cut(const oracle *o, ranked *r, am_cut *cut, bool *top)
{
    const int64_t take = cut->take > o->n ? o->n : cut->take;
    int64_t end = take;
    qsort(r, (size_t)o->n, sizeof *r, compare_ranked);
    cut->threshold = take == 0 ? INFINITY : r[take - 1].key;
    while (take > 0 && cut->all_ties && end < o->n && r[end].key == cut->threshold) {
        end++;
    }
    cut->ties = 0;
    for (int64_t i = 0; i < end; i++) {
        cut->ties += r[i].key == cut->threshold;
        if (top != NULL) {
            top[r[i].at] = true;
        }
    }
}

static double magnitude(const oracle *o)
{
    double sum = 0;
    for (int64_t i = 0; i < o->n; i++) {
        sum += fabs(o->base[i]) + fabs(o->x[0][i]) + fabs(o->x[o->models - 1][i]);
    }
    return sum;
}

static void oracle_open(oracle *o, const scene *s, int tensor, int64_t take)
{
    const int64_t first = tensor < 0 ? 0 : s->offset[tensor];
    memset(o, 0, sizeof *o);
    o->n = tensor < 0 ? s->n : s->tensors.t[tensor].numel;
    for (int m = 0; m < MODELS; m++) {
        if (tensor < 0 || s->job.models[m].tensor[tensor] >= 0) {
            o->index[o->models] = m;
            o->x[o->models++] = s->reals[m + 1] + first;
        }
    }
    o->base = s->reals[0] + first;
    ranked *r = calloc((size_t)o->n + 1, sizeof *r);
    AM_CHECK(r != NULL);
    for (int t = 0; t < o->models; t++) {
        const int64_t takes[CUTS] = {take, 2 * take, take / 3};
        for (int c = 0; c < CUTS; c++) {
            for (int64_t i = 0; i < o->n; i++) {
                r[i] = (ranked){fabsf((float)(o->x[t][i] - o->base[i])), i};
            }
            o->top[CUTS * t + c] = calloc((size_t)o->n + 1, sizeof(bool));
            o->cut[CUTS * t + c] = (am_cut){.take = takes[c], .all_ties = c == 1};
            sort_cut(o, r, &o->cut[CUTS * t + c], o->top[CUTS * t + c]);
        }
        long double sum = 0;
        for (int64_t i = 0; i < o->n; i++) {
            sum += o->top[CUTS * t][i] ? o->x[t][i] : 0;
        }
        o->sum[t] = (double)sum;
    }
    long double sum = 0;
    for (int64_t i = 0; i < o->n; i++) {
        sum += o->base[i];
    }
    o->sum[o->models] = (double)sum;
    o->magnitude = magnitude(o);
    free(r);
}

static void oracle_close(oracle *o)
{
    for (int c = 0; c < CUTS * MODELS; c++) {
        free(o->top[c]);
    }
}

/* The order by distance from sum[0] / n, of a unit of even size; the sum as the engine made it. */
static void oracle_last(oracle *o, double sum)
{
    ranked *r = calloc((size_t)o->n + 1, sizeof *r);
    AM_CHECK(r != NULL);
    for (int64_t i = 0; i < o->n; i++) {
        r[i] = (ranked){fabsf((float)(o->base[i] - sum / (double)o->n)), i};
    }
    o->cut[CUTS * o->models].take = o->n / 2;
    sort_cut(o, r, &o->cut[CUTS * o->models], NULL);
    free(r);
}

/* Compare all elements of a unit with the oracle. Elements show by their index in their tensor. */
static void check_unit(const scene *s, const oracle *o, int64_t at, int64_t i, int64_t j)
{
    const double got = s->reals[MODELS + 1][at];
    const int64_t cuts = CUTS * o->models + (o->n % 2 == 0);
    double expected = 0;
    switch ((int)s->param[SHOW]) {
    case SHOW_TOP:
        for (int c = 0; c < CUTS * o->models; c++) {
            expected += o->top[c][i] ? pow(2, c) : 0;
        }
        break;
    case SHOW_SUMS:
        AM_CHECK_NEAR(got, o->sum[j % (o->models + 1)], 1e-14 * o->magnitude);
        return;
    case SHOW_CUTS:
        expected = j % 2 != 0                              ? (double)o->cut[j / 2 % cuts].ties
                   : isinf(o->cut[j / 2 % cuts].threshold) ? -1
                                                           : o->cut[j / 2 % cuts].threshold;
        break;
    case SHOW_RANDOM:
        return; /* checked elsewhere */
    default:
        expected = 1;
    }
    AM_CHECK_SAME_F64(got, expected);
}

/* The first sum of each tensor's unit, as the engine made it. */
static void first_sums_all(scene *s, double *sum)
{
    const double show = s->param[SHOW];
    set_param(s, SHOW, SHOW_SUMS);
    AM_CHECK_OK(run_all(s, 4096));
    for (int t = 0; t < TENSORS; t++) {
        sum[t] = s->tensors.t[t].numel > 0 ? s->reals[MODELS + 1][s->offset[t]] : 0;
    }
    set_param(s, SHOW, show);
}

/* Every unit against the oracle; a unit is tensor t, or all of them for t < 0. */
static void compare_all(scene *s, int64_t unit, int64_t take)
{
    const bool is_global = s->job.scope == AM_SCOPE_GLOBAL;
    double sum[TENSORS];
    first_sums_all(s, sum);
    AM_CHECK_OK(run_all(s, unit));
    for (int t = is_global ? -1 : 0; t < (is_global ? 0 : TENSORS); t++) {
        oracle o;
        const int64_t first = t < 0 ? 0 : s->offset[t];
        int tensor = t < 0 ? 0 : t;
        oracle_open(&o, s, t, take);
        if (o.n % 2 == 0) {
            oracle_last(&o, sum[t < 0 ? 1 : t]); /* tensor 0 is empty */
        }
        const int step = s->param[SHOW] == SHOW_SUMS ? 101 : 1;
        for (int64_t i = 0; i < o.n; i += step) {
            while (t < 0 && i >= s->offset[tensor] + s->tensors.t[tensor].numel) {
                tensor++;
            }
            check_unit(s, &o, first + i, i, t < 0 ? i - s->offset[tensor] : i);
        }
        oracle_close(&o);
    }
}

static void orders_are_those_of_a_sort_all(void)
{
    static const int64_t takes[] = {0, 1, 500, 3000, 100000, 1000000};
    scene s;
    scene_open(&s);
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        fill(&s, kind);
        for (int k = kind % 2; k < 6; k += 2) {
            set_param(&s, TAKE, (double)takes[k]);
            set_param(&s, SHOW, (k / 2 + kind / 2) % 2 == 0 ? SHOW_TOP : SHOW_CUTS);
            s.job.scope = k % 3 == 1 ? AM_SCOPE_GLOBAL : AM_SCOPE_TENSOR;
            s.job.block = k < 3 ? 1 << 20 : 9000;
            compare_all(&s, k < 3 ? 8192 : 100, takes[k]);
        }
    }
    scene_close(&s);
}

static void sums_are_exact_all(void)
{
    scene s;
    scene_open(&s);
    set_param(&s, SHOW, SHOW_SUMS);
    set_param(&s, TAKE, 700);
    fill(&s, NORMAL);
    for (int k = 0; k < 2; k++) {
        s.job.scope = k == 0 ? AM_SCOPE_TENSOR : AM_SCOPE_GLOBAL;
        compare_all(&s, 4096, 700);
    }
    scene_close(&s);
}

/* A model that lacks tensors: absent with scope tensor, the base with scope global. */
static void absent_models_all(void)
{
    scene s;
    scene_open(&s);
    s.input[1].tensor = s.lacking;
    set_param(&s, TAKE, 300);
    fill(&s, FEW_VALUES);
    compare_all(&s, 4096, 300);
    s.job.scope = AM_SCOPE_GLOBAL;
    AM_CHECK_OK(run_all(&s, 4096));
    double *kept = malloc((size_t)s.n * sizeof *kept);
    AM_CHECK(kept != NULL);
    memcpy(kept, s.reals[MODELS + 1], (size_t)s.n * sizeof *kept);
    for (int i = 3; i <= 5; i += 2) {
        memcpy(s.reals[1] + s.offset[i], s.reals[0] + s.offset[i],
               (size_t)s.tensors.t[i].numel * sizeof(double));
    }
    s.input[1].tensor = s.index;
    AM_CHECK_OK(run_all(&s, 4096));
    AM_CHECK(memcmp(kept, s.reals[MODELS + 1], (size_t)s.n * sizeof *kept) == 0);
    free(kept);
    scene_close(&s);
}

/* The whole merge on each rank alone. */
static void run_alone_all(scene *s)
{
    am_slice slice;
    am_merge_result result;
    AM_CHECK_OK(am_slice_make(&s->tensors, 4096, 1, 0, &slice));
    AM_CHECK_OK(am_merge_run_all(MPI_COMM_SELF, &s->job, &slice, &result));
    am_slice_free(&slice);
}

/* The output does not depend on ranks, blocks, nor on where slices are cut; whole rows stay whole.
 */
static void same_bytes_for_any_cut_all(void)
{
    static const int64_t blocks[] = {1, 5000, 40000, 1 << 20};
    scene s;
    scene_open(&s);
    double *kept = malloc((size_t)s.n * sizeof *kept);
    AM_CHECK(kept != NULL);
    set_param(&s, TAKE, 2000);
    fill(&s, NORMAL);
    for (int k = 0; k < 20; k++) {
        set_param(&s, SHOW, k % 5);
        set_param(&s, BY_ROWS, k % 5 == SHOW_ROWS || k / 5 % 2);
        s.job.scope = k / 10 ? AM_SCOPE_GLOBAL : AM_SCOPE_TENSOR;
        run_alone_all(&s);
        memcpy(kept, s.reals[MODELS + 1], (size_t)s.n * sizeof *kept);
        for (int b = 0; b < 4; b++) {
            s.job.block = blocks[b];
            AM_CHECK_OK(run_all(&s, b % 2 ? 4096 : 300));
            AM_CHECK(memcmp(kept, s.reals[MODELS + 1], (size_t)s.n * sizeof *kept) == 0);
        }
        for (int64_t i = 0; k % 5 == SHOW_ROWS && i < s.n; i++) {
            AM_CHECK_SAME_F64(kept[i], 1.0);
        }
    }
    free(kept);
    scene_close(&s);
}

/* Random numbers belong to seed, method, model, tensor and index. */
static void random_numbers_have_their_keys_all(void)
{
    scene s;
    scene_open(&s);
    set_param(&s, SHOW, SHOW_RANDOM);
    fill(&s, NORMAL);
    s.input[1].tensor = s.lacking;
    s.job.block = 10000;
    AM_CHECK_OK(run_all(&s, 300));
    for (int t = 0; t < TENSORS; t++) {
        const am_rng rng = am_rng_make(5, "probe", 0, 1, s.tensors.t[t].name);
        for (int64_t i = 0; i < s.tensors.t[t].numel; i += 17) {
            AM_CHECK_SAME_F64(s.reals[MODELS + 1][s.offset[t] + i], am_rng_uniform(&rng, i));
        }
    }
    scene_close(&s);
}

static void errors_name_the_tensor_all(void)
{
    scene s;
    scene_open(&s);
    fill(&s, NORMAL);
    s.param[4 * PARAMS + SHOW] = -1;
    AM_CHECK_CODE(run_all(&s, 300), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "probe: tensor 'tensor.04': it was asked to fail");
    am_error_clear();
    set_param(&s, SHOW, -1);
    s.job.scope = AM_SCOPE_GLOBAL;
    AM_CHECK_CODE(run_all(&s, 300), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "probe: all tensors, from 'tensor.01': it was asked");
    am_error_clear();
    set_param(&s, SHOW, SHOW_TOP);
    s.reals[2][s.n - 1] = (double)NAN;
    AM_CHECK_CODE(run_all(&s, 300), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "tensor 'tensor.08': element 19999 is NaN");
    am_error_clear();
    s.input[0].tensor = s.lacking;
    AM_CHECK_CODE(run_all(&s, 300), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "tensor 'tensor.03' is not in the base");
    am_error_clear();
    scene_close(&s);
}

/* Digits of any width give the same cuts. */
static void digits_of_any_width(void)
{
    enum { N = 3000 };
    static float key[N];
    const float *streams[] = {key};
    const am_rng rng = am_rng_make(am_test_seed(), "digits", 0, 0, "");
    for (int i = 0; i < N; i++) {
        key[i] = fabsf((float)am_rng_normal(&rng, i / 3)) * (i % 5 == 0 ? 1e-41F : 1);
    }
    for (int64_t take = 0; take <= N; take += 250) {
        am_cut first = {0};
        for (int bits = AM_ORDER_MIN_BITS; bits <= AM_ORDER_MAX_BITS; bits++) {
            am_order o = {0};
            AM_CHECK_OK(am_order_reserve(&o, 2, bits, true));
            o.pick[0] = (am_pick){.cut = {.take = take}};
            o.pick[1] = (am_pick){.cut = {.take = take, .all_ties = true}};
            am_order_start(&o, false);
            for (int v = 0; v < am_order_visits(bits); v++) {
                am_order_visit(&o);
                AM_CHECK(o.n_counts == (take > 0)); /* both picks use the same counts */
                am_order_count(&o, 0, 2, streams, N);
                AM_CHECK(am_order_narrow(&o) == (v + 1 == am_order_visits(bits)));
            }
            first = bits == AM_ORDER_MIN_BITS ? o.pick[0].cut : first;
            AM_CHECK(o.pick[0].cut.threshold == first.threshold);
            AM_CHECK(o.pick[0].cut.ties == first.ties && o.pick[1].cut.ties >= first.ties);
            am_order_free(&o);
        }
    }
}

static void widths_fit_the_memory(void)
{
    AM_CHECK(am_order_bits(1, 1, true) == AM_ORDER_MIN_BITS);
    AM_CHECK(am_order_bits(1 << 30, 1, false) == AM_ORDER_MAX_BITS);
    for (int64_t cuts = 1; cuts < 5000; cuts *= 3) {
        const int bits = am_order_bits(1 << 30, cuts, false);
        AM_CHECK((cuts * 16) << bits <= AM_ORDER_BYTES);
        AM_CHECK(bits == AM_ORDER_MAX_BITS || (cuts * 32) << bits > AM_ORDER_BYTES);
        AM_CHECK(am_order_visits(bits) <= AM_ORDER_MAX_VISITS);
    }
}

static const am_test tests[] = {AM_TEST(digits_of_any_width),
                                AM_TEST(widths_fit_the_memory),
                                AM_TEST(orders_are_those_of_a_sort_all),
                                AM_TEST(sums_are_exact_all),
                                AM_TEST(absent_models_all),
                                AM_TEST(same_bytes_for_any_cut_all),
                                AM_TEST(random_numbers_have_their_keys_all),
                                AM_TEST(errors_name_the_tensor_all)};
AM_TEST_MAIN("merge_passes", tests)
