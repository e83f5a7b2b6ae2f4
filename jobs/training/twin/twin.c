/* Twins of a suite: see twin.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/twin.h"

#include <math.h>
#include <stdlib.h>
#include "jobs/training/twin/router.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"

/* ---- life ---- */

int am_twins_open_all(am_suite *suite, const am_twin_section *section, uint64_t seed,
                      const void *shared, am_twins *out)
{
    *out = (am_twins){.suite = suite, .section = section, .seed = seed, .shared = shared};
    int rc = am_twin_layout_make(&suite->trunk.tensors, section->compress, section->density,
                                 &out->layout);
    out->value = am_new(suite->n, sizeof *out->value, "twins");
    out->index = am_new(suite->n, sizeof *out->index, "twins");
    AM_KEEP(out->value == NULL || out->index == NULL ? AM_E_NOMEM : AM_OK);
    for (int i = 0; rc == AM_OK && i < suite->n; i++) {
        out->value[i] = am_new(out->layout.values + 1, sizeof **out->value, "a twin");
        out->index[i] = am_new(out->layout.indices + 1, sizeof **out->index, "a twin");
        rc = out->value[i] == NULL || out->index[i] == NULL ? AM_E_NOMEM : AM_OK;
    }
    AM_KEEP(am_router_make(suite, section, &out->router));
    return am_agree_all(suite->comm, rc);
}

void am_twins_free(am_twins *twins)
{
    for (int i = 0; twins->suite != NULL && i < twins->suite->n; i++) {
        if (twins->value != NULL) {
            free(twins->value[i]);
        }
        if (twins->index != NULL) {
            free(twins->index[i]);
        }
    }
    free(twins->value);
    free(twins->index);
    am_twin_layout_free(&twins->layout);
    am_router_free(&twins->router);
    *twins = (am_twins){0};
}

int am_twins_make_all(am_suite *suite, const am_twin_section *section, uint64_t seed,
                      const void *shared, void *const *trunks, am_twins *out)
{
    int rc = AM_OK;
    AM_TRY(am_twins_open_all(suite, section, seed, shared, out));
    for (int i = 0; i < suite->n; i++) {
        AM_TRY(am_twins_compress_all(out, i, trunks[i]));
    }
    AM_TRY(am_twins_route_all(out));
cleanup:
    return rc;
}

/* ---- one twin ---- */

static double real_at(const am_suite *suite, const void *reals, int64_t i)
{
    return suite->ops->dtype == AM_DTYPE_F64 ? ((const double *)reals)[i]
                                             : (double)((const float *)reals)[i];
}

/* A tensor of the task's trunk minus that of the shared one; kept values become numbers of the
 * suite's type, as they are saved. */
static int compress_tensor(am_twins *twins, int task, int64_t k, const void *trunk, am_arena *work,
                           double *delta)
{
    const am_suite *suite = twins->suite;
    const am_twin_form *form = &twins->layout.form[k];
    const int64_t at = suite->trunk.offset[k], n = suite->trunk.tensors.t[k].numel;
    double *value = twins->value[task] + form->value;
    for (int64_t i = 0; i < n; i++) {
        delta[i] = real_at(suite, trunk, at + i) - real_at(suite, twins->shared, at + i);
        if (!isfinite(delta[i])) {
            return am_fail(
                AM_E_NUMERIC, "the twin of task %s: tensor %s is not finite at element %lld",
                am_suite_task(suite, task), suite->trunk.tensors.t[k].name, (long long)i);
        }
    }
    const int rc = am_twin_compress(work, form, delta, value, twins->index[task] + form->index);
    for (int64_t i = 0; rc == AM_OK && suite->ops->dtype == AM_DTYPE_F32 && i < form->values; i++) {
        value[i] = (double)(float)value[i];
    }
    return rc;
}

/* Which rank compresses each tensor: by what a factorisation costs. */
static int share_out(const am_twins *twins, int size, int *owner)
{
    const am_twin_layout *layout = &twins->layout;
    int64_t *cost = am_new(layout->n + 1, sizeof *cost, "a twin");
    for (int64_t k = 0; cost != NULL && k < layout->n; k++) {
        const am_twin_form *f = &layout->form[k];
        const double side = (double)(f->m < f->n ? f->m : f->n), n = (double)f->m * (double)f->n;
        const double operations = f->way == AM_TWIN_SVD ? n * side : n;
        cost[k] = operations < 1e15 ? (int64_t)operations : (int64_t)1e15;
    }
    if (cost != NULL) {
        am_part_balance(cost, layout->n, size, owner);
    }
    free(cost);
    return cost != NULL ? AM_OK : AM_E_NOMEM;
}

static int compress_own(am_twins *twins, int task, const void *trunk, const int *owner, int rank)
{
    am_arena work = {0};
    double *delta = am_new(twins->layout.largest + 1, sizeof *delta, "a twin");
    int rc = delta == NULL ? AM_E_NOMEM
                           : am_arena_create(&work, (size_t)twins->layout.work_bytes, "a twin");
    am_blas_single_thread();
    for (int64_t k = 0; rc == AM_OK && k < twins->layout.n; k++) {
        if (owner[k] == rank) {
            rc = compress_tensor(twins, task, k, trunk, &work, delta);
            am_alive("twins");
        }
    }
    am_arena_destroy(&work);
    free(delta);
    return rc;
}

int am_twins_compress_all(am_twins *twins, int task, const void *trunk)
{
    const am_suite *suite = twins->suite;
    const int64_t bytes = suite->trunk.n * am_suite_real_bytes(suite);
    const int leader = am_suite_leader(suite, task);
    int rank, size, rc;
    void *whole = NULL;
    MPI_Comm_rank(suite->comm, &rank);
    MPI_Comm_size(suite->comm, &size);
    int *owner = am_new(twins->layout.n + 1, sizeof *owner, "a twin");
    rc = owner == NULL ? AM_E_NOMEM : share_out(twins, size, owner);
    whole = rank == leader ? NULL : am_suite_trunk_new(suite);
    AM_KEEP(rank != leader && whole == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(suite->comm);
    /* The leader's is only sent: the cast does not write through it. */
    AM_TRY(am_bcast_all(suite->comm, leader, rank == leader ? (void *)trunk : whole, bytes));
    rc = compress_own(twins, task, rank == leader ? trunk : whole, owner, rank);
    AM_TRY(am_agree_step_all(suite->comm, rc));
    for (int64_t k = 0; k < twins->layout.n; k++) {
        const am_twin_form *f = &twins->layout.form[k];
        AM_TRY(am_bcast_all(suite->comm, owner[k], twins->value[task] + f->value,
                            f->values * (int64_t)sizeof(double)));
        AM_TRY(am_bcast_all(suite->comm, owner[k], twins->index[task] + f->index,
                            f->indices * (int64_t)sizeof(int64_t)));
    }
cleanup:
    free(whole);
    free(owner);
    return rc;
}

int am_twins_expand(const am_twins *twins, int task, void *out)
{
    const am_suite *suite = twins->suite;
    am_arena work = {0};
    double *delta = am_new(twins->layout.largest + 1, sizeof *delta, "a twin");
    int rc = delta == NULL ? AM_E_NOMEM
                           : am_arena_create(&work, (size_t)twins->layout.work_bytes, "a twin");
    am_blas_single_thread();
    for (int64_t k = 0; rc == AM_OK && k < twins->layout.n; k++) {
        const am_twin_form *f = &twins->layout.form[k];
        const int64_t at = suite->trunk.offset[k], n = suite->trunk.tensors.t[k].numel;
        am_twin_expand(&work, f, twins->value[task] + f->value, twins->index[task] + f->index,
                       delta);
        for (int64_t i = 0; i < n; i++) {
            if (suite->ops->dtype == AM_DTYPE_F64) {
                ((double *)out)[at + i] = delta[i];
            } else {
                ((float *)out)[at + i] = (float)delta[i];
            }
        }
    }
    am_arena_destroy(&work);
    free(delta);
    return rc;
}
