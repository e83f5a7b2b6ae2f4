/* Training and evaluation give the same bytes on 1, 2, 3, 4, ... ranks, for every optimiser, real
 * type, number of micro-batches and way of joint training. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"
#include "tests/am_test.h"
#include "tests/ref_mlp.h"

enum { TASKS = 3, STEPS = 20 };

static const ref_spec spec = {
    .inputs = 9, .n_widths = 2, .widths = {23, 14}, .activation = REF_RELU};

/* Everything that training makes, as bytes. */
typedef struct outcome {
    int64_t bytes;
    unsigned char *data; /* trunk, heads, result */
} outcome;

typedef struct setting {
    am_dtype dtype;
    int n_tasks;
    int64_t n[TASKS]; /* samples */
    am_train_options options;
} setting;

/* Train in `comm` from the same start; outcome owned by the caller. */
static outcome train_all(MPI_Comm comm, const setting *s, am_train_result *result)
{
    const am_train_ops *ops = am_train_ops_of(s->dtype);
    const size_t size = (size_t)am_dtype_bytes(s->dtype);
    am_param_layout trunk_layout, head_layout;
    ref_data data[TASKS];
    am_task tasks[TASKS];
    outcome out = {0};
    AM_CHECK_OK(am_net_trunk_layout(ref_mlp(&spec), s->dtype, &trunk_layout));
    int64_t at = trunk_layout.n;
    out.data = calloc(1 << 20, 1);
    AM_CHECK_OK(ops->init(&trunk_layout, 5, "init", out.data));
    for (int t = 0; t < s->n_tasks; t++) {
        const int64_t K = 3 + t; /* heads of different sizes */
        static const char *const names[TASKS] = {"a", "b", "c"};
        data[t] = ref_data_make(am_test_seed(), t, s->n[t], spec.inputs, K);
        tasks[t] = (am_task){.name = names[t], .train = ref_samples(&data[t]), .classes = K};
        tasks[t].head = out.data + (size_t)at * size;
        AM_CHECK_OK(am_net_head_layout(ref_mlp(&spec), K, s->dtype, &head_layout));
        AM_CHECK_OK(ops->init(&head_layout, 6, "init", tasks[t].head));
        at += head_layout.n;
        am_param_layout_free(&head_layout);
    }
    AM_CHECK_OK(
        ops->train_all(comm, ref_mlp(&spec), out.data, tasks, s->n_tasks, &s->options, result));
    out.bytes = at * (int64_t)size;
    for (int t = 0; t < s->n_tasks; t++) {
        am_eval_result eval = {0};
        AM_CHECK_OK(ops->eval_all(comm, ref_mlp(&spec), out.data, tasks[t].head, tasks[t].classes,
                                  &tasks[t].train, &eval));
        memcpy(out.data + out.bytes, &eval.loss, sizeof eval.loss);
        memcpy(out.data + out.bytes + 8, &eval.correct, sizeof eval.correct);
        out.bytes += 16;
        ref_data_free(&data[t]);
    }
    memcpy(out.data + out.bytes, &result->loss, sizeof result->loss);
    memcpy(out.data + out.bytes + 8, &result->gradient_norm, sizeof result->gradient_norm);
    out.bytes += 16;
    am_param_layout_free(&trunk_layout);
    return out;
}

/* Each rank alone, then all together, then in two uneven groups. */
static void check_same_all(const setting *s)
{
    am_train_result alone, together;
    const outcome expected = train_all(MPI_COMM_SELF, s, &alone);
    outcome got = train_all(am_world(), s, &together);
    AM_CHECK(!alone.diverged && isfinite(alone.loss) && alone.gradient_norm > 0);
    AM_CHECK_I64(together.steps, alone.steps);
    AM_CHECK_I64(together.samples, alone.samples);
    AM_CHECK_I64(got.bytes, expected.bytes);
    AM_CHECK(memcmp(got.data, expected.data, (size_t)expected.bytes) == 0);
    free(got.data);
    MPI_Comm group;
    AM_CHECK_I64(MPI_Comm_split(am_world(), am_world_rank() % 3 == 0, 0, &group), MPI_SUCCESS);
    got = train_all(group, s, &together);
    AM_CHECK(memcmp(got.data, expected.data, (size_t)expected.bytes) == 0);
    free(got.data);
    free(expected.data);
    AM_CHECK_I64(MPI_Comm_free(&group), MPI_SUCCESS);
}

static setting setting_make(am_dtype dtype, const char *optimiser, double momentum)
{
    setting s = {.dtype = dtype, .n_tasks = 1, .n = {5 * 30 - 7, 40, 64}};
    s.options = (am_train_options){.batch = 30,
                                   .micro_batches = 4,
                                   .epochs = STEPS / 5,
                                   .train_trunk = true,
                                   .train_head = true,
                                   .seed = 11,
                                   .purpose = "finetune",
                                   .round = 2};
    s.options.optim = (am_optim_options){.method = am_optim_find(optimiser),
                                         .lr = momentum > 0 ? 0.02 : 0.05,
                                         .momentum = momentum,
                                         .weight_decay = 0.01,
                                         .beta1 = 0.9,
                                         .beta2 = 0.99,
                                         .epsilon = 1e-8};
    return s;
}

static const am_dtype dtypes[] = {AM_DTYPE_F32, AM_DTYPE_F64};

static void optimisers_and_leaves(void)
{
    static const int64_t leaves[] = {1, 3, 4, 8};
    for (int d = 0; d < 2; d++) {
        for (int m = 0; m < 4; m++) {
            setting s = setting_make(dtypes[d], "sgd", 0);
            s.options.micro_batches = leaves[m];
            check_same_all(&s);
            s = setting_make(dtypes[d], "sgd", 0.9);
            s.options.micro_batches = leaves[m];
            check_same_all(&s);
            s = setting_make(dtypes[d], "adamw", 0);
            s.options.micro_batches = leaves[m];
            s.options.optim.clip = 0.5;
            check_same_all(&s);
        }
    }
}

/* Fewer samples than ranks and leaves: empty leaves, idle ranks. */
static void more_ranks_than_samples(void)
{
    for (int64_t n = 1; n <= 3; n++) {
        setting s = setting_make(AM_DTYPE_F32, "sgd", 0.9);
        s.n[0] = n;
        s.options.micro_batches = 8;
        check_same_all(&s);
        s.options.batch = 0;
        check_same_all(&s);
    }
}

static void joint_training(void)
{
    for (int mode = 0; mode < 4; mode++) {
        setting s = setting_make(dtypes[mode % 2], mode < 2 ? "sgd" : "adamw", 0.9);
        s.n_tasks = TASKS;
        s.options.sum_tasks = mode % 2 == 0;
        s.options.micro_batches = 3;
        check_same_all(&s);
        s.options.train_head = false;
        check_same_all(&s);
        s.options.train_head = true;
        s.options.train_trunk = false;
        s.options.batch = 0;
        check_same_all(&s);
    }
}

/* Training learns: the checks above would hold for a loop that does nothing. */
static void loss_falls(void)
{
    setting s = setting_make(AM_DTYPE_F32, "sgd", 0.9);
    am_train_result first, last;
    outcome early, late;
    s.options.epochs = 1;
    early = train_all(am_world(), &s, &first);
    s.options.epochs = 40;
    late = train_all(am_world(), &s, &last);
    AM_CHECK(last.loss < 0.5 * first.loss);
    AM_CHECK_I64(last.steps, 40 * 5);
    AM_CHECK_I64(last.samples, 40 * s.n[0]);
    free(early.data);
    free(late.data);
}

static const am_test tests[] = {
    AM_TEST(optimisers_and_leaves),
    AM_TEST(more_ranks_than_samples),
    AM_TEST(joint_training),
    AM_TEST(loss_falls),
};

AM_TEST_MAIN("train_ranks", tests)
