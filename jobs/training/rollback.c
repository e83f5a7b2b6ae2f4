/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/rollback.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

double am_rollback_lr(double lr, int64_t rollbacks)
{
    return ldexp(lr, (int)-rollbacks);
}

bool am_rollback_is_due(const am_divergence *policy, const am_train_result *result)
{
    return result->diverged ||
           (policy->loss_limit > 0 && result->is_finished && !(result->loss <= policy->loss_limit));
}

void am_rollback_report(const char *purpose, const char *task, int64_t rollbacks, double lr)
{
    am_json json = {0};
    am_warn("training%s%s (%s) diverged: taken back, and done again with lr %g",
            task != NULL ? " of task " : "", task != NULL ? task : "", purpose, lr);
    am_json_string(&json, "purpose", purpose);
    if (task != NULL) {
        am_json_string(&json, "task", task);
    }
    am_json_int(&json, "rollbacks", rollbacks);
    am_json_real(&json, "lr", lr);
    am_event("rollback", &json);
    am_json_free(&json);
}

/* What a call of train_all changes. */
typedef struct params {
    size_t real_bytes;
    int64_t trunk_n; /* 0: the trunk is not trained */
    char *trunk;
    am_task *tasks;
    const am_param_layout *heads;
    int n; /* 0: the heads are not trained */
} params;

static size_t params_bytes(const params *p)
{
    int64_t n = p->trunk_n;
    for (int i = 0; i < p->n; i++) {
        n += p->heads[i].n;
    }
    return (size_t)n * p->real_bytes;
}

/* Copy all of them to or from `kept`. */
static void params_copy(const params *p, char *kept, bool is_back)
{
    size_t bytes = (size_t)p->trunk_n * p->real_bytes;
    memcpy(is_back ? p->trunk : kept, is_back ? kept : p->trunk, bytes);
    for (int i = 0; i < p->n; i++) {
        char *head = p->tasks[i].head;
        kept += bytes;
        bytes = (size_t)p->heads[i].n * p->real_bytes;
        memcpy(is_back ? head : kept, is_back ? kept : head, bytes);
    }
}

int am_rollback_train_all(MPI_Comm comm, const am_train_ops *ops, const am_net *net,
                          int64_t trunk_n, void *trunk, am_task *tasks,
                          const am_param_layout *heads, int n_tasks,
                          const am_train_options *options, const am_divergence *policy,
                          am_train_result *result, int64_t *rollbacks)
{
    const bool may_roll_back = policy->rollbacks > 0 && options->state == NULL;
    const params trained = {.real_bytes = (size_t)am_dtype_bytes(ops->dtype),
                            .trunk_n = options->train_trunk ? trunk_n : 0,
                            .trunk = trunk,
                            .tasks = tasks,
                            .heads = heads,
                            .n = options->train_head ? n_tasks : 0};
    am_train_options call = *options;
    char *kept = NULL;
    int rc = AM_OK;
    *rollbacks = 0;
    if (may_roll_back) {
        kept = am_new((int64_t)params_bytes(&trained) + 1, 1, "a copy to roll back to");
        rc = kept == NULL ? AM_E_NOMEM : AM_OK;
        AM_AGREE(comm);
        params_copy(&trained, kept, false);
    }
    while (true) {
        AM_TRY(ops->train_all(comm, net, trunk, tasks, n_tasks, &call, result));
        result->diverged = am_rollback_is_due(policy, result);
        if (!result->diverged || !may_roll_back || *rollbacks == policy->rollbacks) {
            break;
        }
        params_copy(&trained, kept, true);
        if (call.log != NULL) {
            am_train_log_clear(call.log);
        }
        call.optim.lr = am_rollback_lr(options->optim.lr, ++*rollbacks);
    }
cleanup:
    free(kept);
    return rc;
}
