/* What `allmerge theory` says: result.json and table.txt. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/theory/ratios.h"
#include "jobs/theory/slope.h"
#include "mpi/error.h"

/* ---- result.json ---- */

static void json_row(const am_theory *theory, int i, int e, int a, int j, am_json *json)
{
    const am_theory_section *section = &theory->section;
    const am_theory_row *row = am_theory_row_at(theory, i, e, a, j);
    am_json_object(json, NULL);
    am_json_int(json, "tasks", section->tasks[i]);
    am_json_real(json, "alpha", section->alpha[a]);
    am_json_int(json, "k", section->k[j]);
    am_json_real(json, "eta", section->eta[e]);
    am_json_real(json, "gap", row->gap);
    am_json_real(json, "second_order", row->term);
    am_json_real(json, "residual", row->residual);
    am_json_real(json, "rounding", row->noise);
    if (section->k[j] == 1) {
        am_json_real(json, "ulps", row->ulps);
    }
    am_json_real(json, "loss_nats", row->loss);
    am_json_real(json, "c", row->c);
    am_json_real(json, "bound_printed", row->printed);
    am_json_real(json, "bound_derived", row->derived);
    am_json_real(json, "network_bound_printed", row->net_printed);
    am_json_real(json, "network_bound_derived", row->net_derived);
    am_json_real(json, "gradient", row->gradient);
    am_json_real(json, "hessian", row->hessian);
    am_json_real(json, "network_gradient", row->net_gradient);
    am_json_real(json, "network_hessian", row->net_hessian);
    am_json_end_object(json);
}

static void json_slope(const char *key, const am_theory_slope *slope, am_json *json)
{
    am_json_object(json, key);
    am_theory_slope_json(slope, json);
    am_json_end_object(json);
}

static void json_slopes(const am_theory *theory, am_json *json)
{
    const am_theory_section *section = &theory->section;
    am_json_array(json, "slopes");
    for (int i = 0; i < section->n_tasks; i++) {
        for (int a = 0; a < section->n_alphas; a++) {
            for (int j = 0; j < section->n_k; j++) {
                const am_theory_orders orders = am_theory_orders_of(theory, i, a, j);
                am_json_object(json, NULL);
                am_json_int(json, "tasks", section->tasks[i]);
                am_json_real(json, "alpha", section->alpha[a]);
                am_json_int(json, "k", section->k[j]);
                json_slope("gap", &orders.gap, json);
                json_slope("residual", &orders.residual, json);
                am_json_end_object(json);
            }
        }
    }
    am_json_end_array(json);
}

/* Gradient descent on each task alone; it does not depend on T or alpha. */
static void json_epochs(const am_iterate *it, const am_theory *theory, am_json *json)
{
    const am_theory_section *section = &theory->section;
    const int last = section->n_tasks - 1;
    const int64_t epochs = section->k[section->n_k - 1];
    am_json_array(json, "epochs");
    for (int e = 0; e < section->n_etas; e++) {
        for (int64_t t = 0; t < section->tasks[last]; t++) {
            for (int64_t k = 0; k < epochs; k++) {
                const am_theory_epoch *epoch =
                    &theory->epoch[last * section->n_etas + e][t * epochs + k];
                am_json_object(json, NULL);
                am_json_real(json, "eta", section->eta[e]);
                am_json_string(json, "task", am_suite_task(&it->suite, (int)t));
                am_json_int(json, "epoch", k + 1);
                am_json_real(json, "loss_nats", epoch->loss);
                am_json_real(json, "gradient", epoch->norm);
                am_json_real(json, "share", epoch->share);
                am_json_real(json, "cosine_first_gradient", epoch->cosine_first);
                am_json_real(json, "cosine_task_vector", epoch->cosine_tau);
                am_json_end_object(json);
            }
        }
    }
    am_json_end_array(json);
}

void am_theory_json(const am_iterate *it, const am_job *job, am_json *json)
{
    const am_theory *theory = job->self;
    const am_theory_section *section = &theory->section;
    if (it->recipe->experiment != NULL) {
        am_json_string(json, "experiment", it->recipe->experiment);
    }
    am_json_array(json, "rows");
    for (int i = 0; i < section->n_tasks; i++) {
        for (int a = 0; a < section->n_alphas; a++) {
            for (int j = 0; j < section->n_k; j++) {
                for (int e = 0; e < section->n_etas; e++) {
                    json_row(theory, i, e, a, j, json);
                }
            }
        }
    }
    am_json_end_array(json);
    json_slopes(theory, json);
    am_theory_ratios_json(theory, json);
    json_epochs(it, theory, json);
    am_theory_spectra_json(it, section, &theory->spectra, json);
    am_theory_optimizers_json(section, &theory->optimizers, json);
}

/* ---- table.txt ---- */

static void write_slope(const am_theory_slope *slope, FILE *out)
{
    if (isnan(slope->slope)) {
        fprintf(out, " %16s", "-");
    } else if (isnan(slope->error)) {
        fprintf(out, " %16.4f", slope->slope);
    } else {
        fprintf(out, " %7.4f +- %.4f", slope->slope, slope->high - slope->slope);
    }
}

static void write_ratio(double value, double bound, FILE *out)
{
    if (bound > 0) {
        fprintf(out, " %9.2e", value / bound);
    } else {
        fprintf(out, " %9s", "-");
    }
}

static void write_slopes(const am_theory *theory, FILE *out)
{
    const am_theory_section *section = &theory->section;
    const int e = am_theory_section_largest(section);
    fprintf(out,
            "slopes in eta with 95 %% confidence; at eta = %g: gap, |C|, and |C| as a share of its "
            "bounds\n%3s %6s %4s %16s %16s %9s %9s %9s %9s %9s %9s\n",
            section->eta[e], "T", "alpha", "k", "gap", "residual", "gap", "|C|", "derived",
            "printed", "net der.", "net pri.");
    for (int i = 0; i < section->n_tasks; i++) {
        for (int a = 0; a < section->n_alphas; a++) {
            for (int j = 0; j < section->n_k; j++) {
                const am_theory_orders orders = am_theory_orders_of(theory, i, a, j);
                const am_theory_row *row = am_theory_row_at(theory, i, e, a, j);
                fprintf(out, "%3lld %6.3g %4lld", (long long)section->tasks[i], section->alpha[a],
                        (long long)section->k[j]);
                write_slope(&orders.gap, out);
                write_slope(&orders.residual, out);
                fprintf(out, " %9.2e %9.2e", row->gap, row->c);
                write_ratio(row->c, row->derived, out);
                write_ratio(row->c, row->printed, out);
                write_ratio(row->c, row->net_derived, out);
                write_ratio(row->c, row->net_printed, out);
                if (section->k[j] == 1) {
                    fprintf(out, "  %.3g ulp", row->ulps);
                }
                fprintf(out, "\n");
            }
        }
    }
}

static void write_epochs(const am_iterate *it, const am_theory *theory, FILE *out)
{
    const am_theory_section *section = &theory->section;
    const int last = section->n_tasks - 1, e = am_theory_section_largest(section);
    const int64_t epochs = section->k[section->n_k - 1];
    fprintf(out,
            "\na task alone, eta = %g: loss, norm of the gradient and its share of all epochs, its "
            "cosine with the first, cosine of the task vector with minus the first\n"
            "%-12s %5s %9s %9s %6s %8s %8s\n",
            section->eta[e], "task", "epoch", "nats", "gradient", "share", "first", "vector");
    for (int64_t t = 0; t < section->tasks[last]; t++) {
        for (int64_t k = 0; k < epochs; k++) {
            const am_theory_epoch *epoch =
                &theory->epoch[last * section->n_etas + e][t * epochs + k];
            fprintf(out, "%-12.12s %5lld %9.5f %9.3e %6.4f %8.5f %8.5f\n",
                    am_suite_task(&it->suite, (int)t), (long long)k + 1, epoch->loss, epoch->norm,
                    epoch->share, epoch->cosine_first, epoch->cosine_tau);
        }
    }
}

char *am_theory_text(const am_iterate *it, const am_job *job)
{
    const am_theory *theory = job->self;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out != NULL) {
        write_slopes(theory, out);
        am_theory_ratios_write(theory, out);
        write_epochs(it, theory, out);
        am_theory_spectra_write(it, &theory->section, &theory->spectra, out);
        am_theory_optimizers_write(&theory->section, &theory->optimizers, out);
    }
    if (out == NULL || fclose(out) != 0) {
        free(text);
        am_fail(AM_E_NOMEM, "out of memory for the table");
        return NULL;
    }
    return text;
}
