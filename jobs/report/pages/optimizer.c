/* Experiment e: what the optimiser does to the theory. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/page.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

static int write_page(const am_report *report, am_html *html)
{
    int rc = am_theory_page_optimizers(report, html);
    AM_KEEP(am_theory_page_orders(report, html));
    AM_KEEP(am_theory_page_bounds(report, html));
    return rc;
}

const am_report_page am_report_page_optimizer = {
    .name = "optimizer",
    .job = "theory",
    .title = "What the optimiser does to theorem 1",
    .rules = am_theory_rules,
    .write = write_page,
};
