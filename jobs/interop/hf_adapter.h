/* Low-rank adapters that training wrote (jobs/training/adapt.h) as a PEFT adapter of a folder in
 * Hugging Face layout. Where our product is several of theirs (queries, keys and values), each gets
 * the whole A and its own rows of B. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_INTEROP_HF_ADAPTER_H
#define AM_JOBS_INTEROP_HF_ADAPTER_H

#include "jobs/interop/hf_model.h"

/** Is PATH a folder with adapter_config.json? Collective [comm]; rank 0 looks. */
int am_hf_is_adapter_all(MPI_Comm comm, const char *path, bool *is_adapter);

/* What a folder has been given. */
typedef struct am_hf_written {
    int64_t tensors, bytes;
} am_hf_written;

/** Write the adapter in `folder`, of our tensors, as OUTPUT/adapter_config.json and
 * OUTPUT/adapter_model.safetensors with the names of the model.
 *
 * Collective [comm]; arguments [same]. Errors, agreed: those of am_adapter_open_all; AM_E_DATA for
 * adapters of several ranks or scales, and for whole tensors; those of the writer. */
int am_hf_adapter_export_all(MPI_Comm comm, const am_hf_model *model, const char *folder,
                             const char *output, bool overwrite, am_hf_written *written);

#endif
