/* Experiment c: gradients by epoch of finetuning. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/page.h"

const am_report_page am_report_page_gradients = {
    .name = "gradients",
    .job = "iterate",
    .title = "Gradients by epoch of finetuning",
    .write = am_section_gradients,
};
