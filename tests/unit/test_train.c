/* Training at the edges: divergence, failures and stop requests on one rank, what is refused, what
 * stays frozen; the schedule, the layout, initial parameters and the optimiser table.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/partition.h"
#include "mpi/runtime.h"
#include "solver/training/schedule.h"
#include "tests/am_test.h"
#include "tests/ref_mlp.h"

enum { CLASSES = 4, SAMPLES = 50, TRUNK = 8 * 6 + 8 + 5 * 8 + 5, HEAD = CLASSES * 5 + CLASSES };

static const ref_spec spec = {.inputs = 6, .n_widths = 2, .widths = {8, 5}, .activation = REF_RELU};

/* A task with its own parameters; `fixture.task` points into it, so it is made in place. */
typedef struct fixture {
    ref_data data;
    am_task task;
    float trunk[TRUNK], head[HEAD];
    am_train_options options;
    am_train_result result;
} fixture;

static void fixture_make(fixture *f)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    am_param_layout layout;
    *f = (fixture){.data = ref_data_make(am_test_seed(), 0, SAMPLES, spec.inputs, CLASSES)};
    AM_CHECK_OK(am_net_trunk_layout(ref_mlp(&spec), AM_DTYPE_F32, &layout));
    AM_CHECK_I64(layout.n, TRUNK);
    AM_CHECK_OK(ops->init(&layout, 1, "init", f->trunk));
    am_param_layout_free(&layout);
    AM_CHECK_OK(am_net_head_layout(ref_mlp(&spec), CLASSES, AM_DTYPE_F32, &layout));
    AM_CHECK_I64(layout.n, HEAD);
    AM_CHECK_OK(ops->init(&layout, 2, "init", f->head));
    am_param_layout_free(&layout);
    f->task = (am_task){
        .name = "task", .train = ref_samples(&f->data), .head = f->head, .classes = CLASSES};
    f->options = (am_train_options){.optim = {.method = am_optim_find("sgd"), .lr = 0.05},
                                    .batch = 16,
                                    .micro_batches = 8,
                                    .epochs = 3,
                                    .train_trunk = true,
                                    .train_head = true,
                                    .seed = 1,
                                    .purpose = "finetune"};
}

static int train_all(fixture *f)
{
    return am_train_ops_of(AM_DTYPE_F32)
        ->train_all(am_world(), ref_mlp(&spec), f->trunk, &f->task, 1, &f->options, &f->result);
}

/* ---- divergence: an outcome, no error ---- */

static void steps_too_long(void)
{
    fixture f;
    fixture_make(&f);
    f.options.optim.lr = 1e25;
    f.options.epochs = 100;
    AM_CHECK_OK(train_all(&f));
    AM_CHECK(f.result.diverged);
    AM_CHECK(f.result.steps > 0 && f.result.steps < 20);
    ref_data_free(&f.data);
}

/* Input `value` in one sample: the step that meets it leaves the parameters alone. */
static void check_poison_all(float value)
{
    fixture f, before;
    fixture_make(&f);
    fixture_make(&before);
    for (int64_t c = 0; c < spec.inputs; c++) {
        f.data.x[7 * spec.inputs + c] = value;
    }
    f.options.batch = 0;
    AM_CHECK_OK(train_all(&f));
    AM_CHECK(f.result.diverged);
    AM_CHECK_I64(f.result.steps, 1);
    AM_CHECK(!isfinite(f.result.loss));
    AM_CHECK(memcmp(f.trunk, before.trunk, sizeof f.trunk) == 0);
    AM_CHECK(memcmp(f.head, before.head, sizeof f.head) == 0);
    ref_data_free(&f.data);
    ref_data_free(&before.data);
}

static void samples_not_finite(void)
{
    check_poison_all(NAN);
    check_poison_all(INFINITY);
}

/* The last step makes parameters that are not finite: there is no later step to see it. */
static void last_step_overflows(void)
{
    fixture f;
    fixture_make(&f);
    f.options.optim.lr = 1e39; /* infinite in f32 */
    f.options.batch = 0;
    f.options.epochs = 1;
    AM_CHECK_OK(train_all(&f));
    AM_CHECK(f.result.diverged);
    AM_CHECK_I64(f.result.steps, 1);
    ref_data_free(&f.data);
}

/* ---- failures on one rank ---- */

static int64_t fails_at = -1, stops_at = -1; /* gather call of the chosen rank */

/* The rank of the last of eight leaves. */
static int64_t chosen(void)
{
    return am_part_owner(8, am_world_size(), 7);
}

static int faulty_gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    ref_data *d = self;
    const bool is_chosen = am_world_rank() == chosen();
    if (is_chosen && d->calls == fails_at) {
        d->calls++;
        return am_fail(AM_E_IO, "planted failure of rank %d", am_world_rank());
    }
    if (is_chosen && d->calls == stops_at) {
        am_request_stop();
    }
    return ref_gather(self, index, count, x, y);
}

static void gather_fails_on_one_rank(void)
{
    for (fails_at = 0; fails_at < 5; fails_at += 2) {
        fixture f;
        fixture_make(&f);
        f.task.train.gather = faulty_gather;
        AM_CHECK_CODE(train_all(&f), AM_E_IO);
        AM_CHECK_CONTAINS(am_error_message(), "planted failure");
        am_error_clear();
        f.data.calls = fails_at;
        AM_CHECK_CODE(am_train_ops_of(AM_DTYPE_F32)
                          ->eval_all(am_world(), ref_mlp(&spec), f.trunk, f.head, CLASSES,
                                     &f.task.train, &(am_eval_result){0}),
                      am_part_owner(1, am_world_size(), 0) == chosen() ? AM_E_IO : AM_OK);
        am_error_clear();
        ref_data_free(&f.data);
    }
    fails_at = -1;
}

static void label_out_of_range(void)
{
    fixture f;
    fixture_make(&f);
    f.data.y[SAMPLES - 1] = CLASSES;
    AM_CHECK_CODE(train_all(&f), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "label 4 of sample 49");
    am_error_clear();
    ref_data_free(&f.data);
}

/* Last in the table: a stop request is never taken back. */
static void stop_requests(void)
{
    fixture f;
    fixture_make(&f);
    int64_t lo = 0, hi = 0;
    am_part_range(8, am_world_size(), chosen(), &lo, &hi);
    stops_at = 2 * (hi - lo); /* in the third step */
    f.task.train.gather = faulty_gather;
    AM_CHECK_CODE(train_all(&f), AM_E_STOPPED);
    am_error_clear();
    AM_CHECK_I64(f.result.steps, 2);
    f.options.micro_batches = 1; /* on two ranks or more, some have no leaf to say it with */
    AM_CHECK_CODE(train_all(&f), AM_E_STOPPED);
    AM_CHECK_I64(f.result.steps, 0);
    am_error_clear();
    ref_data_free(&f.data);
}

/* ---- what is refused ---- */

static void recipes_refused(void)
{
    fixture f;
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    fixture_make(&f);
    AM_CHECK_CODE(
        ops->train_all(am_world(), ref_mlp(&spec), f.trunk, &f.task, 0, &f.options, &f.result),
        AM_E_RECIPE);
    am_error_clear();
    const fixture good = f;
    f.task.train.n = 0;
    AM_CHECK_CODE(train_all(&f), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "generated: no samples");
    am_error_clear();
    AM_CHECK_CODE(ops->eval_all(am_world(), ref_mlp(&spec), f.trunk, f.head, CLASSES, &f.task.train,
                                &(am_eval_result){0}),
                  AM_E_RECIPE);
    am_error_clear();
    f.task = good.task;
    f.task.train.features = 7;
    AM_CHECK_CODE(train_all(&f), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "7 features");
    am_error_clear();
    f.task = good.task;
    f.task.classes = CLASSES - 1;
    AM_CHECK_CODE(train_all(&f), AM_E_RECIPE);
    am_error_clear();
    f.task = good.task;
    f.options.micro_batches = 0;
    AM_CHECK_CODE(train_all(&f), AM_E_RECIPE);
    am_error_clear();
    f.options = good.options;
    f.options.train_head = f.options.train_trunk = false;
    AM_CHECK_CODE(train_all(&f), AM_E_RECIPE);
    am_error_clear();
    f.options = good.options;
    f.options.optim.method = -1;
    AM_CHECK_CODE(train_all(&f), AM_E_RECIPE);
    am_error_clear();
    ref_data_free(&f.data);
}

static void frozen_stays(void)
{
    for (int is_trunk = 0; is_trunk < 2; is_trunk++) {
        fixture f, before;
        fixture_make(&f);
        fixture_make(&before);
        f.options.train_trunk = is_trunk;
        f.options.train_head = !is_trunk;
        f.options.optim.weight_decay = 0.1;
        AM_CHECK_OK(train_all(&f));
        AM_CHECK((memcmp(f.trunk, before.trunk, sizeof f.trunk) == 0) == !is_trunk);
        AM_CHECK((memcmp(f.head, before.head, sizeof f.head) == 0) == is_trunk);
        ref_data_free(&f.data);
        ref_data_free(&before.data);
    }
}

static void one_gather_a_leaf(void)
{
    fixture f;
    fixture_make(&f);
    AM_CHECK_OK(train_all(&f));
    AM_CHECK_I64(f.result.steps, 3 * 4);
    AM_CHECK_I64(f.result.samples, 3 * SAMPLES);
    if (am_world_size() == 1) { /* 16, 16, 16 and 2 samples: 8, 8, 8 and 2 leaves with samples */
        AM_CHECK_I64(f.data.calls, 3 * (8 + 8 + 8 + 2));
    }
    ref_data_free(&f.data);
}

/* ---- the schedule ---- */

enum { TASKS = 3 };

static const int64_t sizes[TASKS] = {50, 7, 32};

static void schedule_tasks(am_task *tasks)
{
    static const char *const names[TASKS] = {"a", "b", "c"};
    for (int t = 0; t < TASKS; t++) {
        tasks[t] = (am_task){.name = names[t], .train = {.label = names[t], .n = sizes[t]}};
    }
}

/* Counts of each sample in one epoch; *hash of the order. */
static void epoch_counts(const am_schedule *s, int64_t epoch, int64_t count[TASKS][64],
                         uint64_t *hash)
{
    int64_t index[64];
    memset(count, 0, sizeof(int64_t[TASKS][64]));
    for (int64_t step = 0; step < s->steps; step++) {
        for (int i = 0; i < s->parts; i++) {
            const am_part part = am_schedule_part(s, epoch, step, i);
            for (int64_t leaf = 0; leaf < s->options->micro_batches; leaf++) {
                const int64_t n = am_schedule_leaf(s, &part, leaf, index);
                AM_CHECK(n <= am_schedule_rows(s));
                *hash = am_hash64(index, n * (int64_t)sizeof *index, *hash);
                for (int64_t j = 0; j < n; j++) {
                    count[part.task][index[j]]++;
                }
            }
        }
    }
}

static void schedule_covers(void)
{
    am_task tasks[TASKS];
    int64_t count[TASKS][64];
    uint64_t seen[5] = {0};
    schedule_tasks(tasks);
    am_train_options o = {.batch = 8, .micro_batches = 3, .seed = 1, .purpose = "joint"};
    am_schedule s = am_schedule_make(tasks, TASKS, &o);
    AM_CHECK_I64(s.steps, 7 + 1 + 4);
    AM_CHECK_I64(am_schedule_rows(&s), 3);
    for (int k = 0; k < 5; k++) { /* epoch 0, epoch 1, and others by one key each */
        o = (am_train_options){.batch = 8,
                               .micro_batches = 3,
                               .seed = k == 2 ? 2 : 1,
                               .purpose = k == 3 ? "finetune" : "joint",
                               .round = k == 4};
        epoch_counts(&s, k == 1, count, &seen[k]);
        for (int t = 0; t < TASKS; t++) {
            for (int64_t i = 0; i < sizes[t]; i++) {
                AM_CHECK_I64(count[t][i], 1);
            }
        }
        for (int other = 0; other < k; other++) {
            AM_CHECK(seen[k] != seen[other]);
        }
    }
}

/* Small tasks start over: task b (1 batch) is seen 7 times, c (4 batches) 7 of its batches. */
static void schedule_sums(void)
{
    am_task tasks[TASKS];
    int64_t count[TASKS][64], total = 0;
    uint64_t hash = 0;
    schedule_tasks(tasks);
    const am_train_options o = {
        .batch = 8, .micro_batches = 2, .seed = 1, .purpose = "joint", .sum_tasks = true};
    const am_schedule s = am_schedule_make(tasks, TASKS, &o);
    AM_CHECK_I64(s.steps, 7);
    AM_CHECK_I64(s.parts, TASKS);
    epoch_counts(&s, 3, count, &hash);
    for (int64_t i = 0; i < 50; i++) {
        AM_CHECK_I64(count[0][i], 1);
    }
    for (int64_t i = 0; i < 7; i++) {
        AM_CHECK_I64(count[1][i], 7);
    }
    for (int64_t i = 0; i < 32; i++) {
        AM_CHECK(count[2][i] == 1 || count[2][i] == 2);
        total += count[2][i];
    }
    AM_CHECK_I64(total, 7 * 8);
}

/* ---- layout, initial parameters, options ---- */

static void layout(void)
{
    ref_spec deep = {.inputs = 3, .n_widths = 12, .activation = REF_TANH};
    for (int l = 0; l < deep.n_widths; l++) {
        deep.widths[l] = l + 2;
    }
    am_param_layout out;
    AM_CHECK_OK(am_net_trunk_layout(ref_mlp(&deep), AM_DTYPE_F64, &out));
    AM_CHECK_I64(out.tensors.n, 24);
    AM_CHECK_TEXT(out.tensors.t[0].name, "layers.00.bias");
    AM_CHECK_TEXT(out.tensors.t[23].name, "layers.11.weight");
    AM_CHECK_I64(out.tensors.t[23].shape[0], 13);
    AM_CHECK_I64(out.tensors.t[23].shape[1], 12);
    int64_t end = 0;
    for (int64_t i = 0; i < out.tensors.n; i++) {
        AM_CHECK_I64(out.offset[i], end);
        end += out.tensors.t[i].numel;
    }
    AM_CHECK_I64(out.n, end);
    am_param_layout_free(&out);
    AM_CHECK_CODE(am_net_head_layout(ref_mlp(&spec), 0, AM_DTYPE_F32, &out), AM_E_RECIPE);
    am_error_clear();
}

/* Mean 0 and variance 2/C (He) or 2/(C+K) (Glorot) within five standard errors; biases 0. */
static void initial_parameters(void)
{
    ref_spec wide = {.inputs = 200, .n_widths = 2, .widths = {300, 250}};
    am_param_layout out;
    AM_CHECK_OK(am_net_trunk_layout(ref_mlp(&wide), AM_DTYPE_F64, &out));
    double *w = calloc((size_t)out.n, sizeof *w), *again = calloc((size_t)out.n, sizeof *again);
    float *narrow = calloc((size_t)out.n, sizeof *narrow);
    for (int a = 0; a < 2; a++) {
        const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
        wide.activation = a == 0 ? REF_RELU : REF_TANH;
        am_param_layout_free(&out);
        AM_CHECK_OK(am_net_trunk_layout(ref_mlp(&wide), AM_DTYPE_F64, &out));
        AM_CHECK_OK(ops->init(&out, am_test_seed(), "init", w));
        for (int64_t i = 0; i < out.tensors.n; i++) {
            const am_tensor *t = &out.tensors.t[i];
            double sum = 0, square = 0;
            for (int64_t j = 0; j < t->numel; j++) {
                sum += w[out.offset[i] + j];
                square += w[out.offset[i] + j] * w[out.offset[i] + j];
            }
            if (t->ndim == 1) {
                AM_CHECK_SAME_F64(square, 0);
                continue;
            }
            const double n = (double)t->numel, C = (double)t->shape[1], K = (double)t->shape[0];
            const double variance = 2 / (a == 0 ? C : C + K);
            AM_CHECK_NEAR(sum / n, 0, 5 * sqrt(variance / n));
            AM_CHECK_NEAR(square / n / variance, 1, 5 * sqrt(2 / n));
        }
    }
    AM_CHECK(w[out.offset[1]] != w[out.offset[3]]); /* keyed by the tensor's name */
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)->init(&out, am_test_seed(), "init", narrow));
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)->init(&out, am_test_seed() + 1, "init", again));
    int64_t equal = 0;
    for (int64_t i = 0; i < out.n; i++) {
        AM_CHECK(narrow[i] == (float)w[i]);
        equal += again[i] == w[i];
    }
    AM_CHECK_I64(equal, 300 + 250); /* the biases */
    free(w);
    free(again);
    free(narrow);
    am_param_layout_free(&out);
}

static void optimiser_table(void)
{
    const am_param *table = am_optim_params();
    am_optim_options o;
    AM_CHECK_OK(am_param_defaults(table, &o));
    AM_CHECK_I64(o.method, am_optim_find("sgd"));
    AM_CHECK_NEAR(o.beta2, 0.999, 0);
    for (const char *const *name = am_optim_names(); *name != NULL; name++) {
        AM_CHECK_OK(am_param_set(table, &o, "optimizer", *name, "here"));
        AM_CHECK_TEXT(am_optim_names()[o.method], *name);
        AM_CHECK_I64(am_optim_find(*name), o.method);
    }
    AM_CHECK_I64(am_optim_find("sdg"), -1);
    AM_CHECK_CODE(am_param_set(table, &o, "momentun", "0.9", "here"), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "momentum");
    am_error_clear();
    AM_CHECK(am_train_ops_of(AM_DTYPE_F16) == NULL);
    AM_CHECK_TEXT(am_train_ops_of(AM_DTYPE_F64)->name, "f64");
}

static const am_test tests[] = {
    AM_TEST(steps_too_long),
    AM_TEST(samples_not_finite),
    AM_TEST(last_step_overflows),
    AM_TEST(gather_fails_on_one_rank),
    AM_TEST(label_out_of_range),
    AM_TEST(recipes_refused),
    AM_TEST(frozen_stays),
    AM_TEST(one_gather_a_leaf),
    AM_TEST(schedule_covers),
    AM_TEST(schedule_sums),
    AM_TEST(layout),
    AM_TEST(initial_parameters),
    AM_TEST(optimiser_table),
    AM_TEST(stop_requests),
};

AM_TEST_MAIN("train", tests)
