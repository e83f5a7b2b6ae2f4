/* Events of training: see report.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/suite/report.h"

#include "jobs/training/suite/adapt.h"
#include "mpi/log.h"

/* Squared norm of the updates of every tensor that moved; nothing for a frozen trunk. */
static void json_energy(const am_tensor_table *tensors, const am_exact *energy, am_json *json)
{
    am_exact sum = {0};
    for (int64_t k = 0; k < tensors->n; k++) {
        am_exact_merge(&sum, &energy[k]);
    }
    const double all = am_exact_round(&sum);
    if (all == 0) {
        return;
    }
    am_json_real(json, "update_energy", all);
    am_json_object(json, "tensor_update_energy");
    for (int64_t k = 0; k < tensors->n; k++) {
        const double own = am_exact_round(&energy[k]);
        if (own > 0) {
            am_json_real(json, tensors->t[k].name, own);
        }
    }
    am_json_end_object(json);
}

static void json_record(const am_suite *suite, const am_train_record *r, am_json *json)
{
    const double rate = (double)r->samples / r->seconds;
    am_json_int(json, "epoch", r->epoch);
    am_json_int(json, "steps", r->steps);
    am_json_int(json, "samples", r->samples);
    am_json_real(json, "loss_nats", r->loss);
    am_json_real(json, "gradient_norm_mean", am_exact_round(&r->norm_sum) / (double)r->steps);
    am_json_real(json, "gradient_norm_most", r->norm_most);
    am_json_real(json, "gradient_norm_last", r->norm_last);
    am_json_real(json, "train_seconds", r->seconds);
    am_json_real(json, "samples_per_second", rate);
    if (suite->net.takes_ids) {
        am_json_real(json, "tokens_per_second", rate * (double)suite->net.features);
    }
}

void am_report_epochs(const am_suite *suite, const am_train_options *options, const char *task,
                      const am_train_log *log)
{
    for (int64_t k = 0; k < log->n; k++) {
        am_json json = {0};
        am_json_string(&json, "phase", options->purpose);
        am_json_int(&json, "round", options->round);
        if (task != NULL) {
            am_json_string(&json, "task", task);
        }
        json_record(suite, &log->record[k], &json);
        json_energy(&am_adapt_net(suite)->trunk.tensors, am_train_log_energy(log, k), &json);
        am_event("epoch", &json);
        am_json_free(&json);
    }
}
