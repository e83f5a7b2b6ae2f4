/* Experiment d: models in the plane of their principal components. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "jobs/report/page.h"

const am_report_page am_report_page_plane = {
    .name = "plane",
    .job = "iterate",
    .title = "Where merges go: models in the plane of their principal components",
    .write = am_section_plane,
};
