/* Fingerprints of models: see origin.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { SAMPLED = 1024, PLACES = 3 };

/* Does the file have something of a tensor of the model? */
static bool speaks_of(const am_tensor_table *statistics, const char *name)
{
    static const char suffix[] = ".weight";
    char text[AM_MAX_NAME + 16];
    const size_t n = strlen(name), end = sizeof suffix - 1;
    snprintf(text, sizeof text, "fisher.%s", name);
    if (am_tensor_table_find(statistics, text) >= 0) {
        return true;
    }
    snprintf(text, sizeof text, "gram.%.*s", (int)(n > end ? n - end : 0), name);
    return n > end && strcmp(name + n - end, suffix) == 0 &&
           am_tensor_table_find(statistics, text) >= 0;
}

/* digest: of what came before, and of this tensor. value [SAMPLED], number [SAMPLED] of dtype. */
static int add_tensor(const am_source *model, int64_t tensor, am_dtype dtype, double *value,
                      void *number, uint64_t *digest)
{
    const am_tensor *t = &model->tensors->t[tensor];
    const int64_t n = t->numel < SAMPLED ? t->numel : SAMPLED, last = t->numel - n;
    const int64_t place[PLACES] = {0, last / 2, last};
    uint64_t part[3 + PLACES] = {*digest, am_digest_bytes(t->name, (int64_t)strlen(t->name)),
                                 am_digest_bytes(t->shape, t->ndim * (int64_t)sizeof *t->shape)};
    int rc = AM_OK;
    for (int i = 0; rc == AM_OK && i < PLACES; i++) {
        rc = model->load(model->self, tensor, place[i], n, value);
        if (rc == AM_OK) {
            am_dtype_from_f64(dtype, value, n, number);
            part[3 + i] = am_digest_bytes(number, n * am_dtype_bytes(dtype));
        }
    }
    *digest = am_digest_bytes(part, sizeof part);
    return rc;
}

int am_stats_origin(const am_source *model, const am_tensor_table *statistics, am_dtype dtype,
                    am_hex *out)
{
    uint64_t digest = 0;
    double *value = am_new(2 * (int64_t)SAMPLED, sizeof *value, "a fingerprint");
    int rc = value == NULL ? AM_E_NOMEM : AM_OK;
    for (int64_t i = 0; rc == AM_OK && i < model->tensors->n; i++) {
        const am_tensor *t = &model->tensors->t[i];
        if (am_dtype_is_float(t->dtype) && speaks_of(statistics, t->name)) {
            rc = add_tensor(model, i, dtype, value, value + SAMPLED, &digest);
        }
    }
    *out = am_hex_of(digest);
    free(value);
    return rc;
}

int am_stats_is_of(const am_source *model, const am_tensor_table *statistics, const am_meta *meta,
                   bool *is_of)
{
    const char *origin = am_meta_get(meta, AM_STATS_ORIGIN);
    const char *type = am_meta_get(meta, AM_STATS_ORIGIN_DTYPE);
    const am_dtype dtype = type != NULL ? am_dtype_parse(type) : AM_DTYPE_COUNT;
    am_hex found;
    *is_of = true;
    if (origin == NULL || (dtype != AM_DTYPE_F32 && dtype != AM_DTYPE_F64)) {
        return AM_OK;
    }
    const int rc = am_stats_origin(model, statistics, dtype, &found);
    *is_of = rc != AM_OK || strcmp(found.text, origin) == 0;
    return rc;
}
