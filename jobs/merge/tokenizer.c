/* Vocabularies of tokenizers. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/tokenizer.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/companion.h"
#include "io/file.h"
#include "jobs/merge/json_text.h"
#include "mpi/error.h"

static const int64_t largest_file = 256 << 20;
enum { MOST_TOKENS = 1 << 24 };

/* ---- the table ---- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(((const am_token *)a)->text, ((const am_token *)b)->text);
}

static int compare_ids(const void *a, const void *b)
{
    const am_token *x = *(const am_token *const *)a, *y = *(const am_token *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

static const am_token *find(const am_vocabulary *v, const char *text)
{
    const am_token key = {.text = (char *)(uintptr_t)text}; /* only read */
    return v->n > 0 ? bsearch(&key, v->token, (size_t)v->n, sizeof key, compare_texts) : NULL;
}

int64_t am_vocabulary_find(const am_vocabulary *v, const char *text)
{
    const am_token *token = find(v, text);
    return token != NULL ? token->id : -1;
}

/* At the end, unsorted. entry NULL: an ordinary token. */
static int append(am_vocabulary *v, const char *text, int64_t id, const char *entry)
{
    if (v->n == v->capacity) {
        const int64_t more = v->capacity > 0 ? 2 * v->capacity : 1024;
        am_token *wider = realloc(v->token, (size_t)more * sizeof *wider);
        if (wider == NULL) {
            return am_fail(AM_E_NOMEM, "no memory for a vocabulary of %" PRId64 " tokens", more);
        }
        v->token = wider;
        v->capacity = more;
    }
    am_token *token = &v->token[v->n];
    *token = (am_token){.text = am_text("%s", text), .id = id};
    token->entry = entry != NULL ? am_text("%s", entry) : NULL;
    v->n += token->text != NULL;
    v->size = id >= v->size ? id + 1 : v->size;
    return token->text != NULL && (entry == NULL || token->entry != NULL) ? 0 : AM_E_NOMEM;
}

static void sort(am_vocabulary *v)
{
    if (v->n > 1) {
        qsort(v->token, (size_t)v->n, sizeof *v->token, compare_texts);
    }
}

/* Sorts; an added token takes the place of the ordinary one of the same text and number. */
static int finish(am_vocabulary *v, const char *folder)
{
    int64_t kept = 0;
    int rc = 0;
    sort(v);
    for (int64_t i = 0; i < v->n; i++) {
        am_token *last = kept > 0 ? &v->token[kept - 1] : NULL;
        am_token *token = &v->token[i];
        if (last == NULL || strcmp(last->text, token->text) != 0) {
            v->token[kept++] = *token;
            continue;
        }
        if (rc == 0 && last->id != token->id) {
            rc = am_fail(AM_E_DATA,
                         "%s: the tokenizer gives '%s' two numbers, %" PRId64 " and %" PRId64,
                         folder, last->text, last->id, token->id);
        }
        if (last->entry == NULL) {
            last->entry = token->entry;
            token->entry = NULL;
        }
        free(token->text);
        free(token->entry);
    }
    v->n = kept;
    return rc;
}

void am_vocabulary_free(am_vocabulary *v)
{
    for (int64_t i = 0; i < v->n; i++) {
        free(v->token[i].text);
        free(v->token[i].entry);
    }
    free(v->token);
    *v = (am_vocabulary){0};
}

int am_vocabulary_add(am_vocabulary *v, const char *text)
{
    if (find(v, text) != NULL) {
        return 0;
    }
    int rc = append(v, text, v->size, NULL);
    sort(v);
    return rc;
}

int am_vocabulary_unite(am_vocabulary *v, const am_vocabulary *other)
{
    const int64_t n = v->n;
    const am_token **order = malloc(((size_t)other->n + 1) * sizeof *order);
    int rc = order != NULL ? 0 : am_fail(AM_E_NOMEM, "no memory for a vocabulary");
    for (int64_t i = 0; rc == 0 && i < other->n; i++) {
        order[i] = &other->token[i];
    }
    if (rc == 0 && other->n > 1) {
        qsort(order, (size_t)other->n, sizeof *order, compare_ids);
    }
    for (int added = 0; added < 2; added++) {
        for (int64_t i = 0; rc == 0 && i < other->n; i++) {
            const am_vocabulary sorted = {.n = n, .token = v->token};
            if ((order[i]->entry != NULL) == (added == 1) &&
                find(&sorted, order[i]->text) == NULL) {
                rc = append(v, order[i]->text, v->size, order[i]->entry);
            }
        }
    }
    free(order);
    sort(v);
    return rc;
}

/* ---- files ---- */

static int bad(const char *folder, const char *file, const char *what)
{
    return am_fail(AM_E_DATA, "%s/%s: %s", folder, file, what);
}

static int add_number(const char *folder, const char *file, const char *text, const json_t *id,
                      int64_t limit, const char *entry, am_vocabulary *out)
{
    const json_int_t number = json_integer_value(id);
    if (!json_is_integer(id) || number < 0 || number >= MOST_TOKENS) {
        return am_fail(AM_E_DATA, "%s/%s: the number of token '%.80s' is none from 0 to %d", folder,
                       file, text, MOST_TOKENS - 1);
    }
    return number < limit ? append(out, text, number, entry) : 0;
}

/* {"token": number, ...} */
static int add_map(const char *folder, const char *file, const json_t *map, int64_t limit,
                   bool is_added, am_vocabulary *out)
{
    const char *text;
    json_t *id;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)map, text, id)
    { /* only read */
        rc = rc == 0 ? add_number(folder, file, text, id, limit, is_added ? "" : NULL, out) : rc;
    }
    return rc;
}

/* Unigram: [["token", score], ...] */
static int add_list(const char *folder, const char *file, const json_t *list, int64_t limit,
                    am_vocabulary *out)
{
    size_t i;
    json_t *pair;
    int rc = 0;
    json_array_foreach(list, i, pair)
    {
        const char *text = json_string_value(json_array_get(pair, 0));
        if (rc == 0 && text == NULL) {
            rc = bad(folder, file, "an entry of the vocabulary is not [token, score]");
        } else if (rc == 0 && (int64_t)i < limit) {
            rc = append(out, text, (int64_t)i, NULL);
        }
    }
    return rc;
}

/* [{"id": ..., "content": ...}, ...] */
static int add_added(const char *folder, const char *file, const json_t *list, int64_t limit,
                     am_vocabulary *out)
{
    size_t i;
    json_t *item;
    int rc = 0;
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(json_object_get(item, "content"));
        char *entry = json_dumps(item, JSON_COMPACT);
        if (rc == 0 && (text == NULL || entry == NULL)) {
            rc = bad(folder, file, "an entry of added_tokens has no content");
        }
        if (rc == 0) {
            rc = add_number(folder, file, text, json_object_get(item, "id"), limit, entry, out);
        }
        free(entry);
    }
    return rc;
}

/* The value [lo, hi) of a document as an object of its own; NULL: not sound. */
static json_t *parse_part(const char *lo, const char *hi)
{
    return lo != NULL ? json_loadb(lo, (size_t)(hi - lo), JSON_ALLOW_NUL, NULL) : NULL;
}

/* Only the vocabulary becomes objects: merges, which are longer, are passed over. */
static int read_tokenizer(const char *folder, const char *text, int64_t limit, am_vocabulary *out)
{
    static const char file[] = "tokenizer.json";
    const char *model_end, *end, *added_end;
    const char *model = am_json_find(text, "model", &model_end);
    const char *part = model != NULL ? am_json_find(model, "vocab", &end) : NULL;
    json_t *vocab = parse_part(part, part != NULL ? end : NULL);
    int rc = 0;
    if (json_is_object(vocab)) {
        rc = add_map(folder, file, vocab, limit, false, out);
    } else if (json_is_array(vocab)) {
        rc = add_list(folder, file, vocab, limit, out);
    } else {
        rc = bad(folder, file, "there is no vocabulary under model.vocab");
    }
    json_decref(vocab);
    part = am_json_find(text, "added_tokens", &added_end);
    json_t *added = parse_part(part, part != NULL ? added_end : NULL);
    if (rc == 0 && part != NULL && !json_is_array(added)) {
        rc = bad(folder, file, "added_tokens is no list");
    }
    AM_KEEP(add_added(folder, file, added, limit, out));
    json_decref(added);
    return rc;
}

/* vocab.json or added_tokens.json; a file that is not there has no tokens. */
static int read_map(const am_companions *files, const char *file, int64_t limit, bool is_added,
                    am_vocabulary *out)
{
    char *text = NULL;
    int rc = am_companions_read(files, file, largest_file, &text);
    if (rc != 0 || text == NULL) {
        return rc;
    }
    json_t *map = json_loads(text, JSON_ALLOW_NUL, NULL);
    rc = json_is_object(map) ? add_map(files->folder, file, map, limit, is_added, out)
                             : bad(files->folder, file, "it is no JSON object");
    json_decref(map);
    free(text);
    return rc;
}

int am_vocabulary_read(const char *folder, int64_t limit, am_vocabulary *out)
{
    am_companions files;
    char *text = NULL;
    *out = (am_vocabulary){0};
    int rc = am_companions_find(folder, &files);
    AM_KEEP(am_companions_read(&files, "tokenizer.json", largest_file, &text));
    if (rc == 0 && text != NULL) {
        rc = read_tokenizer(folder, text, limit, out);
    } else if (rc == 0 && am_companions_has(&files, "vocab.json")) {
        rc = read_map(&files, "vocab.json", limit, false, out);
        AM_KEEP(read_map(&files, "added_tokens.json", limit, true, out));
    }
    AM_KEEP(finish(out, folder));
    free(text);
    am_companions_free(&files);
    return rc;
}

int am_vocabulary_rows(const char *folder, int64_t *rows)
{
    am_companions files;
    char *text = NULL;
    *rows = -1;
    int rc = am_companions_find(folder, &files);
    AM_KEEP(am_companions_read(&files, "config.json", largest_file, &text));
    if (rc == 0 && text != NULL) {
        json_t *config = json_loads(text, 0, NULL);
        const json_t *size = json_object_get(config, "vocab_size");
        const json_t *inner = json_object_get(json_object_get(config, "text_config"), "vocab_size");
        size = json_is_integer(size) ? size : inner;
        *rows = json_is_integer(size) ? (int64_t)json_integer_value(size) : -1;
        rc = json_is_object(config) ? 0 : bad(folder, "config.json", "it is no JSON object");
        json_decref(config);
    }
    free(text);
    am_companions_free(&files);
    return rc;
}

/* ---- writing ---- */

/* The entry of a token among added_tokens, under its new number. */
static char *entry_of(const am_token *token)
{
    json_t *item =
        token->entry != NULL && token->entry[0] != '\0'
            ? json_loads(token->entry, JSON_ALLOW_NUL, NULL)
            : json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 0, "content", token->text,
                        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 1, "special", 0);
    if (item == NULL || json_object_set_new(item, "id", json_integer(token->id)) != 0) {
        json_decref(item);
        return NULL;
    }
    char *text = json_dumps(item, JSON_COMPACT);
    json_decref(item);
    return text;
}

/* Everything up to the end of the list, the new entries, and the rest. */
static int print_extended(FILE *out, const char *text, const char *end, bool is_empty,
                          const am_token *const *order, int64_t n)
{
    (void)fwrite(text, 1, (size_t)(end - text), out);
    for (int64_t i = 0; i < n; i++) {
        char *entry = entry_of(order[i]);
        if (entry == NULL) {
            return am_fail(AM_E_NOMEM, "no memory for a tokenizer");
        }
        (void)fprintf(out, "%s\n    %s", is_empty && i == 0 ? "" : ",", entry);
        free(entry);
    }
    (void)fputs(end, out);
    return ferror(out) != 0 ? am_fail(AM_E_NOMEM, "no memory for a tokenizer") : 0;
}

int am_tokenizer_extend(const char *text, const am_vocabulary *v, int64_t from, char **extended)
{
    const char *end = NULL, *list = am_json_find(text, "added_tokens", &end);
    const am_token **order = malloc(((size_t)v->n + 1) * sizeof *order);
    int64_t n = 0;
    size_t bytes = 0;
    *extended = NULL;
    int rc = order != NULL ? 0 : am_fail(AM_E_NOMEM, "no memory for a tokenizer");
    if (rc == 0 && (list == NULL || *list != '[')) {
        rc = am_fail(AM_E_DATA, "the tokenizer.json of the base has no list of added_tokens");
    }
    for (int64_t i = 0; rc == 0 && i < v->n; i++) {
        if (v->token[i].id >= from) {
            order[n++] = &v->token[i];
        }
    }
    FILE *out = rc == 0 ? open_memstream(extended, &bytes) : NULL;
    if (rc == 0 && out == NULL) {
        rc = am_fail(AM_E_NOMEM, "no memory for a tokenizer");
    }
    if (out != NULL) {
        end--; /* the bracket; then white space before it */
        while (end > list + 1 && strchr(" \t\r\n", end[-1]) != NULL) {
            end--;
        }
        if (n > 1) {
            qsort(order, (size_t)n, sizeof *order, compare_ids);
        }
        rc = print_extended(out, text, end, end == list + 1, order, n);
        if (fclose(out) != 0 && rc == 0) {
            rc = am_fail(AM_E_NOMEM, "no memory for a tokenizer");
        }
    }
    free(order);
    return rc;
}
