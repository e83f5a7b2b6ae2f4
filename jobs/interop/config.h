/* config.json of a folder in Hugging Face layout, as options of one of our presets.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_INTEROP_CONFIG_H
#define AM_JOBS_INTEROP_CONFIG_H

#include <mpi.h>
#include <stdint.h>
#include "jobs/interop/architecture.h"

typedef struct am_hf_config {
    int architecture;   /* in am_hf_architectures */
    bool is_tied;       /* the head is the token embedding */
    int64_t positions;  /* longest sequence; 0: images */
    char options[1024]; /* of the preset, "key=value key=value" */
} am_hf_config;

/** Read FOLDER/config.json.
 *
 * Collective [comm]; rank 0 reads. Errors, agreed, naming file and key: AM_E_NOINPUT no such file;
 * AM_E_DATA no JSON, an architecture that is not in the table, a number that is none, a setting
 * that we do not compute; AM_E_NOMEM. */
int am_hf_config_read_all(MPI_Comm comm, const char *folder, am_hf_config *out);

#endif
