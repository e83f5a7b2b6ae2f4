/* The job of `allmerge theory`: see theory.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/theory/theory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/measured.h"
#include "jobs/training/room.h"
#include "jobs/training/suite/train.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "solver/theory/network.h"

enum { UNIT_NAME = 64 };

/* ---- what was measured ---- */

static int64_t last_k(const am_theory_section *section)
{
    return section->k[section->n_k - 1];
}

static int64_t unit_rows(const am_theory_section *section)
{
    return (int64_t)section->n_alphas * section->n_k;
}

static am_theory_row *unit_at(const am_theory *theory, int i, int e)
{
    return theory->row + ((int64_t)i * theory->section.n_etas + e) * unit_rows(&theory->section);
}

const am_theory_row *am_theory_row_at(const am_theory *theory, int i, int e, int a, int j)
{
    return unit_at(theory, i, e) + (int64_t)a * theory->section.n_k + j;
}

am_theory_orders am_theory_orders_of(const am_theory *theory, int i, int a, int j)
{
    const am_theory_section *section = &theory->section;
    double gap[AM_THEORY_MAX_LIST], residual[AM_THEORY_MAX_LIST], noise[AM_THEORY_MAX_LIST];
    for (int e = 0; e < section->n_etas; e++) {
        const am_theory_row *row = am_theory_row_at(theory, i, e, a, j);
        gap[e] = row->gap;
        residual[e] = row->residual;
        noise[e] = row->noise;
    }
    return (am_theory_orders){.gap = am_theory_fit(section->n_etas, section->eta, gap, noise),
                              .residual =
                                  am_theory_fit(section->n_etas, section->eta, residual, noise)};
}

static int make(const am_theory_section *section, am_theory *out)
{
    const int64_t units = (int64_t)section->n_tasks * section->n_etas;
    out->section = *section;
    out->row = am_new(units * unit_rows(section), sizeof *out->row, "what is measured");
    out->epoch = am_new(units, sizeof *out->epoch, "what is measured");
    int rc = out->row == NULL || out->epoch == NULL ? AM_E_NOMEM : AM_OK;
    for (int64_t u = 0; u < units && rc == AM_OK; u++) {
        out->epoch[u] = am_new(section->tasks[u / section->n_etas] * last_k(section),
                               sizeof **out->epoch, "what is measured");
        rc = out->epoch[u] == NULL ? AM_E_NOMEM : AM_OK;
    }
    return rc;
}

void am_theory_free(am_theory *theory)
{
    for (int u = 0; theory->epoch != NULL && u < theory->section.n_tasks * theory->section.n_etas;
         u++) {
        free(theory->epoch[u]);
    }
    free(theory->epoch);
    free(theory->row);
    am_theory_spectra_free(&theory->spectra);
    am_theory_optimizers_free(&theory->optimizers);
    *theory = (am_theory){0};
}

/* ---- a unit ---- */

/* Rows and epochs of a unit as one array of numbers, for its file. */
typedef struct unit {
    char name[UNIT_NAME];
    int64_t rows, epochs, n; /* reals */
    double *value;           /* [n] owned */
} unit;

static int unit_make(const am_theory_section *section, int i, int e, unit *out)
{
    snprintf(out->name, sizeof out->name, "tasks-%lld-eta-%d", (long long)section->tasks[i], e + 1);
    out->rows = unit_rows(section) * AM_THEORY_ROW_REALS;
    out->epochs = section->tasks[i] * last_k(section) * AM_THEORY_EPOCH_REALS;
    out->n = out->rows + out->epochs;
    out->value = am_new(out->n, sizeof *out->value, "what is measured");
    return out->value == NULL ? AM_E_NOMEM : AM_OK;
}

static void unit_copy(const unit *u, am_theory *theory, int i, int e, bool is_read)
{
    am_theory_row *rows = unit_at(theory, i, e);
    am_theory_epoch *epochs = theory->epoch[i * theory->section.n_etas + e];
    double *value = u->value;
    memcpy(is_read ? (void *)rows : value, is_read ? value : (void *)rows,
           (size_t)u->rows * sizeof *value);
    value += u->rows;
    memcpy(is_read ? (void *)epochs : value, is_read ? value : (void *)epochs,
           (size_t)u->epochs * sizeof *value);
}

static void report_unit(const am_theory *theory, int i, int e, double seconds)
{
    const am_theory_section *section = &theory->section;
    am_json json = {0};
    am_json_int(&json, "tasks", section->tasks[i]);
    am_json_real(&json, "eta", section->eta[e]);
    am_json_real(&json, "measure_seconds", seconds);
    am_event("theory", &json);
    am_json_free(&json);
    am_info("T = %lld, eta = %g: gap %.3e, after the second-order term %.3e (alpha %g, k %lld)",
            (long long)section->tasks[i], section->eta[e],
            am_theory_row_at(theory, i, e, section->n_alphas - 1, section->n_k - 1)->gap,
            am_theory_row_at(theory, i, e, section->n_alphas - 1, section->n_k - 1)->residual,
            section->alpha[section->n_alphas - 1], (long long)last_k(section));
}

static int unit_all(const am_iterate *it, const am_oracle *oracle, am_theory *theory, int i, int e)
{
    const am_theory_section *section = &theory->section;
    const am_theory_setting setting = {.tasks = (int)section->tasks[i],
                                       .eta = section->eta[e],
                                       .n_alphas = section->n_alphas,
                                       .alpha = section->alpha,
                                       .n_k = section->n_k,
                                       .k = section->k,
                                       .has_norms =
                                           section->eigen == AM_THEORY_EIGEN_ALL ||
                                           (section->eigen == AM_THEORY_EIGEN_LARGEST_ETA &&
                                            e == am_theory_section_largest(section)),
                                       .seed = (uint64_t)it->recipe->seed};
    unit u = {0};
    bool is_done = false;
    int rc = unit_make(section, i, e, &u);
    AM_AGREE(it->suite.comm);
    AM_TRY(am_measured_read_all(it->suite.comm, it->folder, u.name, u.value, u.n, &is_done));
    if (is_done) {
        unit_copy(&u, theory, i, e, true);
        goto cleanup;
    }
    const double started = am_seconds();
    AM_TRY(am_theory_measure_all(oracle, it->base, &setting, unit_at(theory, i, e),
                                 theory->epoch[i * section->n_etas + e]));
    unit_copy(&u, theory, i, e, false);
    AM_TRY(am_measured_write_all(it->suite.comm, it->folder, u.name, u.value, u.n));
    report_unit(theory, i, e, am_seconds() - started);
cleanup:
    free(u.value);
    return rc;
}

/* ---- the job ---- */

int am_theory_check(const am_train_recipe *recipe)
{
    if (!recipe->theory.is_given) {
        return am_fail(AM_E_RECIPE, "the recipe has no section theory: it needs at least "
                                    "theory: {eta: {from: 4e-3, to: 1e-3}}");
    }
    if (recipe->dtype != AM_DTYPE_F64) {
        return am_fail(AM_E_RECIPE, "dtype: theory compares differences of third order in eta and "
                                    "works in float64 only: set dtype: float64");
    }
    if (recipe->model.linearised) {
        return am_fail(AM_E_RECIPE, "model.linearised: theory has no second derivatives of a "
                                    "linearised network: set it to no");
    }
    if (recipe->model.lora.r > 0) {
        return am_fail(AM_E_RECIPE, "model.lora: theory works on full weights: leave it out");
    }
    return AM_OK;
}

int am_theory_work_all(am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    am_theory *theory = job->self;
    const am_theory_section *section = &it->recipe->theory;
    am_suite *suite = &it->suite;
    am_theory_net problem = {0};
    am_oracle oracle;
    am_task *task = am_new(suite->n, sizeof *task, "tasks");
    int rc = task == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(make(section, theory));
    AM_KEEP(am_theory_spectra_make(section, suite->net.trunk.n, &theory->spectra));
    AM_KEEP(am_theory_optimizers_make(section, &theory->optimizers));
    AM_AGREE(suite->comm);
    AM_TRY(am_room_check_all(suite->comm, folder, am_room_of_train(it, &it->recipe->finetune)));
    AM_TRY(am_iterate_prepare_all(it, folder, job->save_every));
    AM_TRY(am_saver_end_all(&it->saver, suite->comm));
    AM_TRY(am_run_folder_sub_all(suite->comm, folder, "units"));
    for (int t = 0; t < suite->n; t++) {
        task[t] = am_suite_training(suite, t);
    }
    AM_TRY(am_theory_net_make_all(suite->comm, &suite->net, task,
                                  (int)section->tasks[section->n_tasks - 1], section->parts,
                                  &problem, &oracle));
    for (int i = 0; i < section->n_tasks; i++) {
        for (int e = 0; e < section->n_etas; e++) {
            AM_TRY(unit_all(it, &oracle, theory, i, e));
        }
    }
    AM_TRY(am_theory_spectra_all(it, &oracle, section, &theory->spectra));
    AM_TRY(am_theory_optimizers_all(it, &oracle, section, &theory->optimizers));
cleanup:
    am_theory_net_free(&problem);
    free(task);
    return rc;
}
