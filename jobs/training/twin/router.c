/* The router: features of the shared model, a network on them, its training and its answers.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

enum { LEAVES = 4 }; /* parts of a batch that ranks share: fixes the rounding */

/* ---- the network ---- */

int am_router_net(int64_t features, int64_t hidden, am_net *out)
{
    *out = (am_net){0};
    (void)am_net_add(out, "hidden", "linear", AM_NET_SAMPLES, "out=%lld activation=relu",
                     (long long)hidden);
    return am_net_shape(out, features);
}

int am_router_make(const am_suite *suite, const am_twin_section *section, am_router *out)
{
    const int64_t C = am_shape_features(&suite->net.out);
    const size_t real = (size_t)am_suite_real_bytes(suite);
    *out = (am_router){0};
    int rc = am_router_net(C, section->hidden, &out->net);
    AM_KEEP(am_net_trunk_layout(&out->net, suite->ops->dtype, &out->trunk));
    AM_KEEP(am_net_head_layout(&out->net, suite->n, suite->ops->dtype, &out->head));
    if (rc == AM_OK) {
        out->trunk_params = am_new(out->trunk.n, real, "the router");
        out->head_params = am_new(out->head.n, real, "the router");
        out->mean = am_new(C, sizeof *out->mean, "the router");
        out->scale = am_new(C, sizeof *out->scale, "the router");
        rc = !out->trunk_params || !out->head_params || !out->mean || !out->scale ? AM_E_NOMEM
                                                                                  : AM_OK;
    }
    return rc;
}

void am_router_free(am_router *router)
{
    am_net_free(&router->net);
    am_param_layout_free(&router->trunk);
    am_param_layout_free(&router->head);
    free(router->trunk_params);
    free(router->head_params);
    free(router->mean);
    free(router->scale);
    *router = (am_router){0};
}

/* ---- features in memory ---- */

typedef struct features {
    float *x;   /* [n, C] owned */
    int32_t *y; /* [n] owned */
    int64_t n, C;
    am_samples samples; /* these */
} features;

static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    const features *f = self;
    for (int64_t i = 0; i < count; i++) {
        memcpy(x + i * f->C, f->x + index[i] * f->C, (size_t)f->C * sizeof *x);
        y[i] = f->y[index[i]];
    }
    return AM_OK;
}

static int features_new(const am_suite *suite, int64_t n, features *out)
{
    const int64_t C = am_shape_features(&suite->net.out);
    *out = (features){.n = n, .C = C};
    out->x = n <= INT64_MAX / C ? am_new(n * C, sizeof *out->x, "features") : NULL;
    out->y = am_new(n, sizeof *out->y, "features");
    out->samples = (am_samples){.label = "router",
                                .n = n,
                                .features = C,
                                .classes = suite->n,
                                .labels = 1,
                                .gather = gather};
    return out->x == NULL || out->y == NULL ? am_fail(AM_E_NOMEM, "out of memory for features")
                                            : AM_OK;
}

static void features_free(features *f)
{
    free(f->x);
    free(f->y);
    *f = (features){0};
}

static void standardise(const am_router *router, features *f)
{
    for (int64_t i = 0; i < f->n; i++) {
        for (int64_t c = 0; c < f->C; c++) {
            float *x = &f->x[i * f->C + c];
            *x = (float)(((double)*x - router->mean[c]) * router->scale[c]);
        }
    }
}

/* Mean and standard deviation of every feature; one that is always the same is only moved. */
static void take_moments(const features *f, am_router *router)
{
    for (int64_t c = 0; c < f->C; c++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < f->n; i++) {
            mean += (double)f->x[i * f->C + c];
        }
        mean /= (double)f->n;
        for (int64_t i = 0; i < f->n; i++) {
            const double d = (double)f->x[i * f->C + c] - mean;
            square += d * d;
        }
        square /= (double)f->n;
        router->mean[c] = mean;
        router->scale[c] = square > 0 ? 1 / sqrt(square) : 1;
    }
}

/* ---- training ---- */

/* Validation samples of a task that the router sees: of their first half. */
static am_samples seen_of(const am_twins *twins, int task)
{
    am_samples samples = am_dataset_half(twins->suite->data[task], AM_VALIDATION, false);
    const int64_t most = twins->section->samples;
    samples.n = most > 0 && most < samples.n ? most : samples.n;
    return samples;
}

static int collect_all(const am_twins *twins, features *out)
{
    const am_suite *suite = twins->suite;
    int64_t n = 0, at = 0;
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        const int64_t own = seen_of(twins, i).n;
        n += own;
        if (own == 0) {
            AM_KEEP(am_fail(AM_E_DATA,
                            "task %s has too few validation samples, %lld: the router of twins "
                            "learns from one half of them and is scored on the other, two at least",
                            am_suite_task(suite, i),
                            (long long)am_dataset_samples(suite->data[i], AM_VALIDATION).n));
        }
    }
    AM_KEEP(features_new(suite, n, out));
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        const am_samples samples = seen_of(twins, i);
        AM_TRY(suite->ops->features_all(suite->comm, &suite->net, twins->shared,
                                        am_dataset_classes(suite->data[i]), &samples,
                                        out->x + at * out->C));
        for (int64_t s = 0; s < samples.n; s++) {
            out->y[at + s] = i;
        }
        at += samples.n;
    }
cleanup:
    return rc;
}

/* AdamW with its defaults, and a rate that falls to zero. */
static int options_of(const am_twins *twins, am_train_options *out)
{
    const am_twin_section *section = twins->section;
    *out = (am_train_options){.batch = section->batch,
                              .micro_batches = LEAVES,
                              .epochs = section->epochs,
                              .rate = {.schedule = am_rate_find("cosine")},
                              .train_trunk = true,
                              .train_head = true,
                              .seed = twins->seed,
                              .purpose = "router"};
    const int rc = am_param_defaults(am_optim_params(), &out->optim);
    out->optim.method = am_optim_find("adamw");
    out->optim.lr = section->lr;
    return rc;
}

int am_twins_route_all(am_twins *twins)
{
    const am_suite *suite = twins->suite;
    am_router *router = &twins->router;
    features f = {0};
    am_train_options options = {0};
    am_train_result result = {0};
    int rc = options_of(twins, &options);
    AM_KEEP(suite->ops->init(&router->trunk, twins->seed, "router", router->trunk_params));
    AM_KEEP(suite->ops->init(&router->head, twins->seed, "router head", router->head_params));
    AM_AGREE(suite->comm);
    AM_TRY(collect_all(twins, &f));
    take_moments(&f, router);
    standardise(router, &f);
    f.samples.self = &f;
    am_task task = {
        .name = "router", .train = f.samples, .head = router->head_params, .classes = suite->n};
    AM_TRY(suite->ops->train_all(suite->comm, &router->net, router->trunk_params, &task, 1,
                                 &options, &result));
    if (result.diverged) { /* the same on all ranks */
        rc = am_fail(AM_E_NUMERIC, "training of the router diverged: lower twin.lr (now %g)",
                     options.optim.lr);
    }
cleanup:
    am_param_free(am_optim_params(), &options.optim);
    features_free(&f);
    return rc;
}

/* ---- answers ---- */

int am_router_weights_all(const am_twins *twins, int task, const am_samples *samples,
                          double *weight)
{
    const am_suite *suite = twins->suite;
    const am_router *router = &twins->router;
    features f = {0};
    int rc = features_new(suite, samples->n, &f);
    AM_AGREE(suite->comm);
    AM_TRY(suite->ops->features_all(suite->comm, &suite->net, twins->shared,
                                    am_dataset_classes(suite->data[task]), samples, f.x));
    standardise(router, &f);
    f.samples.self = &f;
    AM_TRY(suite->ops->probabilities_all(suite->comm, &router->net, router->trunk_params,
                                         router->head_params, suite->n, &f.samples, weight));
cleanup:
    features_free(&f);
    return rc;
}
