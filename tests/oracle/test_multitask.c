/* Iterative task arithmetic against multitask gradient descent (theory, theorem 1): one full-batch
 * step per task and round, merged linearly with alpha, IS a multitask step of alpha times the rate;
 * with two steps a round they differ by a term of second order in the rate.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"
#include "tests/am_test.h"
#include "tests/ref_mlp.h"

enum { MOST_TASKS = 5, ROUNDS = 4 };

typedef struct world {
    const ref_spec *spec;
    int T;
    ref_data data[MOST_TASKS];
    am_task tasks[MOST_TASKS];
    int64_t n; /* trunk */
    double *start, *merged, *expert, *joint;
} world;

static double *block(int64_t n)
{
    double *b = calloc((size_t)n, sizeof *b);
    AM_ASSERT(b != NULL);
    return b;
}

/* In place: the tasks point into the world. */
static void world_make(world *w, const ref_spec *spec, int T)
{
    static const char *const names[MOST_TASKS] = {"a", "b", "c", "d", "e"};
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    *w = (world){.spec = spec, .T = T};
    am_param_layout layout;
    AM_CHECK_OK(am_net_trunk_layout(ref_mlp(spec), AM_DTYPE_F64, &layout));
    w->n = layout.n;
    w->start = block(w->n);
    w->merged = block(w->n);
    w->expert = block(w->n);
    w->joint = block(w->n);
    AM_CHECK_OK(ops->init(&layout, am_test_seed(), "init", w->start));
    am_param_layout_free(&layout);
    for (int t = 0; t < T; t++) {
        const int64_t K = 3 + t;
        w->data[t] = ref_data_make(am_test_seed(), t, 25 + 10 * t, spec->inputs, K);
        AM_CHECK_OK(am_net_head_layout(ref_mlp(spec), K, AM_DTYPE_F64, &layout));
        w->tasks[t] = (am_task){.name = names[t], .train = ref_samples(&w->data[t]), .classes = K};
        w->tasks[t].head = block(layout.n);
        AM_CHECK_OK(ops->init(&layout, am_test_seed(), names[t], w->tasks[t].head));
        am_param_layout_free(&layout);
    }
}

static void world_free(world *w)
{
    for (int t = 0; t < w->T; t++) {
        ref_data_free(&w->data[t]);
        free(w->tasks[t].head);
    }
    free(w->start);
    free(w->merged);
    free(w->expert);
    free(w->joint);
}

static am_train_options options_make(double rate, int64_t epochs, int64_t micro_batches)
{
    return (am_train_options){.optim = {.method = am_optim_find("sgd"), .lr = rate},
                              .batch = 0,
                              .micro_batches = micro_batches,
                              .epochs = epochs,
                              .train_trunk = true,
                              .sum_tasks = true,
                              .seed = 3,
                              .purpose = "finetune"};
}

static double distance(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (a[i] - (b != NULL ? b[i] : 0)) * (a[i] - (b != NULL ? b[i] : 0));
    }
    return sqrt(sum);
}

/* merged := merged + alpha * sum over tasks of (expert - merged), experts `epochs` steps away. */
static void round_all(world *w, double rate, double alpha, int64_t epochs, int64_t leaves)
{
    const am_train_options o = options_make(rate, epochs, leaves);
    double *sum = block(w->n);
    am_train_result result;
    for (int t = 0; t < w->T; t++) {
        memcpy(w->expert, w->merged, (size_t)w->n * sizeof *sum);
        AM_CHECK_OK(
            am_train_ops_of(AM_DTYPE_F64)
                ->train_all(am_world(), ref_mlp(w->spec), w->expert, &w->tasks[t], 1, &o, &result));
        for (int64_t i = 0; i < w->n; i++) {
            sum[i] += w->expert[i] - w->merged[i];
        }
    }
    for (int64_t i = 0; i < w->n; i++) {
        w->merged[i] += alpha * sum[i];
    }
    free(sum);
}

/* ||iterative - joint|| after `rounds` rounds of `epochs` steps. */
static double gap_all(world *w, double rate, double alpha, int rounds, int64_t epochs,
                      int64_t leaves)
{
    const am_train_options o = options_make(alpha * rate, rounds * epochs, leaves);
    am_train_result result;
    memcpy(w->merged, w->start, (size_t)w->n * sizeof *w->merged);
    memcpy(w->joint, w->start, (size_t)w->n * sizeof *w->joint);
    for (int r = 0; r < rounds; r++) {
        round_all(w, rate, alpha, epochs, leaves);
    }
    AM_CHECK_OK(
        am_train_ops_of(AM_DTYPE_F64)
            ->train_all(am_world(), ref_mlp(w->spec), w->joint, w->tasks, w->T, &o, &result));
    AM_CHECK_I64(result.steps, rounds * epochs);
    return distance(w->merged, w->joint, w->n);
}

static const ref_spec specs[] = {
    {.inputs = 8, .n_widths = 1, .widths = {16}, .activation = REF_RELU},
    {.inputs = 8, .n_widths = 3, .widths = {12, 20, 9}, .activation = REF_TANH},
};

static void one_epoch_is_multitask_descent(void)
{
    static const int counts[] = {1, 2, 5};
    for (int i = 0; i < 6; i++) {
        const int T = counts[i % 3];
        const double alphas[] = {1, 0.3, 1.0 / T};
        world w;
        world_make(&w, &specs[i / 3], T);
        for (int a = 0; a < 3; a++) {
            const double gap = gap_all(&w, 0.1, alphas[a], ROUNDS, 1, 1 + 2 * (a % 2));
            const double size = distance(w.joint, NULL, w.n);
            AM_CHECK_NEAR(gap, 0, 4 * 0x1p-53 * size);
            AM_CHECK(distance(w.joint, w.start, w.n) > 1e-3 * size); /* it has moved */
        }
        world_free(&w);
    }
}

static void two_epochs_differ_in_second_order(void)
{
    world w;
    world_make(&w, &specs[1], 4);
    const double rate = 1e-3, alpha = 0.3;
    const double wide = gap_all(&w, rate, alpha, 1, 2, 1);
    const double narrow = gap_all(&w, rate / 4, alpha, 1, 2, 1);
    AM_CHECK(narrow > 1e-12);
    AM_CHECK_NEAR(log(wide / narrow) / log(4), 2.00, 0.02);
    world_free(&w);
}

static const am_test tests[] = {
    AM_TEST(one_epoch_is_multitask_descent),
    AM_TEST(two_epochs_differ_in_second_order),
};

AM_TEST_MAIN("multitask", tests)
