/* The page of `allmerge theory`: theorems 1 and 2, measured. SPDX-License-Identifier: BSD-3-Clause
 */
#include "jobs/report/page.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

static int write_page(const am_report *report, am_html *html)
{
    int rc = am_theory_page_orders(report, html);
    AM_KEEP(am_theory_page_bounds(report, html));
    AM_KEEP(am_theory_page_descent(report, html));
    AM_KEEP(am_theory_page_spectra(report, html));
    return rc;
}

static const am_rule rules[] = {{"rows", AM_RULE_ROWS},
                                {"rows[].tasks", AM_RULE_NUMBER},
                                {"rows[].k", AM_RULE_NUMBER},
                                {"rows[].eta", AM_RULE_NUMBER},
                                {"rows[].gap", AM_RULE_NUMBER},
                                {"rows[].residual", AM_RULE_NUMBER},
                                {"rows[].ulps", AM_RULE_NUMBER},
                                {"rows[].c", AM_RULE_NUMBER},
                                {"rows[].bound_derived", AM_RULE_NUMBER},
                                {"rows[].bound_printed", AM_RULE_NUMBER},
                                {"rows[].network_bound_derived", AM_RULE_NUMBER},
                                {"slopes", AM_RULE_ROWS},
                                {"slopes[].tasks", AM_RULE_NUMBER},
                                {"slopes[].gap", AM_RULE_OBJECT},
                                {"slopes[].gap.slope", AM_RULE_NUMBER},
                                {"slopes[].residual", AM_RULE_OBJECT},
                                {"slopes[].residual.slope", AM_RULE_NUMBER},
                                {"epochs", AM_RULE_LIST},
                                {"epochs[].task", AM_RULE_TEXT},
                                {"epochs[].epoch", AM_RULE_NUMBER},
                                {"epochs[].share", AM_RULE_NUMBER},
                                {"spectra", AM_RULE_LIST},
                                {"spectra[].task", AM_RULE_TEXT},
                                {"spectra[].eigenvalues", AM_RULE_LIST},
                                {"spectra[].eigenvalues[]", AM_RULE_NUMBER},
                                {0}};

const am_report_page am_report_page_theory = {
    .name = "theory",
    .title = "Task vectors against gradients: theorems 1 and 2, measured",
    .rules = rules,
    .write = write_page,
};
