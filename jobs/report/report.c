/* A report: see report.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/file.h"
#include "jobs/report/page.h"
#include "mpi/error.h"

static int write_page(const am_report *report, am_html *html)
{
    static int (*const sections[])(const am_report *, am_html *) = {
        am_section_table, am_section_curves,   am_section_vectors, am_section_gradients,
        am_section_plane, am_section_training, am_section_runs};
    const am_report_page *page = am_report_page_of(report->experiment, report->job);
    char title[160];
    if (page != NULL) {
        snprintf(title, sizeof title, "%s", page->title);
    } else {
        snprintf(title, sizeof title, "allmerge %s", report->job);
    }
    int rc = am_html_begin(html, title);
    if (rc == 0) {
        am_html_raw(html, "<p class=\"soft\">");
        am_html_print(html, "%d run%s of allmerge %s, seed%s ", report->n, report->n > 1 ? "s" : "",
                      report->job, report->n > 1 ? "s" : "");
        for (int r = 0; r < report->n; r++) {
            am_html_print(html, "%s%lld", r > 0 ? ", " : "", (long long)report->run[r].seed);
        }
        am_html_print(html, "%s",
                      report->n > 1 ? ". \u00b1 is the standard error of the mean over the "
                                      "seeds."
                                    : ".");
        am_html_raw(html, "</p>\n");
    }
    if (page != NULL) {
        AM_KEEP(page->write(report, html));
    }
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (page == NULL || page->write != sections[i]) {
            AM_KEEP(sections[i](report, html));
        }
    }
    AM_KEEP(am_html_end(html));
    return rc;
}

/* What is at the final name may be replaced: a file, if the user says so. */
static int check_output(const char *path, bool overwrite)
{
    struct stat status;
    if (lstat(path, &status) != 0) {
        return 0;
    }
    if (!S_ISREG(status.st_mode)) {
        return am_fail(AM_E_CREATE, "%s exists and is not a file: use another -o", path);
    }
    return overwrite ? 0 : am_fail(AM_E_CREATE, "%s exists; pass --overwrite to replace it", path);
}

static int publish(const char *path, const char *text, size_t n)
{
    char *partial = am_text("%s.partial", path);
    int rc = partial != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0 && unlink(partial) != 0 && errno != ENOENT) {
        rc = am_fail_errno(AM_E_CREATE, errno, "%s: cannot create the output", path);
    }
    if (rc == 0) {
        rc = am_file_dump(partial, text, (int64_t)n);
        if (rc == 0 && rename(partial, path) != 0) {
            rc = am_fail_errno(AM_E_CREATE, errno, "%s: cannot rename to it", path);
        }
        if (rc != 0) {
            (void)unlink(partial);
        }
    }
    AM_KEEP(am_file_sync_folder(path));
    free(partial);
    return rc;
}

int am_report_write(const am_report *report, const char *path, bool overwrite, int64_t *bytes)
{
    am_html html = {0};
    int rc = check_output(path, overwrite);
    AM_KEEP(write_page(report, &html));
    AM_KEEP(publish(path, html.text, html.bytes));
    *bytes = (int64_t)html.bytes;
    am_html_free(&html);
    return rc;
}
