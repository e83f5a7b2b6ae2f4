/* Means, standard errors, verdicts: see stats.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/stats.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

am_stat am_stat_paired(const double *a, const double *b, int n)
{
    am_stat out = {.mean = NAN, .error = NAN};
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        const double d = b != NULL ? a[i] - b[i] : a[i];
        if (!isnan(d)) {
            sum += d;
            out.n++;
        }
    }
    if (out.n == 0) {
        return out;
    }
    out.mean = sum / out.n;
    for (int i = 0; i < n; i++) {
        const double d = (b != NULL ? a[i] - b[i] : a[i]) - out.mean;
        squares += isnan(d) ? 0 : d * d;
    }
    if (out.n > 1) {
        out.error = sqrt(squares / (out.n - 1) / out.n);
    }
    return out;
}

am_stat am_stat_of(const double *x, int n)
{
    return am_stat_paired(x, NULL, n);
}

const char *am_stat_text(char out[AM_STAT_TEXT], am_stat stat, int digits)
{
    if (stat.n == 0) {
        snprintf(out, AM_STAT_TEXT, "\u2013");
    } else if (isnan(stat.error)) {
        snprintf(out, AM_STAT_TEXT, "%.*f", digits, stat.mean);
    } else {
        snprintf(out, AM_STAT_TEXT, "%.*f \u00b1 %.*f", digits, stat.mean, digits, stat.error);
    }
    return out;
}

am_verdict am_verdict_above(am_stat stat, double limit)
{
    if (stat.n < 2) {
        return AM_UNTESTED;
    }
    const double beyond = stat.mean - limit;
    return beyond > 2 * stat.error ? AM_HOLDS : -beyond > 2 * stat.error ? AM_FAILS : AM_UNDECIDED;
}

am_verdict am_verdict_within(am_stat stat, double limit)
{
    const am_verdict above = am_verdict_above(stat, limit);
    return above == AM_HOLDS ? AM_FAILS : above == AM_FAILS ? AM_HOLDS : above;
}

am_verdict am_verdict_and(am_verdict a, am_verdict b)
{
    return a == AM_FAILS || b == AM_FAILS ? AM_FAILS : a > b ? a : b;
}
