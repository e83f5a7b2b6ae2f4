/* Shared by the yaml files only. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_RECIPE_YAML_INTERNAL_H
#define AM_JOBS_RECIPE_YAML_INTERNAL_H

#include "jobs/recipe/yaml.h"

/* Strings (labels, scalar texts) live in the same chain as the nodes. */
typedef struct am_yaml_text {
    struct am_yaml_text *next;
    char text[];
} am_yaml_text;

struct am_yaml {
    const char *label;
    am_node *root;
    am_node *nodes; /* all, through next */
    am_yaml_text *texts;
    int64_t n_nodes;
};

/** Copy `bytes` bytes as a string owned by the document. NULL: AM_E_NOMEM in the slot. */
const char *am_yaml_keep(am_yaml *yaml, const char *text, size_t bytes);
/** New empty node owned by the document. Errors: AM_E_RECIPE too many; AM_E_NOMEM. */
int am_yaml_node(am_yaml *yaml, am_node_kind kind, const char *origin, int line, int column,
                 am_node **out);
/** Append to a list (key NULL) or map. Errors: AM_E_NOMEM. */
int am_yaml_append(am_node *parent, am_node *key, am_node *item);
/** Parse into an existing document; *root receives the tree. `origin` is borrowed from `yaml`;
 * is_set: no positions in messages. */
int am_yaml_parse_into(am_yaml *yaml, const char *text, int64_t bytes, const char *origin,
                       bool is_set, am_node **root);

/** Decide what a plain scalar is, as PyYAML's resolver and constructor do; sets scalar, boolean,
 * integer, is_huge and real from node->text. */
void am_yaml_resolve(am_node *node);

#endif
