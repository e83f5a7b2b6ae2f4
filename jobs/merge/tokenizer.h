/* Vocabularies: which token has which number, from the files of a Hugging Face folder. Local; for
 * one rank, which tells the others. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_TOKENIZER_H
#define AM_JOBS_MERGE_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_token {
    char *text; /* owned */
    int64_t id;
    char *entry; /* owned; its JSON object among "added_tokens", NULL: an ordinary token */
} am_token;

typedef struct am_vocabulary {
    int64_t n, capacity;
    am_token *token; /* [n] owned, sorted by text */
    int64_t size;    /* largest number + 1 */
} am_vocabulary;

/** Read a folder's vocabulary: tokenizer.json (BPE, WordPiece, WordLevel, Unigram), or vocab.json
 * with added_tokens.json.
 *
 * limit  tokens with this number or a larger one are left out: the model has no rows for them.
 * out    n 0: the path is no folder, or has none of these files; freed by am_vocabulary_free
 * Errors: AM_E_DATA (not JSON, a number that is none, two numbers of a token), AM_E_IO, AM_E_NOMEM.
 */
int am_vocabulary_read(const char *folder, int64_t limit, am_vocabulary *out);
void am_vocabulary_free(am_vocabulary *v);
/** Number of a token, -1: it has none. */
int64_t am_vocabulary_find(const am_vocabulary *v, const char *text);
/** Add those of `other` that v lacks, at the end: first the ordinary ones, then the added ones,
 * each in the order of their numbers. Errors: AM_E_NOMEM. */
int am_vocabulary_unite(am_vocabulary *v, const am_vocabulary *other);
/** Add one token at the end, unless it is there. Errors: AM_E_NOMEM. */
int am_vocabulary_add(am_vocabulary *v, const char *text);

/** `text`, a tokenizer.json, with the tokens of `v` from number `from` on among its added_tokens;
 * malloc'ed. Errors: AM_E_DATA it has no added_tokens; AM_E_NOMEM. */
int am_tokenizer_extend(const char *text, const am_vocabulary *v, int64_t from, char **extended);
/** The folder's config.json, "vocab_size" (also within "text_config"); -1: there is none.
 * Errors: AM_E_DATA, AM_E_IO, AM_E_NOMEM. */
int am_vocabulary_rows(const char *folder, int64_t *rows);

#endif
