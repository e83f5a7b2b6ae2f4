/* Sections base, heads, finetune and joint of a training recipe. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "jobs/training/recipe/parts.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/recipe/bind.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "solver/training/optim.h"

enum { SECTION_KEYS = 40 };

static const am_param section_keys[] = {
    {"epochs", AM_PARAM_INT, offsetof(am_train_section, epochs), "1", 0, 1e6, NULL,
     "passes over the training data"},
    {"batch", AM_PARAM_INT, offsetof(am_train_section, batch), "64", 0, 1e9, NULL,
     "samples a step, 0: all of them (full batch)"},
    {"micro_batches", AM_PARAM_INT, offsetof(am_train_section, micro_batches), "2", 1, 65536, NULL,
     "parts of a batch that ranks can share; changes the rounding, so part of the recipe"},
    {"sum_tasks", AM_PARAM_BOOL, offsetof(am_train_section, sum_tasks), "no", 0, 0, NULL,
     "joint: each step sums one batch of every task; else batches of all tasks in shuffled order"},
    {0},
};

static int append(am_param *table, int n, const am_param *more, size_t offset)
{
    for (int i = 0; more[i].key != NULL; i++) {
        AM_ASSERT(n < SECTION_KEYS - 1);
        table[n] = more[i];
        table[n++].offset += offset;
    }
    return n;
}

/* The keys of a section: those of the optimisers, of the learning rate, of augmentation, and ours.
 */
static const am_param *section_table(void)
{
    static am_param table[SECTION_KEYS];
    if (table[0].key == NULL) {
        int n = append(table, 0, am_optim_params(), offsetof(am_train_section, optim));
        n = append(table, n, am_rate_params(), offsetof(am_train_section, rate));
        n = append(table, n, am_augment_params(), offsetof(am_train_section, augment));
        (void)append(table, n, section_keys, 0);
    }
    return table;
}

/* What a section has beside training keys. */
typedef struct extra_keys {
    char *checkpoint, *pretrain;
    bool run, random;
} extra_keys;

static const am_param base_extra[] = {
    {"checkpoint", AM_PARAM_STRING, offsetof(extra_keys, checkpoint), "", 0, 0, NULL,
     "read the base from this checkpoint"},
    {"pretrain", AM_PARAM_STRING, offsetof(extra_keys, pretrain), "", 0, 0, NULL,
     "else train it on this data set; else random"},
    {0},
};
static const am_param heads_extra[] = {
    {"checkpoint", AM_PARAM_STRING, offsetof(extra_keys, checkpoint), "", 0, 0, NULL,
     "read the heads from this checkpoint; else probe the frozen base"},
    {"random", AM_PARAM_BOOL, offsetof(extra_keys, random), "no", 0, 0, NULL,
     "leave the heads at random values, by the seed, instead of probing"},
    {0},
};
static const am_param joint_extra[] = {
    {"run", AM_PARAM_BOOL, offsetof(extra_keys, run), "yes", 0, 0, NULL,
     "train on all tasks together, for comparison"},
    {0},
};

/* One value of a table's object to another; texts are copied. */
static int copy_param(const am_param *param, const void *from, void *to)
{
    const char *source = (const char *)from + param->offset;
    char *target = (char *)to + param->offset;
    size_t bytes = sizeof(int64_t);
    if (param->type == AM_PARAM_STRING) {
        char *const *text = (char *const *)(const void *)source;
        char *copy = *text != NULL ? am_text("%s", *text) : NULL;
        free(*(char **)(void *)target);
        *(char **)(void *)target = copy;
        return *text != NULL && copy == NULL ? AM_E_NOMEM : AM_OK;
    }
    if (param->type == AM_PARAM_CHOICE || param->type == AM_PARAM_DTYPE) {
        bytes = sizeof(int);
    } else if (param->type == AM_PARAM_BOOL) {
        bytes = sizeof(bool);
    }
    memcpy(target, source, bytes);
    return AM_OK;
}

/* A training section with extra keys; keys given in `fallback` (another section) are its defaults.
 */
static int read_section(const am_node *root, const char *name, const am_param *extra_table,
                        const am_train_section *fallback, am_train_section *out, extra_keys *extra)
{
    const am_node *map = am_node_find(root, name);
    const am_param *table = section_table();
    const char *names[SECTION_KEYS + 1], *extra_names[4] = {0};
    int n = 0;
    for (; table[n].key != NULL; n++) {
        names[n] = table[n].key;
    }
    names[n] = NULL;
    for (int i = 0; extra_table != NULL && extra_table[i].key != NULL; i++) {
        AM_ASSERT(i < 3);
        extra_names[i] = extra_table[i].key;
    }
    int rc = am_recipe_bind(map, table, extra_names, name, out);
    if (extra_table != NULL) {
        AM_KEEP(am_recipe_bind(map, extra_table, names, name, extra));
    }
    for (int i = 0; rc == AM_OK && fallback != NULL && table[i].key != NULL; i++) {
        if (am_node_find(map, table[i].key) == NULL && strcmp(table[i].key, "epochs") != 0 &&
            strcmp(table[i].key, "sum_tasks") != 0) {
            AM_KEEP(copy_param(&table[i], fallback, out));
        }
    }
    return rc;
}

int am_train_sections_read(const am_node *root, am_train_recipe *out)
{
    extra_keys base = {0}, heads = {0}, joint = {0};
    int rc = read_section(root, "finetune", NULL, NULL, &out->finetune, NULL);
    AM_KEEP(read_section(root, "base", base_extra, &out->finetune, &out->base, &base));
    AM_KEEP(read_section(root, "heads", heads_extra, &out->finetune, &out->heads, &heads));
    AM_KEEP(read_section(root, "joint", joint_extra, &out->finetune, &out->joint, &joint));
    if (am_node_find(am_node_find(root, "joint"), "epochs") == NULL) {
        out->joint.epochs = 0; /* the budget of the iterative run */
    }
    out->base_checkpoint = base.checkpoint;
    out->base_task = base.pretrain;
    out->heads_checkpoint = heads.checkpoint;
    out->heads_random = heads.random;
    out->run_joint = joint.run;
    if (rc == AM_OK && out->base_checkpoint != NULL && out->base_task != NULL) {
        rc = am_node_fail(am_node_find(root, "base"),
                          "base has both a checkpoint and a data set to pretrain on: keep one");
    }
    if (rc == AM_OK && out->heads_checkpoint != NULL && out->heads_random) {
        rc = am_node_fail(am_node_find(root, "heads"),
                          "heads has both a checkpoint and random: yes: keep one");
    }
    if (rc == AM_OK && out->finetune.epochs < 1) {
        rc = am_node_fail(am_node_find(root, "finetune"), "finetune.epochs must be at least 1");
    }
    return rc;
}

static void json_section(am_json *json, const char *name, const am_train_section *section,
                         const char *checkpoint, const char *pretrain)
{
    am_json_object(json, name); /* left open: the caller adds and ends */
    if (checkpoint != NULL) {
        am_json_string(json, "checkpoint", checkpoint);
    }
    if (pretrain != NULL) {
        am_json_string(json, "pretrain", pretrain);
    }
    am_param_print_json(section_table(), section, json);
}

void am_train_sections_print(const am_train_recipe *r, am_json *json)
{
    json_section(json, "base", &r->base, r->base_checkpoint, r->base_task);
    am_json_end_object(json);
    json_section(json, "heads", &r->heads, r->heads_checkpoint, NULL);
    if (r->heads_random) {
        am_json_bool(json, "random", true);
    }
    am_json_end_object(json);
    json_section(json, "finetune", &r->finetune, NULL, NULL);
    am_json_end_object(json);
}

void am_train_joint_print(const am_train_recipe *r, am_json *json)
{
    json_section(json, "joint", &r->joint, NULL, NULL);
    am_json_bool(json, "run", r->run_joint);
    am_json_end_object(json);
}
