/* Section regmean of a training recipe. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "jobs/recipe/bind.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/error.h"

typedef struct regmean_keys {
    am_regmean_section section;
    int by, split;
} regmean_keys;

static const char by[] = "layer|block";              /* am_regmean_by */
static const char split[] = "train|validation|test"; /* am_split */

#define AM_AT(member) offsetof(regmean_keys, member)
static const am_param table[] = {
    {"models", AM_PARAM_STRING, AM_AT(section.models), "", 0, 0, NULL,
     "path of a task's model, with {task} where its name stands"},
    {"alpha", AM_PARAM_REAL, AM_AT(section.alpha), "0.95", 0, 1, NULL,
     "what elements of a Gram matrix beside the diagonal are multiplied with"},
    {"by", AM_PARAM_CHOICE, AM_AT(by), "layer", 0, 0, by,
     "what is merged together: a layer, or a block of the preset, with each task's own layers in "
     "it"},
    {"split", AM_PARAM_CHOICE, AM_AT(split), "train", 0, 0, split, "samples of the tasks"},
    {"samples", AM_PARAM_INT, AM_AT(section.samples), "0", 0, 1e12, NULL,
     "of each task at most, 0: all"},
    {"batch", AM_PARAM_INT, AM_AT(section.batch), "512", 1, 1 << 24, NULL,
     "samples between two safe points; fixes the rounding"},
    {"micro_batches", AM_PARAM_INT, AM_AT(section.micro_batches), "8", 1, 1 << 20, NULL,
     "parts of a batch that ranks share; fixes the rounding"},
    {0},
};
#undef AM_AT

int am_train_regmean_read(const am_node *root, am_train_recipe *out)
{
    const am_node *map = am_node_find(root, "regmean");
    regmean_keys keys = {0};
    int rc = am_recipe_bind(map, table, NULL, "regmean", &keys);
    out->regmean = keys.section;
    out->regmean.by = (am_regmean_by)keys.by;
    out->regmean.split = (am_split)keys.split;
    out->has_regmean = map != NULL;
    if (rc == AM_OK && out->regmean.micro_batches > out->regmean.batch) {
        rc = am_node_fail(map,
                          "regmean.micro_batches: %lld parts are more than the samples of a "
                          "regmean.batch, %lld",
                          (long long)out->regmean.micro_batches, (long long)out->regmean.batch);
    }
    return rc;
}

void am_train_regmean_print(const am_train_recipe *recipe, am_json *json)
{
    const regmean_keys keys = {.section = recipe->regmean,
                               .by = (int)recipe->regmean.by,
                               .split = (int)recipe->regmean.split};
    if (recipe->has_regmean) {
        am_json_object(json, "regmean");
        am_param_print_json(table, &keys, json);
        am_json_end_object(json);
    }
}
