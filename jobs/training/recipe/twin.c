/* Section twin of a training recipe. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "jobs/recipe/bind.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/error.h"

typedef struct twin_keys {
    am_twin_section section;
    int compress, route;
} twin_keys;

static const char compress[] = "svd|magnitude|none"; /* am_twin_way */
static const char route[] = "soft|top1";             /* am_twin_route */

#define AM_AT(member) offsetof(twin_keys, member)
static const am_param table[] = {
    {"models", AM_PARAM_STRING, AM_AT(section.models), "", 0, 0, NULL,
     "path of a task's model, with {task} where its name stands"},
    {"lambda", AM_PARAM_REAL, AM_AT(section.lambda), "0.29", -10, 10, NULL,
     "of the merge that makes the shared model; if merge has a lambda of its own, that"},
    {"compress", AM_PARAM_CHOICE, AM_AT(compress), "svd", 0, 0, compress,
     "what stays of a twin: leading singular directions, largest elements, all"},
    {"density", AM_PARAM_REAL, AM_AT(section.density), "0.2", 0, 1, NULL,
     "share of them that stays, of each tensor with two or more dimensions; one at least"},
    {"route", AM_PARAM_CHOICE, AM_AT(route), "soft", 0, 0, route,
     "a sample's model: all twins by the router's probabilities, or that of the likeliest task"},
    {"hidden", AM_PARAM_INT, AM_AT(section.hidden), "64", 1, 1 << 20, NULL,
     "units of the router's hidden layer"},
    {"epochs", AM_PARAM_INT, AM_AT(section.epochs), "20", 1, 1e6, NULL,
     "of the router's training, on the first half of the validation data"},
    {"batch", AM_PARAM_INT, AM_AT(section.batch), "128", 1, 1e9, NULL, "samples a step of it"},
    {"lr", AM_PARAM_REAL, AM_AT(section.lr), "0.001", 1e-12, 1e6, NULL,
     "its learning rate (AdamW, falling to 0 by a cosine)"},
    {"samples", AM_PARAM_INT, AM_AT(section.samples), "0", 0, 1e12, NULL,
     "of these, samples of each task that the router learns from at most, 0: all"},
    {0},
};
#undef AM_AT

void am_train_twin_lambda(const am_node *root, am_train_recipe *out)
{
    const am_node *own = am_node_find(am_node_find(root, "twin"), "lambda");
    const am_node *given = am_node_find(am_node_find(root, "merge"), "parameters");
    const int lambda = out->merge.lambda;
    if (own == NULL && lambda >= 0 &&
        am_node_find(given, out->merge.method->params[lambda].key) != NULL) {
        out->twin.lambda = out->merge.param[lambda];
    }
}

int am_train_twin_read(const am_node *root, am_train_recipe *out)
{
    const am_node *map = am_node_find(root, "twin");
    twin_keys keys = {0};
    const int rc = am_recipe_bind(map, table, NULL, "twin", &keys);
    out->twin = keys.section;
    out->twin.compress = (am_twin_way)keys.compress;
    out->twin.route = (am_twin_route)keys.route;
    out->has_twin = map != NULL;
    return rc;
}

void am_train_twin_print(const am_train_recipe *recipe, am_json *json)
{
    const twin_keys keys = {.section = recipe->twin,
                            .compress = (int)recipe->twin.compress,
                            .route = (int)recipe->twin.route};
    if (recipe->has_twin) {
        am_json_object(json, "twin");
        am_param_print_json(table, &keys, json);
        am_json_end_object(json);
    }
}
