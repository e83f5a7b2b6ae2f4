/* Every preset trains to the same bytes on any number of ranks, with augmentation, dropout, batch
 * norm, recomputed segments and frozen tensors; and evaluates to the same bytes.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/runtime.h"
#include "solver/training/preset.h"
#include "solver/training/train.h"
#include "tests/ref_net.h"

enum { CLASSES = 4, SAMPLES = 44, BATCH = 20, MICRO_BATCHES = 8, EPOCHS = 17 }; /* 51 steps */

typedef struct ranks_case {
    const char *preset, *options, *freeze;
    int64_t features;
    bool recompute;
} ranks_case;

static const ranks_case cases[] = {
    {"mlp", "dropout=0.2 activation=gelu", NULL, 9, false},
    {"cnn", "kernel=3 hidden=6 batch_norm=yes dropout=0.2", NULL, 64, false},
    {"vit", "features=8 depth=2 heads=2 dropout=0.1", "patch.*", 64, true},
    {"gpt", "vocabulary=7 features=8 depth=2 heads=2 dropout=0.1", NULL, 8, false},
    {"llama", "vocabulary=7 features=8 depth=2 heads=4 groups=2 dropout=0.1", "token.weight", 8,
     true},
};
enum { CASES = sizeof cases / sizeof cases[0] };
static const am_preset_list small[] = {{.n = 2, .value = {11, 7}}, {.n = 2, .value = {2, 3}}};

typedef struct outcome {
    unsigned char *bytes; /* trunk, head, losses; owned */
    int64_t n;
    am_train_result result;
} outcome;

static void net_make(const ranks_case *c, int i, am_net *net)
{
    AM_CHECK_OK(am_preset_make(c->preset, c->options, i < 2 ? &small[i] : NULL, net));
    if (c->freeze != NULL) {
        AM_CHECK_OK(am_net_freeze(net, c->freeze));
    }
    net->recompute = c->recompute;
    net->smoothing = 0.1;
    AM_CHECK_OK(am_net_shape(net, c->features));
}

/* Train in comm from the same start and evaluate. */
static outcome train_all(MPI_Comm comm, const am_net *net, am_dtype dtype, int64_t epochs)
{
    const am_train_ops *ops = am_train_ops_of(dtype);
    const int64_t real = am_dtype_bytes(dtype);
    ref_source source = {.net = net, .tokens = 7, .classes = CLASSES};
    am_param_layout head;
    outcome out = {0};
    am_eval_result eval = {0};
    AM_CHECK_OK(am_net_head_layout(net, CLASSES, dtype, &head));
    out.n = (net->trunk.n + head.n) * real + 16;
    out.bytes = calloc((size_t)out.n, 1);
    am_task task = {.name = "task",
                    .train = ref_source_samples(&source, SAMPLES),
                    .head = out.bytes + net->trunk.n * real,
                    .classes = CLASSES};
    am_train_options options = {
        .optim = {.method = am_optim_find("sgd"), .lr = 0.05, .momentum = 0.9},
        .batch = BATCH,
        .micro_batches = MICRO_BATCHES,
        .epochs = epochs,
        .train_trunk = true,
        .train_head = true,
        .seed = 3,
        .purpose = "finetune"};
    options.optim.clip = 1;
    if (!net->takes_ids) {
        options.augment = (am_augment_options){.crop = 0.1, .noise = 0.1};
    }
    AM_CHECK_OK(ops->init(&net->trunk, 5, "init", out.bytes));
    AM_CHECK_OK(ops->init(&head, 5, "init", task.head));
    AM_CHECK_OK(ops->train_all(comm, net, out.bytes, &task, 1, &options, &out.result));
    AM_CHECK_OK(ops->eval_all(comm, net, out.bytes, task.head, CLASSES, &task.train, &eval));
    memcpy(out.bytes + out.n - 16, &out.result.loss, 8);
    memcpy(out.bytes + out.n - 8, &eval.loss, 8);
    AM_CHECK(!out.result.diverged && isfinite(eval.loss));
    am_param_layout_free(&head);
    return out;
}

static void same_bytes(void)
{
    for (int i = 0; i < CASES; i++) {
        am_net net;
        net_make(&cases[i], i, &net);
        const am_dtype dtype = i == 2 ? AM_DTYPE_F64 : AM_DTYPE_F32;
        outcome alone = train_all(MPI_COMM_SELF, &net, dtype, EPOCHS);
        outcome together = train_all(am_world(), &net, dtype, EPOCHS);
        AM_CHECK_I64(alone.result.steps, EPOCHS * 3);
        AM_CHECK_I64(alone.n, together.n);
        if (!AM_CHECK(memcmp(alone.bytes, together.bytes, (size_t)alone.n) == 0)) {
            AM_CHECK_TEXT(cases[i].preset, "");
        }
        free(alone.bytes);
        free(together.bytes);
        am_net_free(&net);
    }
}

/* Frozen tensors keep their bytes, others and running statistics move, and the loss falls. */
static void what_moves(void)
{
    for (int i = 0; i < CASES; i++) {
        am_net net;
        net_make(&cases[i], i, &net);
        outcome start = train_all(am_world(), &net, AM_DTYPE_F32, 0);
        outcome first = train_all(am_world(), &net, AM_DTYPE_F32, 1);
        outcome late = train_all(am_world(), &net, AM_DTYPE_F32, 40);
        AM_CHECK(late.result.loss < first.result.loss);
        for (int64_t k = 0; k < net.trunk.tensors.n; k++) {
            const size_t at = (size_t)net.trunk.offset[k] * sizeof(float);
            const size_t n = (size_t)net.trunk.tensors.t[k].numel * sizeof(float);
            const bool is_same = memcmp(start.bytes + at, first.bytes + at, n) == 0;
            AM_CHECK(is_same == net.trunk.is_frozen[k]);
        }
        free(start.bytes);
        free(first.bytes);
        free(late.bytes);
        am_net_free(&net);
    }
}

static const am_test tests[] = {
    AM_TEST(same_bytes),
    AM_TEST(what_moves),
};

AM_TEST_MAIN("net_ranks", tests)
