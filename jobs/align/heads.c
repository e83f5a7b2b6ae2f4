/* Heads of two networks: see heads.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/align/heads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/align/networks.h"
#include "mpi/agree.h"
#include "mpi/arena.h"

static const char weight_end[] = ".weight", bias_end[] = ".bias";

static void file_free(am_head_file *file)
{
    am_tensor_table_free(&file->tensors);
    free(file->offset);
    free(file->block);
}

void am_head_pair_free(am_head_pair *heads)
{
    file_free(&heads->of[0]);
    file_free(&heads->of[1]);
    file_free(&heads->merged);
    free(heads->head);
    *heads = (am_head_pair){0};
}

/* Offsets in the block of a finished table. */
static int place(am_head_file *file)
{
    file->offset = am_new(file->tensors.n + 1, sizeof *file->offset, "heads");
    for (int64_t i = 0; file->offset != NULL && i < file->tensors.n; i++) {
        file->tensors.t[i].dtype = AM_DTYPE_F64;
        file->offset[i] = file->n;
        file->n += file->tensors.t[i].numel;
    }
    return file->offset == NULL ? AM_E_NOMEM : AM_OK;
}

static int make_room(am_head_file *file)
{
    file->block = am_new(file->n + 1, sizeof *file->block, "heads");
    return file->block == NULL ? AM_E_NOMEM : AM_OK;
}

static int open_file_all(MPI_Comm comm, const char *path, int64_t features, am_head_file *out)
{
    am_ckpt *ckpt = NULL;
    int rc = AM_OK;
    AM_TRY(am_ckpt_open_all(comm, path, &ckpt));
    rc = am_networks_check_heads(ckpt, features);
    AM_KEEP(am_tensor_table_copy(am_ckpt_tensors(ckpt), &out->tensors));
    AM_KEEP(place(out));
    AM_AGREE(comm);
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

/* ---- the merged heads ---- */

/* The tensor whose name is that of another one with `end` in place of its end, `old`. */
static int64_t with_end(const am_tensor_table *tensors, const char *name, const char *old,
                        const char *end)
{
    char other[AM_MAX_NAME];
    snprintf(other, sizeof other, "%.*s%s", (int)(strlen(name) - strlen(old)), name, end);
    return am_tensor_table_find(tensors, other);
}

/* The bias that goes with weight `name` in a table: NAME.head.weight, NAME.head.bias. */
static int64_t bias_of(const am_tensor_table *tensors, const char *name)
{
    return with_end(tensors, name, weight_end, bias_end);
}

/* A weight and its bias, of which one alone is no head. */
static int check_head(const char *path, const am_tensor_table *tensors, int64_t weight)
{
    const am_tensor *t = &tensors->t[weight];
    const int64_t bias = bias_of(tensors, t->name);
    return bias >= 0 && tensors->t[bias].numel == t->shape[0]
               ? AM_OK
               : am_fail(AM_E_DATA, "%s: tensor '%s' %s has no bias of %lld beside it", path,
                         t->name, am_tensor_describe(t), (long long)t->shape[0]);
}

static int check_bias(const char *path, const am_tensor_table *tensors, int64_t bias)
{
    const am_tensor *t = &tensors->t[bias];
    const int64_t weight = with_end(tensors, t->name, bias_end, weight_end);
    return weight >= 0 && tensors->t[weight].ndim == 2
               ? AM_OK
               : am_fail(AM_E_DATA, "%s: tensor '%s' %s has no weight beside it", path, t->name,
                         am_tensor_describe(t));
}

/* Heads of file `s` that file 0 has not (or all of file 0) into the merged table. */
static int add_heads(const char *const path[2], int s, int64_t merged, am_head_pair *h)
{
    const am_tensor_table *there = &h->of[s].tensors;
    int rc = AM_OK;
    for (int64_t i = 0; rc == AM_OK && i < there->n; i++) {
        const am_tensor *t = &there->t[i];
        if (t->ndim != 2) {
            rc = check_bias(path[s], there, i);
            continue;
        }
        const int64_t other = s == 1 ? am_tensor_table_find(&h->of[0].tensors, t->name) : -1;
        rc = check_head(path[s], there, i);
        if (rc == AM_OK && other >= 0) {
            const am_tensor *o = &h->of[0].tensors.t[other];
            rc = o->shape[0] == t->shape[0]
                     ? AM_OK
                     : am_fail(AM_E_DATA, "%s: tensor '%s' has %lld classes, and %lld in %s",
                               path[1], t->name, (long long)t->shape[0], (long long)o->shape[0],
                               path[0]);
            continue;
        }
        if (rc == AM_OK) {
            const am_tensor *bias = &there->t[bias_of(there, t->name)];
            rc = am_tensor_table_add(&h->merged.tensors, t->name, AM_DTYPE_F64, 2,
                                     (const int64_t[]){t->shape[0], merged});
            AM_KEEP(am_tensor_table_add(&h->merged.tensors, bias->name, AM_DTYPE_F64, 1, t->shape));
            h->n++;
            h->classes = t->shape[0] > h->classes ? t->shape[0] : h->classes;
        }
    }
    return rc;
}

static int list_heads(am_head_pair *h)
{
    const am_head_file *to = &h->merged;
    int at = 0;
    h->head = am_new(h->n + 1, sizeof *h->head, "heads");
    if (h->head == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < to->tensors.n; i++) {
        const am_tensor *t = &to->tensors.t[i];
        if (t->ndim != 2) {
            continue;
        }
        am_pleas_head *head = &h->head[at++];
        *head = (am_pleas_head){.name = t->name,
                                .K = t->shape[0],
                                .to_weight = to->block + to->offset[i],
                                .to_bias = to->block + to->offset[bias_of(&to->tensors, t->name)]};
        for (int s = 0; s < 2; s++) {
            const am_head_file *from = &h->of[s];
            const int64_t w = am_tensor_table_find(&from->tensors, t->name);
            if (w >= 0) {
                head->weight[s] = from->block + from->offset[w];
                head->bias[s] = from->block + from->offset[bias_of(&from->tensors, t->name)];
            }
        }
    }
    return AM_OK;
}

int am_head_pair_open_all(MPI_Comm comm, const char *const path[2], int64_t features,
                          int64_t merged, am_head_pair *out)
{
    int rc = AM_OK;
    *out = (am_head_pair){0};
    AM_TRY(open_file_all(comm, path[0], features, &out->of[0]));
    AM_TRY(open_file_all(comm, path[1], features, &out->of[1]));
    rc = add_heads(path, 0, merged, out);
    AM_KEEP(rc != AM_OK ? rc : add_heads(path, 1, merged, out));
    if (rc == AM_OK && out->n == 0) {
        rc = am_fail(AM_E_DATA, "%s: no heads, and none in %s", path[0], path[1]);
    }
    AM_KEEP(rc != AM_OK ? rc : am_tensor_table_finish(&out->merged.tensors));
    AM_KEEP(place(&out->merged));
    AM_AGREE(comm);
cleanup:
    return rc;
}

int am_head_pair_load_all(MPI_Comm comm, const char *const path[2], am_head_pair *h)
{
    int rc = make_room(&h->merged);
    AM_KEEP(make_room(&h->of[0]));
    AM_KEEP(make_room(&h->of[1]));
    AM_KEEP(list_heads(h));
    AM_AGREE(comm);
    for (int s = 0; s < 2; s++) {
        am_head_file *file = &h->of[s];
        AM_TRY(am_networks_load_all(comm, path[s], &file->tensors, file->offset, file->block));
    }
cleanup:
    return rc;
}

/* Whether a tensor is of the head of one of these tasks: TASK.head.weight, TASK.head.bias. */
static bool is_of_task(const char *name, char *const *task, int n)
{
    bool is = false;
    for (int i = 0; !is && i < n; i++) {
        const size_t length = strlen(task[i]);
        is = strncmp(name, task[i], length) == 0 && strncmp(name + length, ".head.", 6) == 0;
    }
    return is;
}

int64_t am_head_pair_bytes(const am_head_pair *h, char *const *task, int n)
{
    int64_t reals = 2 * h->merged.n;
    for (int s = 0; s < 2; s++) {
        const am_tensor_table *tensors = &h->of[s].tensors;
        for (int64_t i = 0; i < tensors->n; i++) {
            reals += is_of_task(tensors->t[i].name, task, n) ? 0 : tensors->t[i].numel;
        }
    }
    return reals * (int64_t)sizeof(double);
}
