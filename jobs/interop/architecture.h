/* Architectures that other programs save in Hugging Face layout, as tables: what config.json says
 * in the words of one of our presets, which values of it we do not compute, and which of their
 * tensors are which of ours. One more architecture is one more entry in architecture.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_INTEROP_ARCHITECTURE_H
#define AM_JOBS_INTEROP_ARCHITECTURE_H

#include <stdbool.h>

enum { AM_HF_PARTS = 3 };

/* A number of config.json and the option of the preset that it is. */
typedef struct am_hf_number {
    const char *theirs, *ours;
    const char *fallback; /* when it is absent or null; "": the preset's default */
} am_hf_number;

/* A setting with one meaning that we compute; any other value is refused. */
typedef struct am_hf_setting {
    const char *key;
    const char *accepted; /* JSON scalars, separated by |; absent and null: the first one */
} am_hf_setting;

/* One of our tensors and its parts, which lie one after the other along our first axis. "%d" is the
 * number of a block. Sides of length 1 in front do not count. */
typedef struct am_hf_name {
    const char *ours;
    const char *theirs[AM_HF_PARTS];
    bool is_transposed; /* theirs is [in, out] */
    bool is_leading;    /* ours are the first rows of theirs */
} am_hf_name;

typedef struct am_hf_architecture {
    const char *model_type; /* of config.json */
    const char *preset;
    const char *prefix;            /* of their names in `names`; may be missing in all of them */
    const am_hf_number *numbers;   /* ends with NULL */
    const am_hf_setting *settings; /* ends with NULL */
    const am_hf_name *names;       /* ends with NULL */
    const char *head[2];           /* weight and bias of the head, NULL: none; no prefix */
    bool is_tied;                  /* tie_word_embeddings when it is absent */
    am_hf_number positions;        /* the longest sequence; zeroed: images */
    const char *const *carried;    /* patterns of tensors that no result depends on; NULL at end */
} am_hf_architecture;

extern const am_hf_architecture am_hf_architectures[]; /* ends with a NULL model_type */

#endif
