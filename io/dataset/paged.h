/* The samples of a data set file that stays on disk: read in pages, by index, on every rank.
 * Private to io/dataset. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_PAGED_H
#define AM_IO_DATASET_PAGED_H

#include "io/dataset/dataset_read.h"
#include "io/dataset/pages.h"

typedef struct am_paged am_paged;

/** Open the file of `raw` (its head, equal on all ranks) for reading by index with at most `bytes`
 * bytes of pages.
 *
 * Collective [comm]; arguments [same]; rank 0 reads where the data lies, every rank opens the file.
 * Errors: AM_E_DATA (layout that cannot be read, the file is not the same for all ranks);
 * AM_E_NOMEM when `bytes` does not hold AM_PAGES_FEWEST pages, naming how many bytes do; AM_E_IO.
 */
int am_paged_open_all(MPI_Comm comm, const char *path, const am_dataset_raw *raw, int64_t bytes,
                      am_paged **out);
/** The least that `bytes` may be. Pure. */
int64_t am_paged_fewest_bytes(const am_dataset_raw *raw);
void am_paged_close(am_paged **paged);

/** Inputs and label of a sample, as am_dataset_part has them: inputs are borrowed until the next
 * call. label: NULL for text. Local. Errors: AM_E_DATA naming file and sample (values against the
 * rules; the file has changed since it was opened); AM_E_IO. */
int am_paged_sample(am_paged *paged, am_split split, int64_t index, const void **x, int32_t *label);
/** am_samples.announce of samples first + index[0..count). Local. */
void am_paged_announce(am_paged *paged, am_split split, const int64_t *index, int64_t count,
                       int64_t first);

#endif
