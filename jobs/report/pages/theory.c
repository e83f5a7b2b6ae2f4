/* The page of `allmerge theory`: theorems 1 and 2, measured. SPDX-License-Identifier: BSD-3-Clause
 */
#include "jobs/report/page.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

static int write_page(const am_report *report, am_html *html)
{
    int rc = am_theory_page_orders(report, html);
    AM_KEEP(am_theory_page_bounds(report, html));
    AM_KEEP(am_theory_page_optimizers(report, html));
    AM_KEEP(am_theory_page_descent(report, html));
    AM_KEEP(am_theory_page_spectra(report, html));
    return rc;
}

const am_rule am_theory_rules[] = {{"rows", AM_RULE_ROWS},
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
                                   {"optimizers", AM_RULE_LIST},
                                   {"optimizers[].optimizer", AM_RULE_NAME},
                                   {"optimizers[].tasks", AM_RULE_NUMBER},
                                   {"optimizers[].alpha", AM_RULE_NUMBER},
                                   {"optimizers[].k", AM_RULE_NUMBER},
                                   {"optimizers[].eta", AM_RULE_NUMBER},
                                   {"optimizers[].gap", AM_RULE_NUMBER},
                                   {"optimizers[].relative_gap", AM_RULE_NUMBER},
                                   {"optimizers[].cosine", AM_RULE_NUMBER},
                                   {"optimizers[].rounding", AM_RULE_NUMBER},
                                   {"optimizer_slopes", AM_RULE_LIST},
                                   {"optimizer_slopes[].optimizer", AM_RULE_NAME},
                                   {"optimizer_slopes[].k", AM_RULE_NUMBER},
                                   {"optimizer_slopes[].slope", AM_RULE_NUMBER},
                                   {0}};

const am_report_page am_report_page_theory = {
    .name = "theory",
    .job = "theory",
    .title = "Task vectors against gradients: theorems 1 and 2, measured",
    .rules = am_theory_rules,
    .write = write_page,
};
