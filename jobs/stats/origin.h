/* Which model a file of statistics was made of: a fingerprint in its attributes, which merges that
 * use the file compare with the model beside it. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_STATS_ORIGIN_H
#define AM_JOBS_STATS_ORIGIN_H

#include "io/checkpoint/checkpoint.h"
#include "io/commit/digest.h"

#define AM_STATS_ORIGIN       "stats.model_fingerprint"
#define AM_STATS_ORIGIN_DTYPE "stats.model_dtype"

/** XXH3-64 of names, shapes and, as numbers of `dtype` (F32 or F64), the first, middle and last
 * 1,024 elements of the tensors of a model that statistics speak of: NAME where they have
 * fisher.NAME, LAYER.weight where they have gram.LAYER. Three reads a tensor. So a model that is
 * stored in another format or in a wider type is the same one, and one that was rounded is not.
 * Local; rank 0. Errors: the source's; AM_E_NOMEM. */
int am_stats_origin(const am_source *model, const am_tensor_table *statistics, am_dtype dtype,
                    am_hex *out);

/** Whether a file with these tensors and attributes may be of this model: false if it says that it
 * is of another one. Files that do not say are believed. Local; rank 0. Errors: as above. */
int am_stats_is_of(const am_source *model, const am_tensor_table *statistics, const am_meta *meta,
                   bool *is_of);

#endif
