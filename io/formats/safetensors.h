/* Parts of the safetensors format that the Hugging Face folder shares.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_FORMATS_SAFETENSORS_H
#define AM_IO_FORMATS_SAFETENSORS_H

#include "io/checkpoint/layout.h"

/** Read and check one file's header; append its tensors (with extents in `file`) and set its
 * metadata where a key is not there yet. A header in another than the canonical form is kept as
 * metadata if keep_header. Local. Errors: AM_E_DATA naming file and rule; AM_E_IO; AM_E_NOMEM. */
int am_st_read(const char *path, int32_t file, bool keep_header, am_layout *layout);

/** Create `path` with the tensors `pick[0..n)` of a table: header written, data space reserved,
 * synced. Appends tensors and extents in `file` to the layout. The header is canonical (tensors by
 * dtype, then name), unless meta keeps a header that says the same.
 * Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM. */
int am_st_lay_out(const char *path, const am_tensor_table *tensors, const int64_t *pick, int64_t n,
                  const am_meta *meta, int32_t file, am_layout *layout);

#endif
