/* Small networks of every layer and preset, with generated samples, a trunk and a head: what the
 * tests of derivatives loop over. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_REF_LAYERS_H
#define AM_TESTS_REF_LAYERS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "solver/training/lora.h"
#include "solver/training/preset.h"
#include "solver/training/real_pass.h"
#include "tests/am_test.h"

enum { B = 3, CLASSES = 4, NAME = 64 }; /* samples of a problem, classes of its head */

/* A list of layers, "name layer [attributes]" a line, each on the value before; "@a" before the
 * attributes makes the value called a the first of two inputs. Or a preset; "PATTERN@preset": with
 * adapters. */
typedef struct layers_case {
    const char *what;
    int64_t features;
    const char *preset; /* NULL: lines */
    const char *line[8];
} layers_case;

static const layers_case cases[] = {
    {"linear", 5, NULL, {"a linear out=4 activation=relu", "b linear out=3 activation=tanh"}},
    {"gelu", 5, NULL, {"a linear out=4 activation=gelu", "b linear out=3 activation=gelu_tanh"}},
    {"silu", 5, NULL, {"a linear out=4 activation=silu bias=no", "b linear out=3"}},
    {"sigmoid",
     5,
     NULL,
     {"a linear out=4 activation=sigmoid", "b linear out=3 bias=no activation=gelu_tanh"}},
    {"activations",
     6,
     NULL,
     {"a linear out=5", "b activation function=gelu_tanh", "c linear out=4",
      "d activation function=sigmoid", "e linear out=4", "f activation function=relu"}},
    {"activation",
     6,
     NULL,
     {"a linear out=5", "b activation function=gelu", "c linear out=4",
      "d activation function=tanh", "e linear out=4", "f activation function=silu"}},
    {"conv2d",
     32,
     NULL,
     {"i image channels=2", "a conv2d out=3 kernel=3 padding=1 activation=tanh",
      "b conv2d out=2 kernel=2 stride=2 activation=gelu", "f flatten"}},
    {"conv2d stride",
     50,
     NULL,
     {"i image channels=2",
      "a conv2d out=3 kernel=3 stride=2 padding=2 "
      "bias=no",
      "f flatten"}},
    {"conv2d wide",
     36,
     NULL,
     {"i image", "a conv2d out=11 kernel=3", "b conv2d out=7 kernel=3 padding=1 activation=tanh",
      "c conv2d out=7 kernel=5 padding=2 activation=gelu", "d add @b", "f flatten"}},
    {"conv2d silu",
     32,
     NULL,
     {"i image channels=2", "a conv2d out=3 kernel=3 activation=silu",
      "b conv2d out=2 kernel=2 activation=sigmoid", "f flatten"}},
    {"pool2d max",
     25,
     NULL,
     {"i image", "a conv2d out=2 kernel=2 activation=tanh", "p pool2d kernel=3 stride=1",
      "f flatten"}},
    {"pool2d mean",
     25,
     NULL,
     {"i image", "a conv2d out=2 kernel=2 activation=tanh", "p pool2d function=mean", "f flatten"}},
    {"batch_norm",
     16,
     NULL,
     {"i image", "a conv2d out=3 kernel=2", "n batch_norm", "c activation function=tanh",
      "f flatten"}},
    {"layer_norm", 6, NULL, {"a linear out=19", "n layer_norm", "b linear out=3"}},
    {"rms_norm", 6, NULL, {"a linear out=19", "n rms_norm", "b linear out=3"}},
    {"dropout",
     6,
     NULL,
     {"a linear out=8", "d dropout rate=0.3", "b linear out=5 activation=tanh"}},
    {"gated",
     6,
     NULL,
     {"a linear out=8", "g gated", "c linear out=6", "h gated activation=gelu", "e linear out=4",
      "j gated activation=gelu_tanh"}},
    {"residual",
     6,
     NULL,
     {"a linear out=6 activation=tanh", "b linear out=6 activation=tanh", "c add @a",
      "d linear out=6 activation=gelu", "e add @c", "f add @a"}},
    {"lora",
     6,
     NULL,
     {"a linear out=5 activation=tanh", "b linear out=2 bias=no", "c lora @a scale=0.7",
      "d linear out=3", "e lora @c scale=1.5 activation=gelu", "f lora @c activation=tanh",
      "g lora @e scale=0.5"}},
    {"embedding",
     5,
     NULL,
     {"e embedding vocabulary=7 width=4 sigma=1", "p position sigma=1", "c class_token",
      "f flatten"}},
    {"positions",
     5,
     NULL,
     {"e embedding vocabulary=7 width=4 sigma=1",
      "a linear out=3 "
      "activation=tanh",
      "p pool_positions"}},
    {"last position",
     5,
     NULL,
     {"e embedding vocabulary=7 width=4 sigma=1", "a linear out=3 activation=tanh",
      "p pool_positions take=last"}},
    {"attention",
     7,
     NULL,
     {"e embedding vocabulary=7 width=6 sigma=1", "a linear out=24", "t attention heads=2"}},
    {"causal groups",
     7,
     NULL,
     {"e embedding vocabulary=7 width=6 sigma=1", "a linear out=16",
      "t attention heads=2 groups=1 causal=yes rotary=100"}},
    {"attention in blocks",
     150,
     NULL,
     {"e embedding vocabulary=3 width=2 sigma=1", "a linear out=6",
      "t attention heads=1 causal=yes", "p pool_positions"}},
    {"mlp", 6, "mlp activation=gelu dropout=0.2", {"7", "5"}},
    {"cnn", 64, "cnn kernel=3 hidden=6 batch_norm=yes activation=tanh dropout=0.2", {"2", "3"}},
    {"vit", 64, "vit features=8 depth=2 heads=2 hidden=10 dropout=0.1", {NULL}},
    {"vit mean", 64, "vit features=6 depth=1 heads=3 class_token=no", {NULL}},
    {"gpt", 6, "gpt vocabulary=7 features=8 depth=2 heads=2 dropout=0.1", {NULL}},
    {"llama", 6, "llama vocabulary=7 features=8 depth=2 heads=4 groups=2 hidden=6", {NULL}},
    {"mlp, adapters", 6, "*@mlp activation=gelu dropout=0.2", {"7", "5"}},
    {"cnn, adapters",
     64,
     "*@cnn kernel=3 hidden=6 batch_norm=yes activation=tanh dropout=0.2",
     {"2", "3"}},
    {"vit, adapters", 64, "*@vit features=8 depth=2 heads=2 hidden=10 dropout=0.1", {NULL}},
    {"gpt, adapters", 6, "qkv@gpt vocabulary=7 features=8 depth=2 heads=2 dropout=0.1", {NULL}},
    {"llama, adapters",
     6,
     "*_up@llama vocabulary=7 features=8 depth=2 heads=4 groups=2 hidden=6",
     {NULL}},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static inline int value_of(const am_net *net, const char *name)
{
    for (int i = 0; i < net->n; i++) {
        if (strcmp(net->node[i].name, name) == 0) {
            return i + 1;
        }
    }
    return -1;
}

static inline void add_line(am_net *net, const char *line)
{
    char name[NAME], layer[NAME];
    int used = 0;
    AM_CHECK_I64(sscanf(line, "%63s %63s %n", name, layer, &used), 2);
    if (line[used] == '@') {
        char first[NAME];
        int more = 0;
        AM_CHECK_I64(sscanf(line + used + 1, "%63s %n", first, &more), 1);
        am_net_add2(net, name, layer, value_of(net, first), net->n, "%s", line + used + 1 + more);
    } else {
        am_net_add(net, name, layer, net->n, "%s", line + used);
    }
}

static inline am_net net_of(const layers_case *c)
{
    am_net net = {0};
    char target[NAME] = "";
    if (c->preset != NULL) {
        char name[NAME];
        am_preset_list list = {0};
        const char *at = strchr(c->preset, '@'), *start = at != NULL ? at + 1 : c->preset;
        const char *space = strchr(c->preset, ' ');
        snprintf(name, sizeof name, "%.*s", (int)(space - start), start);
        snprintf(target, sizeof target, "%.*s", at != NULL ? (int)(at - c->preset) : 0, c->preset);
        for (int i = 0; c->line[i] != NULL; i++) {
            list.value[list.n++] = atoll(c->line[i]);
        }
        AM_CHECK_OK(am_preset_make(name, space + 1, &list, &net));
    }
    for (int i = 0; c->preset == NULL && c->line[i] != NULL; i++) {
        add_line(&net, c->line[i]);
    }
    if (target[0] != '\0') {
        am_net adapted;
        am_lora_options lora = {.r = 2, .lora_alpha = 3, .lora_dropout = 0.2};
        AM_CHECK_OK(am_lora_target(&lora, target));
        AM_CHECK_OK(am_lora_adapt(&net, &lora, &adapted));
        am_net_free(&net);
        am_lora_options_free(&lora);
        net = adapted;
    }
    AM_CHECK_OK(am_net_shape(&net, c->features));
    net.smoothing = 0.1;
    return net;
}

/* ---- samples: normal, or tokens below 3 ---- */

typedef struct source {
    const am_net *net;
} source;

static inline int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    const am_net *net = ((source *)self)->net;
    const am_rng rng = am_rng_make(am_test_seed(), "samples", 0, 0, "");
    const int64_t labels = am_net_labels(net);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t f = 0; f < net->features; f++) {
            const int64_t at = index[i] * net->features + f;
            x[i * net->features + f] =
                net->takes_ids ? (float)(am_rng_u32(&rng, at) % 3) : (float)am_rng_normal(&rng, at);
        }
        for (int64_t t = 0; t < labels; t++) { /* every fourth position does not count */
            const uint32_t draw = am_rng_u32(&rng, 100000 + index[i] * labels + t);
            y[i * labels + t] = labels > 1 && t % 4 == 3 ? -1 : (int32_t)(draw % CLASSES);
        }
    }
    return 0;
}

/* ---- one network ---- */

typedef struct problem {
    am_net net;
    source self;
    am_net_pass pass;
    am_param_layout head_layout;
    double *trunk, *head, *d_trunk, *d_head;
    bool is_training;
} problem;

static inline double *block(int64_t n)
{
    double *x = calloc((size_t)(n > 0 ? n : 1), sizeof *x);
    AM_CHECK(x != NULL);
    return x;
}

static inline void perturb(int64_t n, double by, const char *what, double *x)
{
    const am_rng rng = am_rng_make(am_test_seed(), what, 0, 0, "");
    for (int64_t i = 0; i < n; i++) {
        x[i] += by * am_rng_normal(&rng, i);
    }
}

static inline void problem_make(problem *p, const layers_case *c, bool is_training)
{
    const am_param_layout *layout;
    *p = (problem){.net = net_of(c), .is_training = is_training};
    layout = &p->net.trunk;
    p->self.net = &p->net;
    AM_CHECK_OK(am_net_head_layout(&p->net, CLASSES, AM_DTYPE_F64, &p->head_layout));
    p->trunk = block(layout->n);
    p->d_trunk = block(layout->n);
    p->head = block(p->head_layout.n);
    p->d_head = block(p->head_layout.n);
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        for (int64_t i = 0; i < layout->tensors.t[k].numel; i++) {
            p->trunk[layout->offset[k] + i] = layout->fill[k];
        }
    }
    perturb(layout->n, 0.3, "trunk", p->trunk);
    for (int64_t k = 0; k < layout->tensors.n; k++) { /* variances stay positive */
        for (int64_t i = 0; layout->rate[k] != 0 && i < layout->tensors.t[k].numel; i++) {
            double *w = &p->trunk[layout->offset[k] + i];
            *w = fabs(*w) + 0.1;
        }
    }
    perturb(p->head_layout.n, 0.5, "head", p->head);
}

static inline void problem_open(problem *p)
{
    AM_CHECK_OK(am_pass_make_f64(&p->net, B, CLASSES, true, &p->pass));
    p->pass.is_training = p->is_training;
    p->pass.draw = (am_pass_draw){.seed = 1, .purpose = "test", .round = 2, .step = 3};
}

static inline void problem_free(problem *p)
{
    am_pass_free_f64(&p->pass);
    am_param_layout_free(&p->head_layout);
    am_net_free(&p->net);
    free(p->trunk);
    free(p->head);
    free(p->d_trunk);
    free(p->d_head);
}

static inline am_samples problem_samples(problem *p, int64_t n)
{
    return (am_samples){.self = &p->self,
                        .label = "generated",
                        .n = n,
                        .features = p->net.features,
                        .classes = CLASSES,
                        .labels = am_net_labels(&p->net),
                        .gather = gather};
}

#endif
