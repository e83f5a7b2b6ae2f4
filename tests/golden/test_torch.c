/* The presets against PyTorch, whole and with low-rank adapters: probabilities, loss, every
 * gradient tensor, 20 steps of SGD with smoothed labels. torch.bin and lora.bin are made by
 * make_torch.py. SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 32
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "solver/training/lora.h"
#include "solver/training/preset.h"
#include "solver/training/real_pass.h"
#include "solver/training/train.h"
#include "tests/am_test.h"

enum { BATCH = 6, CLASSES = 5, STEPS = 20, NAME = 96 };

/* ---- the file ---- */

typedef struct record {
    char name[NAME];
    uint32_t n;
    float *x; /* [n] owned */
} record;

typedef struct golden {
    uint32_t n;
    record *r; /* [n] owned */
} golden;

static bool read_record(FILE *file, record *r)
{
    uint32_t length = 0;
    bool is_read = fread(&length, sizeof length, 1, file) == 1 && length < NAME &&
                   fread(r->name, 1, length, file) == length &&
                   fread(&r->n, sizeof r->n, 1, file) == 1;
    r->x = is_read ? calloc(r->n + 1, sizeof *r->x) : NULL;
    return r->x != NULL && fread(r->x, sizeof *r->x, r->n, file) == r->n;
}

/* Append the records of a file. */
static void golden_add(golden *g, const char *path)
{
    uint32_t n = 0;
    FILE *file = fopen(path, "rb");
    bool is_read = AM_CHECK(file != NULL) && fread(&n, sizeof n, 1, file) == 1 && n < 10000;
    g->r = realloc(g->r, ((size_t)g->n + n + 1) * sizeof *g->r);
    for (uint32_t i = 0; is_read && i < n; i++) {
        g->r[g->n] = (record){0};
        is_read = read_record(file, &g->r[g->n++]);
    }
    AM_CHECK(is_read && n > 100);
    if (file != NULL) {
        AM_CHECK(fclose(file) == 0);
    }
}

static golden golden_read(void)
{
    golden g = {0};
    golden_add(&g, AM_GOLDEN_TORCH);
    golden_add(&g, AM_GOLDEN_LORA);
    return g;
}

static void golden_free(golden *g)
{
    for (uint32_t i = 0; i < g->n; i++) {
        free(g->r[i].x);
    }
    free(g->r);
}

/* "CASE.WHAT[.TENSOR]"; NULL when it is not there. */
static const record *find(const golden *g, const char *name, const char *what, const char *tensor)
{
    char full[2 * NAME];
    snprintf(full, sizeof full, tensor != NULL ? "%s.%s.%s" : "%s.%s", name, what, tensor);
    for (uint32_t i = 0; i < g->n; i++) {
        if (strcmp(g->r[i].name, full) == 0) {
            return &g->r[i];
        }
    }
    return NULL;
}

/* ---- one preset ---- */

typedef struct torch_case {
    const char *name, *options;
    am_preset_list list;
    int64_t features;
    double lora_alpha; /* 0: no adapters; of rank 2 on every product */
    bool use_rslora;
} torch_case;

static const torch_case cases[] = {
    {"mlp", "activation=gelu", {.n = 2, .value = {8, 6}}, 7, 0, false},
    {"cnn", "kernel=3 hidden=7 batch_norm=yes", {.n = 2, .value = {3, 4}}, 64, 0, false},
    {"vit", "features=8 depth=2 heads=2 hidden=12", {0}, 64, 0, false},
    {"gpt", "vocabulary=11 features=8 depth=2 heads=2 hidden=12", {0}, 9, 0, false},
    {"llama", "vocabulary=11 features=8 depth=2 heads=4 groups=2 hidden=10", {0}, 9, 0, false},
    {"lora-mlp", "activation=gelu", {.n = 2, .value = {8, 6}}, 7, 3, false},
    {"lora-cnn", "kernel=3 hidden=7", {.n = 2, .value = {3, 4}}, 64, 1.5, false},
    {"lora-vit", "features=8 depth=2 heads=2 hidden=12", {0}, 64, 1, false},
    {"lora-gpt", "vocabulary=11 features=8 depth=2 heads=2 hidden=12", {0}, 9, 1, true},
    {"lora-llama", "vocabulary=11 features=8 depth=2 heads=4 groups=2 hidden=10", {0}, 9, 1, false},
};
enum { CASES = sizeof cases / sizeof cases[0] };

typedef struct problem {
    const golden *g;
    const char *name;
    am_net net;
    am_param_layout head;
    float *w, *d; /* [trunk, head] */
    am_samples samples;
} problem;

static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    const problem *p = self;
    const record *all = find(p->g, p->name, "x", NULL), *labels = find(p->g, p->name, "y", NULL);
    const int64_t F = p->net.features, L = am_net_labels(&p->net);
    for (int64_t i = 0; i < count; i++) {
        memcpy(x + i * F, all->x + index[i] * F, (size_t)F * sizeof *x);
        for (int64_t l = 0; l < L; l++) {
            y[i * L + l] = (int32_t)labels->x[index[i] * L + l];
        }
    }
    return 0;
}

/* A block from the records of its tensors; absent ones are as the layers declare them. */
static void load(const problem *p, const am_param_layout *layout, float *w)
{
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const am_tensor *t = &layout->tensors.t[k];
        const record *r = find(p->g, p->name, "start", t->name);
        AM_CHECK(r != NULL || layout->rate[k] != 0);
        for (int64_t i = 0; i < t->numel; i++) {
            w[layout->offset[k] + i] = r != NULL ? r->x[i] : (float)layout->fill[k];
        }
    }
}

/* The network of a case, which says what is frozen. */
static void make_net(const torch_case *c, am_net *out)
{
    am_net whole = {0};
    am_lora_options lora = {.r = 2, .lora_alpha = c->lora_alpha, .use_rslora = c->use_rslora};
    const char *preset = c->lora_alpha > 0 ? c->name + strlen("lora-") : c->name;
    AM_CHECK_OK(am_preset_make(preset, c->options, &c->list, c->lora_alpha > 0 ? &whole : out));
    if (c->lora_alpha > 0) {
        AM_CHECK_OK(am_lora_target(&lora, "*"));
        AM_CHECK_OK(am_lora_adapt(&whole, &lora, out));
        am_lora_options_free(&lora);
        am_net_free(&whole);
    }
    AM_CHECK_OK(am_net_shape(out, c->features));
}

static void problem_make(problem *p, const golden *g, const torch_case *c)
{
    *p = (problem){.g = g, .name = c->name};
    make_net(c, &p->net);
    AM_CHECK_OK(am_net_head_layout(&p->net, CLASSES, AM_DTYPE_F32, &p->head));
    p->w = calloc((size_t)(p->net.trunk.n + p->head.n), sizeof *p->w);
    p->d = calloc((size_t)(p->net.trunk.n + p->head.n), sizeof *p->d);
    load(p, &p->net.trunk, p->w);
    load(p, &p->head, p->w + p->net.trunk.n);
    p->samples = (am_samples){.self = p,
                              .label = c->name,
                              .n = BATCH,
                              .features = c->features,
                              .classes = CLASSES,
                              .labels = am_net_labels(&p->net),
                              .gather = gather};
}

static void problem_free(problem *p)
{
    am_net_free(&p->net);
    am_param_layout_free(&p->head);
    free(p->w);
    free(p->d);
}

/* Largest difference, as a part of the largest value (at least 0.01). */
static double apart(const record *r, const float *x)
{
    double most = 0, largest = 0.01;
    for (uint32_t i = 0; i < r->n; i++) {
        largest = fmax(largest, fabs((double)r->x[i]));
        most = fmax(most, fabs((double)r->x[i] - (double)x[i]));
    }
    return isfinite(most) ? most / largest : INFINITY;
}

/* A frozen tensor has no gradient and ends as it began. */
static void check_frozen(const problem *p, const char *what, const am_tensor *t, const float *x)
{
    const record *start = find(p->g, p->name, "start", t->name);
    const bool is_gradient = strcmp(what, "gradient") == 0;
    for (int64_t i = 0; start != NULL && i < t->numel; i++) {
        if (!AM_CHECK(x[i] == (is_gradient ? 0 : start->x[i]))) {
            return;
        }
    }
    AM_CHECK(start != NULL);
}

static void check_tensors(const problem *p, const char *what, const am_param_layout *layout,
                          const float *x)
{
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const am_tensor *t = &layout->tensors.t[k];
        const record *r = find(p->g, p->name, what, t->name);
        if (r == NULL && layout->is_frozen[k]) {
            check_frozen(p, what, t, x + layout->offset[k]);
        } else if (r == NULL) { /* statistics have no gradient */
            AM_CHECK(layout->rate[k] != 0 && strcmp(what, "gradient") == 0);
        } else if (AM_CHECK_I64(r->n, t->numel) &&
                   !AM_CHECK(apart(r, x + layout->offset[k]) <= 1e-5)) {
            fprintf(stderr, "%s: %g\n", r->name, apart(r, x + layout->offset[k]));
        }
    }
}

static void probabilities(void)
{
    golden g = golden_read();
    for (int c = 0; c < CASES; c++) {
        problem p;
        am_net_pass pass = {0};
        problem_make(&p, &g, &cases[c]);
        AM_CHECK_OK(am_pass_make_f32(&p.net, BATCH, CLASSES, false, &pass));
        for (int64_t b = 0; b < BATCH; b++) {
            pass.index[b] = b;
        }
        AM_CHECK_OK(am_pass_load_f32(&pass, &p.samples, BATCH, CLASSES));
        am_pass_forward_f32(&pass, p.w, p.w + p.net.trunk.n, BATCH, CLASSES);
        const record *r = find(&g, p.name, "probabilities", NULL);
        const float *z = am_pass_probabilities_f32(&pass);
        const int64_t rows = BATCH * am_net_labels(&p.net);
        for (int64_t i = 0; AM_CHECK_I64(r->n, rows * CLASSES) && i < r->n; i++) {
            AM_CHECK(pass.label[i / CLASSES] < 0 || fabsf(r->x[i] - z[i]) <= 1e-6F);
        }
        am_pass_free_f32(&pass);
        problem_free(&p);
    }
    golden_free(&g);
}

static void gradients(void)
{
    golden g = golden_read();
    for (int c = 0; c < CASES; c++) {
        problem p;
        double loss = 0;
        problem_make(&p, &g, &cases[c]);
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                        ->gradient(&p.net, p.w, p.w + p.net.trunk.n, CLASSES, &p.samples, 0, BATCH,
                                   &loss, p.d, p.d + p.net.trunk.n));
        const double golden_loss = (double)find(&g, p.name, "loss", NULL)->x[0];
        AM_CHECK_NEAR(loss, golden_loss, 1e-6 * fmax(1, golden_loss));
        check_tensors(&p, "gradient", &p.net.trunk, p.d);
        check_tensors(&p, "gradient", &p.head, p.d + p.net.trunk.n);
        problem_free(&p);
    }
    golden_free(&g);
}

static void steps(void)
{
    golden g = golden_read();
    for (int c = 0; c < CASES; c++) {
        problem p;
        problem_make(&p, &g, &cases[c]);
        p.net.smoothing = 0.1;
        am_task task = {
            .name = p.name, .train = p.samples, .head = p.w + p.net.trunk.n, .classes = CLASSES};
        am_train_options options = {.optim = {.method = am_optim_find("sgd"), .lr = 0.05},
                                    .micro_batches = 1,
                                    .epochs = 1,
                                    .train_trunk = true,
                                    .train_head = true,
                                    .purpose = "torch"};
        const record *losses = find(&g, p.name, "losses", NULL);
        for (int step = 0; step < STEPS; step++) {
            am_train_result result;
            AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                            ->train_all(MPI_COMM_SELF, &p.net, p.w, &task, 1, &options, &result));
            AM_CHECK_NEAR(result.loss, (double)losses->x[step], 1e-5);
        }
        check_tensors(&p, "end", &p.net.trunk, p.w);
        check_tensors(&p, "end", &p.head, p.w + p.net.trunk.n);
        problem_free(&p);
    }
    golden_free(&g);
}

static const am_test tests[] = {
    AM_TEST(probabilities),
    AM_TEST(gradients),
    AM_TEST(steps),
};

AM_TEST_MAIN("torch", tests)
