/* The input of a merge behind a path, whatever it is: a checkpoint; `CHECKPOINT+ADAPTER`, a
 * checkpoint with a LoRA adapter in mergekit's syntax; or a stored task vector, which stands for
 * base + task vector. The rest of jobs sees a table of tensors and a block source.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_MODEL_H
#define AM_JOBS_MERGE_MODEL_H

#include "io/checkpoint/checkpoint.h"

typedef struct am_model am_model;

/** Where a path is cut in CHECKPOINT and ADAPTER: the index of the last '+', -1 when there is none
 * or something of the whole name exists. Local; looks at the file system: rank 0 decides. */
int am_model_cut(const char *path);

/** am_recipe_paths_all for models: both halves of CHECKPOINT+ADAPTER are looked for.
 * Collective [comm]; as there. */
int am_model_paths_all(MPI_Comm comm, const char *const *path, int n, const char *recipe,
                       char **out);

/** Open a model.
 *
 * Collective [comm]; path [same]. base: what task vectors are added to, open as long as this one;
 * NULL: there is none. buffer_bytes: what its read-ahead may hold. Errors: those of
 * am_ckpt_open_all, am_adapter_open_all and am_tv_open_all; AM_E_RECIPE a task vector without base;
 * agreed. out: closed by am_model_close. */
int am_model_open_all(MPI_Comm comm, const char *path, am_model *base, int64_t buffer_bytes,
                      am_model **out);
void am_model_close(am_model **model); /* accepts a pointer to NULL */
/** Names, shapes and types of the model's tensors; borrowed. */
const am_tensor_table *am_model_tensors(const am_model *model);
/** The files and folders that it is made of, NULL-terminated; borrowed. */
const char *const *am_model_files(const am_model *model);
/** Bytes that reading it by `load` elements at most takes beyond those of its checkpoint: an
 * adapter's or a task vector's. */
int64_t am_model_bytes(const am_model *model, int64_t load);
/** Metadata of its checkpoint; borrowed. */
const am_meta *am_model_meta(const am_model *model);
/** Its block source; borrowed. */
const am_source *am_model_source(const am_model *model);

#endif
