/* Validation by round, by epoch and by alpha. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/page.h"
#include "jobs/report/plot.h"
#include "mpi/error.h"

enum { NAME = 96 };

/* Does a member of the validation events of a phase have several values? */
static bool differs(const am_report *report, const char *phase, const char *key)
{
    const json_t *first = NULL, *events = report->run[0].events;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        if (am_is_text(event, "event", "validation") && am_is_text(event, "phase", phase)) {
            const json_t *value = json_object_get(event, key);
            if (first != NULL && value != NULL && !json_equal(first, value)) {
                return true;
            }
            first = value;
        }
    }
    return false;
}

/* Does the result have merges of several methods, or rounds of several lengths, that the events do
 * not tell apart? Then a curve would jump between them. */
static bool is_mixed(const am_report *report, const char *phase)
{
    const bool is_rounds = strcmp(phase, "iterate") == 0;
    const json_t *list = am_report_member(report, is_rounds ? "rounds" : "rows");
    const json_t *first = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *method = json_object_get(item, "method");
        if (!is_rounds && !am_is_text(item, "phase", phase)) {
            continue;
        }
        if (first != NULL && !json_equal(first, method) && !differs(report, phase, "method")) {
            return true;
        }
        first = method;
    }
    return is_rounds && json_array_size(list) > 1 && !differs(report, phase, "method") &&
           !differs(report, phase, "round_epochs");
}

/* What a series is of; methods and lengths of rounds are named where there are several. */
typedef struct naming {
    bool method, length;
} naming;

/* "alpha 0.4", "ties, 2 epochs a round, alpha 0.4", or the phase. */
static void series_name(const json_t *event, naming n, char out[NAME])
{
    const double alpha = am_member_number(event, "alpha");
    const double length = am_member_number(event, "round_epochs");
    const char *method = am_member_text(event, "method");
    int at = 0;
    out[0] = '\0';
    if (n.method && method != NULL) {
        at += snprintf(out, NAME, "%.40s", method);
    }
    if (n.length && !isnan(length)) {
        at += snprintf(out + at, (size_t)(NAME - at), "%s%.6g epoch%s a round", at > 0 ? ", " : "",
                       length, length == 1 ? "" : "s");
    }
    if (!isnan(alpha)) {
        at += snprintf(out + at, (size_t)(NAME - at), "%salpha %.6g", at > 0 ? ", " : "", alpha);
    }
    if (at == 0) {
        snprintf(out, NAME, "%.60s", am_member_text(event, "phase"));
    }
}

/* A member of validation events of a phase over another member. */
static void read_phase(const am_report *report, const char *phase, const char *x, const char *y,
                       double factor, am_grid *grid)
{
    const naming n = {differs(report, phase, "method"), differs(report, phase, "round_epochs")};
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            if (am_is_text(event, "event", "validation") && am_is_text(event, "phase", phase)) {
                char name[NAME];
                series_name(event, n, name);
                am_grid_put(grid, name, am_member_number(event, x), r,
                            factor * am_member_number(event, y));
            }
        }
    }
}

/* The same by number of epochs over alpha: of one-shot merges. */
static void read_alphas(const am_report *report, const char *y, double factor, am_grid *grid)
{
    const bool has_methods = differs(report, "one_shot", "method");
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            if (am_is_text(event, "event", "validation") &&
                am_is_text(event, "phase", "one_shot")) {
                char name[NAME];
                const char *method = has_methods ? am_member_text(event, "method") : NULL;
                const double epochs = am_member_number(event, "epochs");
                snprintf(name, sizeof name, "%.60s%s%.6g epoch%s", method != NULL ? method : "",
                         method != NULL ? ", " : "", epochs, epochs == 1 ? "" : "s");
                am_grid_put(grid, name, am_member_number(event, "alpha"), r,
                            factor * am_member_number(event, y));
            }
        }
    }
}

/* The base, as a level. */
static void read_base(const am_report *report, const char *y, double factor, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            if (am_is_text(event, "event", "validation") && am_is_text(event, "phase", "base")) {
                am_grid_level(grid, "base", r, factor * am_member_number(event, y));
            }
        }
    }
}

static const struct measure {
    const char *key, *title;
    double factor;
} measures[] = {{"validation_accuracy", "mean validation accuracy (%)", 100},
                {"validation_loss_nats", "mean validation loss (nats)", 1}};

static int plot_phase(const am_report *report, const char *phase, const char *x, const char *title,
                      const char *what, am_html *html)
{
    int rc = 0;
    for (int m = 0; m < 2 && rc == 0 && !is_mixed(report, phase); m++) {
        am_grid grid = {.runs = report->n};
        char caption[160];
        read_phase(report, phase, x, measures[m].key, measures[m].factor, &grid);
        if (am_grid_has(&grid)) {
            read_base(report, measures[m].key, measures[m].factor, &grid);
        }
        snprintf(caption, sizeof caption, "%s: %s.", what, measures[m].title);
        am_plot_lines(html, &(am_plot){.caption = caption, .x = title, .y = measures[m].title},
                      &grid);
        rc = am_grid_finish(&grid);
        am_grid_free(&grid);
    }
    return rc;
}

static int plot_alphas(const am_report *report, am_html *html)
{
    int rc = 0;
    for (int m = 0; m < 2 && rc == 0 && !is_mixed(report, "one_shot"); m++) {
        am_grid grid = {.runs = report->n};
        char caption[160];
        read_alphas(report, measures[m].key, measures[m].factor, &grid);
        if (am_grid_has(&grid)) {
            read_base(report, measures[m].key, measures[m].factor, &grid);
        }
        snprintf(caption, sizeof caption, "One-shot merges by alpha: %s.", measures[m].title);
        am_plot_lines(html, &(am_plot){.caption = caption, .x = "alpha", .y = measures[m].title},
                      &grid);
        rc = am_grid_finish(&grid);
        am_grid_free(&grid);
    }
    return rc;
}

static bool has_validation(const am_report *report)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            if (am_is_text(json_array_get(events, i), "event", "validation")) {
                return true;
            }
        }
    }
    return false;
}

int am_section_curves(const am_report *report, am_html *html)
{
    if (!has_validation(report)) {
        return 0;
    }
    am_html_heading(html, "Validation");
    am_html_raw(html, "<div class=\"plots\">\n");
    int rc = plot_alphas(report, html);
    AM_KEEP(plot_phase(report, "iterate", "round", "round", "Iterative merging by round", html));
    AM_KEEP(plot_phase(report, "joint", "epochs", "epoch", "Joint training by epoch", html));
    AM_KEEP(plot_phase(report, "train", "epochs", "epoch", "Training by epoch", html));
    am_html_raw(html, "</div>\n");
    return rc;
}
