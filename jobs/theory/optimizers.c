/* Optimisers on the tasks of a recipe: see optimizers.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/theory/optimizers.h"

#include <math.h>
#include <stdlib.h>
#include "jobs/theory/slope.h"
#include "jobs/training/measured.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "solver/theory/fit.h"

enum { UNIT_NAME = 64 };

/* ---- measured ---- */

static int64_t unit_rows(const am_theory_section *section)
{
    return (int64_t)section->n_alphas * section->n_k;
}

/* Rows [n_alphas][n_k] of the o-th optimiser, the i-th T, the e-th eta. */
static am_theory_compared *unit_at(const am_theory_section *section,
                                   const am_theory_optimizers *self, int o, int i, int e)
{
    const int64_t unit = ((int64_t)o * section->n_tasks + i) * section->n_etas + e;
    return self->row + unit * unit_rows(section);
}

int am_theory_optimizers_make(const am_theory_section *section, am_theory_optimizers *out)
{
    if (!am_theory_section_compares(section)) {
        return AM_OK;
    }
    out->row = am_new((int64_t)section->n_optimizers * section->n_tasks * section->n_etas *
                          unit_rows(section),
                      sizeof *out->row, "what is measured");
    return out->row == NULL ? AM_E_NOMEM : AM_OK;
}

void am_theory_optimizers_free(am_theory_optimizers *self)
{
    free(self->row);
    *self = (am_theory_optimizers){0};
}

/* Betas and epsilon are those of finetuning. */
static am_theory_rule rule_of(const am_train_recipe *recipe, int optimizer)
{
    am_theory_rule rule = {.optim = recipe->finetune.optim, .batches = 1};
    rule.optim.method = am_optim_find(optimizer == AM_THEORY_ADAMW ? "adamw" : "sgd");
    rule.optim.momentum = optimizer == AM_THEORY_MOMENTUM ? recipe->theory.momentum : 0;
    rule.batches = optimizer == AM_THEORY_SGD ? recipe->theory.batches : 1;
    return rule;
}

static void report_unit(const am_theory_section *section, int o, int i, int e,
                        const am_theory_compared *row, double seconds)
{
    const char *name = am_theory_optimizer_names[section->optimizer[o]];
    am_json json = {0};
    am_json_string(&json, "optimizer", name);
    am_json_int(&json, "tasks", section->tasks[i]);
    am_json_real(&json, "eta", section->eta[e]);
    am_json_real(&json, "measure_seconds", seconds);
    am_event("optimizers", &json);
    am_json_free(&json);
    am_info("%s, T = %lld, eta = %g: gap %.3e of the path (alpha %g, k %lld)", name,
            (long long)section->tasks[i], section->eta[e], row[unit_rows(section) - 1].relative,
            section->alpha[section->n_alphas - 1], (long long)section->k[section->n_k - 1]);
}

static int unit_all(const am_iterate *it, const am_oracle *oracle, const am_theory_section *section,
                    int o, int i, int e, am_theory_compared *row)
{
    const am_theory_rule rule = rule_of(it->recipe, section->optimizer[o]);
    const am_theory_setting setting = {.tasks = (int)section->tasks[i],
                                       .eta = section->eta[e],
                                       .n_alphas = section->n_alphas,
                                       .alpha = section->alpha,
                                       .n_k = section->n_k,
                                       .k = section->k};
    const int64_t n = unit_rows(section) * AM_THEORY_COMPARED_REALS;
    char name[UNIT_NAME];
    bool is_done = false;
    int rc = AM_OK;
    snprintf(name, sizeof name, "%s-tasks-%lld-eta-%d",
             am_theory_optimizer_names[section->optimizer[o]], (long long)section->tasks[i], e + 1);
    AM_TRY(am_measured_read_all(oracle->comm, it->folder, name, (double *)row, n, &is_done));
    if (!is_done) {
        const double started = am_seconds();
        AM_TRY(am_theory_compare_all(oracle, it->base, &setting, &rule, row));
        AM_TRY(am_measured_write_all(oracle->comm, it->folder, name, (double *)row, n));
        report_unit(section, o, i, e, row, am_seconds() - started);
    }
cleanup:
    return rc;
}

int am_theory_optimizers_all(const am_iterate *it, const am_oracle *oracle,
                             const am_theory_section *section, am_theory_optimizers *self)
{
    int rc = AM_OK;
    for (int o = 0; self->row != NULL && o < section->n_optimizers; o++) {
        for (int i = 0; i < section->n_tasks; i++) {
            for (int e = 0; e < section->n_etas; e++) {
                AM_TRY(unit_all(it, oracle, section, o, i, e, unit_at(section, self, o, i, e)));
            }
        }
    }
cleanup:
    return rc;
}

/* ---- the report ---- */

/* A (optimiser, T, alpha, k) of the report. */
typedef struct place {
    int o, i, a, j;
} place;

typedef void (*at_place)(const am_theory_section *section, const am_theory_optimizers *self,
                         place at, void *out);

static void each(const am_theory_section *section, const am_theory_optimizers *self, at_place f,
                 void *out)
{
    for (int o = 0; o < section->n_optimizers; o++) {
        for (int i = 0; i < section->n_tasks; i++) {
            for (int a = 0; a < section->n_alphas; a++) {
                for (int j = 0; j < section->n_k; j++) {
                    f(section, self, (place){o, i, a, j}, out);
                }
            }
        }
    }
}

static const am_theory_compared *row_at(const am_theory_section *section,
                                        const am_theory_optimizers *self, place at, int e)
{
    return unit_at(section, self, at.o, at.i, e) + (int64_t)at.a * section->n_k + at.j;
}

static am_theory_slope slope_of(const am_theory_section *section, const am_theory_optimizers *self,
                                place at)
{
    double gap[AM_THEORY_MAX_LIST], noise[AM_THEORY_MAX_LIST];
    for (int e = 0; e < section->n_etas; e++) {
        gap[e] = row_at(section, self, at, e)->gap;
        noise[e] = row_at(section, self, at, e)->noise;
    }
    return am_theory_fit(section->n_etas, section->eta, gap, noise);
}

static void json_place(const am_theory_section *section, place at, am_json *json)
{
    am_json_object(json, NULL);
    am_json_string(json, "optimizer", am_theory_optimizer_names[section->optimizer[at.o]]);
    am_json_int(json, "tasks", section->tasks[at.i]);
    am_json_real(json, "alpha", section->alpha[at.a]);
    am_json_int(json, "k", section->k[at.j]);
}

static void json_rows(const am_theory_section *section, const am_theory_optimizers *self, place at,
                      void *out)
{
    am_json *json = out;
    for (int e = 0; e < section->n_etas; e++) {
        const am_theory_compared *row = row_at(section, self, at, e);
        json_place(section, at, json);
        am_json_real(json, "eta", section->eta[e]);
        am_json_real(json, "gap", row->gap);
        am_json_real(json, "path", row->path);
        am_json_real(json, "relative_gap", row->relative);
        am_json_real(json, "cosine", row->cosine);
        am_json_real(json, "rounding", row->noise);
        am_json_end_object(json);
    }
}

static void json_slope(const am_theory_section *section, const am_theory_optimizers *self, place at,
                       void *out)
{
    am_json *json = out;
    const am_theory_slope slope = slope_of(section, self, at);
    json_place(section, at, json);
    am_theory_slope_json(&slope, json);
    am_json_end_object(json);
}

void am_theory_optimizers_json(const am_theory_section *section, const am_theory_optimizers *self,
                               am_json *json)
{
    if (self->row != NULL) {
        am_json_array(json, "optimizers");
        each(section, self, json_rows, json);
        am_json_end_array(json);
        am_json_array(json, "optimizer_slopes");
        each(section, self, json_slope, json);
        am_json_end_array(json);
    }
}

static void write_row(const am_theory_section *section, const am_theory_optimizers *self, place at,
                      void *out)
{
    FILE *file = out;
    const am_theory_compared *row = row_at(section, self, at, am_theory_section_largest(section));
    const am_theory_slope slope = slope_of(section, self, at);
    fprintf(file, "%-9s %3lld %6.3g %4lld %9.2e %12.4e %9.5f ",
            am_theory_optimizer_names[section->optimizer[at.o]], (long long)section->tasks[at.i],
            section->alpha[at.a], (long long)section->k[at.j], row->gap, row->relative,
            row->cosine);
    if (isnan(slope.slope)) {
        fprintf(file, "%16s\n", "-");
    } else if (isnan(slope.error)) {
        fprintf(file, "%16.4f\n", slope.slope);
    } else {
        fprintf(file, "%7.4f +- %.4f\n", slope.slope, slope.high - slope.slope);
    }
}

void am_theory_optimizers_write(const am_theory_section *section, const am_theory_optimizers *self,
                                FILE *out)
{
    if (self->row != NULL) {
        fprintf(out,
                "\noptimisers, eta = %g: |theta_TA - theta_MT|, the same over |theta_MT - "
                "theta_0|, cosine of the two ways, slope of the gap in eta with 95 %% "
                "confidence\n%-9s %3s %6s %4s %9s %12s %9s %16s\n",
                section->eta[am_theory_section_largest(section)], "optimiser", "T", "alpha", "k",
                "gap", "of the path", "cosine", "slope");
        each(section, self, write_row, out);
    }
}
