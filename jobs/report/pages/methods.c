/* Experiment i: methods of merging beside each other, each with what it tunes chosen on validation
 * data. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/plot.h"
#include "jobs/report/rows.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { LABEL = 96, TEXT = 512 };

static const char reference[] = "task_arithmetic";

/* Points above task arithmetic on eight tasks with ViT-B/32, as WUDI's authors list them (task
 * arithmetic: 69.1); NaN: its paper says above, and is not in that list. */
static const struct {
    const char *method;
    double points;
} published[] = {{"average", -3.3},  {"fisher", -0.8}, {"regmean", 2.7}, {"ties", 3.3},
                 {"consensus", 4.5}, {"pcb", 7.2},     {"wudi", 16.1},   {"tsv", NAN},
                 {"iso_c", NAN},     {"iso_cts", NAN}, {"knots", NAN},   {NULL, 0}};

static const am_rule rules[] = {{"rows", AM_RULE_ROWS},
                                {"rows[].key", AM_RULE_NAME},
                                {"rows[].phase", AM_RULE_TEXT},
                                {"rows[].method", AM_RULE_TEXT},
                                {"rows[].searched", AM_RULE_OBJECT},
                                {0}};

/* A merge of the table: a one-shot row. */
typedef struct merge {
    const char *key, *method; /* borrowed of the first run */
    double epochs;
    char label[LABEL], other[LABEL]; /* its own, and key of task arithmetic of as many epochs */
} merge;

/* ---- the merges ---- */

static bool is_merge(const json_t *row)
{
    return am_is_text(row, "phase", "one_shot") && !am_is_text(row, "key", "one_shot") &&
           am_member_text(row, "method") != NULL;
}

/* Merges of the first run, owned; NULL: no memory. */
static merge *merges_of(const am_report *report, int *n)
{
    const json_t *rows = am_report_member(report, "rows");
    merge *out = am_new((int64_t)json_array_size(rows) + 1, sizeof *out, "rows");
    *n = 0;
    for (size_t i = 0; out != NULL && i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (is_merge(row)) {
            merge *m = &out[(*n)++];
            m->key = am_member_text(row, "key");
            m->method = am_member_text(row, "method");
            m->epochs = am_member_number(row, "epochs");
            snprintf(m->label, LABEL, "%.64s", m->method);
            snprintf(m->other, LABEL, "one_shot_%s_%.6g", reference, m->epochs);
        }
    }
    for (int i = 0; i < *n; i++) {
        if (out[i].epochs != out[0].epochs || out[*n - 1].epochs != out[0].epochs) {
            snprintf(out[i].label, LABEL, "%.64s, %.6g epochs", out[i].method, out[i].epochs);
        }
    }
    return out;
}

static const json_t *row_of(const am_report *report, int run, const char *key)
{
    const json_t *rows = json_object_get(report->run[run].result, "rows"), *found = NULL;
    for (size_t i = 0; i < json_array_size(rows) && found == NULL; i++) {
        const json_t *row = json_array_get(rows, i);
        found = am_is_text(row, "key", key) ? row : NULL;
    }
    return found;
}

/* ---- the table ---- */

/* Part of the way from the base to the individual models. */
static am_stat share_of(const am_grid *grid, const char *key)
{
    am_grid shares = {.runs = grid->runs};
    const double *all = am_grid_at(grid, "individual", -1), *base = am_grid_at(grid, "base", -1);
    const double *own = am_grid_at(grid, key, -1);
    for (int r = 0; r < grid->runs && own != NULL && all != NULL && base != NULL; r++) {
        if (all[r] > base[r]) {
            am_grid_put(&shares, "", 0, r, 100 * (own[r] - base[r]) / (all[r] - base[r]));
        }
    }
    const am_stat stat = am_grid_stat(&shares, "", 0);
    am_grid_free(&shares);
    return stat;
}

/* What was chosen, run by run: "0.3, 0.4; density 0.1, 0.2". */
static void write_chosen(const am_report *report, const char *key, char *text)
{
    size_t at = 0;
    text[0] = '\0';
    for (int r = 0; r < report->n && at < TEXT; r++) {
        const double alpha = am_member_number(row_of(report, r, key), "alpha");
        if (!isnan(alpha)) {
            at += (size_t)snprintf(text + at, TEXT - at, "%s%g", at > 0 ? ", " : "", alpha);
        }
    }
    const json_t *searched = json_object_get(row_of(report, 0, key), "searched");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)searched, name, value)
    {
        for (int r = 0; r < report->n && at < TEXT; r++) {
            const json_t *own =
                json_object_get(json_object_get(row_of(report, r, key), "searched"), name);
            const char *before = r > 0 ? ", " : at > 0 ? "; " : "";
            at += (size_t)snprintf(text + at, TEXT - at, "%s%s%s", before, r == 0 ? name : "",
                                   r == 0 ? " " : "");
            if (at < TEXT && json_is_boolean(own)) {
                at +=
                    (size_t)snprintf(text + at, TEXT - at, "%s", json_is_true(own) ? "yes" : "no");
            } else if (at < TEXT) {
                at += (size_t)snprintf(text + at, TEXT - at, "%g", json_number_value(own));
            }
        }
    }
}

static void write_table(const am_report *report, const am_grid *grid, const merge *merges, int n,
                        am_html *html)
{
    static const char *const heads[] = {"", "test accuracy (%)", "\u2212 task arithmetic",
                                        "% of the way from base to individual",
                                        "alpha, and what else was searched, by seed"};
    static const char *const levels[] = {"base", "iterative", "joint", "individual"};
    char text[TEXT];
    am_html_table(html, "Merges, mean over the tasks; differences paired by seed", heads, 5);
    for (int i = 0; i < n; i++) {
        write_chosen(report, merges[i].key, text);
        am_html_row(html, merges[i].label);
        am_html_stat(html, am_grid_stat(grid, merges[i].key, -1), 2);
        am_html_stat(html, am_grid_paired(grid, merges[i].key, -1, merges[i].other, -1), 2);
        am_html_stat(html, share_of(grid, merges[i].key), 0);
        am_html_cell(html, "%s", text);
        am_html_row_end(html);
    }
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (am_grid_find(grid, levels[i]) != NULL) {
            am_html_row(html, levels[i]);
            am_html_stat(html, am_grid_stat(grid, levels[i], -1), 2);
            am_html_cell(html, "%s", "");
            am_html_stat(html, share_of(grid, levels[i]), 0);
            am_html_cell(html, "%s", "");
            am_html_row_end(html);
        }
    }
    am_html_table_end(html);
}

static void write_tasks(const am_grid *grid, const char *const *tasks, int n_tasks,
                        const merge *merges, int n, am_html *html)
{
    static const char *const levels[] = {"base", "individual", "joint"};
    const char **heads = am_new(n_tasks + 1, sizeof *heads, "names of tasks");
    if (heads == NULL) {
        html->failed = true;
        return;
    }
    heads[0] = "";
    for (int t = 0; t < n_tasks; t++) {
        heads[t + 1] = tasks[t];
    }
    am_html_table(html, "Test accuracy in percent, by task", heads, n_tasks + 1);
    for (int i = 0; i < n + 3; i++) {
        const char *key = i < n ? merges[i].key : levels[i - n];
        if (am_grid_find(grid, key) == NULL) {
            continue;
        }
        am_html_row(html, i < n ? merges[i].label : key);
        for (int t = 0; t < n_tasks; t++) {
            am_html_stat(html, am_grid_stat(grid, key, t), 1);
        }
        am_html_row_end(html);
    }
    am_html_table_end(html);
    free(heads);
}

/* ---- claims ---- */

static void write_claims(const am_grid *grid, const merge *merges, int n, am_html *html)
{
    for (int i = 0; i < n; i++) {
        char own[AM_STAT_TEXT], gap[AM_STAT_TEXT];
        int k = 0;
        while (published[k].method != NULL && strcmp(published[k].method, merges[i].method) != 0) {
            k++;
        }
        const am_stat d = am_grid_paired(grid, merges[i].key, -1, merges[i].other, -1);
        if (published[k].method == NULL || d.n == 0) {
            continue;
        }
        am_stat_text(own, am_grid_stat(grid, merges[i].key, -1), 2);
        am_stat_text(gap, d, 2);
        if (isnan(published[k].points)) {
            am_html_claim(html, am_verdict_above(d, 0),
                          "%s reaches %s %%, above task arithmetic by %s points, as its paper has "
                          "it (rule: above 0).",
                          merges[i].label, own, gap);
        } else if (published[k].points > 0) {
            am_html_claim(html, am_verdict_above(d, 0),
                          "%s reaches %s %%, above task arithmetic by %s points; published: %.1f "
                          "(rule: above 0).",
                          merges[i].label, own, gap, published[k].points);
        } else {
            am_html_claim(html, am_verdict_within(d, 0),
                          "%s reaches %s %%, above task arithmetic by %s points; published: %.1f "
                          "(rule: at most 0).",
                          merges[i].label, own, gap, published[k].points);
        }
    }
}

/* ---- the page ---- */

/* The best are told by a plot: accuracy by method, base, joint and individual across it. */
static int plot(const am_report *report, const am_grid *grid, const merge *merges, int n,
                am_html *html)
{
    const char **names = am_new(n + 1, sizeof *names, "names of methods");
    am_grid marks = {.runs = report->n};
    for (int i = 0; names != NULL && i < n; i++) {
        const double *values = am_grid_at(grid, merges[i].key, -1);
        names[i] = merges[i].label;
        for (int r = 0; r < report->n && values != NULL; r++) {
            am_grid_put(&marks, "merge", i, r, values[r]);
        }
    }
    am_rows_level(report, "base", "base", &marks);
    am_rows_level(report, "joint", "joint training", &marks);
    am_rows_level(report, "individual", "individual models", &marks);
    const int rc = names != NULL ? am_grid_finish(&marks) : AM_E_NOMEM;
    if (rc == 0) {
        am_html_raw(html, "<div class=\"plots\">\n");
        am_plot_lines(html,
                      &(am_plot){.caption = "Mean test accuracy by method.",
                                 .y = "test accuracy (%)",
                                 .names = names,
                                 .n_names = n},
                      &marks);
        am_html_raw(html, "</div>\n");
    }
    am_grid_free(&marks);
    free(names);
    return rc;
}

static int write_page(const am_report *report, am_html *html)
{
    int n = 0, n_tasks = 0;
    am_grid grid = {.runs = report->n};
    const char **tasks = am_report_tasks(report, &n_tasks);
    merge *merges = merges_of(report, &n);
    am_rows_tasks(report, "", &grid);
    int rc = tasks != NULL && merges != NULL ? am_grid_finish(&grid) : AM_E_NOMEM;
    if (rc == 0) {
        am_html_heading(html, "Methods of merging");
        am_html_paragraph(html,
                          "%d tasks, %d merges of the same models. What a method tunes, its alpha "
                          "first, was chosen on validation data, of the values that the recipe "
                          "lists; test data was met once.",
                          n_tasks, n);
        write_claims(&grid, merges, n, html);
        write_table(report, &grid, merges, n, html);
        write_tasks(&grid, tasks, n_tasks, merges, n, html);
        rc = plot(report, &grid, merges, n, html);
    }
    am_grid_free(&grid);
    free(merges);
    free(tasks);
    return rc;
}

const am_report_page am_report_page_methods = {
    .name = "methods",
    .job = "iterate",
    .title = "Methods of merging",
    .rules = rules,
    .write = write_page,
};
