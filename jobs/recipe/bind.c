/* From YAML maps to the typed structs of a job. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "jobs/recipe/bind.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"

enum { AM_MAX_KEYS = 128, AM_MAX_LISTED = 20 };

/* All valid keys, NULL-terminated. */
static void list_keys(const am_param *table, const char *const *others,
                      const char *names[AM_MAX_KEYS + 1])
{
    int n = 0;
    for (int i = 0; table != NULL && table[i].key != NULL && n < AM_MAX_KEYS; i++) {
        names[n++] = table[i].key;
    }
    for (int i = 0; others != NULL && others[i] != NULL && n < AM_MAX_KEYS; i++) {
        names[n++] = others[i];
    }
    names[n] = NULL;
}

static bool is_listed(const char *const *names, const char *key)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], key) == 0) {
            return true;
        }
    }
    return false;
}

int am_recipe_check_keys(const am_node *map, const am_param *table, const char *const *others,
                         const char *what)
{
    const char *names[AM_MAX_KEYS + 1];
    char message[AM_MESSAGE_BYTES];
    size_t used = 0;
    int64_t n_bad = 0;
    list_keys(table, others, names);
    for (int64_t i = 0; i < map->n; i++) {
        const am_node *key = map->key[i];
        if (is_listed(names, key->text) || ++n_bad > AM_MAX_LISTED || used >= sizeof message) {
            continue;
        }
        const char *nearest = am_nearest(names, key->text);
        int n =
            snprintf(message + used, sizeof message - used, "%s%s: unknown key '%.80s'%s%s%s%s%s",
                     used > 0 ? "\n" : "", am_node_where(key), key->text,
                     what[0] != '\0' ? " in " : "", what, nearest != NULL ? "; did you mean '" : "",
                     nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
        used += n > 0 ? (size_t)n : 0;
    }
    if (n_bad > AM_MAX_LISTED && used < sizeof message) {
        snprintf(message + used, sizeof message - used, "\nand %lld more",
                 (long long)n_bad - AM_MAX_LISTED);
    }
    return n_bad == 0 ? 0 : am_fail(AM_E_RECIPE, "%s", message);
}

/* The value as am_param_set reads it: PyYAML's integers (octal, binary, sexagesimal, underscores)
 * and numbers in canonical form. */
static int set_value(const am_param *p, const am_node *key, const am_node *value, void *object)
{
    char number[64];
    const char *text = value->text;
    if (value->kind != AM_NODE_SCALAR) {
        return am_node_fail(value, "'%s' must be a single value, not a %s", p->key,
                            value->kind == AM_NODE_LIST ? "list" : "map");
    }
    bool wants_text = p->type == AM_PARAM_STRING || p->type == AM_PARAM_CHOICE;
    if (value->scalar == AM_SCALAR_BOOL && (p->type == AM_PARAM_BOOL)) {
        text = value->boolean ? "true" : "false";
    } else if (value->scalar == AM_SCALAR_INT && !value->is_huge && !wants_text) {
        snprintf(number, sizeof number, "%lld", (long long)value->integer);
        text = number;
    } else if (value->scalar == AM_SCALAR_REAL && !wants_text) {
        snprintf(number, sizeof number, "%.17g", value->real);
        text = number;
    }
    const am_param one[] = {*p, {0}};
    return am_param_set(one, object, key->text, text, am_node_where(value));
}

int am_recipe_bind(const am_node *map, const am_param *table, const char *const *others,
                   const char *what, void *object)
{
    bool is_set[AM_MAX_KEYS] = {false};
    int rc = am_param_defaults(table, object);
    if (rc != 0) {
        return rc;
    }
    if (map != NULL) {
        AM_KEEP(am_node_map(map, what[0] != '\0' ? what : "a recipe"));
        AM_KEEP(am_recipe_check_keys(map, table, others, what));
        for (int64_t i = 0; rc == 0 && i < map->n; i++) {
            int at = am_param_find(table, map->key[i]->text);
            if (at >= 0 && at < AM_MAX_KEYS && !am_node_is_null(map->item[i])) {
                rc = set_value(&table[at], map->key[i], map->item[i], object);
                is_set[at] = true;
            }
        }
    }
    AM_KEEP(am_param_require(table, is_set, map != NULL ? am_node_where(map) : what));
    return rc;
}

/* Folder of `recipe` + "/" + path; NULL when out of memory. */
static char *beside(const char *path, const char *recipe)
{
    const char *slash = strrchr(recipe, '/');
    int64_t folder = slash != NULL ? slash - recipe + 1 : 0;
    char *joined = am_new(folder + (int64_t)strlen(path) + 1, 1, "a path");
    if (joined != NULL) {
        memcpy(joined, recipe, (size_t)folder);
        strcpy(joined + folder, path);
    }
    return joined;
}

/* Whether all paths exist as they are, or (is_beside) in the recipe's folder. */
static int all_exist(const char *const *path, int n, const char *recipe, bool is_beside, bool *all)
{
    *all = true;
    for (int i = 0; i < n && *all; i++) {
        char *joined = is_beside && path[i][0] != '/' ? beside(path[i], recipe) : NULL;
        if (joined == NULL && is_beside && path[i][0] != '/') {
            return AM_E_NOMEM;
        }
        *all = access(joined != NULL ? joined : path[i], F_OK) == 0;
        free(joined);
    }
    return 0;
}

/* On rank 0. */
static int choose_folder(const char *const *path, int n, const char *recipe, bool *is_beside)
{
    bool is_here = false;
    *is_beside = false;
    int rc = all_exist(path, n, recipe, false, &is_here);
    if (rc == 0 && !is_here) {
        rc = all_exist(path, n, recipe, true, is_beside);
    }
    return rc;
}

int am_recipe_paths_all(MPI_Comm comm, const char *const *path, int n, const char *recipe,
                        char **out)
{
    int64_t is_beside = 0;
    bool found = false;
    int rank = 0, rc = 0;
    for (int i = 0; i < n; i++) {
        out[i] = NULL;
    }
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    if (rank == 0) {
        rc = choose_folder(path, n, recipe, &found);
        is_beside = found;
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, &is_beside, sizeof is_beside));
    for (int i = 0; i < n; i++) {
        const bool is_joined = is_beside != 0 && path[i][0] != '/';
        out[i] = beside(path[i], is_joined ? recipe : "");
        AM_KEEP(out[i] != NULL ? 0 : AM_E_NOMEM);
    }
    AM_AGREE(comm);
cleanup:
    for (int i = 0; rc != 0 && i < n; i++) {
        free(out[i]);
        out[i] = NULL;
    }
    return rc;
}

int am_recipe_path_all(MPI_Comm comm, const char *path, const char *recipe, char **out)
{
    return am_recipe_paths_all(comm, &path, 1, recipe, out);
}
