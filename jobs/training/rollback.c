/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/rollback.h"

#include <math.h>
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
