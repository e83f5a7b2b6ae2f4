/* The rows of the result, means and standard errors over seeds. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/page.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { MOST_COLUMNS = 12, CHOICE = 128 }; /* more tasks than that go downwards */

/* The same row of another run: by its key. */
static const json_t *row_of(const am_report *report, int run, const json_t *like)
{
    const json_t *rows = json_object_get(report->run[run].result, "rows");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (am_is_text(row, "key", am_member_text(like, "key"))) {
            return row;
        }
    }
    return NULL;
}

static const char *name_of(const json_t *row)
{
    const char *name = am_member_text(row, "name");
    return name != NULL ? name : am_member_text(row, "key");
}

/* Accuracies of a row in percent: tasks at 0 to n - 1, their mean at n. */
static void read_row(const am_report *report, const json_t *like, int tasks, am_grid *grid)
{
    const char *key = am_member_text(like, "key");
    for (int r = 0; r < report->n; r++) {
        const json_t *row = row_of(report, r, like);
        const json_t *list = json_object_get(row, "task_accuracy");
        for (int t = 0; t < tasks; t++) {
            am_grid_put(grid, key, t, r, 100 * am_item_number(list, (size_t)t));
        }
        am_grid_put(grid, key, tasks, r, 100 * am_member_number(row, "test_accuracy"));
    }
}

/* Rows downwards, tasks to the right. */
static void write_across(const json_t *rows, const char *const *heads, int columns,
                         const am_grid *grid, const char *caption, am_html *html)
{
    am_html_table(html, caption, heads, columns + 1);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        am_html_row(html, name_of(row));
        for (int c = 0; c < columns; c++) {
            am_html_stat(html, am_grid_stat(grid, am_member_text(row, "key"), c), 2);
        }
        am_html_row_end(html);
    }
    am_html_table_end(html);
}

/* Tasks downwards, rows to the right. */
static int write_down(const json_t *rows, const char *const *heads, int columns,
                      const am_grid *grid, const char *caption, am_html *html)
{
    const int n = (int)json_array_size(rows);
    const char **names = am_new(n + 1, sizeof *names, "heads of the table");
    if (names == NULL) {
        return AM_E_NOMEM;
    }
    names[0] = heads[0];
    for (int i = 0; i < n; i++) {
        names[i + 1] = name_of(json_array_get(rows, (size_t)i));
    }
    am_html_table(html, caption, names, n + 1);
    for (int c = 0; c < columns; c++) {
        am_html_row(html, heads[c + 1]);
        for (int i = 0; i < n; i++) {
            const char *key = am_member_text(json_array_get(rows, (size_t)i), "key");
            am_html_stat(html, am_grid_stat(grid, key, c), 2);
        }
        am_html_row_end(html);
    }
    am_html_table_end(html);
    free(names);
    return 0;
}

static int write_accuracies(const am_report *report, const json_t *rows, am_html *html)
{
    int tasks;
    am_grid grid = {.runs = report->n};
    const char **names = am_report_tasks(report, &tasks);
    const char **heads = am_new(tasks + 3, sizeof *heads, "heads of the table");
    const char *caption = report->n > 1
                              ? "Test accuracy in percent: mean over the seeds, and below it the "
                                "standard error of the mean"
                              : "Test accuracy in percent";
    int rc = names != NULL && heads != NULL ? 0 : AM_E_NOMEM;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        read_row(report, json_array_get(rows, i), tasks, &grid);
    }
    AM_KEEP(am_grid_finish(&grid));
    if (rc == 0) {
        heads[0] = "";
        memcpy(heads + 1, names, (size_t)tasks * sizeof *heads);
        heads[tasks + 1] = "mean";
        if (tasks <= MOST_COLUMNS) {
            write_across(rows, heads, tasks + 1, &grid, caption, html);
        } else {
            rc = write_down(rows, heads, tasks + 1, &grid, caption, html);
        }
    }
    free(names);
    free(heads);
    am_grid_free(&grid);
    return rc;
}

/* What was chosen: the values of all seeds, once each; "-" if none has one. */
static void write_choice(const am_report *report, const json_t *like, const char *key,
                         am_html *html)
{
    char text[CHOICE] = "";
    size_t at = 0;
    for (int r = 0; r < report->n; r++) {
        const double value = am_member_number(row_of(report, r, like), key);
        bool is_new = !isnan(value);
        for (int q = 0; q < r && is_new; q++) {
            is_new = am_member_number(row_of(report, q, like), key) != value;
        }
        if (is_new && at < sizeof text - 32) {
            at +=
                (size_t)snprintf(text + at, sizeof text - at, "%s%.6g", at > 0 ? ", " : "", value);
        }
    }
    am_html_cell(html, "%s", at > 0 ? text : "\u2013");
}

static void write_member(const am_report *report, const json_t *like, const char *key,
                         double factor, int digits, am_html *html)
{
    am_grid grid = {.runs = report->n};
    for (int r = 0; r < report->n; r++) {
        am_grid_put(&grid, key, 0, r, factor * am_member_number(row_of(report, r, like), key));
    }
    am_html_stat(html, am_grid_stat(&grid, key, 0), digits);
    am_grid_free(&grid);
}

static void write_choices(const am_report *report, const json_t *rows, am_html *html)
{
    static const char *const heads[] = {"",          "alpha",        "epochs",
                                        "round",     "validation %", "validation nats",
                                        "test nats", "test bits"};
    am_html_table(html,
                  report->n > 1 ? "What was chosen on validation data (by the seeds, where they "
                                  "differ), and losses"
                                : "What was chosen on validation data, and losses",
                  heads, 8);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        am_html_row(html, name_of(row));
        write_choice(report, row, "alpha", html);
        write_choice(report, row, "epochs", html);
        write_choice(report, row, "round", html);
        write_member(report, row, "validation_accuracy", 100, 2, html);
        write_member(report, row, "validation_loss_nats", 1, 4, html);
        write_member(report, row, "test_loss_nats", 1, 4, html);
        write_member(report, row, "test_loss_bits", 1, 4, html);
        am_html_row_end(html);
    }
    am_html_table_end(html);
}

int am_section_table(const am_report *report, am_html *html)
{
    const json_t *rows = am_report_member(report, "rows");
    const json_t *first = json_array_get(rows, 0);
    if (am_member_text(first, "key") == NULL) {
        return 0; /* rows of theory */
    }
    am_html_heading(html, "Results");
    int rc = write_accuracies(report, rows, html);
    if (rc == 0) {
        write_choices(report, rows, html);
    }
    return rc;
}
