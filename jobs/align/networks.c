/* Networks that are put into order: see networks.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/align/networks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "mpi/agree.h"

int am_networks_shape_all(MPI_Comm comm, const am_train_recipe *recipe, const char *job,
                          int64_t features, am_net *net, am_param_layout *trunk)
{
    am_dataset_shape data = {.features = features};
    char *file = NULL;
    int rc = AM_OK;
    if (features == 0) { /* [same] */
        file = am_text("%s/%s.h5", recipe->folder, recipe->task[0]);
        rc = file == NULL ? AM_E_NOMEM : AM_OK;
        AM_AGREE(comm);
        AM_TRY(am_dataset_shape_all(comm, file, recipe->limit, &data));
    }
    if (recipe->model.linearised) {
        rc = am_fail(AM_E_RECIPE,
                     "%s: a linearised model is bound to its base, whose order it "
                     "must keep",
                     job);
    }
    AM_KEEP(am_net_copy(&recipe->model.net, net));
    AM_KEEP(rc != AM_OK ? rc : am_net_shape(net, data.features));
    AM_KEEP(rc != AM_OK ? rc : am_net_trunk_layout(net, AM_DTYPE_F64, trunk));
    AM_AGREE(comm);
cleanup:
    free(file);
    return rc;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

int am_networks_check_heads(const am_ckpt *ckpt, int64_t features)
{
    const am_tensor_table *there = am_ckpt_tensors(ckpt);
    for (int64_t i = 0; i < there->n; i++) {
        const am_tensor *t = &there->t[i];
        const bool is_weight = ends_with(t->name, "head.weight") && t->ndim == 2;
        const bool is_bias = ends_with(t->name, "head.bias") && t->ndim == 1;
        if (!is_bias && !(is_weight && t->shape[1] == features)) {
            return am_fail(AM_E_DATA,
                           "%s: tensor '%s' %s is no head of this network: heads are "
                           "NAME.head.weight [classes,%lld] and NAME.head.bias [classes]",
                           am_ckpt_path(ckpt), t->name, am_tensor_describe(t), (long long)features);
        }
    }
    return AM_OK;
}

int am_networks_load_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                         const int64_t *offset, double *block)
{
    int rc = am_ckpt_load_all(comm, path, tensors, offset, block);
    for (int64_t t = 0; rc == AM_OK && t < tensors->n; t++) {
        for (int64_t i = 0; rc == AM_OK && i < tensors->t[t].numel; i++) {
            const double x = block[offset[t] + i];
            rc = isfinite(x) ? AM_OK
                             : am_fail(AM_E_DATA, "%s: tensor '%s': element %lld is %g", path,
                                       tensors->t[t].name, (long long)i, x);
        }
    }
    return rc; /* every rank has read the same values */
}
