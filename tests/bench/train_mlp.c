/* Training speed of a 784-1024-1024-10 network, batch 128, f32, beside the sgemm rate of the same
 * cores in the same run. Usage: mpirun -n R train_mlp [MICRO_BATCHES [SECONDS]]; one JSON line a
 * case. How to read it: README.md. SPDX-License-Identifier: BSD-3-Clause */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/training/preset.h"
#include "solver/training/train.h"

enum { INPUTS = 784, WIDTH = 1024, CLASSES = 10, BATCH = 128, STEPS = 48, SAMPLES = BATCH * STEPS };

static const am_preset_list widths = {.n = 2, .value = {WIDTH, WIDTH}};

/* Samples, and a clock: gather is called once a leaf, so the time from one first leaf to the next
 * is the time of a whole step, exchange and update included. */
typedef struct data {
    float *x;
    int32_t *y;
    int64_t leaves, calls; /* of this rank: a step; in this run */
    double last, best;     /* seconds: start of the step; shortest step so far */
} data;

static void clock_step(data *d)
{
    if (d->leaves > 0 && d->calls++ % d->leaves == 0) {
        const double at = am_seconds();
        if (d->calls > 1 && (d->best == 0 || at - d->last < d->best)) {
            d->best = at - d->last;
        }
        d->last = at;
    }
}

static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    data *d = self;
    clock_step(d);
    for (int64_t i = 0; i < count; i++) {
        memcpy(x + i * INPUTS, d->x + index[i] * INPUTS, INPUTS * sizeof *x);
        y[i] = d->y[index[i]];
    }
    return 0;
}

/* All ranks start together; the slowest rank's time. */
static double slowest_all(double seconds)
{
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, am_world());
    return seconds;
}

/* Seconds of op(A) op(B), M x N x K, once on every rank at the same time; best of the repetitions
 * so far. */
typedef struct product {
    CBLAS_TRANSPOSE a, b;
    int M, N, K;
    double best;
} product;

static void product_time_all(product *p, float *buffer)
{
    float *a = buffer, *b = a + (size_t)p->M * (size_t)p->K;
    float *c = b + (size_t)p->K * (size_t)p->N;
    MPI_Barrier(am_world());
    const double start = am_seconds();
    cblas_sgemm(CblasRowMajor, p->a, p->b, p->M, p->N, p->K, 1, a, p->a == CblasTrans ? p->M : p->K,
                b, p->b == CblasTrans ? p->K : p->N, 0, c, p->N);
    const double seconds = slowest_all(am_seconds() - start);
    p->best = p->best == 0 || seconds < p->best ? seconds : p->best;
}

static double product_flop(const product *p)
{
    return 2.0 * p->M * p->N * p->K;
}

/* The products of one step on `rows` rows of each of the ranks that work. */
static int products_of_step(product *p, int rows)
{
    const int width[] = {INPUTS, WIDTH, WIDTH, CLASSES};
    int n = 0;
    for (int l = 0; l < 3; l++) {
        const int C = width[l], K = width[l + 1];
        p[n++] = (product){CblasNoTrans, CblasTrans, rows, K, C, 0};
        p[n++] = (product){CblasTrans, CblasNoTrans, K, C, rows, 0};
        if (l > 0) {
            p[n++] = (product){CblasNoTrans, CblasNoTrans, rows, C, K, 0};
        }
    }
    return n;
}

typedef struct measure {
    double train;    /* seconds of STEPS steps, best */
    double best;     /* seconds of a step, best */
    product large;   /* square product, best rate */
    product step[8]; /* the products of one leaf */
    int n;
} measure;

/* Repeat everything by turns for `seconds`, so that both sides of the ratio see the same machine.
 */
static int measure_all(const am_train_ops *ops, const am_net *net, float *trunk, am_task *task,
                       const am_train_options *options, double seconds, float *buffer, measure *m)
{
    const double start = am_seconds();
    int64_t go = 1;
    do {
        am_train_result result;
        data *d = task->train.self;
        d->calls = 0;
        MPI_Barrier(am_world());
        const double from = am_seconds();
        const int rc = ops->train_all(am_world(), net, trunk, task, 1, options, &result);
        if (rc != 0) {
            return rc;
        }
        const double t = slowest_all(am_seconds() - from);
        m->train = m->train == 0 || t < m->train ? t : m->train;
        m->best = d->best;
        for (int i = 0; i < 4; i++) {
            product_time_all(&m->large, buffer);
        }
        for (int i = 0; i < 8 * m->n; i++) {
            product_time_all(&m->step[i % m->n], buffer);
        }
        go = am_seconds() - start < seconds ? 1 : 0;
        const int bcast = MPI_Bcast(&go, 1, MPI_INT64_T, 0, am_world());
        if (bcast != MPI_SUCCESS) {
            return AM_E_BUG;
        }
    } while (go != 0);
    return 0;
}

static void report(const char *name, const measure *m, const am_train_options *options, int leaf)
{
    const int64_t M = options->micro_batches;
    const int working = am_world_size() < M ? am_world_size() : (int)M;
    double flop = 0, shapes = 0;
    for (int i = 0; i < m->n; i++) { /* one leaf */
        flop += product_flop(&m->step[i]);
        shapes += m->step[i].best;
    }
    const double rate = (double)M * flop / m->best; /* all leaves have BATCH / M rows */
    const double mean_rate = STEPS * (double)M * flop / m->train;
    const double peak = product_flop(&m->large) / m->large.best * working;
    const double peak_shapes = flop / shapes * working;
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "case", name);
    am_json_int(&j, "ranks", am_world_size());
    am_json_int(&j, "micro_batches", M);
    am_json_int(&j, "rows_per_leaf", leaf);
    am_json_real(&j, "samples_per_second", SAMPLES / m->train);
    am_json_real(&j, "samples_per_second_best_step", BATCH / m->best);
    am_json_real(&j, "train_gflops", rate * 1e-9);
    am_json_real(&j, "sgemm_gflops", peak * 1e-9);
    am_json_real(&j, "sgemm_same_shapes_gflops", peak_shapes * 1e-9);
    am_json_real(&j, "fraction_of_sgemm", rate / peak);
    am_json_real(&j, "fraction_of_sgemm_whole_run", mean_rate / peak);
    am_json_real(&j, "fraction_of_same_shapes", rate / peak_shapes);
    am_json_end_object(&j);
    am_result(&j);
    am_json_free(&j);
}

/* Leaves of this rank in a step. */
static int64_t part_leaves(int64_t micro_batches)
{
    int64_t lo = 0, hi = 0;
    am_part_range(micro_batches, am_world_size(), am_world_rank(), &lo, &hi);
    return hi - lo;
}

static int bench_all(int64_t micro_batches, double seconds)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    am_net net = {0};
    am_param_layout trunk_layout = {0}, head_layout = {0};
    float *trunk = NULL, *head = NULL, *buffer = NULL;
    data d = {0};
    int rc = 0;
    const int square = 2048, rows = (int)(BATCH / micro_batches);
    AM_TRY(am_preset_make("mlp", "", &widths, &net));
    AM_TRY(am_net_shape(&net, INPUTS));
    AM_TRY(am_net_trunk_layout(&net, AM_DTYPE_F32, &trunk_layout));
    AM_TRY(am_net_head_layout(&net, CLASSES, AM_DTYPE_F32, &head_layout));
    trunk = am_new(trunk_layout.n, sizeof *trunk, "trunk");
    head = am_new(head_layout.n, sizeof *head, "head");
    buffer = am_new(3 * (int64_t)square * square, sizeof *buffer, "sgemm operands");
    d.x = am_new((int64_t)SAMPLES * INPUTS, sizeof *d.x, "samples");
    d.y = am_new(SAMPLES, sizeof *d.y, "labels");
    if (trunk == NULL || head == NULL || buffer == NULL || d.x == NULL || d.y == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    const am_rng rng = am_rng_make(1, "bench", 0, 0, "");
    for (int64_t i = 0; i < (int64_t)SAMPLES * INPUTS; i++) {
        d.x[i] = (float)am_rng_uniform(&rng, i);
    }
    for (int64_t i = 0; i < SAMPLES; i++) {
        d.y[i] = (int32_t)(i % CLASSES);
    }
    for (int64_t i = 0; i < 3 * (int64_t)square * square; i++) {
        buffer[i] = (float)(i % 17) / 17 - 0.5F;
    }
    am_blas_single_thread();
    d.leaves = part_leaves(micro_batches);
    for (int with_momentum = 0; with_momentum < 2; with_momentum++) {
        AM_TRY(ops->init(&trunk_layout, 1, "init", trunk));
        AM_TRY(ops->init(&head_layout, 1, "init", head));
        am_task task = {.name = "bench",
                        .train = {.self = &d,
                                  .label = "bench",
                                  .n = SAMPLES,
                                  .features = INPUTS,
                                  .classes = CLASSES,
                                  .gather = gather},
                        .head = head,
                        .classes = CLASSES};
        am_train_options options = {.optim = {.method = am_optim_find("sgd"), .lr = 1e-3},
                                    .batch = BATCH,
                                    .micro_batches = micro_batches,
                                    .epochs = 1,
                                    .train_trunk = true,
                                    .train_head = true,
                                    .seed = 1,
                                    .purpose = "bench"};
        d.best = 0;
        options.optim.momentum = with_momentum ? 0.9 : 0;
        measure m = {.large = {CblasNoTrans, CblasNoTrans, square, square, square, 0}};
        m.large.M = m.large.N = m.large.K = square / 2;
        m.n = products_of_step(m.step, rows);
        AM_TRY(measure_all(ops, &net, trunk, &task, &options, seconds, buffer, &m));
        report(with_momentum ? "momentum" : "sgd", &m, &options, rows);
    }
cleanup:
    am_net_free(&net);
    am_param_layout_free(&trunk_layout);
    am_param_layout_free(&head_layout);
    free(trunk);
    free(head);
    free(buffer);
    free(d.x);
    free(d.y);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = am_start_all(&argc, &argv);
    const int64_t micro_batches = argc > 1 ? atoll(argv[1]) : 1;
    const double seconds = argc > 2 ? atof(argv[2]) : 10;
    if (rc == 0 && (micro_batches < 1 || BATCH % micro_batches != 0)) {
        rc = am_fail(AM_E_USAGE, "MICRO_BATCHES must divide %d", BATCH);
    }
    if (rc == 0) {
        rc = bench_all(micro_batches, seconds);
    }
    return am_stop_all(rc);
}
