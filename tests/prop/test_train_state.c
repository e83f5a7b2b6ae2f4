/* Optimisers over 50 steps give the same bytes on any number of ranks, with their state whole or
 * sharded, in one call or in several, and after the state was saved and restored on another number
 * of ranks. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"
#include "tests/am_test.h"
#include "tests/ref_mlp.h"
#include "tests/ref_state.h"

enum { SAMPLES = 143, BATCH = 30, STEPS_EACH = 5, EPOCHS = 10, CLASSES = 6 };

/* Wide enough for several units of the reduction (4,096 reals) in one tensor. */
static const ref_spec spec = {
    .inputs = 9, .n_widths = 2, .widths = {97, 113}, .activation = REF_RELU};

typedef struct run {
    am_train_options options;
    ref_data data;
    am_param_layout trunk, head;
    am_task task;
    float *w; /* trunk, then head */
    am_train_result result;
} run;

static run run_make(const am_optim_options *optim)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    run r = {.options = {.optim = *optim,
                         .batch = BATCH,
                         .micro_batches = 4,
                         .epochs = EPOCHS,
                         .rate = {.schedule = am_rate_find("cosine"), .warmup = 7},
                         .train_trunk = true,
                         .train_head = true,
                         .seed = 11,
                         .purpose = "finetune",
                         .round = 2,
                         .augment = {.shift = 1, .flip = 0.5, .crop = 0.2, .noise = 0.1}}};
    r.data = ref_data_make(am_test_seed(), 0, SAMPLES, spec.inputs, CLASSES);
    AM_CHECK_OK(am_net_trunk_layout(ref_mlp(&spec), AM_DTYPE_F32, &r.trunk));
    AM_CHECK_OK(am_net_head_layout(ref_mlp(&spec), CLASSES, AM_DTYPE_F32, &r.head));
    r.w = calloc((size_t)(r.trunk.n + r.head.n), sizeof *r.w);
    AM_ASSERT(r.w != NULL);
    AM_CHECK_OK(ops->init(&r.trunk, 5, "init", r.w));
    AM_CHECK_OK(ops->init(&r.head, 6, "init", r.w + r.trunk.n));
    r.task = (am_task){.name = "a", .train = {0}, .head = r.w + r.trunk.n, .classes = CLASSES};
    return r;
}

static void run_free(run *r)
{
    ref_data_free(&r->data);
    am_param_layout_free(&r->trunk);
    am_param_layout_free(&r->head);
    free(r->w);
}

static void train_all(run *r, MPI_Comm comm)
{
    r->task.train = ref_samples(&r->data);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                    ->train_all(comm, ref_mlp(&spec), r->w, &r->task, 1, &r->options, &r->result));
}

static am_train_state *state_of(run *r, MPI_Comm comm)
{
    am_train_state *state = NULL;
    r->task.train = ref_samples(&r->data);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                    ->state_make(comm, ref_mlp(&spec), &r->task, 1, &r->options, &state));
    AM_ASSERT(state != NULL);
    return state;
}

static void check_same(const run *got, const run *expected)
{
    const size_t n = (size_t)(expected->trunk.n + expected->head.n);
    AM_CHECK(memcmp(got->w, expected->w, n * sizeof *got->w) == 0);
    AM_CHECK(got->result.loss == expected->result.loss);
    AM_CHECK(got->result.gradient_norm == expected->result.gradient_norm);
    AM_CHECK_I64(got->result.steps, expected->result.steps);
    AM_CHECK_I64(got->result.samples, expected->result.samples);
    AM_CHECK(got->result.is_finished);
}

/* Train `first` steps on all ranks, save, restore on `comm` with the other kind of state, and train
 * to the end in calls of `most` steps. */
static void check_restored_all(const run *expected, MPI_Comm comm, int64_t first, int64_t most)
{
    run r = run_make(&expected->options.optim);
    r.options.optim.is_sharded = !expected->options.optim.is_sharded;
    am_train_state *state = state_of(&r, am_world());
    memory m = memory_make(am_train_state_tensors(state));
    r.options.state = state;
    r.options.most_steps = first;
    train_all(&r, am_world());
    AM_CHECK(!r.result.is_finished);
    const am_sink sink = {
        .self = &m, .label = "memory", .tensors = m.tensors, .store_raw = memory_store};
    AM_CHECK_OK(am_train_state_store_all(state, &sink));
    memory_share_all(&m, am_world());

    r.options.optim.is_sharded = expected->options.optim.is_sharded;
    am_train_state *other = state_of(&r, comm);
    const am_source source = {
        .self = &m, .label = "memory", .tensors = m.tensors, .load_raw = memory_load};
    AM_CHECK_OK(am_train_state_load(other, &source));
    r.options.state = other;
    r.options.most_steps = most;
    int calls = 0;
    do {
        train_all(&r, comm);
        calls++;
    } while (!r.result.is_finished && calls < 100);
    AM_CHECK(most == 0 ? calls == 1 : calls > 1);
    check_same(&r, expected);

    /* Another network's state is refused. */
    am_tensor_table fewer = {0};
    AM_CHECK_OK(am_tensor_table_add(&fewer, "::position", AM_DTYPE_I64, 1, (int64_t[]){3}));
    const am_source wrong = {
        .self = &m, .label = "memory", .tensors = &fewer, .load_raw = memory_load};
    AM_CHECK_I64(am_train_state_load(other, &wrong), AM_E_DATA);
    am_error_clear();
    am_tensor_table_free(&fewer);
    memory_free(&m);
    am_train_state_free(&other);
    am_train_state_free(&state);
    run_free(&r);
}

static void check_optimiser_all(am_optim_options optim)
{
    MPI_Comm group;
    run expected = run_make(&optim);
    train_all(&expected, MPI_COMM_SELF);
    AM_CHECK_I64(expected.result.steps, STEPS_EACH * EPOCHS);
    AM_CHECK(!expected.result.diverged && isfinite(expected.result.loss));
    for (int sharded = 0; sharded < 2; sharded++) {
        optim.is_sharded = sharded != 0;
        run r = run_make(&optim);
        train_all(&r, am_world());
        check_same(&r, &expected);
        run_free(&r);
    }
    AM_CHECK_I64(MPI_Comm_split(am_world(), am_world_rank() % 3 == 0, 0, &group), MPI_SUCCESS);
    check_restored_all(&expected, group, 23, 0);
    check_restored_all(&expected, MPI_COMM_SELF, STEPS_EACH, 0);
    expected.options.optim.is_sharded = true;
    check_restored_all(&expected, am_world(), 1, 17);
    AM_CHECK_I64(MPI_Comm_free(&group), MPI_SUCCESS);
    run_free(&expected);
}

static am_optim_options options_of(const char *name)
{
    return (am_optim_options){.method = am_optim_find(name),
                              .lr = 0.01,
                              .momentum = 0.9,
                              .weight_decay = 0.1,
                              .beta1 = 0.9,
                              .beta2 = 0.99,
                              .epsilon = 1e-8};
}

static void every_optimiser(void)
{
    for (int i = 0; am_optim_names()[i] != NULL; i++) {
        check_optimiser_all(options_of(am_optim_names()[i]));
    }
}

static void clip_and_patterns(void)
{
    char patterns[] = "*.bias";
    am_optim_options o = options_of("adamw");
    o.clip = 0.5;
    o.no_decay = patterns;
    check_optimiser_all(o);
}

static void bf16_weights(void)
{
    am_optim_options o = options_of("adamw");
    o.bf16_weights = true;
    check_optimiser_all(o);
    o.method = am_optim_find("lamb");
    check_optimiser_all(o);
    /* The weights are bf16 numbers, and training moves them although a step is below their spacing.
     */
    run r = run_make(&o), before = run_make(&o);
    r.options.optim.lr = 1e-4;
    train_all(&r, am_world());
    int64_t wide = 0, moved = 0;
    for (int64_t i = 0; i < r.trunk.n; i++) {
        uint32_t word;
        memcpy(&word, &r.w[i], sizeof word);
        wide += (word & 0xffff) != 0;
        moved += fabsf(r.w[i] - before.w[i]) > 0.004F * fabsf(before.w[i]);
    }
    AM_CHECK_I64(wide, 0);
    AM_CHECK(moved > 0);
    run_free(&r);
    run_free(&before);
}

/* What the energy of updates is made of. */
static void energy(void)
{
    const am_optim_options o = options_of("adamw");
    run r = run_make(&o), s = run_make(&o);
    am_train_log whole = {0}, sharded = {0};
    AM_CHECK_OK(am_train_log_make(r.trunk.tensors.n, 1, &whole));
    AM_CHECK_OK(am_train_log_make(r.trunk.tensors.n, 1, &sharded));
    float *before = malloc((size_t)r.trunk.n * sizeof *before);
    AM_ASSERT(before != NULL);
    memcpy(before, r.w, (size_t)r.trunk.n * sizeof *before);
    r.options.most_steps = 1;
    r.options.log = &whole;
    train_all(&r, am_world());
    s.options.most_steps = 1;
    s.options.log = &sharded;
    s.options.optim.is_sharded = true;
    train_all(&s, am_world());
    AM_CHECK(whole.n == 1 && sharded.n == 1);
    for (int64_t k = 0; k < r.trunk.tensors.n; k++) {
        const double got = am_exact_round(&whole.energy[k]);
        double expected = 0;
        for (int64_t i = 0; i < r.trunk.tensors.t[k].numel; i++) {
            const double d = (double)(r.w[r.trunk.offset[k] + i] - before[r.trunk.offset[k] + i]);
            expected += d * d;
        }
        AM_CHECK(expected > 0 && am_exact_round(&sharded.energy[k]) == got);
        AM_CHECK_NEAR(got, expected, 1e-12 * expected);
    }
    free(before);
    am_train_log_free(&whole);
    am_train_log_free(&sharded);
    run_free(&r);
    run_free(&s);
}

/* Records of whole epochs, and of the same epochs in calls of three steps. */
static void records(void)
{
    const am_optim_options o = options_of("adamw");
    run r = run_make(&o), s = run_make(&o);
    am_train_log whole = {0}, parts = {0};
    double step_norm = 0;
    AM_CHECK_OK(am_train_log_make(r.trunk.tensors.n, EPOCHS, &whole));
    AM_CHECK_OK(am_train_log_make(r.trunk.tensors.n, EPOCHS, &parts));
    r.options.log = &whole;
    r.options.first_epoch = s.options.first_epoch = 7;
    train_all(&r, am_world());
    s.task.train = ref_samples(&s.data);
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    AM_CHECK_OK(
        ops->state_make(am_world(), ref_mlp(&spec), &s.task, 1, &s.options, &s.options.state));
    s.options.log = &parts;
    s.options.most_steps = 3;
    while (!s.result.is_finished) {
        train_all(&s, am_world());
    }
    AM_CHECK(whole.n == EPOCHS && parts.n == EPOCHS);
    for (int64_t e = 0; e < EPOCHS; e++) {
        const am_train_record *a = &whole.record[e], *b = &parts.record[e];
        AM_CHECK(a->epoch == 7 + e && a->steps == STEPS_EACH && a->samples == SAMPLES);
        AM_CHECK(b->epoch == a->epoch && b->steps == a->steps && b->samples == a->samples);
        AM_CHECK(a->loss == b->loss && a->norm_last == b->norm_last);
        AM_CHECK(a->norm_most == b->norm_most && a->norm_most >= a->norm_last);
        const double norms = am_exact_round(&a->norm_sum);
        AM_CHECK(am_exact_round(&b->norm_sum) == norms);
        AM_CHECK(norms > 0 && norms <= STEPS_EACH * a->norm_most && a->seconds > 0);
        for (int64_t k = 0; k < whole.tensors; k++) {
            const double energy = am_exact_round(&am_train_log_energy(&whole, e)[k]);
            AM_CHECK(energy > 0);
            AM_CHECK(am_exact_round(&am_train_log_energy(&parts, e)[k]) == energy);
        }
        step_norm = a->norm_last;
    }
    AM_CHECK(whole.record[EPOCHS - 1].loss == r.result.loss && step_norm == r.result.gradient_norm);
    am_train_state_free(&s.options.state);
    am_train_log_free(&whole);
    am_train_log_free(&parts);
    run_free(&r);
    run_free(&s);
}

static const am_test tests[] = {
    AM_TEST(every_optimiser), AM_TEST(clip_and_patterns), AM_TEST(bf16_weights),
    AM_TEST(energy),          AM_TEST(records),
};

AM_TEST_MAIN("train_state", tests)
