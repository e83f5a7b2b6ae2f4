/* See hf_adapter.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/interop/hf_adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/checkpoint/adapter.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"

/* The factors on their way. */
typedef struct factors {
    const am_hf_model *model; /* borrowed */
    am_adapter *adapter;      /* owned */
    am_tensor_table ours;     /* owned: all factors, as F64 */
    int64_t *at;              /* [ours.n] owned: in block */
    double *block;            /* owned */
    am_tensor_table theirs;   /* owned: what is written */
    int64_t *offset;          /* [theirs.n] owned: in block */
    am_json config;           /* owned: text of adapter_config.json */
} factors;

static void factors_free(factors *f)
{
    am_adapter_close(&f->adapter);
    am_tensor_table_free(&f->ours);
    am_tensor_table_free(&f->theirs);
    am_json_free(&f->config);
    free(f->at);
    free(f->block);
    free(f->offset);
}

int am_hf_is_adapter_all(MPI_Comm comm, const char *path, bool *is_adapter)
{
    int64_t is = 0;
    int rank, rc = 0;
    MPI_Comm_rank(comm, &rank);
    char *config = am_text("%s/" AM_ADAPTER_CONFIG, path);
    AM_KEEP(config == NULL ? AM_E_NOMEM : 0);
    AM_AGREE(comm);
    is = rank == 0 && access(config, F_OK) == 0;
    AM_TRY(am_bcast_all(comm, 0, &is, sizeof is));
    *is_adapter = is != 0;
cleanup:
    free(config);
    return rc;
}

/* The values of all factors. */
static int load_all(MPI_Comm comm, factors *f)
{
    const am_tensor_table *all = am_ckpt_tensors(f->adapter->ckpt);
    int64_t reals = 0;
    int rc = 0;
    for (int64_t i = 0; i < all->n; i++) {
        const am_tensor *t = &all->t[i];
        AM_KEEP(am_tensor_table_add(&f->ours, t->name, AM_DTYPE_F64, t->ndim, t->shape));
        reals += t->numel;
    }
    AM_KEEP(am_tensor_table_finish(&f->ours));
    f->at = am_new(all->n + 1, sizeof *f->at, "an adapter");
    f->block = am_new(reals + 1, sizeof *f->block, "an adapter");
    AM_KEEP(f->at == NULL || f->block == NULL ? AM_E_NOMEM : 0);
    AM_AGREE(comm);
    reals = 0;
    for (int64_t i = 0; i < all->n; i++) { /* both tables are in name order */
        f->at[i] = reals;
        reals += all->t[i].numel;
    }
    AM_TRY(am_ckpt_load_all(comm, am_ckpt_path(f->adapter->ckpt), &f->ours, f->at, f->block));
cleanup:
    return rc;
}

/* One configuration says rank and scale of all. */
static int check_parts(const factors *f, int64_t *rank)
{
    const am_adapter *adapter = f->adapter;
    for (int64_t k = 0; k < f->model->trunk.tensors.n; k++) {
        const am_adapter_part *p = &adapter->part[k];
        if (p->a < 0) {
            continue;
        }
        *rank = *rank == 0 ? p->rank : *rank;
        const double r = (double)*rank;
        if (p->is_whole || p->rank != *rank ||
            p->scale != adapter->alpha / (adapter->is_rs ? sqrt(r) : r)) {
            return am_fail(AM_E_DATA,
                           "%s: '%s' is not adapted as the others are: export writes adapters of "
                           "one rank and one scale, as train does",
                           am_ckpt_path(adapter->ckpt), f->model->trunk.tensors.t[k].name);
        }
    }
    return 0;
}

static int factor_name(const am_hf_model *m, const am_hf_part *part, char factor, char *out)
{
    const char *weight = m->mapped.t[part->theirs].name;
    const int n = snprintf(out, AM_MAX_NAME, "base_model.model.%.*s.lora_%c.weight",
                           (int)(strlen(weight) - strlen(".weight")), weight, factor);
    return n < AM_MAX_NAME ? 0 : am_fail(AM_E_DATA, "the tensor name %.80s... is too long", out);
}

/* The factor of a part: A whole, or its rows of B; into the table, or its place in `offset`. */
static int put_factor(factors *f, const am_hf_part *part, char factor, bool is_placing)
{
    const am_adapter_part *p = &f->adapter->part[part->ours];
    const int64_t i = factor == 'A' ? p->a : p->b;
    const am_tensor *t = &am_ckpt_tensors(f->adapter->ckpt)->t[i];
    char name[AM_MAX_NAME];
    const int rc = factor_name(f->model, part, factor, name);
    if (rc == 0 && is_placing) {
        f->offset[am_tensor_table_find(&f->theirs, name)] =
            f->at[i] + (factor == 'B' ? part->row * p->rank : 0);
        return 0;
    }
    int64_t shape[AM_MAX_DIMS];
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = factor == 'B' ? part->rows : t->shape[0];
    return rc != 0 ? rc : am_tensor_table_add(&f->theirs, name, t->dtype, t->ndim, shape);
}

static int put_factors(factors *f, bool is_placing)
{
    int rc = 0;
    for (int i = 0; i < f->model->n_parts; i++) {
        const am_hf_part *part = &f->model->part[i];
        if (f->adapter->part[part->ours].a >= 0) {
            AM_KEEP(put_factor(f, part, 'A', is_placing));
            AM_KEEP(put_factor(f, part, 'B', is_placing));
        }
    }
    return rc;
}

static int make_table(factors *f)
{
    int rc = put_factors(f, false);
    AM_KEEP(am_tensor_table_finish(&f->theirs));
    f->offset = am_new(f->theirs.n + 1, sizeof *f->offset, "an adapter");
    AM_KEEP(f->offset == NULL ? AM_E_NOMEM : 0);
    AM_KEEP(put_factors(f, true));
    return rc;
}

static int make_config(factors *f)
{
    am_adapter_config config = {.alpha = f->adapter->alpha, .is_rs = f->adapter->is_rs};
    const int rc = check_parts(f, &config.r);
    for (int i = 0; i < f->model->n_parts; i++) { /* Conv1D: of all of a model's, or of none */
        const am_hf_part *part = &f->model->part[i];
        config.fan_in_fan_out = config.fan_in_fan_out || part->is_transposed;
    }
    am_adapter_config_begin(&config, &f->config);
    for (int i = 0; rc == 0 && i < f->model->n_parts; i++) {
        const am_hf_part *part = &f->model->part[i];
        if (f->adapter->part[part->ours].a >= 0) {
            am_adapter_config_add(f->model->mapped.t[part->theirs].name, &f->config);
        }
    }
    const int made = am_adapter_config_end(&f->config);
    return rc != 0 ? rc : made;
}

int am_hf_adapter_export_all(MPI_Comm comm, const am_hf_model *model, const char *folder,
                             const char *output, bool overwrite, am_hf_written *written)
{
    factors f = {.model = model};
    am_meta meta = {0};
    int rank, rc = 0;
    MPI_Comm_rank(comm, &rank);
    char *path = am_text("%s/" AM_ADAPTER_FACTORS, output);
    const char *const inputs[] = {folder, am_ckpt_path(model->ckpt), NULL};
    AM_KEEP(path == NULL ? AM_E_NOMEM : 0);
    AM_AGREE(comm);
    AM_TRY(am_adapter_open_all(comm, folder, &model->trunk.tensors, am_ckpt_path(model->ckpt),
                               &f.adapter));
    rc = make_config(&f);
    AM_AGREE(comm);
    AM_TRY(load_all(comm, &f));
    rc = make_table(&f);
    AM_KEEP(am_meta_set(&meta, "format", "pt"));
    AM_KEEP(rank == 0 ? am_adapter_folder_make(output) : 0);
    AM_AGREE(comm);
    const am_ckpt_options options = {.overwrite = overwrite,
                                     .meta = &meta,
                                     .inputs = inputs,
                                     .beside = AM_ADAPTER_CONFIG,
                                     .beside_text = f.config.text};
    AM_TRY(am_hf_model_write_all(comm, model, path, &f.theirs, f.offset, f.block, &options));
    *written = (am_hf_written){f.theirs.n, am_tensor_table_bytes(&f.theirs)};
cleanup:
    if (rc != 0 && rank == 0) {
        am_adapter_folder_drop(output);
    }
    am_meta_free(&meta);
    free(path);
    factors_free(&f);
    return rc;
}
