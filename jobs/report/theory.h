/* Parts of pages on theory, of one file each. Errors: AM_E_NOMEM. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_REPORT_THEORY_H
#define AM_JOBS_REPORT_THEORY_H

#include "jobs/report/html.h"
#include "jobs/report/rules.h"
#include "jobs/report/run.h"

enum { AM_THEORY_NAME = 96 };

/** Gap and residual over eta, their slopes (theory_orders.c). */
int am_theory_page_orders(const am_report *report, am_html *html);
/** |C| against its bounds (theory_bounds.c). */
int am_theory_page_bounds(const am_report *report, am_html *html);
/** Task arithmetic with other optimisers (theory_optimizers.c); nothing if there are none. */
int am_theory_page_optimizers(const am_report *report, am_html *html);
/** Descent on each task alone, by epoch (theory_descent.c). */
int am_theory_page_descent(const am_report *report, am_html *html);
/** Largest eigenvalues of Hessians (theory_spectra.c); nothing if there are none. */
int am_theory_page_spectra(const am_report *report, am_html *html);

extern const am_rule am_theory_rules[]; /* pages/theory.c */

/** "T 2, alpha 0.3" of a row or slope. */
void am_theory_place(const json_t *object, char out[AM_THEORY_NAME]);
/** The largest number of a member of a list of the result of the first run; NaN: none. */
double am_theory_largest(const am_report *report, const char *list, const char *key);

#endif
