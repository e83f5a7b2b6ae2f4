/* YAML events of libyaml to a tree of nodes; reading a recipe on all ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>
#include "jobs/recipe/yaml_internal.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"

/* ---- memory of a document ---- */

const char *am_yaml_keep(am_yaml *yaml, const char *text, size_t bytes)
{
    am_yaml_text *kept = am_new((int64_t)(sizeof *kept + bytes + 1), 1, "recipe text");
    if (kept == NULL) {
        return NULL;
    }
    memcpy(kept->text, text, bytes);
    kept->next = yaml->texts;
    yaml->texts = kept;
    return kept->text;
}

int am_yaml_node(am_yaml *yaml, am_node_kind kind, const char *origin, int line, int column,
                 am_node **out)
{
    if (yaml->n_nodes >= AM_YAML_MAX_NODES) {
        return am_fail(AM_E_RECIPE, "%s: more than %d values after expanding aliases", yaml->label,
                       AM_YAML_MAX_NODES);
    }
    am_node *node = am_new(1, sizeof *node, "recipe node");
    if (node == NULL) {
        return AM_E_NOMEM;
    }
    *node = (am_node){.kind = kind,
                      .origin = origin,
                      .line = line,
                      .column = column,
                      .text = "",
                      .next = yaml->nodes};
    yaml->nodes = node;
    yaml->n_nodes++;
    *out = node;
    return 0;
}

int am_yaml_append(am_node *parent, am_node *key, am_node *item)
{
    if (parent->n == parent->capacity) {
        int64_t capacity = parent->capacity > 0 ? 2 * parent->capacity : 4;
        am_node **items = realloc(parent->item, (size_t)capacity * sizeof *items);
        if (items == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for the recipe");
        }
        parent->item = items;
        am_node **keys = realloc(parent->key, (size_t)capacity * sizeof *keys);
        if (keys == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for the recipe");
        }
        parent->key = keys;
        parent->capacity = capacity;
    }
    parent->key[parent->n] = key;
    parent->item[parent->n] = item;
    parent->n++;
    return 0;
}

void am_yaml_free(am_yaml **yaml)
{
    if (*yaml == NULL) {
        return;
    }
    for (am_node *node = (*yaml)->nodes; node != NULL;) {
        am_node *next = node->next;
        free(node->item);
        free(node->key);
        free(node);
        node = next;
    }
    for (am_yaml_text *text = (*yaml)->texts; text != NULL;) {
        am_yaml_text *next = text->next;
        free(text);
        text = next;
    }
    free(*yaml);
    *yaml = NULL;
}

const am_node *am_yaml_root(const am_yaml *yaml)
{
    return yaml->root;
}

const char *am_yaml_label(const am_yaml *yaml)
{
    return yaml->label;
}

/* ---- composing ---- */

typedef struct am_anchor {
    const char *name;
    am_node *node; /* NULL while its value is being read */
} am_anchor;

typedef struct am_composer {
    am_yaml *yaml;
    yaml_parser_t parser;
    const char *origin;
    bool is_set;
    am_anchor *anchors; /* [n_anchors] owned */
    int64_t n_anchors, capacity;
} am_composer;

static int fail_at(const am_composer *c, yaml_mark_t mark, const char *text, const char *detail)
{
    if (c->is_set) {
        return am_fail(AM_E_RECIPE, "%s: %s%s", c->origin, text, detail);
    }
    return am_fail(AM_E_RECIPE, "%s:%zu:%zu: %s%s", c->origin, mark.line + 1, mark.column + 1, text,
                   detail);
}

static int next_event(am_composer *c, yaml_event_t *event)
{
    if (yaml_parser_parse(&c->parser, event)) {
        return 0;
    }
    if (c->parser.error == YAML_MEMORY_ERROR) {
        return am_fail(AM_E_NOMEM, "%s: out of memory", c->origin);
    }
    const char *problem = c->parser.problem != NULL ? c->parser.problem : "not YAML";
    if (c->parser.error == YAML_READER_ERROR) {
        return am_fail(AM_E_RECIPE, "%s: byte %zu: %s", c->origin, c->parser.problem_offset,
                       problem);
    }
    return fail_at(c, c->parser.problem_mark, problem, "");
}

static int new_node(am_composer *c, am_node_kind kind, yaml_mark_t mark, am_node **out)
{
    return am_yaml_node(c->yaml, kind, c->origin, c->is_set ? 0 : (int)mark.line + 1,
                        c->is_set ? 0 : (int)mark.column + 1, out);
}

static am_anchor *find_anchor(const am_composer *c, const char *name)
{
    for (int64_t i = c->n_anchors - 1; i >= 0; i--) {
        if (strcmp(c->anchors[i].name, name) == 0) {
            return &c->anchors[i];
        }
    }
    return NULL;
}

/* Register an anchor before its value is read, so that an alias inside it is seen as recursion. */
static int open_anchor(am_composer *c, const yaml_char_t *anchor, yaml_mark_t mark, int64_t *index)
{
    *index = -1;
    if (anchor == NULL) {
        return 0;
    }
    if (find_anchor(c, (const char *)anchor) != NULL) {
        return fail_at(c, mark, "duplicate anchor &", (const char *)anchor);
    }
    if (c->n_anchors == c->capacity) {
        int64_t capacity = c->capacity > 0 ? 2 * c->capacity : 8;
        am_anchor *anchors = realloc(c->anchors, (size_t)capacity * sizeof *anchors);
        if (anchors == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for the recipe");
        }
        c->anchors = anchors;
        c->capacity = capacity;
    }
    const char *name = am_yaml_keep(c->yaml, (const char *)anchor, strlen((const char *)anchor));
    if (name == NULL) {
        return AM_E_NOMEM;
    }
    *index = c->n_anchors;
    c->anchors[c->n_anchors++] = (am_anchor){.name = name};
    return 0;
}

/* Deep copy, counted against the limits like written nodes. */
static int copy_node(am_composer *c, const am_node *from, int depth, yaml_mark_t mark,
                     am_node **out)
{
    if (depth > AM_YAML_MAX_DEPTH) {
        return fail_at(c, mark, "nested too deeply", "");
    }
    am_node *node = NULL;
    int rc = am_yaml_node(c->yaml, from->kind, from->origin, from->line, from->column, &node);
    if (rc != 0) {
        return rc;
    }
    am_node *next = node->next;
    *node = *from;
    node->next = next;
    node->n = node->capacity = 0;
    node->item = node->key = NULL;
    for (int64_t i = 0; rc == 0 && i < from->n; i++) {
        am_node *item = NULL;
        rc = copy_node(c, from->item[i], depth + 1, mark, &item);
        AM_KEEP(am_yaml_append(node, from->key[i], item));
    }
    *out = node;
    return rc;
}

/* An explicit core tag decides the type; any other tag is refused. */
static int apply_tag(am_composer *c, const yaml_event_t *event, const char *tag, am_node *node)
{
    static const char prefix[] = "tag:yaml.org,2002:";
    static const char *const names[] = {"null", "bool", "int", "float", "str"};
    if (strcmp(tag, "!") == 0) { /* PyYAML resolves what carries it */
        am_yaml_resolve(node);
        return 0;
    }
    for (int i = 0; strncmp(tag, prefix, sizeof prefix - 1) == 0 && i < 5; i++) {
        if (strcmp(tag + sizeof prefix - 1, names[i]) != 0) {
            continue;
        }
        am_yaml_resolve(node);
        if (i == AM_SCALAR_TEXT || (i == AM_SCALAR_REAL && node->scalar == AM_SCALAR_INT)) {
            node->scalar = (am_scalar)i;
        }
        return (int)node->scalar == i
                   ? 0
                   : fail_at(c, event->start_mark, "value does not fit its tag !!", names[i]);
    }
    return fail_at(c, event->start_mark, "tag not allowed: ", tag);
}

static int compose_scalar(am_composer *c, const yaml_event_t *event, am_node **out)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t bytes = event->data.scalar.length;
    if (strlen(value) != bytes) {
        return fail_at(c, event->start_mark, "a value with a NUL byte", "");
    }
    am_node *node = NULL;
    int rc = new_node(c, AM_NODE_SCALAR, event->start_mark, &node);
    if (rc != 0) {
        return rc;
    }
    node->text = am_yaml_keep(c->yaml, value, bytes);
    if (node->text == NULL) {
        return AM_E_NOMEM;
    }
    *out = node;
    node->scalar = AM_SCALAR_TEXT;
    if (event->data.scalar.tag != NULL) {
        return apply_tag(c, event, (const char *)event->data.scalar.tag, node);
    }
    if (event->data.scalar.plain_implicit) {
        am_yaml_resolve(node);
    }
    return 0;
}

static int compose(am_composer *c, yaml_event_t *event, int depth, am_node **out);

static int compose_list(am_composer *c, int depth, am_node *list)
{
    int rc = 0;
    for (bool is_open = true; rc == 0 && is_open;) {
        yaml_event_t event;
        rc = next_event(c, &event);
        if (rc != 0) {
            break;
        }
        am_node *item = NULL;
        is_open = event.type != YAML_SEQUENCE_END_EVENT;
        if (is_open) {
            rc = compose(c, &event, depth, &item);
            AM_KEEP(am_yaml_append(list, NULL, item));
        }
        yaml_event_delete(&event);
    }
    return rc;
}

static int64_t find_key(const am_node *map, const char *key)
{
    for (int64_t i = 0; i < map->n; i++) {
        if (strcmp(map->key[i]->text, key) == 0) {
            return i;
        }
    }
    return -1;
}

/* `<<: map` or `<<: [map, ...]`: keys that the map does not have itself, earlier maps first. */
static int merge_into(am_composer *c, am_node *map, const am_node *value, yaml_mark_t mark)
{
    int64_t n = value->kind == AM_NODE_LIST ? value->n : 1;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const am_node *from = value->kind == AM_NODE_LIST ? value->item[i] : value;
        if (from->kind != AM_NODE_MAP) {
            return fail_at(c, mark, "a merge key (<<) needs a map or a list of maps", "");
        }
        for (int64_t k = 0; rc == 0 && k < from->n; k++) {
            if (find_key(map, from->key[k]->text) < 0) {
                rc = am_yaml_append(map, from->key[k], from->item[k]);
            }
        }
    }
    return rc;
}

static int compose_pair(am_composer *c, yaml_event_t *event, int depth, am_node *map,
                        const am_node **merge)
{
    am_node *key = NULL, *value = NULL;
    yaml_event_t value_event;
    yaml_mark_t mark = event->start_mark;
    bool is_merge = event->type == YAML_SCALAR_EVENT && event->data.scalar.plain_implicit &&
                    strcmp((const char *)event->data.scalar.value, "<<") == 0;
    int rc = compose(c, event, depth, &key);
    if (rc != 0) {
        return rc;
    }
    if (key->kind != AM_NODE_SCALAR) {
        return fail_at(c, mark, "a key must be a scalar", "");
    }
    if (is_merge ? *merge != NULL : find_key(map, key->text) >= 0) {
        char first[64] = "";
        int64_t at = is_merge ? -1 : find_key(map, key->text);
        if (at >= 0 && !c->is_set) {
            snprintf(first, sizeof first, "' (first at line %d)", map->key[at]->line);
        }
        char text[256];
        snprintf(text, sizeof text, "duplicate key '%.160s", key->text);
        return fail_at(c, mark, text, first[0] != '\0' ? first : "'");
    }
    rc = next_event(c, &value_event);
    if (rc != 0) {
        return rc;
    }
    rc = compose(c, &value_event, depth, &value);
    yaml_event_delete(&value_event);
    if (rc == 0 && is_merge) {
        *merge = value;
        return 0;
    }
    AM_KEEP(am_yaml_append(map, key, value));
    return rc;
}

static int compose_map(am_composer *c, int depth, am_node *map)
{
    const am_node *merge = NULL;
    yaml_mark_t merge_mark = {0};
    int rc = 0;
    for (bool is_open = true; rc == 0 && is_open;) {
        yaml_event_t event;
        rc = next_event(c, &event);
        if (rc != 0) {
            break;
        }
        is_open = event.type != YAML_MAPPING_END_EVENT;
        if (is_open) {
            bool had_merge = merge != NULL;
            rc = compose_pair(c, &event, depth, map, &merge);
            merge_mark = !had_merge && merge != NULL ? event.start_mark : merge_mark;
        }
        yaml_event_delete(&event);
    }
    if (rc == 0 && merge != NULL) {
        rc = merge_into(c, map, merge, merge_mark);
    }
    return rc;
}

static int compose_alias(am_composer *c, const yaml_event_t *event, int depth, am_node **out)
{
    const char *name = (const char *)event->data.alias.anchor;
    const am_anchor *anchor = find_anchor(c, name);
    if (anchor == NULL) {
        return fail_at(c, event->start_mark, "undefined alias *", name);
    }
    if (anchor->node == NULL) {
        return fail_at(c, event->start_mark, "an alias inside its own anchor: *", name);
    }
    return copy_node(c, anchor->node, depth, event->start_mark, out);
}

static int check_collection_tag(am_composer *c, const yaml_event_t *event, const yaml_char_t *tag,
                                const char *core)
{
    const char *name = (const char *)tag;
    return name == NULL || strcmp(name, "!") == 0 || strcmp(name, core) == 0
               ? 0
               : fail_at(c, event->start_mark, "tag not allowed: ", name);
}

/* The node that starts with `event` (which the caller deletes). Recursion is bounded by depth. */
static int compose(am_composer *c, yaml_event_t *event, int depth, am_node **out)
{
    if (event->type == YAML_ALIAS_EVENT) {
        return compose_alias(c, event, depth + 1, out);
    }
    if (depth + 1 > AM_YAML_MAX_DEPTH) {
        return fail_at(c, event->start_mark, "nested too deeply", "");
    }
    int64_t anchor = -1;
    int rc = 0;
    if (event->type == YAML_SCALAR_EVENT) {
        rc = open_anchor(c, event->data.scalar.anchor, event->start_mark, &anchor);
        AM_KEEP(compose_scalar(c, event, out));
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        rc = open_anchor(c, event->data.sequence_start.anchor, event->start_mark, &anchor);
        AM_KEEP(check_collection_tag(c, event, event->data.sequence_start.tag,
                                     "tag:yaml.org,2002:seq"));
        AM_KEEP(new_node(c, AM_NODE_LIST, event->start_mark, out));
        AM_KEEP(compose_list(c, depth + 1, *out));
    } else {
        rc = open_anchor(c, event->data.mapping_start.anchor, event->start_mark, &anchor);
        AM_KEEP(
            check_collection_tag(c, event, event->data.mapping_start.tag, "tag:yaml.org,2002:map"));
        AM_KEEP(new_node(c, AM_NODE_MAP, event->start_mark, out));
        AM_KEEP(compose_map(c, depth + 1, *out));
    }
    if (rc == 0 && anchor >= 0) {
        c->anchors[anchor].node = *out;
    }
    return rc;
}

/* stream start, [document start, node, document end], stream end */
static int compose_stream(am_composer *c, am_node **root)
{
    int n_documents = 0;
    int rc = 0;
    for (bool is_open = true; rc == 0 && is_open;) {
        yaml_event_t event;
        rc = next_event(c, &event);
        if (rc != 0) {
            break;
        }
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            is_open = false;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (n_documents++ > 0) {
                rc = fail_at(c, event.start_mark, "more than one document (---)", "");
            }
            break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
        case YAML_NO_EVENT:
            break;
        default:
            rc = compose(c, &event, 0, root);
        }
        yaml_event_delete(&event);
    }
    if (rc == 0 && *root == NULL) {
        rc = new_node(c, AM_NODE_SCALAR, (yaml_mark_t){0}, root);
    }
    return rc;
}

int am_yaml_parse_into(am_yaml *yaml, const char *text, int64_t bytes, const char *origin,
                       bool is_set, am_node **root)
{
    am_composer c = {.yaml = yaml, .origin = origin, .is_set = is_set};
    *root = NULL;
    if (bytes > AM_YAML_MAX_BYTES) {
        return am_fail(AM_E_RECIPE, "%s: larger than 1 MiB: not a recipe", origin);
    }
    if (!yaml_parser_initialize(&c.parser)) {
        return am_fail(AM_E_NOMEM, "%s: out of memory", origin);
    }
    yaml_parser_set_input_string(&c.parser, (const unsigned char *)text, (size_t)bytes);
    int rc = compose_stream(&c, root);
    yaml_parser_delete(&c.parser);
    free(c.anchors);
    return rc;
}

int am_yaml_parse(const char *text, int64_t bytes, const char *label, am_yaml **out)
{
    int rc = 0;
    am_yaml *yaml = am_new(1, sizeof *yaml, "recipe");
    *out = NULL;
    if (yaml == NULL) {
        return AM_E_NOMEM;
    }
    yaml->label = am_yaml_keep(yaml, label, strlen(label));
    AM_TRY(yaml->label != NULL ? 0 : AM_E_NOMEM);
    AM_TRY(am_yaml_parse_into(yaml, text, bytes, yaml->label, false, &yaml->root));
    *out = yaml;
    yaml = NULL;
cleanup:
    am_yaml_free(&yaml);
    return rc;
}

/* ---- reading ---- */

/* The whole of PATH, at most one byte more than is allowed. */
static int read_bytes(const char *path, char **bytes, int64_t *n)
{
    int rc = 0;
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (file == NULL) {
        return am_fail_errno(AM_E_NOINPUT, errno, "%s: cannot open the recipe", path);
    }
    char *buffer = am_new(AM_YAML_MAX_BYTES + 2, 1, "recipe text");
    AM_TRY(buffer != NULL ? 0 : AM_E_NOMEM);
    *n = (int64_t)fread(buffer, 1, AM_YAML_MAX_BYTES + 1, file);
    if (ferror(file)) {
        rc = am_fail_errno(AM_E_NOINPUT, errno, "%s: cannot read the recipe", path);
    }
cleanup:
    *bytes = buffer;
    if (!is_stdin) {
        fclose(file);
    }
    return rc;
}

int am_yaml_read_all(MPI_Comm comm, const char *path, am_yaml **out)
{
    char *bytes = NULL;
    int64_t n = 0;
    int rank = 0, rc = 0;
    *out = NULL;
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    if (rank == 0) {
        rc = read_bytes(path, &bytes, &n);
    }
    AM_TRY(am_share_bytes_all(comm, 0, rc, &bytes, &n));
    rc = am_yaml_parse(bytes, n, path, out);
    AM_AGREE(comm);
cleanup:
    free(bytes);
    if (rc != 0) {
        am_yaml_free(out);
    }
    return rc;
}
