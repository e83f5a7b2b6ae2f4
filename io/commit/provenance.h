/* What an output is made from: its recipe and its inputs, known without reading the data.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_PROVENANCE_H
#define AM_IO_COMMIT_PROVENANCE_H

#include <stdbool.h>
#include <stdint.h>
#include "io/commit/manifest.h"
#include "mpi/jsonw.h"

/* What is known of an input without reading it: of a folder, of all files in it together. */
typedef struct am_input_facts {
    int64_t bytes, modified_ns; /* modified: the newest file */
    uint64_t sample;  /* XXH3 over names, sizes and up to 64 KiB at both ends of each file */
    bool has_content; /* there is a sound manifest */
    uint64_t content; /* its digest of everything */
} am_input_facts;

/** Local. Errors: AM_E_NOINPUT, AM_E_IO, AM_E_NOMEM. */
int am_input_facts_read(const char *path, am_input_facts *out);

/** The members path, bytes, sample_xxh3 and, if it is known, content_xxh3 into an open object. */
void am_input_facts_write(const am_input_facts *facts, const char *path, am_json *j);

/** Gather recipe and input facts for the manifest of an output. Local, rank 0; an input's digest is
 * taken from its own manifest if it has a sound one, its data is not read. To free with
 * am_manifest_head_free. Errors: AM_E_NOMEM, AM_E_IO. */
int am_provenance_find(const char *format, const am_ckpt_options *options, am_manifest_head *out);

#endif
