/* Section `theory:`: see section.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/theory/section.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/recipe/lists.h"
#include "mpi/error.h"

typedef struct theory_keys {
    int64_t parts, spectrum, batches;
    double momentum;
    int eigen;
} theory_keys;

static const char eigen_choices[] = "no|largest_eta|all"; /* AM_THEORY_EIGEN_* */
static const am_param table[] = {
    {"parts", AM_PARAM_INT, offsetof(theory_keys, parts), "8", 1, 65536, NULL,
     "parts of the samples of a task that ranks can share; changes the rounding"},
    {"eigen", AM_PARAM_CHOICE, offsetof(theory_keys, eigen), "largest_eta", 0, 0, eigen_choices,
     "measure norms of Hessians along the trajectories: never, for the largest eta, always"},
    {"spectrum", AM_PARAM_INT, offsetof(theory_keys, spectrum), "0", 0, AM_THEORY_MAX_SPECTRUM,
     NULL, "largest eigenvalues of Hessians at the base and where the joint descent ends; 0: none"},
    {"batches", AM_PARAM_INT, offsetof(theory_keys, batches), "4", 1, 65536, NULL,
     "optimizers: steps of an epoch of sgd, each on a part of a task's samples"},
    {"momentum", AM_PARAM_REAL, offsetof(theory_keys, momentum), "0.9", 0, 1, NULL,
     "optimizers: of the heavy ball"},
    {0},
};
static const char *const lists[] = {"k", "alphas", "eta", "tasks", "optimizers", NULL};
const char *const am_theory_optimizer_names[AM_THEORY_OPTIMIZERS + 1] = {"gd", "sgd", "momentum",
                                                                         "adamw", NULL};

typedef struct range_keys {
    double from, to;
    int64_t n;
} range_keys;

static const am_param range_table[] = {
    {"from", AM_PARAM_REAL, offsetof(range_keys, from), NULL, 1e-12, 1e3, NULL, "first eta"},
    {"to", AM_PARAM_REAL, offsetof(range_keys, to), NULL, 1e-12, 1e3, NULL, "last eta"},
    {"n", AM_PARAM_INT, offsetof(range_keys, n), "5", 2, AM_THEORY_MAX_LIST, NULL,
     "how many, each the same factor from the one before"},
    {0},
};

static int read_range(const am_node *map, am_theory_section *out)
{
    range_keys range = {0};
    const int rc = am_recipe_bind(map, range_table, NULL, "theory.eta", &range);
    out->n_etas = rc == AM_OK ? (int)range.n : 0;
    for (int i = 0; i < out->n_etas; i++) {
        const double share = (double)i / (double)(range.n - 1);
        out->eta[i] = i == 0                 ? range.from
                      : i == out->n_etas - 1 ? range.to
                                             : range.from * pow(range.to / range.from, share);
    }
    return rc;
}

static int check_distinct(const am_node *node, const char *what, const double *value, int n)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++) {
            if (value[i] == value[j]) {
                return am_node_fail(node, "%s: %g is listed twice", what, value[i]);
            }
        }
    }
    return AM_OK;
}

static int read_reals(const am_node *map, am_theory_section *out)
{
    const am_node *alphas = am_node_find(map, "alphas"), *eta = am_node_find(map, "eta");
    int rc = AM_OK;
    out->alpha[0] = 0.3;
    out->n_alphas = 1;
    if (alphas != NULL) {
        AM_KEEP(am_recipe_reals(alphas, "theory.alphas", -10, 10, AM_THEORY_MAX_LIST, out->alpha,
                                &out->n_alphas));
        for (int i = 0; rc == AM_OK && i < out->n_alphas; i++) {
            if (out->alpha[i] == 0) {
                rc = am_node_fail(alphas, "theory.alphas: 0 merges nothing");
            }
        }
        AM_KEEP(check_distinct(alphas, "theory.alphas", out->alpha, out->n_alphas));
    }
    if (rc == AM_OK && eta == NULL) {
        rc = am_node_fail(map, "theory needs eta: a list of step sizes, or {from, to, n}");
    } else if (rc == AM_OK && eta->kind == AM_NODE_MAP) {
        rc = read_range(eta, out);
    } else {
        AM_KEEP(am_recipe_reals(eta, "theory.eta", 1e-12, 1e3, AM_THEORY_MAX_LIST, out->eta,
                                &out->n_etas));
    }
    AM_KEEP(check_distinct(eta, "theory.eta", out->eta, out->n_etas));
    return rc;
}

static int read_counts(const am_node *map, int n_tasks, am_theory_section *out)
{
    static const int64_t usual[] = {1, 2, 3, 5, 8};
    const am_node *k = am_node_find(map, "k"), *tasks = am_node_find(map, "tasks");
    int rc = AM_OK;
    out->n_k = sizeof usual / sizeof *usual;
    for (int i = 0; i < out->n_k; i++) {
        out->k[i] = usual[i];
    }
    out->tasks[0] = n_tasks;
    out->n_tasks = 1;
    if (k != NULL) {
        AM_KEEP(
            am_recipe_ascending(k, "theory.k", 1, 10000, AM_THEORY_MAX_LIST, out->k, &out->n_k));
    }
    if (tasks != NULL) {
        AM_KEEP(am_recipe_ascending(tasks, "theory.tasks", 1, n_tasks, AM_THEORY_MAX_LIST,
                                    out->tasks, &out->n_tasks));
    }
    return rc;
}

static int read_optimizer(const am_node *node, am_theory_section *out)
{
    const char *name = NULL;
    const int rc = am_node_text(node, "theory.optimizers", &name);
    if (rc != AM_OK) {
        return rc;
    }
    for (int i = 0; i < AM_THEORY_OPTIMIZERS; i++) {
        if (strcmp(name, am_theory_optimizer_names[i]) != 0) {
            continue;
        }
        for (int k = 0; k < out->n_optimizers; k++) {
            if (out->optimizer[k] == i) {
                return am_node_fail(node, "theory.optimizers: %s is listed twice", name);
            }
        }
        out->optimizer[out->n_optimizers++] = i;
        return AM_OK;
    }
    return am_node_fail(node, "theory.optimizers: %s is none of gd, sgd, momentum, adamw", name);
}

static int read_optimizers(const am_node *map, am_theory_section *out)
{
    const am_node *list = am_node_find(map, "optimizers");
    out->n_optimizers = list == NULL; /* gd */
    int rc = list == NULL ? AM_OK : am_recipe_list(list, "theory.optimizers", AM_THEORY_OPTIMIZERS);
    for (int64_t i = 0; rc == AM_OK && list != NULL && i < list->n; i++) {
        rc = read_optimizer(list->item[i], out);
    }
    return rc;
}

int am_theory_section_read(const am_node *map, int n_tasks, am_theory_section *out)
{
    theory_keys keys = {0};
    *out = (am_theory_section){.is_given = map != NULL};
    if (map == NULL) {
        return AM_OK;
    }
    int rc = am_recipe_bind(map, table, lists, "theory", &keys);
    out->parts = keys.parts;
    out->eigen = keys.eigen;
    out->spectrum = (int)keys.spectrum;
    out->batches = keys.batches;
    out->momentum = keys.momentum;
    AM_KEEP(read_optimizers(map, out));
    AM_KEEP(read_counts(map, n_tasks, out));
    AM_KEEP(read_reals(map, out));
    return rc;
}

static void print_integers(am_json *json, const char *key, const int64_t *value, int n)
{
    am_json_array(json, key);
    for (int i = 0; i < n; i++) {
        am_json_int(json, NULL, value[i]);
    }
    am_json_end_array(json);
}

static void print_reals(am_json *json, const char *key, const double *value, int n)
{
    am_json_array(json, key);
    for (int i = 0; i < n; i++) {
        am_json_real(json, NULL, value[i]);
    }
    am_json_end_array(json);
}

void am_theory_section_print(const am_theory_section *section, am_json *json)
{
    static const char *const eigen[] = {"no", "largest_eta", "all"};
    if (section->is_given) {
        am_json_object(json, "theory");
        print_integers(json, "tasks", section->tasks, section->n_tasks);
        print_integers(json, "k", section->k, section->n_k);
        print_reals(json, "alphas", section->alpha, section->n_alphas);
        print_reals(json, "eta", section->eta, section->n_etas);
        am_json_int(json, "parts", section->parts);
        am_json_string(json, "eigen", eigen[section->eigen]);
        am_json_int(json, "spectrum", section->spectrum);
        am_json_array(json, "optimizers");
        for (int i = 0; i < section->n_optimizers; i++) {
            am_json_string(json, NULL, am_theory_optimizer_names[section->optimizer[i]]);
        }
        am_json_end_array(json);
        am_json_int(json, "batches", section->batches);
        am_json_real(json, "momentum", section->momentum);
        am_json_end_object(json);
    }
}

int am_theory_section_largest(const am_theory_section *section)
{
    int largest = 0;
    for (int i = 1; i < section->n_etas; i++) {
        largest = section->eta[i] > section->eta[largest] ? i : largest;
    }
    return largest;
}

bool am_theory_section_compares(const am_theory_section *section)
{
    return section->n_optimizers > 1 ||
           (section->n_optimizers == 1 && section->optimizer[0] != AM_THEORY_GD);
}
