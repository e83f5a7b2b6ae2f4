/* The small files beside the tensors of a Hugging Face folder: configuration, tokenizer, model
 * card. They are copied byte by byte or replaced by a text; never interpreted here. Local
 * functions, rank 0. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_COMPANION_H
#define AM_IO_CHECKPOINT_COMPANION_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_companion {
    char *name;      /* owned; a plain name */
    char *text;      /* owned; NULL: copied from the folder */
    int64_t n;       /* bytes */
    uint64_t digest; /* XXH3-64, once written */
} am_companion;

typedef struct am_companions {
    char *folder; /* owned; where files are copied from, NULL: none */
    int64_t n, capacity;
    am_companion *item; /* [n] owned, sorted by name */
} am_companions;

/** Whether a name is one that companions have: config.json, tokenizer*, vocab.json, README.md ...
 * Nothing else is ever copied or, in a folder of ours, removed. */
bool am_companion_is_name(const char *name);
/** List what a folder has (README.md is left out: it describes that model). Regular files of at
 * most 256 MiB; links, which may lead out of the folder, and larger files are left out with a
 * warning. A path that is no folder has none. Errors: AM_E_IO, AM_E_NOMEM. */
int am_companions_find(const char *folder, am_companions *out);
/** The text of one of them, malloc'ed, NUL-terminated; *text NULL: there is none of that name.
 * Errors: AM_E_DATA (more than limit bytes), AM_E_IO, AM_E_NOMEM. */
int am_companions_read(const am_companions *c, const char *name, int64_t limit, char **text);
/** Add one with this text, or replace the one of that name. text: copied. Errors: AM_E_NOMEM. */
int am_companions_set(am_companions *c, const char *name, const char *text);
/** Leave one out, if it is there. */
void am_companions_drop(am_companions *c, const char *name);
/** Add a file that is known already. Errors: AM_E_NOMEM. */
int am_companions_add(am_companions *c, const char *name, int64_t n, uint64_t digest);
bool am_companions_has(const am_companions *c, const char *name);
/** XXH3-64 of a file of these companions in `folder`. Errors: AM_E_DATA (another size, a link, or
 * not there), AM_E_IO, AM_E_NOMEM. */
int am_companion_digest(const am_companion *item, const char *folder, uint64_t *digest);
/** Write all into a folder, synced; digests are set. Errors: AM_E_IO, AM_E_CREATE, AM_E_NOMEM. */
int am_companions_write(am_companions *c, const char *folder);
void am_companions_free(am_companions *c);

#endif
