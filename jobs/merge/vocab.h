/* `vocab: map`: rows of embeddings and heads follow their tokens. The output has the vocabulary of
 * one tokenizer or the union of all; every input is read as if its rows were in that order, as
 * mergekit has it with `tokenizer_source`:
 *
 *   row of a token that an input has      its own
 *   ... that it lacks                     the base's; else the mean over the inputs that have it;
 *                                         or what the recipe says under `tokenizer: {tokens: ...}`
 *   ... that no input has                 zeros
 *   rows behind the tokens (padding)      the mean of the input's other rows
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_VOCAB_H
#define AM_JOBS_MERGE_VOCAB_H

#include <mpi.h>
#include "jobs/merge/recipe.h"
#include "mpi/block.h"

enum { AM_VOCAB_MEAN = -1, AM_VOCAB_ZERO = -2 }; /* in place of a donor */

/* Where the output's rows come from, the same on all ranks. */
typedef struct am_vocab_rows {
    int files;
    int64_t tokens;     /* rows that have a token, or lie between two that have */
    int64_t rows;       /* with padding */
    bool is_same;       /* every file has these rows already: nothing is moved */
    int64_t *size;      /* [files] owned: rows that a file has */
    int32_t *own;       /* [files, tokens] owned: the token's row in the file, -1: none */
    int32_t *donor;     /* [tokens] owned: file whose row the others take, or AM_VOCAB_* */
    int32_t *donor_row; /* [tokens] owned */
    bool *is_forced;    /* [tokens] owned: even those that have one */
    char *folder;       /* [root] owned: whose tokenizer the output has, NULL: the base's */
    char *tokenizer;    /* [root] owned: text of tokenizer.json with the tokens that came to it */
} am_vocab_rows;

/* The files behind a merge: paths as the recipe has them, what they are made of, their tensors. */
typedef struct am_vocab_files {
    int n;
    const char *const *written; /* [n] */
    const char *const *path;    /* [n] checkpoints: folders with a tokenizer */
    const am_source *source;    /* [n] */
} am_vocab_files;

/** Keys `tokenizer_source` and `tokenizer` of a recipe; vocab becomes AM_VOCAB_MAP. Local, pure.
 * Errors: AM_E_RECIPE. */
int am_vocab_read_recipe(const am_node *root, am_merge_recipe *recipe);

/** Read the tokenizers and order the rows. A model without a tokenizer has the base's, with a
 * warning.
 *
 * Collective [comm]; arguments [same]; out: freed by am_vocab_rows_free, also after an error.
 * Memory: 4 bytes x (files + 2) a row; while rank 0 reads, the vocabularies.
 * Errors: AM_E_RECIPE, AM_E_DATA, AM_E_IO, AM_E_NOMEM; agreed. */
int am_vocab_rows_make_all(MPI_Comm comm, const am_merge_recipe *recipe,
                           const am_vocab_files *files, am_vocab_rows *out);
void am_vocab_rows_free(am_vocab_rows *rows);

typedef struct am_vocab_source am_vocab_source;

/** Wrap the source of file f: its matrices outside of the layers (and biases of a head) that have
 * rows->size[f] rows get rows->rows.
 *
 * rows, layers borrowed; sources [files] copied, with borrowed tables; out may be among them.
 * wrapper: freed by am_vocab_source_free. Memory: two rows in f64, and a table of tensors. Loads
 * fail with AM_E_DATA when a donor lacks the tensor. Local. Errors: AM_E_NOMEM. */
int am_vocab_source_create(const am_vocab_rows *rows, const am_layers *layers, int f,
                           const am_source *sources, am_vocab_source **wrapper, am_source *out);
void am_vocab_source_free(am_vocab_source **source); /* accepts a pointer to NULL */

#endif
