/* Training speed of a preset, f32, generated samples, and by turns the sgemm rate of the same
 * cores. Usage: mpirun -n R train_net PRESET[:N,...] OPTIONS FEATURES BATCH MICRO_BATCHES SECONDS;
 * one JSON line. How to read it: README.md. SPDX-License-Identifier: BSD-3-Clause */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/training/preset.h"
#include "solver/training/train.h"

enum { STEPS = 4, SQUARE = 1024 }; /* of a call; side of the product */

typedef struct bench {
    am_net net;
    int64_t classes, batch;
    double last, best; /* seconds: start of the step; shortest step so far */
    int64_t leaf, leaves;
} bench;

/* Called once a leaf: from one first leaf to the next is a whole step. */
static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    bench *b = self;
    const double now = am_seconds();
    const int64_t F = b->net.features, L = am_net_labels(&b->net);
    if (b->leaf++ % b->leaves == 0) {
        b->best =
            b->last > 0 && (b->best == 0 || now - b->last < b->best) ? now - b->last : b->best;
        b->last = now;
    }
    for (int64_t i = 0; i < count; i++) {
        for (int64_t f = 0; f < F; f++) {
            const int64_t v = (index[i] * 31 + f * 7) % 251;
            x[i * F + f] = b->net.takes_ids ? (float)v : (float)v / 251;
        }
        for (int64_t l = 0; l < L; l++) {
            y[i * L + l] = (int32_t)((index[i] + l) % b->classes);
        }
    }
    return 0;
}

/* Seconds of a square product on all ranks at once: the slowest rank's. */
static double product_all(float *buffer)
{
    const size_t n = (size_t)SQUARE * SQUARE;
    MPI_Barrier(am_world());
    double seconds = am_seconds();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SQUARE, SQUARE, SQUARE, 1, buffer,
                SQUARE, buffer + n, SQUARE, 0, buffer + 2 * n, SQUARE);
    seconds = am_seconds() - seconds;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, am_world());
    return seconds;
}

/* "NAME:N,N" */
static int make_net(char *text, const char *options, am_net *net)
{
    am_preset_list list = {0};
    char *at = strchr(text, ':');
    if (at != NULL) {
        *at++ = '\0';
        for (char *end = at; list.n < AM_PRESET_MAX_LIST && *at != '\0';
             at = *end ? end + 1 : end) {
            list.value[list.n++] = strtoll(at, &end, 10);
        }
    }
    return am_preset_make(text, options, at != NULL ? &list : NULL, net);
}

static int bench_all(char **argv)
{
    bench b = {0};
    am_param_layout head = {0};
    am_train_result result;
    float *trunk = NULL, *w = NULL, *square = NULL;
    double product = 0;
    int64_t bytes = 0, go = 1;
    int rc = 0;
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    const int64_t micro = atoll(argv[5]);
    const double end = am_seconds() + atof(argv[6]);
    b.batch = atoll(argv[4]);
    AM_TRY(make_net(argv[1], argv[2], &b.net));
    AM_TRY(am_net_shape(&b.net, atoll(argv[3])));
    b.classes = b.net.takes_ids ? b.net.vocabulary : 10;
    b.leaves = micro / am_world_size() > 0 ? micro / am_world_size() : 1;
    AM_TRY(am_net_head_layout(&b.net, b.classes, AM_DTYPE_F32, &head));
    AM_TRY(ops->activation_bytes(&b.net, b.batch / micro, b.classes, true, &bytes));
    trunk = am_new(b.net.trunk.n, sizeof *trunk, "trunk");
    w = am_new(head.n, sizeof *w, "head");
    square = am_new((int64_t)3 * SQUARE * SQUARE, sizeof *square, "square");
    AM_TRY(trunk == NULL || w == NULL || square == NULL ? AM_E_NOMEM : 0);
    for (int64_t i = 0; i < (int64_t)3 * SQUARE * SQUARE; i++) {
        square[i] = (float)(i % 17) / 17 - 0.5F;
    }
    AM_TRY(ops->init(&b.net.trunk, 1, "init", trunk));
    AM_TRY(ops->init(&head, 1, "init", w));
    am_task task = {.name = "bench",
                    .train = {.self = &b,
                              .label = "bench",
                              .n = b.batch * STEPS,
                              .features = b.net.features,
                              .classes = b.classes,
                              .labels = am_net_labels(&b.net),
                              .gather = gather},
                    .head = w,
                    .classes = b.classes};
    am_train_options options = {.optim = {.method = am_optim_find("sgd"), .lr = 1e-3},
                                .batch = b.batch,
                                .micro_batches = micro,
                                .epochs = 1,
                                .train_trunk = true,
                                .train_head = true,
                                .seed = 1,
                                .purpose = "bench"};
    am_blas_single_thread();
    while (go != 0) {
        b.last = 0; /* what lies between two calls is no step */
        b.leaf = 0;
        AM_TRY(ops->train_all(am_world(), &b.net, trunk, &task, 1, &options, &result));
        for (int i = 0; i < 4; i++) {
            const double seconds = product_all(square);
            product = product == 0 || seconds < product ? seconds : product;
        }
        go = am_seconds() < end ? 1 : 0;
        AM_TRY(MPI_Bcast(&go, 1, MPI_INT64_T, 0, am_world()) == MPI_SUCCESS ? 0 : AM_E_BUG);
    }
    if (am_world_rank() == 0) {
        printf("{\"preset\": \"%s\", \"ranks\": %d, \"parameters\": %lld, \"batch\": %lld, "
               "\"step_seconds\": %.6f, \"samples_per_second\": %.1f, \"sgemm_gflops\": %.1f, "
               "\"activation_bytes\": %lld, \"loss\": %.5f}\n",
               argv[1], am_world_size(), (long long)(b.net.trunk.n + head.n), (long long)b.batch,
               b.best, (double)b.batch / b.best,
               2e-9 * SQUARE * SQUARE * SQUARE * am_world_size() / product, (long long)bytes,
               result.loss);
    }
cleanup:
    am_net_free(&b.net);
    am_param_layout_free(&head);
    free(trunk);
    free(w);
    free(square);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = am_start_all(&argc, &argv);
    if (rc == 0 && argc != 7) {
        rc = am_fail(AM_E_USAGE,
                     "train_net PRESET[:N,...] OPTIONS FEATURES BATCH MICRO_BATCHES SECONDS");
    }
    if (rc == 0) {
        rc = bench_all(argv);
    }
    return am_stop_all(rc);
}
