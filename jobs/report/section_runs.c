/* What ran: recipe, seeds, programs. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/page.h"
#include "mpi/error.h"
#include "mpi/param.h"

static void begin_row(am_html *html, const char *name)
{
    am_html_row(html, name);
    am_html_raw(html, "<td>");
}

static void end_row(am_html *html)
{
    am_html_raw(html, "</td>");
    am_html_row_end(html);
}

/* The last event of a kind: NULL if there is none. A run that went on has one a start. */
static const json_t *last_event(const am_report_run *run, const char *name)
{
    for (size_t i = json_array_size(run->events); i > 0; i--) {
        const json_t *event = json_array_get(run->events, i - 1);
        if (am_is_text(event, "event", name)) {
            return event;
        }
    }
    return NULL;
}

static void write_runs(const am_report *report, am_html *html)
{
    begin_row(html, report->n == 1 ? "run" : "runs");
    for (int r = 0; r < report->n; r++) {
        am_html_print(html, "%s%s (seed %lld)", r > 0 ? ", " : "", report->run[r].path,
                      (long long)report->run[r].seed);
    }
    end_row(html);
}

static int write_tasks(const am_report *report, am_html *html)
{
    int n;
    const char **tasks = am_report_tasks(report, &n);
    begin_row(html, "tasks");
    for (int i = 0; tasks != NULL && i < n; i++) {
        am_html_text(html, i > 0 ? ", " : "");
        am_html_text(html, tasks[i]);
    }
    end_row(html);
    free(tasks);
    return tasks != NULL ? 0 : AM_E_NOMEM;
}

/* A section of the recipe on one line. */
static int write_section(const am_report *report, am_html *html, const char *key)
{
    const json_t *section = json_object_get(report->run[0].recipe, key);
    if (section == NULL || json_is_null(section)) {
        return 0;
    }
    char *text = json_dumps(section, JSON_REAL_PRECISION(15) | JSON_ENCODE_ANY);
    if (text == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for the recipe");
    }
    begin_row(html, key);
    am_html_text(html, text);
    end_row(html);
    free(text);
    return 0;
}

static const char *text_of(const json_t *event, const char *key)
{
    const char *text = am_member_text(event, key);
    return text != NULL ? text : "?";
}

static void write_program(const am_report *report, am_html *html)
{
    begin_row(html, "made by");
    for (int r = 0; r < report->n; r++) {
        const json_t *start = last_event(&report->run[r], "start");
        const json_t *before = r > 0 ? last_event(&report->run[r - 1], "start") : NULL;
        static const char *const keys[] = {"allmerge", "mpi", "hdf5", "blas", "ranks"};
        bool is_same = before != NULL;
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            is_same &=
                json_equal(json_object_get(start, keys[k]), json_object_get(before, keys[k]));
        }
        if (start != NULL && !is_same) {
            am_html_print(html, "%sallmerge %s, %s, %s, %s; %.0f rank%s", r > 0 ? "; " : "",
                          text_of(start, "allmerge"), text_of(start, "mpi"), text_of(start, "hdf5"),
                          text_of(start, "blas"), am_member_number(start, "ranks"),
                          am_member_number(start, "ranks") == 1 ? "" : "s");
        }
    }
    end_row(html);
}

static void write_sizes(const am_report *report, am_html *html)
{
    const double parameters =
        am_member_number(last_event(&report->run[0], "start"), "trunk_parameters");
    double peak = 0, seconds = 0;
    for (int r = 0; r < report->n; r++) {
        const json_t *memory = last_event(&report->run[r], "memory");
        const size_t events = json_array_size(report->run[r].events);
        const json_t *last = events > 0 ? json_array_get(report->run[r].events, events - 1) : NULL;
        peak = fmax(peak, am_member_number(memory, "peak_bytes"));
        seconds = fmax(seconds, am_member_number(last, "seconds"));
    }
    if (!isnan(parameters)) {
        begin_row(html, "trunk");
        am_html_print(html, "%.0f parameters", parameters);
        end_row(html);
    }
    if (peak > 0) {
        begin_row(html, "largest process");
        am_html_text(html, am_format_bytes((int64_t)peak));
        end_row(html);
    }
    begin_row(html, "time");
    am_html_print(html, "%.0f s%s, of the last start of the %s", seconds,
                  report->n > 1 ? " at most" : "", report->n > 1 ? "runs" : "run");
    end_row(html);
}

/* A line a member, so that two pages can be compared by eye. */
static int write_recipe(const am_report *report, am_html *html)
{
    const char *key;
    json_t *value;
    am_html_raw(html, "<details><summary>the whole recipe, with all defaults</summary><pre>");
    json_object_foreach(report->run[0].recipe, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        if (text == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for the recipe");
        }
        am_html_print(html, "%s: %s\n", key, text);
        free(text);
    }
    am_html_raw(html, "</pre></details>\n");
    return 0;
}

int am_section_runs(const am_report *report, am_html *html)
{
    am_html_heading(html, "What ran");
    am_html_raw(html, "<div class=\"left\">");
    am_html_table(html, "", (const char *const[]){"", ""}, 2);
    begin_row(html, "job");
    am_html_text(html, report->job);
    if (report->experiment != NULL) {
        am_html_print(html, ", experiment %s", report->experiment);
    }
    end_row(html);
    write_runs(report, html);
    int rc = write_tasks(report, html);
    AM_KEEP(write_section(report, html, "model"));
    AM_KEEP(write_section(report, html, strcmp(report->job, "theory") == 0 ? "theory" : "merge"));
    write_program(report, html);
    write_sizes(report, html);
    am_html_table_end(html);
    am_html_raw(html, "</div>");
    AM_KEEP(write_recipe(report, html));
    return rc;
}
