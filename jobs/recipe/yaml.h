/* YAML as PyYAML reads it (1.1 scalars, anchors, merge keys), into a tree that knows where every
 * node stands. Limits: 1 MiB, 16 levels, 100,000 nodes after the expansion of aliases. Duplicate
 * keys, several documents, tags beyond the core ones and keys that are not scalars are errors.
 *
 *   am_yaml *recipe = NULL;
 *   AM_TRY(am_yaml_read_all(am_world(), path, &recipe));
 *   AM_TRY(am_yaml_override(recipe, "train.epochs=3"));         -- --set
 *   const am_node *train = am_node_find(am_yaml_root(recipe), "train");
 *   AM_TRY(am_recipe_bind(train, table, NULL, "train", &options)); -- recipe.h
 *
 * Everything but the `_all` function is local and pure. Errors are AM_E_RECIPE with
 * "file:line:column: " (or "--set KEY: ") before the text.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_RECIPE_YAML_H
#define AM_JOBS_RECIPE_YAML_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>
#include "mpi/jsonw.h"

enum { AM_YAML_MAX_BYTES = 1 << 20, AM_YAML_MAX_DEPTH = 16, AM_YAML_MAX_NODES = 100000 };

typedef enum am_node_kind { AM_NODE_SCALAR, AM_NODE_LIST, AM_NODE_MAP } am_node_kind;
typedef enum am_scalar { /* what PyYAML would make of a scalar */
                         AM_SCALAR_NULL,
                         AM_SCALAR_BOOL,
                         AM_SCALAR_INT,
                         AM_SCALAR_REAL,
                         AM_SCALAR_TEXT
} am_scalar;

typedef struct am_node am_node;
struct am_node {
    am_node_kind kind;
    am_scalar scalar;   /* scalars only */
    const char *text;   /* scalars only: as written, without quotes */
    bool boolean;       /* AM_SCALAR_BOOL */
    int64_t integer;    /* AM_SCALAR_INT, saturated when is_huge */
    bool is_huge;       /* AM_SCALAR_INT beyond int64 */
    double real;        /* AM_SCALAR_INT and _REAL */
    int64_t n;          /* items of a list or map, in the order of the file */
    am_node **item;     /* [n] */
    am_node **key;      /* [n] maps only: scalars */
    const char *origin; /* file, or "--set KEY" */
    int line, column;   /* from 1; 0 for --set */
    int64_t capacity;
    am_node *next; /* of all nodes of the document */
};

typedef struct am_yaml am_yaml;

/** Parse `bytes` of `text`; `label` (file name for messages) is copied. Freed by am_yaml_free.
 * Errors: AM_E_RECIPE; AM_E_NOMEM. */
int am_yaml_parse(const char *text, int64_t bytes, const char *label, am_yaml **out);
/** Read PATH ("-": standard input) on rank 0, broadcast the bytes and parse them on every rank.
 *
 * Collective [comm]; path [same]. Errors: AM_E_NOINPUT no such file or not readable; AM_E_RECIPE;
 * AM_E_NOMEM; agreed. */
int am_yaml_read_all(MPI_Comm comm, const char *path, am_yaml **out);
void am_yaml_free(am_yaml **yaml);
const am_node *am_yaml_root(const am_yaml *yaml); /* a null scalar for an empty document */
const char *am_yaml_label(const am_yaml *yaml);

/** Apply "a.b.0.c=VALUE": map keys and list indexes from 0; VALUE is YAML; maps on the way and the
 * last key are made when they are missing. */
int am_yaml_override(am_yaml *yaml, const char *assignment);
/** Apply n of them (args->set). */
int am_yaml_override_each(am_yaml *yaml, int n, char *const *assignments);

/* ---- nodes ---- */

/** Value of `key` in a map; NULL when it is absent, null, or `map` is NULL or no map. */
const am_node *am_node_find(const am_node *map, const char *key);
bool am_node_is_null(const am_node *node); /* NULL counts */
/** "file:line:column" or "--set KEY" into a static per-thread buffer (4 in rotation). */
const char *am_node_where(const am_node *node);
/** am_fail(AM_E_RECIPE, ...) with am_node_where before it. */
int am_node_fail(const am_node *node, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Typed reading; `what` names the value in messages ("train.epochs"). */
int am_node_map(const am_node *node, const char *what);                     /* must be a map */
int am_node_list(const am_node *node, const char *what);                    /* must be a list */
int am_node_text(const am_node *node, const char *what, const char **text); /* borrowed */
int am_node_bool(const am_node *node, const char *what, bool *value);
int am_node_int(const am_node *node, const char *what, int64_t low, int64_t high, int64_t *value);
/** Finite. Text such as 1e-3, which PyYAML leaves a string, is read as the number it looks like. */
int am_node_real(const am_node *node, const char *what, double *value);
bool am_node_is_number(const am_node *node); /* would am_node_real succeed */

/** Append the tree as JSON (a document that is YAML too). */
void am_node_json(const am_node *node, const char *key, am_json *out);

#endif
