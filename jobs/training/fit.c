/* Memory for data sets: what a budget leaves. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/fit.h"

#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/param.h"

typedef struct wish {
    int64_t bytes;
    int index;
} wish;

static int by_bytes(const void *a, const void *b)
{
    const wish *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes > y->bytes) - (x->bytes < y->bytes)
                                : x->index - y->index;
}

int am_fit_share(const int64_t *least, const int64_t *most, int n, int64_t room, int64_t *share)
{
    wish *wishes = am_new(n, sizeof *wishes, "a plan");
    if (wishes == NULL) {
        return AM_E_NOMEM;
    }
    for (int i = 0; i < n; i++) {
        wishes[i] = (wish){most[i] - least[i], i};
        room -= least[i];
    }
    qsort(wishes, (size_t)n, sizeof *wishes, by_bytes);
    for (int i = 0; i < n; i++) {
        const int64_t part = room / (n - i);
        const int64_t given = wishes[i].bytes < part ? wishes[i].bytes : part;
        share[wishes[i].index] = least[wishes[i].index] + given;
        room -= given;
    }
    free(wishes);
    return 0;
}

static int64_t sum(const int64_t *x, int n)
{
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        bytes += x[i];
    }
    return bytes;
}

static void tell(const am_train_recipe *recipe, const int64_t *most, int n)
{
    for (int i = 0; i < n; i++) {
        if (recipe->room[i] < most[i]) {
            am_info("%s: %s of samples are read in pages, of which %s stay in memory",
                    i < recipe->n_tasks ? recipe->task[i] : recipe->base_task,
                    am_format_bytes(most[i]), am_format_bytes(recipe->room[i]));
        }
    }
}

/* Room for the sets beside `rest`. recipe->room is all 0. */
static int fit(am_train_recipe *recipe, const am_dataset_shape *sets, int n, int64_t memory,
               const am_train_need *rest)
{
    int64_t *least = am_new(2 * (int64_t)n, sizeof *least, "a plan");
    int64_t *most = least != NULL ? least + n : NULL;
    int rc = least == NULL ? AM_E_NOMEM : 0;
    for (int i = 0; i < n && rc == 0; i++) {
        most[i] = am_dataset_shape_bytes(&sets[i]);
        least[i] = sets[i].fewest_bytes < most[i] ? sets[i].fewest_bytes : most[i];
    }
    if (rc == 0 && memory < rest->peak + sum(least, n)) {
        rc = am_fail(AM_E_USAGE,
                     "--memory %s is too little: in the phase %s a rank takes %s and at least %s "
                     "for its samples; the smallest that does is %lldMiB",
                     am_format_bytes(memory), rest->phase, am_format_bytes(rest->peak),
                     am_format_bytes(sum(least, n)),
                     (long long)((rest->peak + sum(least, n)) >> 20) + 2);
    }
    if (rc == 0) {
        rc = am_fit_share(least, most, n, memory - rest->peak, recipe->room);
    }
    if (rc == 0) {
        tell(recipe, most, n);
    }
    free(least);
    return rc;
}

int am_train_fit_all(MPI_Comm comm, am_train_recipe *recipe, am_train_job job, int ranks,
                     int64_t memory, am_train_need *need, am_process *process)
{
    const int n = recipe->n_tasks + (recipe->base_task != NULL ? 1 : 0);
    am_process now = {0};
    am_train_need told = {0};
    am_dataset_shape *sets = NULL;
    int rc = 0;
    if (memory == 0 && need == NULL) {
        return 0; /* equal on all ranks */
    }
    sets = am_new(n, sizeof *sets, "a plan");
    AM_KEEP(sets == NULL ? AM_E_NOMEM : 0);
    if (memory > 0) {
        free(recipe->room);
        recipe->room = am_new(n, sizeof *recipe->room, "a plan");
        AM_KEEP(recipe->room == NULL ? AM_E_NOMEM : 0);
    }
    AM_AGREE(comm);
    /* What the process holds is known once it has read the headers. */
    AM_TRY(am_train_plan_all(comm, recipe, job, ranks, &now, &told, sets));
    AM_TRY(am_memory_process_all(comm, &now));
    if (memory > 0) {
        AM_TRY(am_train_plan_all(comm, recipe, job, ranks, &now, &told, NULL));
        rc = fit(recipe, sets, n, memory, &told);
        AM_AGREE(comm);
    }
    AM_TRY(am_train_plan_all(comm, recipe, job, ranks, &now, &told, NULL));
    if (need != NULL) {
        *need = told;
        *process = now;
    }
cleanup:
    free(sets);
    return rc;
}
