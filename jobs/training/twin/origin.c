/* What a twin and a router were made from, in their metadata: see origin.h.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/origin.h"

#include <stdlib.h>
#include <string.h>
#include "io/commit/digest.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"

static const char shared_key[] = "twin.shared_xxh3";
static const char model_key[] = "twin.model_xxh3";
static const char tasks_key[] = "router.tasks";

static am_hex digest_of(const am_suite *suite, const void *trunk)
{
    return am_hex_of(am_digest_bytes(trunk, suite->trunk.n * am_suite_real_bytes(suite)));
}

/* Names of the tasks in their order. Owned; NULL with AM_E_NOMEM in the slot. */
static char *task_names(const am_suite *suite)
{
    char *names = am_text("%s", am_suite_task(suite, 0));
    for (int i = 1; names != NULL && i < suite->n; i++) {
        char *longer = am_text("%s, %s", names, am_suite_task(suite, i));
        free(names);
        names = longer;
    }
    return names;
}

int am_twin_origin_all(const am_twins *twins, int task, const void *trunk, am_meta *out)
{
    const am_suite *suite = twins->suite;
    const am_hex shared = digest_of(suite, twins->shared);
    const int leader = am_suite_leader(suite, task);
    am_hex model = {0};
    int rank, rc = am_meta_set(out, shared_key, shared.text);
    MPI_Comm_rank(suite->comm, &rank);
    if (rank == leader) {
        model = digest_of(suite, trunk);
    }
    AM_AGREE(suite->comm);
    AM_TRY(am_bcast_all(suite->comm, leader, &model, sizeof model));
    rc = am_meta_set(out, model_key, model.text);
    AM_AGREE(suite->comm);
cleanup:
    return rc;
}

int am_router_origin(const am_twins *twins, am_meta *out)
{
    const am_hex shared = digest_of(twins->suite, twins->shared);
    char *names = task_names(twins->suite);
    int rc = names == NULL ? AM_E_NOMEM : am_meta_set(out, tasks_key, names);
    AM_KEEP(am_meta_set(out, shared_key, shared.text));
    free(names);
    return rc;
}

/* ---- compared with a file ---- */

/* The first of the wanted keys that is missing or other; -1: none. */
static int64_t other(const am_meta *there, const am_meta *wanted)
{
    for (int64_t i = 0; i < wanted->n; i++) {
        const char *value = am_meta_get(there, wanted->key[i]);
        if (value == NULL || strcmp(value, wanted->value[i]) != 0) {
            return i;
        }
    }
    return -1;
}

int am_twin_is_from_all(const am_twins *twins, const am_run_folder *folder, const char *name,
                        const am_meta *origin, bool *is)
{
    char path[AM_RUN_PATH];
    am_ckpt *ckpt = NULL;
    int rc = AM_OK;
    AM_TRY(am_run_folder_has_sound_all(twins->suite->comm, folder, name, is));
    if (*is) {
        AM_TRY(am_run_folder_file(folder, path, "%s", name)); /* the same on all ranks */
        AM_TRY(am_ckpt_open_all(twins->suite->comm, path, &ckpt));
        *is = other(am_ckpt_meta(ckpt), origin) < 0;
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

int am_twin_check_shared(const am_twins *twins, const am_ckpt *ckpt)
{
    const am_hex shared = digest_of(twins->suite, twins->shared);
    const char *there = am_meta_get(am_ckpt_meta(ckpt), shared_key);
    return there != NULL && strcmp(there, shared.text) == 0
               ? AM_OK
               : am_fail(AM_E_DATA,
                         "%s was not made from the shared model beside it: make the folder anew, "
                         "with twin --overwrite",
                         am_ckpt_path(ckpt));
}

int am_router_check(const am_twins *twins, const am_ckpt *ckpt)
{
    const char *there = am_meta_get(am_ckpt_meta(ckpt), tasks_key);
    char *names = task_names(twins->suite);
    int rc = names == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK && (there == NULL || strcmp(there, names) != 0)) {
        rc = am_fail(AM_E_DATA,
                     "%s tells the tasks %s apart, in this order, the recipe has %s: give "
                     "data.tasks as it was",
                     am_ckpt_path(ckpt), there != NULL ? there : "(none)", names);
    }
    AM_KEEP(am_twin_check_shared(twins, ckpt));
    free(names);
    return rc;
}
