/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/file.h"
#include "jobs/merge/lora.h"
#include "jobs/merge/task_vector.h"
#include "jobs/recipe/bind.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"

enum { MAX_FILES = 2 };

struct am_model {
    char *path;
    char *half[2];                    /* owned: CHECKPOINT and ADAPTER or NULL */
    const char *files[MAX_FILES + 1]; /* NULL-terminated */
    am_ckpt *ckpt;
    am_adapter *adapter; /* NULL: none */
    am_lora *lora;
    am_taskvec *tv; /* NULL: none */
    am_based_tv *based;
    am_shared_base *shared; /* for the task vectors of this base; NULL until the first */
    am_source source;
};

int am_model_cut(const char *path)
{
    const char *plus = strrchr(path, '+');
    return plus == NULL || plus == path || plus[1] == '\0' || access(path, F_OK) == 0
               ? -1
               : (int)(plus - path);
}

/* Both halves of every path; half [2 n] is owned, the second NULL where there is no adapter. */
static int halve_all(MPI_Comm comm, const char *const *path, int n, char **half)
{
    int rank = 0, rc = 0;
    int *cut = am_new(n + 1, sizeof *cut, "input paths");
    AM_KEEP(cut != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    MPI_Comm_rank(comm, &rank);
    for (int i = 0; rank == 0 && i < n; i++) {
        cut[i] = am_model_cut(path[i]);
    }
    AM_TRY(am_bcast_all(comm, 0, cut, n * (int64_t)sizeof *cut));
    for (int i = 0; i < n; i++) {
        const int length = cut[i] < 0 ? (int)strlen(path[i]) : cut[i];
        half[2 * i] = am_text("%.*s", length, path[i]);
        half[2 * i + 1] = cut[i] < 0 ? NULL : am_text("%s", path[i] + cut[i] + 1);
        AM_KEEP(half[2 * i] != NULL && (cut[i] < 0 || half[2 * i + 1] != NULL) ? 0 : AM_E_NOMEM);
    }
    AM_AGREE(comm);
cleanup:
    free(cut);
    return rc;
}

/* found [parts] in the order of the halves that are there; out [n] is owned. */
static int join(char *const *half, char *const *found, int n, char **out)
{
    int at = 0;
    for (int i = 0; i < n; i++) {
        const char *first = found[at++];
        const char *second = half[2 * i + 1] != NULL ? found[at++] : NULL;
        out[i] = second != NULL ? am_text("%s+%s", first, second) : am_text("%s", first);
        if (out[i] == NULL) {
            return AM_E_NOMEM;
        }
    }
    return 0;
}

int am_model_paths_all(MPI_Comm comm, const char *const *path, int n, const char *recipe,
                       char **out)
{
    int rc = 0, parts = 0;
    char **half = am_new(2 * (int64_t)n + 1, sizeof *half, "input paths");
    char **found = am_new(2 * (int64_t)n + 1, sizeof *found, "input paths");
    const char **part = am_new(2 * (int64_t)n + 1, sizeof *part, "input paths");
    AM_KEEP(half != NULL && found != NULL && part != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(halve_all(comm, path, n, half));
    for (int i = 0; i < 2 * n; i++) {
        if (half[i] != NULL) {
            part[parts++] = half[i];
        }
    }
    AM_TRY(am_recipe_paths_all(comm, part, parts, recipe, found));
    rc = join(half, found, n, out);
    AM_AGREE(comm);
cleanup:
    for (int i = 0; i < 2 * n; i++) {
        free(half != NULL ? half[i] : NULL);
        free(found != NULL ? found[i] : NULL);
    }
    free(half);
    free(found);
    free(part);
    return rc;
}

static int set_halves(am_model *m, int cut)
{
    m->half[0] = cut < 0 ? am_text("%s", m->path) : am_text("%.*s", cut, m->path);
    m->half[1] = cut < 0 ? NULL : am_text("%s", m->path + cut + 1);
    m->files[0] = m->half[0];
    return m->half[0] != NULL && (cut < 0 || m->half[1] != NULL) ? 0 : AM_E_NOMEM;
}

/* The checkpoint is a task vector: the source gives base + task vector. */
static int open_task_vector_all(MPI_Comm comm, am_model *m, am_model *base, int64_t buffer_bytes)
{
    int rc = 0;
    if (base == NULL) { /* the same on every rank */
        return am_fail(AM_E_RECIPE, "%s is a task vector and needs a base to be added to%s",
                       m->half[0], "; name the base_model, and a method that uses it");
    }
    if (base->shared == NULL) {
        rc = am_shared_base_create(&base->source, &base->shared);
    }
    AM_AGREE(comm);
    AM_TRY(am_tv_open_all(comm, m->ckpt, &base->source, buffer_bytes, &m->tv));
    rc = am_based_tv_create(base->shared, m->tv, m->path, &m->based, &m->source);
    AM_AGREE(comm);
cleanup:
    return rc;
}

static int open_adapter_all(MPI_Comm comm, am_model *m)
{
    int rc = 0;
    AM_TRY(am_adapter_open_all(comm, m->half[1], m->source.tensors, m->half[0], &m->adapter));
    m->files[1] = am_ckpt_path(m->adapter->ckpt);
    const am_source whole = m->source;
    rc = am_lora_create(&whole, m->adapter, &m->lora, &m->source);
    m->source.label = m->path;
    AM_AGREE(comm);
cleanup:
    return rc;
}

int am_model_open_all(MPI_Comm comm, const char *path, am_model *base, int64_t buffer_bytes,
                      am_model **out)
{
    int rank = 0, rc = 0;
    am_model *m = am_new(1, sizeof *m, "a model");
    AM_KEEP(m != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    MPI_Comm_rank(comm, &rank);
    int cut = rank == 0 ? am_model_cut(path) : 0;
    AM_TRY(am_bcast_all(comm, 0, &cut, sizeof cut));
    m->path = am_text("%s", path);
    rc = m->path != NULL ? set_halves(m, cut) : AM_E_NOMEM;
    AM_AGREE(comm);
    AM_TRY(am_ckpt_open_all(comm, m->half[0], &m->ckpt));
    if (am_tv_is(m->ckpt)) {
        AM_TRY(open_task_vector_all(comm, m, base, buffer_bytes));
    } else {
        rc = am_ckpt_source(m->ckpt, buffer_bytes, &m->source);
        AM_AGREE(comm);
    }
    if (cut >= 0) {
        AM_TRY(open_adapter_all(comm, m));
    }
    *out = m;
    m = NULL;
cleanup:
    am_model_close(&m);
    return rc;
}

void am_model_close(am_model **model)
{
    am_model *m = *model;
    if (m == NULL) {
        return;
    }
    am_lora_free(&m->lora);
    am_adapter_close(&m->adapter);
    am_based_tv_free(&m->based);
    am_tv_close(&m->tv);
    am_shared_base_free(&m->shared);
    am_ckpt_close(&m->ckpt);
    free(m->half[0]);
    free(m->half[1]);
    free(m->path);
    free(m);
    *model = NULL;
}

const am_tensor_table *am_model_tensors(const am_model *model)
{
    return model->source.tensors;
}

const char *const *am_model_files(const am_model *model)
{
    return model->files;
}

int64_t am_model_bytes(const am_model *model, int64_t load)
{
    return (model->lora != NULL ? am_lora_bytes(model->lora) : 0) +
           (model->tv != NULL ? am_tv_bytes(model->tv, load) : 0) +
           am_shared_base_bytes(model->shared, load);
}

const am_meta *am_model_meta(const am_model *model)
{
    return am_ckpt_meta(model->ckpt);
}

const am_source *am_model_source(const am_model *model)
{
    return &model->source;
}
