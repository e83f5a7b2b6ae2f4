/* The page of an experiment: one file in pages/ exports one `const am_report_page
 * am_report_page_<file>`, whose name is the member "experiment" of result.json, if that is of this
 * job, or else the job.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_PAGE_H
#define AM_JOBS_REPORT_PAGE_H

#include "jobs/report/html.h"
#include "jobs/report/rules.h"
#include "jobs/report/run.h"

typedef struct am_report_page {
    const char *name;
    const char *job; /* of whose runs it tells */
    const char *title;
    const am_rule *rules; /* of the members that it reads of result.json, beyond those of
                           * result_rules (run.c); NULL: none */
    /* The section at the top of the report. Local. Errors: AM_E_NOMEM. */
    int (*write)(const am_report *report, am_html *html);
} am_report_page;

extern const am_report_page *const am_report_page_table[]; /* NULL-terminated */

/** The page of the report's runs, NULL: none. */
const am_report_page *am_report_page_of(const char *experiment, const char *job);

/* Sections that every report may have, one file each; one that has nothing to show is not written.
 * Errors: AM_E_NOMEM. */
int am_section_runs(const am_report *report, am_html *html);      /* what ran */
int am_section_table(const am_report *report, am_html *html);     /* rows of the result */
int am_section_curves(const am_report *report, am_html *html);    /* validation */
int am_section_vectors(const am_report *report, am_html *html);   /* task vectors of merges */
int am_section_gradients(const am_report *report, am_html *html); /* member gradients */
int am_section_plane(const am_report *report, am_html *html);     /* member plane */
int am_section_training(const am_report *report, am_html *html);  /* norms, updates, speed */
extern const am_rule am_gradients_rules[], am_plane_rules[];

#endif
