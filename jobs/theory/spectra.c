/* Spectra of Hessians: see spectra.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/theory/spectra.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/measured.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "solver/theory/spectrum.h"
#include "solver/theory/sweep.h"

enum { UNIT_NAME = 64, REALS = sizeof(am_theory_spectrum) / sizeof(double) };

/* ---- places ---- */

typedef struct place {
    int tasks;  /* T */
    int first;  /* tasks [first, T) and the sum of all T */
    int alpha;  /* index; -1: the base */
    double eta; /* of the end; NaN at the base */
    int64_t k;  /* 0 at the base */
    int hessians;
} place;

/* Hessians of tasks at the base are the same for every T: each is measured with the first T that
 * has the task. */
static place place_of(const am_theory_section *section, int p)
{
    const int each = 1 + section->n_alphas, i = p / each, alpha = p % each - 1;
    place at = {.tasks = (int)section->tasks[i], .alpha = alpha, .eta = NAN};
    if (alpha >= 0) {
        at.eta = section->eta[am_theory_section_largest(section)];
        at.k = section->k[section->n_k - 1];
    } else if (i > 0) {
        at.first = (int)section->tasks[i - 1];
    }
    at.hessians = at.tasks - at.first + 1;
    return at;
}

static const char *task_name(const am_iterate *it, const place *at, int h)
{
    return h < at->hessians - 1 ? am_suite_task(&it->suite, at->first + h) : NULL;
}

int am_theory_spectra_make(const am_theory_section *section, int64_t trunk, am_theory_spectra *out)
{
    int rc = AM_OK;
    if (section->spectrum == 0) {
        return AM_OK;
    }
    out->n = section->spectrum < trunk ? section->spectrum : (int)trunk;
    out->places = section->n_tasks * (1 + section->n_alphas);
    out->at = am_new(out->places, sizeof *out->at, "what is measured");
    rc = out->at == NULL ? AM_E_NOMEM : AM_OK;
    for (int p = 0; p < out->places && rc == AM_OK; p++) {
        out->at[p] = am_new(place_of(section, p).hessians, sizeof **out->at, "what is measured");
        rc = out->at[p] == NULL ? AM_E_NOMEM : AM_OK;
    }
    return rc;
}

void am_theory_spectra_free(am_theory_spectra *spectra)
{
    for (int p = 0; spectra->at != NULL && p < spectra->places; p++) {
        free(spectra->at[p]);
    }
    free(spectra->at);
    *spectra = (am_theory_spectra){0};
}

/* ---- measuring ---- */

static void report_place(const am_theory_section *section, const place *at,
                         const am_theory_spectrum *sum, double seconds)
{
    am_json json = {0};
    am_json_int(&json, "tasks", at->tasks);
    am_json_real(&json, "alpha", at->alpha < 0 ? NAN : section->alpha[at->alpha]);
    am_json_real(&json, "measure_seconds", seconds);
    am_event("spectra", &json);
    am_json_free(&json);
    am_info("T = %d, %s: the largest eigenvalue of the Hessian of the sum is %.6g", at->tasks,
            at->alpha < 0 ? "base" : "end", sum->value[0]);
}

static int measure_all(const am_iterate *it, const am_oracle *oracle,
                       const am_theory_section *section, const place *at, int wanted,
                       am_theory_spectrum *out)
{
    double *theta = am_new(oracle->n, sizeof *theta, "spectra");
    int rc = theta == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(oracle->comm);
    if (at->alpha >= 0) {
        AM_TRY(am_theory_descend_all(oracle, it->base, at->tasks,
                                     section->alpha[at->alpha] * at->eta, at->k, theta));
    } else {
        memcpy(theta, it->base, (size_t)oracle->n * sizeof *theta);
    }
    for (int h = 0; h < at->hessians; h++) {
        const bool is_sum = h == at->hessians - 1;
        am_eigen_result found = {.value = out[h].value, .residual = out[h].residual};
        AM_TRY(am_theory_spectrum_all(oracle, is_sum ? 0 : at->first + h,
                                      is_sum ? at->tasks : at->first + h + 1, theta, wanted,
                                      (uint64_t)it->recipe->seed, &found));
        out[h].products = found.products;
        out[h].is_converged = found.is_converged;
    }
cleanup:
    free(theta);
    return rc;
}

static int place_all(const am_iterate *it, const am_oracle *oracle,
                     const am_theory_section *section, const place *at, int wanted,
                     am_theory_spectrum *out)
{
    char name[UNIT_NAME];
    double *value = (double *)out;
    const int64_t n = (int64_t)at->hessians * REALS;
    bool is_done = false;
    int rc = AM_OK;
    snprintf(name, sizeof name, at->alpha < 0 ? "spectra-%d-base" : "spectra-%d-alpha-%d",
             at->tasks, at->alpha + 1);
    AM_TRY(am_measured_read_all(oracle->comm, it->folder, name, value, n, &is_done));
    if (!is_done) {
        const double started = am_seconds();
        AM_TRY(measure_all(it, oracle, section, at, wanted, out));
        AM_TRY(am_measured_write_all(oracle->comm, it->folder, name, value, n));
        report_place(section, at, &out[at->hessians - 1], am_seconds() - started);
    }
cleanup:
    return rc;
}

int am_theory_spectra_all(const am_iterate *it, const am_oracle *oracle,
                          const am_theory_section *section, am_theory_spectra *spectra)
{
    int rc = AM_OK;
    for (int p = 0; p < spectra->places; p++) {
        const place at = place_of(section, p);
        AM_TRY(place_all(it, oracle, section, &at, spectra->n, spectra->at[p]));
    }
cleanup:
    return rc;
}

/* ---- the report ---- */

static void json_reals(am_json *json, const char *key, const double *value, int n)
{
    am_json_array(json, key);
    for (int i = 0; i < n; i++) {
        am_json_real(json, NULL, value[i]);
    }
    am_json_end_array(json);
}

void am_theory_spectra_json(const am_iterate *it, const am_theory_section *section,
                            const am_theory_spectra *spectra, am_json *json)
{
    am_json_array(json, "spectra");
    for (int p = 0; p < spectra->places; p++) {
        const place at = place_of(section, p);
        for (int h = 0; h < at.hessians; h++) {
            const am_theory_spectrum *spectrum = &spectra->at[p][h];
            am_json_object(json, NULL);
            am_json_int(json, "tasks", at.tasks);
            am_json_string(json, "at", at.alpha < 0 ? "base" : "end");
            am_json_real(json, "alpha", at.alpha < 0 ? NAN : section->alpha[at.alpha]);
            am_json_int(json, "k", at.k);
            am_json_real(json, "eta", at.eta);
            am_json_string(json, "task", task_name(it, &at, h));
            json_reals(json, "eigenvalues", spectrum->value, spectra->n);
            json_reals(json, "residuals", spectrum->residual, spectra->n);
            am_json_int(json, "products", (int64_t)spectrum->products);
            am_json_bool(json, "is_converged", spectrum->is_converged != 0);
            am_json_end_object(json);
        }
    }
    am_json_end_array(json);
}

void am_theory_spectra_write(const am_iterate *it, const am_theory_section *section,
                             const am_theory_spectra *spectra, FILE *out)
{
    if (spectra->places == 0) {
        return;
    }
    const place end = place_of(section, 1);
    fprintf(out,
            "\nlargest eigenvalues of Hessians, at the base and at theta_MT after k = %lld with "
            "eta = %g; * : not within 1e-6 of the largest\n%3s %6s %-12s\n",
            (long long)end.k, end.eta, "T", "alpha", "task");
    for (int p = 0; p < spectra->places; p++) {
        const place at = place_of(section, p);
        for (int h = 0; h < at.hessians; h++) {
            const am_theory_spectrum *spectrum = &spectra->at[p][h];
            const char *task = task_name(it, &at, h);
            fprintf(out, "%3d ", at.tasks);
            if (at.alpha < 0) {
                fprintf(out, "%6s", "base");
            } else {
                fprintf(out, "%6.3g", section->alpha[at.alpha]);
            }
            fprintf(out, " %-12.12s", task != NULL ? task : "(sum)");
            for (int i = 0; i < spectra->n; i++) {
                fprintf(out, " %11.6g", spectrum->value[i]);
            }
            fprintf(out, "%s\n", spectrum->is_converged != 0 ? "" : " *");
        }
    }
}
