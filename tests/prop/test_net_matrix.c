/* Every preset with every optimiser, with dropout, augmentation, frozen tensors and adapters: 51
 * steps give the same bytes on 1, 2, 3, 4 and 8 ranks, with the optimiser's state whole or sharded,
 * and after a stop in the middle, saved and gone on with on another number of ranks. Compiled
 * twice: AM_LONG takes all cells and all pairs of numbers, else each preset and optimiser is there
 * once. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/runtime.h"
#include "solver/training/lora.h"
#include "solver/training/preset.h"
#include "solver/training/train.h"
#include "tests/ref_net.h"
#include "tests/ref_state.h"

enum { CLASSES = 4, SAMPLES = 44, BATCH = 20, MICRO_BATCHES = 8, EPOCHS = 17, STEPS = 51 };

typedef struct matrix_net {
    const char *what, *preset, *options, *freeze, *target; /* freeze, target: NULL: none */
    int64_t features;
    bool recompute;
} matrix_net;

static const matrix_net nets[] = {
    {"mlp", "mlp", "dropout=0.2 activation=gelu", NULL, NULL, 9, false},
    {"cnn", "cnn", "kernel=3 hidden=6 batch_norm=yes dropout=0.2", NULL, NULL, 64, false},
    {"vit", "vit", "features=8 depth=2 heads=2 dropout=0.1", "patch.*", NULL, 64, true},
    {"gpt", "gpt", "vocabulary=7 features=8 depth=2 heads=2 dropout=0.1", NULL, NULL, 8, false},
    {"llama", "llama", "vocabulary=7 features=8 depth=2 heads=4 groups=2 dropout=0.1",
     "token.weight", NULL, 8, true},
    {"gpt with adapters", "gpt", "vocabulary=7 features=8 depth=2 heads=2 dropout=0.1", NULL, "*",
     8, true},
    {"cnn with adapters", "cnn", "kernel=3 hidden=6 batch_norm=yes dropout=0.2", NULL, "*", 64,
     false},
};
enum { NETS = sizeof nets / sizeof nets[0] };
static const am_preset_list small[] = {{.n = 2, .value = {11, 7}}, {.n = 2, .value = {2, 3}}};

static const char *const optimisers[] = {"sgd", "momentum", "nesterov", "adamw", "lion", "lamb"};
enum { OPTIMISERS = sizeof optimisers / sizeof optimisers[0] };

static const int sizes[] = {1, 2, 3, 4, 8};
enum { SIZES = sizeof sizes / sizeof sizes[0] };
static MPI_Comm group[SIZES]; /* of the first sizes[i] ranks; null on the others */

typedef struct run {
    am_net net;
    ref_source source;
    am_train_options options;
    am_task task;
    unsigned char *bytes; /* trunk, head, loss, norm of the last gradient; owned */
    int64_t n, trunk_bytes;
    am_train_result result;
} run;

static void net_make(const matrix_net *m, am_net *net)
{
    const am_preset_list *list = strcmp(m->preset, "mlp") == 0   ? &small[0]
                                 : strcmp(m->preset, "cnn") == 0 ? &small[1]
                                                                 : NULL;
    AM_CHECK_OK(am_preset_make(m->preset, m->options, list, net));
    if (m->freeze != NULL) {
        AM_CHECK_OK(am_net_freeze(net, m->freeze));
    }
    net->recompute = m->recompute;
    net->smoothing = 0.1;
    if (m->target != NULL) {
        am_lora_options lora = {.r = 2, .lora_alpha = 4, .lora_dropout = 0.1};
        am_net adapted;
        AM_CHECK_OK(am_lora_target(&lora, m->target));
        AM_CHECK_OK(am_lora_adapt(net, &lora, &adapted));
        am_lora_options_free(&lora);
        am_net_free(net);
        *net = adapted;
    }
    AM_CHECK_OK(am_net_shape(net, m->features));
}

static am_optim_options options_of(const char *name)
{
    const bool is_momentum = strcmp(name, "momentum") == 0;
    return (am_optim_options){.method = am_optim_find(is_momentum ? "sgd" : name),
                              .lr = 0.01,
                              .momentum = strcmp(name, "sgd") == 0 ? 0 : 0.9,
                              .weight_decay = 0.1,
                              .beta1 = 0.9,
                              .beta2 = 0.99,
                              .epsilon = 1e-8};
}

static void run_make(run *r, const matrix_net *m, const char *optimiser)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F32);
    am_param_layout head;
    *r = (run){.options = {.optim = options_of(optimiser),
                           .batch = BATCH,
                           .micro_batches = MICRO_BATCHES,
                           .epochs = EPOCHS,
                           .rate = {.schedule = am_rate_find("cosine"), .warmup = 5},
                           .train_trunk = true,
                           .train_head = true,
                           .seed = 3,
                           .purpose = "finetune"}};
    net_make(m, &r->net);
    if (!r->net.takes_ids) {
        r->options.augment =
            (am_augment_options){.shift = 1, .flip = 0.5, .crop = 0.1, .noise = 0.1};
    }
    r->source = (ref_source){.net = &r->net, .tokens = 7, .classes = CLASSES};
    AM_CHECK_OK(am_net_head_layout(&r->net, CLASSES, AM_DTYPE_F32, &head));
    r->trunk_bytes = r->net.trunk.n * (int64_t)sizeof(float);
    r->n = r->trunk_bytes + head.n * (int64_t)sizeof(float) + 16;
    r->bytes = calloc((size_t)r->n, 1);
    AM_ASSERT(r->bytes != NULL);
    r->task = (am_task){.name = "task",
                        .train = ref_source_samples(&r->source, SAMPLES),
                        .head = r->bytes + r->trunk_bytes,
                        .classes = CLASSES};
    AM_CHECK_OK(ops->init(&r->net.trunk, 5, "init", r->bytes));
    AM_CHECK_OK(ops->init(&head, 5, "init", r->task.head));
    am_param_layout_free(&head);
}

static void run_free(run *r)
{
    am_net_free(&r->net);
    free(r->bytes);
}

static void train_all(run *r, MPI_Comm comm)
{
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                    ->train_all(comm, &r->net, r->bytes, &r->task, 1, &r->options, &r->result));
    AM_CHECK(!r->result.diverged);
    memcpy(r->bytes + r->n - 16, &r->result.loss, 8);
    memcpy(r->bytes + r->n - 8, &r->result.gradient_norm, 8);
}

static am_train_state *state_of(run *r, MPI_Comm comm)
{
    am_train_state *state = NULL;
    AM_CHECK_OK(
        am_train_ops_of(AM_DTYPE_F32)->state_make(comm, &r->net, &r->task, 1, &r->options, &state));
    AM_ASSERT(state != NULL);
    return state;
}

static void check_same(const run *r, const run *whole, const char *cell, const char *how)
{
    if (!AM_CHECK(memcmp(r->bytes, whole->bytes, (size_t)r->n) == 0)) {
        fprintf(stderr, "%s: %s: other bytes\n", cell, how);
    }
}

/* From the start in one call on sizes[i] ranks. */
static void whole_all(const run *whole, const matrix_net *m, const char *optimiser, int i,
                      bool is_sharded, const char *cell)
{
    char how[64];
    run r;
    if (group[i] == MPI_COMM_NULL) {
        return;
    }
    run_make(&r, m, optimiser);
    r.options.optim.is_sharded = is_sharded;
    train_all(&r, group[i]);
    AM_CHECK_I64(r.result.steps, STEPS);
    snprintf(how, sizeof how, "%d ranks%s", sizes[i], is_sharded ? ", sharded" : "");
    check_same(&r, whole, cell, how);
    run_free(&r);
}

/* Stopped after 23 steps on sizes[from] ranks, saved, and gone on with on sizes[to]. Every rank
 * has the saved bytes, as if from a file. */
static void resumed_all(const run *whole, const matrix_net *m, const char *optimiser, int from,
                        int to, const char *cell)
{
    char how[64];
    run r;
    run_make(&r, m, optimiser);
    r.options.optim.is_sharded = from % 2 == 0;
    am_train_state *plain = state_of(&r, MPI_COMM_SELF);
    memory saved = memory_make(am_train_state_tensors(plain));
    if (group[from] != MPI_COMM_NULL) {
        am_train_state *state = state_of(&r, group[from]);
        const am_sink sink = {
            .self = &saved, .label = "memory", .tensors = saved.tensors, .store_raw = memory_store};
        r.options.state = state;
        r.options.most_steps = 23;
        train_all(&r, group[from]);
        AM_CHECK(!r.result.is_finished);
        AM_CHECK_OK(am_train_state_store_all(state, &sink));
        am_train_state_free(&state);
    }
    memory_share_all(&saved, am_world());
    AM_CHECK_OK(am_bcast_all(am_world(), 0, r.bytes, r.n));
    if (group[to] != MPI_COMM_NULL) {
        r.options.optim.is_sharded = !r.options.optim.is_sharded;
        am_train_state *state = state_of(&r, group[to]);
        const am_source source = {
            .self = &saved, .label = "memory", .tensors = saved.tensors, .load_raw = memory_load};
        AM_CHECK_OK(am_train_state_load(state, &source));
        r.options.state = state;
        r.options.most_steps = 0;
        train_all(&r, group[to]);
        AM_CHECK(r.result.is_finished);
        snprintf(how, sizeof how, "%d ranks, stopped, %d ranks", sizes[from], sizes[to]);
        check_same(&r, whole, cell, how);
        am_train_state_free(&state);
    }
    memory_free(&saved);
    am_train_state_free(&plain);
    run_free(&r);
}

static void cell_all(const matrix_net *m, const char *optimiser, bool is_long)
{
    char cell[64];
    run whole;
    snprintf(cell, sizeof cell, "%s, %s", m->what, optimiser);
    run_make(&whole, m, optimiser);
    if (am_world_rank() == 0) {
        run start;
        run_make(&start, m, optimiser);
        train_all(&whole, MPI_COMM_SELF);
        AM_CHECK_I64(whole.result.steps, STEPS);
        AM_CHECK(memcmp(start.bytes, whole.bytes, (size_t)whole.trunk_bytes) != 0);
        run_free(&start);
    }
    AM_CHECK_OK(am_bcast_all(am_world(), 0, whole.bytes, whole.n));
    for (int i = 1; i < SIZES; i++) {
        whole_all(&whole, m, optimiser, i, i % 2 == 1, cell);
        if (is_long) {
            whole_all(&whole, m, optimiser, i, i % 2 == 0, cell);
        }
    }
    for (int from = 0; from < SIZES; from++) {
        for (int to = 0; to < SIZES; to++) {
            if (is_long ? from != to : (from == 2 && to == 4)) {
                resumed_all(&whole, m, optimiser, from, to, cell);
            }
        }
    }
    run_free(&whole);
}

static void matrix(void)
{
    AM_CHECK_I64(am_world_size(), 8);
    for (int i = 0; i < SIZES; i++) {
        const bool is_in = am_world_rank() < sizes[i];
        AM_CHECK_I64(MPI_Comm_split(am_world(), is_in ? 0 : MPI_UNDEFINED, 0, &group[i]),
                     MPI_SUCCESS);
    }
#ifdef AM_LONG
    for (int n = 0; n < NETS; n++) {
        for (int o = 0; o < OPTIMISERS; o++) {
            cell_all(&nets[n], optimisers[o], true);
        }
    }
#else
    for (int n = 0; n < NETS; n++) {
        cell_all(&nets[n], optimisers[(n + 3) % OPTIMISERS], false);
    }
#endif
    for (int i = 0; i < SIZES; i++) {
        if (group[i] != MPI_COMM_NULL) {
            AM_CHECK_I64(MPI_Comm_free(&group[i]), MPI_SUCCESS);
        }
    }
}

static const am_test tests[] = {
    AM_TEST(matrix),
};

AM_TEST_MAIN("net_matrix", tests)
