/* Which row of which input becomes which row of the output. SPDX-License-Identifier: BSD-3-Clause
 */
#include "jobs/merge/vocab.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/companion.h"
#include "io/file.h"
#include "jobs/merge/tokenizer.h"
#include "jobs/recipe/bind.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { AM_MAX_MULTIPLE = 1 << 20 };
static const int64_t largest_tokenizer = 256 << 20;

/* ---- the recipe ---- */

/* {source: PATH or {kind: zero | model_token, ...}, force: BOOL} */
static int check_token(const am_node *entry)
{
    static const char *const keys[] = {"source", "force", NULL};
    static const char *const inner[] = {"kind", "model", "token", "token_id", NULL};
    const am_node *source = am_node_find(entry, "source");
    const char *text = NULL;
    bool force = false;
    int rc = am_node_map(entry, "an entry of tokens");
    AM_KEEP(am_recipe_check_keys(entry, NULL, keys, "tokens"));
    if (rc == 0 && am_node_find(entry, "force") != NULL) {
        rc = am_node_bool(am_node_find(entry, "force"), "force", &force);
    }
    if (rc != 0 || source == NULL || source->kind != AM_NODE_MAP) {
        return rc;
    }
    AM_KEEP(am_recipe_check_keys(source, NULL, inner, "source"));
    AM_KEEP(am_node_text(am_node_find(source, "kind"), "kind", &text));
    if (rc == 0 && strcmp(text, "zero") != 0) {
        const bool has_token = am_node_find(source, "token") != NULL;
        const bool has_id = am_node_find(source, "token_id") != NULL;
        if (strcmp(text, "model_token") != 0) {
            rc = am_node_fail(source, "kind must be zero or model_token, not '%.80s'", text);
        } else if (am_node_find(source, "model") == NULL || has_token == has_id) {
            rc =
                am_node_fail(source, "model_token needs 'model' and one of 'token' and 'token_id'");
        }
    }
    return rc;
}

static int read_tokenizer(const am_node *map, am_merge_recipe *r)
{
    static const char *const keys[] = {"source", "tokens", "pad_to_multiple_of", NULL};
    const am_node *pad = am_node_find(map, "pad_to_multiple_of");
    int rc = am_node_map(map, "tokenizer");
    AM_KEEP(am_recipe_check_keys(map, NULL, keys, "tokenizer"));
    r->tokenizer = am_node_find(map, "source");
    r->tokens = am_node_find(map, "tokens");
    if (rc == 0 && pad != NULL) {
        rc = am_node_int(pad, "pad_to_multiple_of", 1, AM_MAX_MULTIPLE, &r->pad_multiple);
    }
    if (rc == 0 && r->tokens != NULL) {
        rc = am_node_map(r->tokens, "tokens");
    }
    for (int64_t i = 0; rc == 0 && r->tokens != NULL && i < r->tokens->n; i++) {
        rc = check_token(r->tokens->item[i]);
    }
    return rc;
}

int am_vocab_read_recipe(const am_node *root, am_merge_recipe *r)
{
    const am_node *source = am_node_find(root, "tokenizer_source");
    const am_node *map = am_node_find(root, "tokenizer");
    const char *text = NULL;
    int rc = 0;
    r->pad_multiple = 1;
    if (source == NULL && map == NULL && r->vocab != AM_VOCAB_MAP) {
        return 0;
    }
    if (source != NULL && map != NULL) {
        rc = am_node_fail(map, "write either tokenizer or tokenizer_source, not both");
    }
    if (rc == 0 && am_node_find(root, "vocab") != NULL && r->vocab != AM_VOCAB_MAP) {
        rc = am_node_fail(source != NULL ? source : map,
                          "rows follow the tokenizers: leave out 'vocab', or write vocab: map");
    }
    r->vocab = AM_VOCAB_MAP;
    r->tokenizer = source;
    if (rc == 0 && map != NULL) {
        rc = read_tokenizer(map, r);
    }
    if (rc == 0 && r->tokenizer != NULL) {
        rc = am_node_text(r->tokenizer, "the tokenizer's source", &text);
    }
    if (rc == 0 && (r->method->needs_aux || r->method->needs_gram)) {
        rc =
            am_node_fail(root,
                         "%s does not go with tokenizers: %s have no rows for the tokens that a "
                         "model lacks",
                         r->method->name, r->method->needs_aux ? "Fisher values" : "Gram matrices");
    }
    return rc;
}

/* ---- on rank 0: the vocabularies ---- */

typedef struct desk {
    const am_merge_recipe *recipe;
    const am_vocab_files *files;
    int base;             /* file whose tokenizer the others without one have */
    bool has_base;        /* the recipe names a base_model: its rows stand in for missing ones */
    am_vocabulary *own;   /* [files] n 0: that of the base */
    am_vocabulary merged; /* the output's */
    int64_t before;       /* its size before tokens came to it */
    am_vocab_rows *out;
} desk;

static int file_of(const am_vocab_files *files, const char *written)
{
    for (int f = 0; written != NULL && f < files->n; f++) {
        if (strcmp(files->written[f], written) == 0) {
            return f;
        }
    }
    return -1;
}

static const am_vocabulary *vocabulary_of(const desk *d, int f)
{
    return d->own[f].n > 0 ? &d->own[f] : &d->own[d->base];
}

/* Rows of the embedding, for a model whose config.json does not tell. */
static int64_t count_rows(const am_tensor_table *tensors)
{
    static const char *const embeddings[] = {"embed_tokens.weight", "wte.weight",
                                             "word_embeddings.weight", "embed_in.weight",
                                             "tok_embeddings.weight"};
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        const size_t length = strlen(t->name);
        for (size_t k = 0; k < sizeof embeddings / sizeof *embeddings; k++) {
            const size_t end = strlen(embeddings[k]);
            if (t->ndim == 2 && length >= end &&
                strcmp(t->name + length - end, embeddings[k]) == 0) {
                return t->shape[0];
            }
        }
    }
    return -1;
}

static int read_vocabularies(desk *d)
{
    const am_vocab_files *files = d->files;
    const int named = file_of(files, d->recipe->base_path);
    int rc = 0;
    d->base = named >= 0 ? named : 0;
    d->has_base = named >= 0;
    for (int f = 0; rc == 0 && f < files->n; f++) {
        int64_t *size = &d->out->size[f];
        rc = am_vocabulary_rows(files->path[f], size);
        *size = *size < 0 ? count_rows(files->source[f].tensors) : *size;
        if (rc == 0 && *size < 0) {
            rc =
                am_fail(AM_E_DATA,
                        "%s: neither a config.json with vocab_size nor an embedding tells how many "
                        "rows its vocabulary has",
                        files->path[f]);
        }
        AM_KEEP(am_vocabulary_read(files->path[f], *size, &d->own[f]));
    }
    if (rc == 0 && d->own[d->base].n == 0) {
        rc = am_fail(AM_E_DATA,
                     "%s has no tokenizer.json or vocab.json: rows cannot follow their tokens; "
                     "remove tokenizer, tokenizer_source and vocab: map from the recipe",
                     files->path[d->base]);
    }
    for (int f = 0; rc == 0 && f < files->n; f++) {
        if (d->own[f].n == 0 && d->out->size[f] != d->out->size[d->base]) {
            rc = am_fail(AM_E_DATA, "%s has no tokenizer, and other rows than %s", files->path[f],
                         files->path[d->base]);
        } else if (d->own[f].n == 0) {
            am_warn("%s has no tokenizer: taken to be that of %s", files->path[f],
                    files->path[d->base]);
        }
    }
    return rc;
}

static int add_tokens(desk *d)
{
    const am_node *tokens = d->recipe->tokens;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && tokens != NULL && i < tokens->n; i++) {
        rc = am_vocabulary_add(&d->merged, tokens->key[i]->text);
    }
    return rc;
}

/* The output's vocabulary. source: path of the tokenizer that the recipe names, NULL: base or
 * union. */
static int merge_vocabularies(desk *d, const char *source)
{
    const am_node *word = d->recipe->tokenizer;
    const bool is_union = word == NULL || strcmp(word->text, "union") == 0;
    const char *folder = source != NULL ? source : d->files->path[d->base];
    int rc =
        am_vocabulary_read(folder, source != NULL ? INT64_MAX : d->out->size[d->base], &d->merged);
    if (rc == 0 && d->merged.n == 0) {
        rc = am_node_fail(word, "%s has no tokenizer.json or vocab.json", folder);
    }
    d->before = d->merged.size;
    for (int f = 0; rc == 0 && is_union && source == NULL && f < d->files->n; f++) {
        rc = f != d->base ? am_vocabulary_unite(&d->merged, vocabulary_of(d, f)) : 0;
    }
    AM_KEEP(add_tokens(d));
    return rc;
}

/* ---- on rank 0: rows ---- */

static int allocate(am_vocab_rows *out)
{
    out->own = am_new(out->files * out->tokens + 1, sizeof *out->own, "rows of a vocabulary");
    out->donor = am_new(out->tokens + 1, sizeof *out->donor, "rows of a vocabulary");
    out->donor_row = am_new(out->tokens + 1, sizeof *out->donor_row, "rows of a vocabulary");
    out->is_forced = am_new(out->tokens + 1, sizeof *out->is_forced, "rows of a vocabulary");
    return out->own != NULL && out->donor != NULL && out->donor_row != NULL &&
                   out->is_forced != NULL
               ? 0
               : AM_E_NOMEM;
}

/* Rows between the tokens keep their place. */
static void find_rows(desk *d)
{
    am_vocab_rows *out = d->out;
    for (int f = 0; f < out->files; f++) {
        int32_t *own = out->own + f * out->tokens;
        for (int64_t row = 0; row < out->tokens; row++) {
            own[row] = row < out->size[f] ? (int32_t)row : -1;
        }
        for (int64_t i = 0; i < d->merged.n; i++) {
            const am_token *token = &d->merged.token[i];
            own[token->id] = (int32_t)am_vocabulary_find(vocabulary_of(d, f), token->text);
        }
    }
}

/* Who gives the row to files that lack it. */
static void choose_donors(desk *d)
{
    am_vocab_rows *out = d->out;
    for (int64_t row = 0; row < out->tokens; row++) {
        int n = 0, last = 0;
        for (int f = 0; f < out->files; f++) {
            const bool has_it = out->own[f * out->tokens + row] >= 0;
            n += has_it;
            last = has_it ? f : last;
        }
        const bool base_has_it = d->has_base && out->own[d->base * out->tokens + row] >= 0;
        const int donor = n == 1 ? last : base_has_it ? d->base : AM_VOCAB_MEAN;
        out->donor[row] = n == 0 ? AM_VOCAB_ZERO : donor;
        out->donor_row[row] = out->donor[row] >= 0 ? out->own[donor * out->tokens + row] : -1;
    }
}

static int model_of(const desk *d, const am_node *path, int *file)
{
    const char *text = NULL;
    int rc = am_node_text(path, "the model of a token", &text);
    *file = file_of(d->files, text);
    if (rc == 0 && *file < 0) {
        rc = am_node_fail(path, "'%.200s' is not one of the models", text);
    }
    return rc;
}

/* What the recipe says of one token. */
static int set_token(const desk *d, const char *text, const am_node *entry)
{
    am_vocab_rows *out = d->out;
    const am_node *source = am_node_find(entry, "source");
    const am_node *force = am_node_find(entry, "force");
    const int64_t row = am_vocabulary_find(&d->merged, text);
    const am_node *model = source;
    int64_t from = -1;
    int file = AM_VOCAB_ZERO, rc = 0;
    out->is_forced[row] = force != NULL && force->boolean;
    if (source == NULL) {
        return out->is_forced[row] ? am_node_fail(entry, "a forced token needs a source") : 0;
    }
    if (source->kind == AM_NODE_MAP) {
        model = am_node_find(source, "model"); /* NULL: zero */
    }
    if (model != NULL) {
        rc = model_of(d, model, &file);
    }
    if (rc == 0 && file >= 0) {
        const am_node *id = am_node_find(source, "token_id");
        const am_node *name = am_node_find(source, "token");
        from = am_vocabulary_find(vocabulary_of(d, file), name != NULL ? name->text : text);
        if (id != NULL) {
            rc = am_node_int(id, "token_id", 0, out->size[file] - 1, &from);
        } else if (from < 0) {
            rc = am_node_fail(source, "%s has no token '%.80s'", d->files->written[file],
                              name != NULL ? name->text : text);
        }
    }
    out->donor[row] = file;
    out->donor_row[row] = (int32_t)from;
    return rc;
}

static bool has_same_rows(const am_vocab_rows *out)
{
    bool same = true;
    for (int f = 0; same && f < out->files; f++) {
        same = out->size[f] == out->rows;
        for (int64_t row = 0; same && row < out->tokens; row++) {
            same = out->own[f * out->tokens + row] == row && !out->is_forced[row];
        }
    }
    return same;
}

static int order_rows(desk *d)
{
    am_vocab_rows *out = d->out;
    const am_node *tokens = d->recipe->tokens;
    const int64_t multiple = d->recipe->pad_multiple;
    out->tokens = d->merged.size;
    out->rows = (out->tokens + multiple - 1) / multiple * multiple;
    int rc = allocate(out);
    if (rc != 0) {
        return rc;
    }
    find_rows(d);
    choose_donors(d);
    for (int64_t i = 0; rc == 0 && tokens != NULL && i < tokens->n; i++) {
        rc = set_token(d, tokens->key[i]->text, tokens->item[i]);
    }
    out->is_same = has_same_rows(out);
    return rc;
}

/* Its text with the tokens that came to it. */
static int write_tokenizer(desk *d, const char *source)
{
    const char *folder = source != NULL ? source : d->files->path[d->base];
    am_companions files;
    char *text = NULL;
    int rc = 0;
    if (source != NULL) {
        d->out->folder = am_text("%s", source);
        rc = d->out->folder != NULL ? 0 : AM_E_NOMEM;
    }
    if (rc != 0 || d->merged.size == d->before) {
        return rc;
    }
    rc = am_companions_find(folder, &files);
    AM_KEEP(am_companions_read(&files, "tokenizer.json", largest_tokenizer, &text));
    if (rc == 0 && text == NULL) {
        rc = am_fail(AM_E_DATA,
                     "%s has no tokenizer.json, to which tokens of other models could be added",
                     folder);
    }
    if (rc == 0) {
        rc = am_tokenizer_extend(text, &d->merged, d->before, &d->out->tokenizer);
    }
    free(text);
    am_companions_free(&files);
    return rc;
}

static int make(const am_merge_recipe *recipe, const am_vocab_files *files, const char *source,
                am_vocab_rows *out)
{
    desk d = {.recipe = recipe, .files = files, .out = out};
    d.own = am_new(files->n + 1, sizeof *d.own, "vocabularies");
    int rc = d.own != NULL ? read_vocabularies(&d) : AM_E_NOMEM;
    AM_KEEP(merge_vocabularies(&d, source));
    AM_KEEP(order_rows(&d));
    AM_KEEP(write_tokenizer(&d, source));
    if (rc == 0) {
        am_info("vocabulary: %" PRId64 " tokens, %" PRId64 " rows%s", d.merged.n, out->rows,
                out->is_same ? ", the same in all inputs" : "");
    }
    for (int f = 0; d.own != NULL && f < files->n; f++) {
        am_vocabulary_free(&d.own[f]);
    }
    am_vocabulary_free(&d.merged);
    free(d.own);
    return rc;
}

/* ---- all ranks ---- */

static int share_all(MPI_Comm comm, am_vocab_rows *out)
{
    int rank = 0, rc = 0;
    int64_t head[3] = {out->tokens, out->rows, out->is_same};
    MPI_Comm_rank(comm, &rank);
    AM_TRY(am_bcast_all(comm, 0, head, sizeof head));
    AM_TRY(am_bcast_all(comm, 0, out->size, out->files * (int64_t)sizeof *out->size));
    out->tokens = head[0];
    out->rows = head[1];
    out->is_same = head[2] != 0;
    if (out->is_same) { /* the same on every rank */
        return 0;
    }
    rc = rank != 0 ? allocate(out) : 0;
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, out->own, out->files * out->tokens * (int64_t)sizeof *out->own));
    AM_TRY(am_bcast_all(comm, 0, out->donor, out->tokens * (int64_t)sizeof *out->donor));
    AM_TRY(am_bcast_all(comm, 0, out->donor_row, out->tokens * (int64_t)sizeof *out->donor_row));
    AM_TRY(am_bcast_all(comm, 0, out->is_forced, out->tokens * (int64_t)sizeof *out->is_forced));
cleanup:
    return rc;
}

int am_vocab_rows_make_all(MPI_Comm comm, const am_merge_recipe *recipe,
                           const am_vocab_files *files, am_vocab_rows *out)
{
    const am_node *word = recipe->tokenizer;
    const bool is_word =
        word == NULL || strcmp(word->text, "union") == 0 || strcmp(word->text, "base") == 0;
    const int known = is_word ? -1 : file_of(files, word->text);
    char *source = NULL;
    int rank = 0, rc = 0;
    MPI_Comm_rank(comm, &rank);
    *out = (am_vocab_rows){.files = files->n};
    out->size = am_new(files->n + 1, sizeof *out->size, "rows of vocabularies");
    AM_KEEP(out->size != NULL ? 0 : AM_E_NOMEM);
    if (known >= 0) {
        source = am_text("%s", files->path[known]);
        AM_KEEP(source != NULL ? 0 : AM_E_NOMEM);
    }
    AM_AGREE(comm);
    if (!is_word && known < 0) {
        AM_TRY(am_recipe_path_all(comm, word->text, am_yaml_label(recipe->yaml), &source));
    }
    rc = rank == 0 ? make(recipe, files, source, out) : 0;
    AM_AGREE(comm);
    AM_TRY(share_all(comm, out));
cleanup:
    free(source);
    return rc;
}

void am_vocab_rows_free(am_vocab_rows *rows)
{
    free(rows->size);
    free(rows->own);
    free(rows->donor);
    free(rows->donor_row);
    free(rows->is_forced);
    free(rows->folder);
    free(rows->tokenizer);
    *rows = (am_vocab_rows){0};
}
