/* A task vector as a PEFT adapter: what becomes of each tensor, and the table and configuration
 * that follow. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_EXTRACT_ADAPTER_H
#define AM_JOBS_EXTRACT_ADAPTER_H

#include "jobs/extract/factors.h"

typedef enum am_lora_fate {
    AM_FATE_UNCHANGED, /* the task vector is zero there */
    AM_FATE_FACTORS,
    AM_FATE_EMBEDDING, /* factors, as PEFT names those of embeddings */
    AM_FATE_WHOLE,     /* the model's own tensor */
    AM_FATE_LEFT_OUT
} am_lora_fate;

/** "factors" ... for reports. */
const char *am_lora_fate_name(am_lora_fate fate);

/* What decides. Regular expressions (POSIX, extended) are searched in names of modules: those of
 * tensors without `.weight` or `.bias`; NULL: none was given. */
typedef struct am_lora_choice {
    const char *include, *exclude; /* others, and these, are left out */
    const char *save_module;       /* whole */
    const char *embedding;         /* embeddings; NULL: known by names such as "embed" or "wte" */
    bool embed_lora;               /* embeddings get factors; else they are whole */
    bool skips_others;             /* what can have no factors is left out; else it is whole */
    bool fan_in_fan_out;           /* matrices are [in, out] */
} am_lora_choice;

/** Errors: AM_E_USAGE an expression that cannot be read, naming its option. */
int am_lora_choice_check(const am_lora_choice *choice);
/** fate, is_embedding [tensors->n] of every tensor, by names, shapes and whether it changed: square
 * [n], sums of squares of the differences. Tensors that are not floats: UNCHANGED. Local, pure but
 * for memory.
 */
int am_lora_choose(const am_tensor_table *tensors, const double *square,
                   const am_lora_choice *choice, am_lora_fate *fate, bool *is_embedding);

/* An adapter to be written. */
typedef struct am_lora_file {
    const am_factors *factors; /* borrowed */
    const am_lora_fate *fate;  /* borrowed */
    am_tensor_table table;     /* owned */
    int64_t *a, *b;            /* [tensors] owned: in table; whole: a; -1: none */
    int64_t r;                 /* the largest rank */
    am_json config;            /* owned: text of adapter_config.json */
} am_lora_file;

/** Names, shapes and configuration, once ranks are known. alpha is r; where ranks differ, both are
 * in patterns, so that every scale is 1. Local. Errors: AM_E_DATA nothing has factors; AM_E_NOMEM.
 */
int am_lora_file_plan(const am_lora_choice *choice, am_lora_file *file);
void am_lora_file_free(am_lora_file *file);

#endif
