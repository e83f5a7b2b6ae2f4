/* LoRA adapters as PEFT writes them: a folder with adapter_config.json and
 * adapter_model.safetensors. This file finds out which tensors of a model an adapter changes and
 * how; the arithmetic is the caller's. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_ADAPTER_H
#define AM_IO_CHECKPOINT_ADAPTER_H

#include "io/checkpoint/checkpoint.h"
#include "mpi/jsonw.h"

/* What an adapter does to one tensor W of the model, seen as a matrix [rows, cols]:
 *   W + scale * B A                       A [rank, cols], B [rows, rank]
 *   W + scale * (B A)^T  is_transposed:   A [rank, rows], B [cols, rank]  (embeddings, Conv1D)
 *   the adapter's own tensor              is_whole: `a` alone (modules_to_save, biases) */
typedef struct am_adapter_part {
    int64_t a, b; /* tensors of the adapter's checkpoint, -1: none; a < 0: W stays as it is */
    int64_t rank, rows, cols;
    double scale;
    bool is_transposed, is_whole;
} am_adapter_part;

typedef struct am_adapter {
    am_ckpt *ckpt;         /* owned; the factors */
    am_adapter_part *part; /* [model's tensors] owned */
    double alpha;          /* lora_alpha of the configuration */
    bool is_rs;            /* use_rslora */
} am_adapter;

/** Open the adapter in `folder` and match it with the tensors of a model.
 *
 * Collective [comm]; arguments [same]. model: borrowed for the call; model_path is for messages.
 * Errors, one message that names file and key, agreed: AM_E_NOINPUT no such folder, no
 * adapter_config.json, no adapter_model.safetensors; AM_E_DATA not a LoRA configuration or one with
 * parts that are not supported (DoRA, LoRA of biases), rank 0, a tensor that the model lacks, half
 * a pair, shapes that do not fit. out: freed by am_adapter_close. */
int am_adapter_open_all(MPI_Comm comm, const char *folder, const am_tensor_table *model,
                        const char *model_path, am_adapter **out);
void am_adapter_close(am_adapter **adapter); /* accepts a pointer to NULL */

#define AM_ADAPTER_CONFIG  "adapter_config.json"
#define AM_ADAPTER_FACTORS "adapter_model.safetensors"
enum { AM_ADAPTER_CONFIG_MOST = 64 << 20 }; /* bytes of a configuration */

/* What adapter_config.json of an adapter to be written says. */
typedef struct am_adapter_config {
    int64_t r;
    double alpha, dropout;
    bool is_rs, fan_in_fan_out;
    const char *bias;            /* NULL: "none" */
    const char *modules_to_save; /* JSON, borrowed; NULL: null */
    const char *ranks; /* rank_pattern and alpha_pattern (the same: scales are 1), likewise */
} am_adapter_config;

/** The text of adapter_config.json: begin, each module by the name of its weight, end. The last one
 * returns AM_E_NOMEM if memory ran out on the way, AM_E_DATA for more than is read. Local. */
void am_adapter_config_begin(const am_adapter_config *config, am_json *json);
void am_adapter_config_add(const char *weight, am_json *json);
int am_adapter_config_end(am_json *json);

/** A folder for an adapter. Its configuration is the text beside the factors (am_ckpt_options), so
 * that the two appear together, the factors last. Local, on one rank. Errors: AM_E_CREATE. */
int am_adapter_folder_make(const char *folder);
void am_adapter_folder_drop(const char *folder); /* if nothing is in it */

#endif
