/* Trunk and heads of a suite as checkpoints: see weights.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "jobs/training/suite/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"

/* All heads as one table "<task>.<tensor>", with the reals gathered into one block. */
typedef struct head_block {
    am_tensor_table tensors;
    int64_t *offset;
    unsigned char *reals;
} head_block;

static void head_block_free(head_block *block)
{
    am_tensor_table_free(&block->tensors);
    free(block->offset);
    free(block->reals);
    *block = (head_block){0};
}

static int head_name(const am_suite *suite, int i, int64_t tensor, char *out, size_t bytes)
{
    int length = snprintf(out, bytes, "%s.%s", am_suite_task(suite, i),
                          suite->head[i].tensors.t[tensor].name);
    return length < (int)bytes
               ? AM_OK
               : am_fail(AM_E_DATA, "the task name %s is too long", am_suite_task(suite, i));
}

static int head_block_make(const am_suite *suite, head_block *out)
{
    int rc = AM_OK;
    int64_t reals = 0;
    char name[AM_MAX_NAME];
    for (int i = 0; i < suite->n; i++) {
        const am_tensor_table *tensors = &suite->head[i].tensors;
        reals += suite->head[i].n;
        for (int64_t k = 0; k < tensors->n; k++) {
            const am_tensor *t = &tensors->t[k];
            AM_TRY(head_name(suite, i, k, name, sizeof name));
            AM_TRY(am_tensor_table_add(&out->tensors, name, t->dtype, t->ndim, t->shape));
        }
    }
    AM_TRY(am_tensor_table_finish(&out->tensors));
    out->offset = am_new(out->tensors.n, sizeof *out->offset, "head offsets");
    out->reals = am_new(reals, (size_t)am_suite_real_bytes(suite), "heads");
    rc = !out->offset || !out->reals ? AM_E_NOMEM : AM_OK;
cleanup:
    return rc;
}

/* Copy between the block and the heads, setting the offsets on the way. */
static int head_block_copy(const am_suite *suite, head_block *block, bool into_heads)
{
    int rc = AM_OK;
    int64_t start = 0, bytes = am_suite_real_bytes(suite);
    char name[AM_MAX_NAME];
    for (int i = 0; i < suite->n; i++) {
        const am_param_layout *head = &suite->head[i];
        for (int64_t k = 0; k < head->tensors.n; k++) {
            AM_TRY(head_name(suite, i, k, name, sizeof name));
            int64_t at = am_tensor_table_find(&block->tensors, name);
            block->offset[at] = start + head->offset[k];
        }
        unsigned char *there = block->reals + start * bytes;
        size_t size = (size_t)(head->n * bytes);
        memcpy(into_heads ? suite->head_params[i] : there,
               into_heads ? there : suite->head_params[i], size);
        start += head->n;
    }
cleanup:
    return rc;
}

/* Parameters that are read must be finite: training from NaN would be reported as divergence. */
static int check_finite(const char *path, const am_tensor_table *tensors, const int64_t *offset,
                        const void *reals, am_dtype dtype)
{
    for (int64_t i = 0; i < tensors->n; i++) {
        for (int64_t k = 0; k < tensors->t[i].numel; k++) {
            int64_t at = offset[i] + k;
            double x = dtype == AM_DTYPE_F64 ? ((const double *)reals)[at]
                                             : (double)((const float *)reals)[at];
            if (!isfinite(x)) {
                return am_fail(AM_E_DATA, "%s: tensor %s holds %g at element %lld", path,
                               tensors->t[i].name, x, (long long)k);
            }
        }
    }
    return AM_OK;
}

int am_suite_save_heads_all(const am_suite *suite, const char *path, const am_ckpt_options *options)
{
    head_block block = {0};
    int rc = head_block_make(suite, &block);
    AM_KEEP(head_block_copy(suite, &block, false));
    AM_AGREE(suite->comm);
    AM_TRY(am_ckpt_save_all(suite->comm, path, &block.tensors, block.offset, block.reals, options));
cleanup:
    head_block_free(&block);
    return rc;
}

int am_suite_load_heads_all(am_suite *suite, const char *path)
{
    head_block block = {0};
    int rc = head_block_make(suite, &block);
    AM_KEEP(head_block_copy(suite, &block, false)); /* sets the offsets */
    AM_AGREE(suite->comm);
    AM_TRY(am_ckpt_load_all(suite->comm, path, &block.tensors, block.offset, block.reals));
    AM_TRY(check_finite(path, &block.tensors, block.offset, block.reals, suite->ops->dtype));
    AM_TRY(head_block_copy(suite, &block, true));
cleanup:
    head_block_free(&block);
    return rc;
}

int am_suite_save_trunk_all(const am_suite *suite, const char *path, const void *trunk,
                            const am_ckpt_options *options)
{
    return am_ckpt_save_all(suite->comm, path, &suite->trunk.tensors, suite->trunk.offset, trunk,
                            options);
}

int am_suite_load_trunk_all(const am_suite *suite, const char *path, void *trunk)
{
    const am_tensor_table *tensors = &suite->trunk.tensors;
    int rc = am_ckpt_load_all(suite->comm, path, tensors, suite->trunk.offset, trunk);
    AM_KEEP(check_finite(path, tensors, suite->trunk.offset, trunk, suite->ops->dtype));
    return rc; /* every rank has read the same values */
}

int am_trunk_check(const am_ckpt *ckpt, const am_tensor_table *known)
{
    const am_tensor_table *there = am_ckpt_tensors(ckpt);
    for (int64_t i = 0; i < there->n; i++) {
        if (am_tensor_table_find(known, there->t[i].name) < 0) {
            return am_fail(AM_E_DATA,
                           "%s: tensor '%s' is none of the network of the recipe and would be "
                           "lost: describe the whole network under model, or take it out",
                           am_ckpt_path(ckpt), there->t[i].name);
        }
    }
    return AM_OK;
}

int am_trunk_check_all(MPI_Comm comm, const char *path, const am_tensor_table *known)
{
    am_ckpt *ckpt = NULL;
    int rc = AM_OK;
    AM_TRY(am_ckpt_open_all(comm, path, &ckpt));
    rc = am_trunk_check(ckpt, known);
    AM_AGREE(comm);
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}
