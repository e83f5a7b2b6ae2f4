/* Twenty steps of each optimiser against loops written from the papers, in f64, and evaluation
 * against the naive network. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"
#include "tests/am_test.h"
#include "tests/ref_mlp.h"

enum { SAMPLES = 41, BATCH = 11, EPOCHS = 5, STEPS = 20, CLASSES = 4 };

static const am_net_spec spec = {
    .inputs = 6, .n_widths = 2, .widths = {12, 7}, .activation = AM_TANH};

/* Parameters of the reference, trunk then head, with two moments. */
typedef struct reference {
    ref_net net;
    ref_data data;
    int64_t n;
    double *w, *g, *m, *v;
} reference;

static double *block(int64_t n)
{
    double *b = calloc((size_t)n, sizeof *b);
    AM_ASSERT(b != NULL);
    return b;
}

static reference reference_make(void)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    reference r = {.net = ref_net_make(&spec, CLASSES),
                   .data = ref_data_make(am_test_seed(), 0, SAMPLES, spec.inputs, CLASSES)};
    r.n = r.net.trunk.n + r.net.head.n;
    r.w = block(r.n);
    r.g = block(r.n);
    r.m = block(r.n);
    r.v = block(r.n);
    AM_CHECK_OK(ops->init(&r.net.trunk, spec.activation, 1, "init", r.w));
    AM_CHECK_OK(ops->init(&r.net.head, spec.activation, 2, "init", r.w + r.net.trunk.n));
    return r;
}

static void reference_free(reference *r)
{
    ref_net_free(&r->net);
    ref_data_free(&r->data);
    free(r->w);
    free(r->g);
    free(r->m);
    free(r->v);
}

static void step_sgd(reference *r, const am_optim_options *o, double scale, int64_t i)
{
    r->m[i] = o->momentum * r->m[i] + scale * r->g[i] + o->weight_decay * r->w[i];
    r->w[i] = r->w[i] - o->lr * r->m[i];
}

static void step_adamw(reference *r, const am_optim_options *o, double scale, int64_t i, int t)
{
    const double g = scale * r->g[i];
    r->m[i] = o->beta1 * r->m[i] + (1 - o->beta1) * g;
    r->v[i] = o->beta2 * r->v[i] + (1 - o->beta2) * g * g;
    const double m = r->m[i] / (1 - pow(o->beta1, t)), v = r->v[i] / (1 - pow(o->beta2, t));
    r->w[i] = r->w[i] - o->lr * o->weight_decay * r->w[i] - o->lr * m / (sqrt(v) + o->epsilon);
}

/* Returns the mean loss of the last epoch. */
static double reference_train(reference *r, const am_train_options *o, double *norm)
{
    double sum = 0;
    int t = 0;
    int64_t correct = 0;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        const am_rng rng = am_rng_make(o->seed, o->purpose, o->round, epoch, "task");
        am_optim_options optim = o->optim;
        optim.lr *= o->lr_decay != 0 ? pow(o->lr_decay, (double)(o->first_epoch + epoch)) : 1;
        sum = 0;
        for (int64_t lo = 0; lo < SAMPLES; lo += BATCH) {
            int64_t index[BATCH], n = 0;
            for (; n < BATCH && lo + n < SAMPLES; n++) {
                index[n] = am_rng_permute(&rng, SAMPLES, lo + n);
            }
            memset(r->g, 0, (size_t)r->n * sizeof *r->g);
            double *head = r->w + r->net.trunk.n, square = 0;
            sum += (double)n * ref_mean(&r->net, r->w, head, &r->data, index, n, r->g,
                                        r->g + r->net.trunk.n, &correct);
            for (int64_t i = 0; i < r->n; i++) {
                square += r->g[i] * r->g[i];
            }
            *norm = sqrt(square);
            const double clip = o->optim.clip;
            const double scale = clip > 0 && *norm > clip ? clip / *norm : 1;
            t++;
            for (int64_t i = 0; i < r->n; i++) {
                if (o->optim.method == am_optim_find("sgd")) {
                    step_sgd(r, &optim, scale, i);
                } else {
                    step_adamw(r, &optim, scale, i, t);
                }
            }
        }
    }
    AM_CHECK_I64(t, STEPS);
    return sum / SAMPLES;
}

static void check_all(am_optim_options optim, double lr_decay)
{
    am_train_options o = {.optim = optim,
                          .batch = BATCH,
                          .micro_batches = 3,
                          .epochs = EPOCHS,
                          .lr_decay = lr_decay,
                          .first_epoch = 2,
                          .train_trunk = true,
                          .train_head = true,
                          .seed = am_test_seed(),
                          .purpose = "finetune",
                          .round = 4};
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    reference r = reference_make();
    double *got = block(r.n), norm = 0;
    memcpy(got, r.w, (size_t)r.n * sizeof *got);
    am_task task = {.name = "task",
                    .train = ref_samples(&r.data),
                    .head = got + r.net.trunk.n,
                    .classes = CLASSES};
    am_train_result result;
    AM_CHECK_OK(ops->train_all(am_world(), &spec, got, &task, 1, &o, &result));
    const double loss = reference_train(&r, &o, &norm);
    AM_CHECK_NEAR(result.loss, loss, 1e-12);
    AM_CHECK_NEAR(result.gradient_norm, norm, 1e-10 * norm);
    AM_CHECK_I64(result.steps, STEPS);
    for (int64_t i = 0; i < r.n; i++) {
        AM_CHECK_NEAR(got[i], r.w[i], 1e-10 * fmax(1, fabs(r.w[i])));
    }
    /* Evaluation of what was trained. */
    am_eval_result eval;
    int64_t correct = 0;
    const am_samples samples = ref_samples(&r.data);
    AM_CHECK_OK(ops->eval_all(am_world(), &spec, got, task.head, CLASSES, &samples, &eval));
    const double expected =
        ref_mean(&r.net, got, task.head, &r.data, NULL, SAMPLES, NULL, NULL, &correct);
    AM_CHECK_NEAR(eval.loss, expected, 1e-13);
    AM_CHECK_I64(eval.correct, correct);
    AM_CHECK_I64(eval.n, SAMPLES);
    free(got);
    reference_free(&r);
}

static void sgd(void)
{
    check_all((am_optim_options){.method = am_optim_find("sgd"), .lr = 0.3}, 0);
}

static void momentum_and_decay(void)
{
    check_all(
        (am_optim_options){
            .method = am_optim_find("sgd"), .lr = 0.1, .momentum = 0.9, .weight_decay = 0.02},
        0);
}

static void adamw(void)
{
    check_all((am_optim_options){.method = am_optim_find("adamw"),
                                 .lr = 0.01,
                                 .weight_decay = 0.1,
                                 .beta1 = 0.9,
                                 .beta2 = 0.99,
                                 .epsilon = 1e-8},
              0.8);
}

static void clipping(void)
{
    check_all(
        (am_optim_options){.method = am_optim_find("sgd"), .lr = 1, .momentum = 0.5, .clip = 0.1},
        0.5);
}

/* More samples than one evaluation group, f32 and f64, a last group that is not full. */
static void evaluation(void)
{
    const int64_t n = 3 * 256 + 17;
    ref_data data = ref_data_make(am_test_seed(), 1, n, spec.inputs, CLASSES);
    ref_net net = ref_net_make(&spec, CLASSES);
    double *w = block(net.trunk.n + net.head.n), *head = w + net.trunk.n;
    float *w32 = calloc((size_t)(net.trunk.n + net.head.n), sizeof *w32);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)->init(&net.trunk, spec.activation, 1, "init", w32));
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                    ->init(&net.head, spec.activation, 2, "init", w32 + net.trunk.n));
    for (int64_t i = 0; i < net.trunk.n + net.head.n; i++) {
        w[i] = (double)w32[i];
    }
    const am_samples samples = ref_samples(&data);
    am_eval_result eval, eval32;
    int64_t correct = 0;
    const double loss = ref_mean(&net, w, head, &data, NULL, n, NULL, NULL, &correct);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                    ->eval_all(am_world(), &spec, w, head, CLASSES, &samples, &eval));
    AM_CHECK_OK(
        am_train_ops_of(AM_DTYPE_F32)
            ->eval_all(am_world(), &spec, w32, w32 + net.trunk.n, CLASSES, &samples, &eval32));
    AM_CHECK_NEAR(eval.loss, loss, 1e-12);
    AM_CHECK_I64(eval.correct, correct);
    AM_CHECK(correct > 0 && correct < n);
    AM_CHECK_NEAR(eval32.loss, loss, 1e-5);
    AM_CHECK(llabs(eval32.correct - correct) <= 1);
    free(w);
    free(w32);
    ref_net_free(&net);
    ref_data_free(&data);
}

static const am_test tests[] = {
    AM_TEST(sgd),      AM_TEST(momentum_and_decay), AM_TEST(adamw),
    AM_TEST(clipping), AM_TEST(evaluation),
};

AM_TEST_MAIN("train_steps", tests)
