/* Experiment a: one epoch of finetuning against converged models, by merge method.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/rows.h"

/* Eight tasks, ViT-B/16; its TIES merged one task only, so there is no number of it. */
static const am_published published[] = {
    {"breadcrumbs", 1.05, "Breadcrumbs"}, {"dare", 0.73, "DARE"}, {"", 0.94, "task arithmetic"}};

static int write_page(const am_report *report, am_html *html)
{
    am_html_heading(html, "One epoch against converged");
    am_html_paragraph(html,
                      "The claim (arXiv 2508.16082): merges of models that were finetuned for one "
                      "epoch are about as good as merges of converged ones, since one epoch of "
                      "task vectors is a step of multitask gradient descent.");
    return am_page_lengths(report, published, html);
}

const am_report_page am_report_page_one_epoch = {
    .name = "one_epoch",
    .job = "iterate",
    .title = "One epoch of finetuning against converged models",
    .rules = am_rounds_rules,
    .write = write_page,
};
