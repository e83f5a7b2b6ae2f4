/* A report: from run folders to one HTML page. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_REPORT_H
#define AM_JOBS_REPORT_REPORT_H

#include <stdbool.h>
#include "jobs/report/run.h"

/** The page of the runs at `path`: made beside it and renamed to it, on disk when this returns.
 * Local, rank 0. Errors: AM_E_CREATE (exists and not overwrite, cannot be made), AM_E_IO,
 * AM_E_NOMEM. *bytes: of the page. */
int am_report_write(const am_report *report, const char *path, bool overwrite, int64_t *bytes);

#endif
