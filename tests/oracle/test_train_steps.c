/* Twenty steps of each optimiser against loops written from the papers, in f64, and evaluation
 * against the naive network. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"
#include "tests/am_test.h"
#include "tests/ref_mlp.h"

enum { SAMPLES = 41, BATCH = 11, EPOCHS = 5, STEPS = 20, CLASSES = 4 };

static const ref_spec spec = {
    .inputs = 6, .n_widths = 2, .widths = {12, 7}, .activation = REF_TANH};

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
    AM_CHECK_OK(ops->init(&r.net.trunk, 1, "init", r.w));
    AM_CHECK_OK(ops->init(&r.net.head, 2, "init", r.w + r.net.trunk.n));
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

/* One step of every parameter, as the papers write it. g is the clipped gradient, d the decay of
 * parameter i, k its tensor [first, end). */
typedef struct place {
    int64_t first, end;
    bool decays;
} place;

static void step_adam(reference *r, const am_optim_options *o, double g, int64_t i, int t,
                      double *m, double *v)
{
    r->m[i] = o->beta1 * r->m[i] + (1 - o->beta1) * g;
    r->v[i] = o->beta2 * r->v[i] + (1 - o->beta2) * g * g;
    *m = r->m[i] / (1 - pow(o->beta1, t));
    *v = r->v[i] / (1 - pow(o->beta2, t));
}

static void step_element(reference *r, const am_optim_options *o, double g, double d, int64_t i,
                         int t)
{
    const char *name = am_optim_names()[o->method];
    const double w = r->w[i], l2 = o->decoupled_decay ? 0 : d * w;
    const double shrink = o->decoupled_decay ? o->lr * d * w : 0;
    if (strcmp(name, "sgd") == 0) {
        r->m[i] = o->momentum * r->m[i] + g + l2;
        r->w[i] = w - shrink - o->lr * r->m[i];
    } else if (strcmp(name, "nesterov") == 0) {
        r->m[i] = o->momentum * r->m[i] + g + l2;
        r->w[i] = w - shrink - o->lr * (g + l2 + o->momentum * r->m[i]);
    } else if (strcmp(name, "lion") == 0) {
        const double c = o->beta1 * r->m[i] + (1 - o->beta1) * g;
        r->w[i] = w - o->lr * ((c > 0 ? 1 : c < 0 ? -1 : 0) + d * w);
        r->m[i] = o->beta2 * r->m[i] + (1 - o->beta2) * g;
    } else {
        double m, v;
        AM_CHECK(strcmp(name, "adamw") == 0);
        step_adam(r, o, g, i, t, &m, &v);
        r->w[i] = w - o->lr * d * w - o->lr * m / (sqrt(v) + o->epsilon);
    }
}

static void step_lamb(reference *r, const am_optim_options *o, double scale, double d,
                      const place *p, int t)
{
    double w2 = 0, u2 = 0;
    for (int64_t i = p->first; i < p->end; i++) {
        double m, v;
        step_adam(r, o, scale * r->g[i], i, t, &m, &v);
        r->g[i] = m / (sqrt(v) + o->epsilon) + d * r->w[i];
        w2 += r->w[i] * r->w[i];
        u2 += r->g[i] * r->g[i];
    }
    const double trust = w2 > 0 && u2 > 0 ? sqrt(w2) / sqrt(u2) : 1;
    for (int64_t i = p->first; i < p->end; i++) {
        r->w[i] -= o->lr * trust * r->g[i];
    }
}

static void step_tensors(reference *r, const am_optim_options *o, const am_param_layout *layout,
                         int64_t start, double scale, int t)
{
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const am_tensor *tensor = &layout->tensors.t[k];
        const place p = {.first = start + layout->offset[k],
                         .end = start + layout->offset[k] + tensor->numel,
                         .decays = o->no_decay == NULL || strstr(tensor->name, "bias") == NULL};
        const double d = p.decays ? o->weight_decay : 0;
        if (strcmp(am_optim_names()[o->method], "lamb") == 0) {
            step_lamb(r, o, scale, d, &p, t);
            continue;
        }
        for (int64_t i = p.first; i < p.end; i++) {
            step_element(r, o, scale * r->g[i], d, i, t);
        }
    }
}

/* The factor of the learning rate at step `at` of this call, 4 steps an epoch, 2 epochs before. */
static double expected_rate(const am_train_options *o, int64_t epoch, int at)
{
    const am_rate *rate = &o->rate;
    const double step = (double)(2 * 4 + at), total = (double)((2 + EPOCHS) * 4);
    double factor = rate->decay != 0 ? pow(rate->decay, (double)(2 + epoch)) : 1;
    const double done = (step - (double)rate->warmup) / (total - (double)rate->warmup);
    if (rate->schedule == am_rate_find("cosine")) {
        const double half = step < (double)rate->warmup ? 1 : (1 + cos(acos(-1) * done)) / 2;
        factor *= rate->floor + (1 - rate->floor) * half;
    } else if (rate->schedule == am_rate_find("linear")) {
        factor *= rate->floor + (1 - rate->floor) * (1 - (done > 0 ? done : 0));
    } else if (rate->schedule == am_rate_find("step")) {
        factor *= pow(rate->factor, (double)((2 + epoch) / rate->every));
    }
    return step < (double)rate->warmup ? factor * (step + 1) / (double)rate->warmup : factor;
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
            optim.lr = o->optim.lr * expected_rate(o, epoch, t - 1);
            step_tensors(r, &optim, &r->net.trunk, 0, scale, t);
            step_tensors(r, &optim, &r->net.head, r->net.trunk.n, scale, t);
        }
    }
    AM_CHECK_I64(t, STEPS);
    return sum / SAMPLES;
}

static void check_rate_all(am_optim_options optim, am_rate rate)
{
    am_train_options o = {.optim = optim,
                          .batch = BATCH,
                          .micro_batches = 3,
                          .epochs = EPOCHS,
                          .rate = rate,
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
    AM_CHECK_OK(ops->train_all(am_world(), ref_mlp(&spec), got, &task, 1, &o, &result));
    const double loss = reference_train(&r, &o, &norm);
    AM_CHECK_NEAR(result.loss, loss, 1e-12);
    AM_CHECK_NEAR(result.gradient_norm, norm, 1e-10 * norm);
    AM_CHECK_I64(result.steps, STEPS);
    for (int64_t i = 0; i < r.n; i++) {
        AM_CHECK_NEAR(got[i], r.w[i], 1e-10 * fmax(1, fabs(r.w[i])));
    }
    /* Evaluation of what was trained. */
    am_eval_result eval = {0};
    int64_t correct = 0;
    const am_samples samples = ref_samples(&r.data);
    AM_CHECK_OK(
        ops->eval_all(am_world(), ref_mlp(&spec), got, task.head, CLASSES, &samples, &eval));
    const double expected =
        ref_mean(&r.net, got, task.head, &r.data, NULL, SAMPLES, NULL, NULL, &correct);
    AM_CHECK_NEAR(eval.loss, expected, 1e-13);
    AM_CHECK_I64(eval.correct, correct);
    AM_CHECK_I64(eval.n, SAMPLES);
    free(got);
    reference_free(&r);
}

static void check_all(am_optim_options optim, double lr_decay)
{
    check_rate_all(optim, (am_rate){.decay = lr_decay});
    optim.is_sharded = true;
    check_rate_all(optim, (am_rate){.decay = lr_decay});
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

static void nesterov(void)
{
    am_optim_options o = {
        .method = am_optim_find("nesterov"), .lr = 0.1, .momentum = 0.9, .weight_decay = 0.02};
    check_all(o, 0);
    o.decoupled_decay = true;
    check_all(o, 0);
    o.method = am_optim_find("sgd");
    check_all(o, 0);
}

static void lion(void)
{
    check_all((am_optim_options){.method = am_optim_find("lion"),
                                 .lr = 0.01,
                                 .weight_decay = 0.1,
                                 .beta1 = 0.9,
                                 .beta2 = 0.99},
              0);
}

static void lamb_and_no_decay(void)
{
    char patterns[] = "norm*, *.bias";
    am_optim_options o = {.method = am_optim_find("lamb"),
                          .lr = 0.01,
                          .weight_decay = 0.1,
                          .beta1 = 0.9,
                          .beta2 = 0.99,
                          .epsilon = 1e-6};
    check_all(o, 0);
    o.no_decay = patterns;
    o.clip = 0.2;
    check_all(o, 0);
    o.method = am_optim_find("adamw");
    check_all(o, 0);
}

static void schedules(void)
{
    const am_optim_options o = {.method = am_optim_find("sgd"), .lr = 0.3, .momentum = 0.5};
    check_rate_all(o, (am_rate){.schedule = am_rate_find("cosine"), .warmup = 11, .floor = 0.1});
    check_rate_all(o, (am_rate){.schedule = am_rate_find("linear"), .decay = 0.9});
    check_rate_all(o, (am_rate){.schedule = am_rate_find("step"), .every = 2, .factor = 0.3});
    check_rate_all(o, (am_rate){.warmup = 50});
    AM_CHECK_I64(am_rate_find("nothing"), -1);
}

enum { MANY = 9 }; /* classes: more than five */

/* Top five, classes, balance and calibration, sample by sample and bin by bin. */
static void check_qualities(const ref_net *net, double *w, const ref_data *data,
                            const am_eval_result *eval)
{
    ref_sample *s = calloc(1, sizeof *s);
    int64_t top5 = 0, seen[MANY] = {0}, right[MANY] = {0}, occur = 0;
    double gap[15] = {0}, recall = 0, distance = 0;
    AM_ASSERT(s != NULL);
    for (int64_t i = 0; i < data->n; i++) {
        int64_t larger = 0;
        double most = 0;
        ref_forward(net, w, w + net->trunk.n, data->x + i * data->C, data->y[i], s);
        for (int64_t k = 0; k < MANY; k++) {
            larger += s->p[k] > s->p[data->y[i]];
            most = fmax(most, s->p[k]);
        }
        top5 += larger < 5;
        seen[data->y[i]]++;
        right[data->y[i]] += s->correct;
        gap[most < 1 ? (int)(15 * most) : 14] += (s->correct ? 1 : 0) - most;
    }
    for (int64_t k = 0; k < MANY; k++) {
        AM_CHECK_I64(eval->of_class[2 * k], seen[k]);
        AM_CHECK_I64(eval->of_class[2 * k + 1], right[k]);
        occur += seen[k] > 0;
        recall += seen[k] > 0 ? (double)right[k] / (double)seen[k] : 0;
    }
    for (int i = 0; i < 15; i++) {
        distance += fabs(gap[i]);
    }
    AM_CHECK_I64(eval->top5, top5);
    AM_CHECK_NEAR(eval->balanced, recall / (double)occur, 1e-14);
    AM_CHECK_NEAR(eval->calibration, distance / (double)data->n, 1e-12);
    AM_CHECK(eval->calibration > 0);
    free(s);
}

/* More samples than one evaluation group, f32 and f64, a last group that is not full. */
static void evaluation(void)
{
    const int64_t n = 3 * 256 + 17;
    ref_data data = ref_data_make(am_test_seed(), 1, n, spec.inputs, MANY);
    ref_net net = ref_net_make(&spec, MANY);
    double *w = block(net.trunk.n + net.head.n), *head = w + net.trunk.n;
    float *w32 = calloc((size_t)(net.trunk.n + net.head.n), sizeof *w32);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)->init(&net.trunk, 1, "init", w32));
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)->init(&net.head, 2, "init", w32 + net.trunk.n));
    for (int64_t i = 0; i < net.trunk.n + net.head.n; i++) {
        w[i] = (double)w32[i];
    }
    const am_samples samples = ref_samples(&data);
    int64_t of_class[2 * MANY];
    am_eval_result eval = {.of_class = of_class}, eval32 = {0};
    int64_t correct = 0;
    const double loss = ref_mean(&net, w, head, &data, NULL, n, NULL, NULL, &correct);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                    ->eval_all(am_world(), ref_mlp(&spec), w, head, MANY, &samples, &eval));
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                    ->eval_all(am_world(), ref_mlp(&spec), w32, w32 + net.trunk.n, MANY, &samples,
                               &eval32));
    AM_CHECK_NEAR(eval.loss, loss, 1e-12);
    AM_CHECK_I64(eval.correct, correct);
    AM_CHECK(correct > 0 && correct < n);
    check_qualities(&net, w, &data, &eval);
    AM_CHECK_NEAR(eval32.loss, loss, 1e-5);
    AM_CHECK(llabs(eval32.correct - correct) <= 1);
    free(w);
    free(w32);
    ref_net_free(&net);
    ref_data_free(&data);
}

static const am_test tests[] = {
    AM_TEST(sgd),
    AM_TEST(momentum_and_decay),
    AM_TEST(adamw),
    AM_TEST(clipping),
    AM_TEST(nesterov),
    AM_TEST(lion),
    AM_TEST(lamb_and_no_decay),
    AM_TEST(schedules),
    AM_TEST(evaluation),
};

AM_TEST_MAIN("train_steps", tests)
