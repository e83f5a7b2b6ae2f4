/* Experiment h: twenty tasks. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "jobs/report/rows.h"
#include "mpi/error.h"

/* 65.17 % after one epoch and converged with AdamW; 60.1 and 61.2 % with SGD. */
static const am_published published[] = {{"", 1.1, "20 tasks with SGD, and 0.00 with AdamW"}};

static int write_page(const am_report *report, am_html *html)
{
    int n;
    const char **tasks = am_report_tasks(report, &n);
    if (tasks == NULL) {
        return AM_E_NOMEM;
    }
    free(tasks);
    am_html_heading(html, "Many tasks");
    am_html_paragraph(html,
                      "%d tasks. The claim (arXiv 2508.16082): also of twenty tasks, merges of "
                      "models after one epoch are as good as merges of converged ones.",
                      n);
    return am_page_lengths(report, published, html);
}

const am_report_page am_report_page_twenty = {
    .name = "twenty",
    .job = "iterate",
    .title = "One epoch against converged with many tasks",
    .rules = am_rounds_rules,
    .write = write_page,
};
