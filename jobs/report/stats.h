/* Means and standard errors over runs, differences paired by run, and what is said of a claim.
 * A value that a run does not have is NaN and does not count. Local, pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_STATS_H
#define AM_JOBS_REPORT_STATS_H

enum { AM_STAT_TEXT = 64 };

typedef struct am_stat {
    int n;              /* values */
    double mean, error; /* error: standard error of the mean; NaN below two values */
} am_stat;

am_stat am_stat_of(const double *x, int n);
/** Of a[i] - b[i], where a run has both; b NULL: of a[i]. */
am_stat am_stat_paired(const double *a, const double *b, int n);
/** "1.23 +- 0.04" with the sign of plus and minus, "1.23" of one value, "-" of none. */
const char *am_stat_text(char out[AM_STAT_TEXT], am_stat stat, int digits);

typedef enum am_verdict { AM_HOLDS, AM_FAILS, AM_UNDECIDED, AM_UNTESTED } am_verdict;

/** Is the mean above `limit`? Beyond two standard errors it is (AM_HOLDS) or is not (AM_FAILS),
 * nearer it is undecided; one value (no error) is untested. */
am_verdict am_verdict_above(am_stat stat, double limit);
/** Is it at most `limit`? */
am_verdict am_verdict_within(am_stat stat, double limit);
/** All of them: fails if one fails, else the weakest of the others. */
am_verdict am_verdict_and(am_verdict a, am_verdict b);

#endif
