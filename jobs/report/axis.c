/* Axes: ends, ticks, labels. See svg.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WANTED_TICKS = 6, LOG_TICKS = 7 };

static void linear_ticks(am_axis *axis)
{
    static const double factor[] = {1, 2, 5, 10};
    const double span = axis->high - axis->low;
    const double power = pow(10, floor(log10(span / WANTED_TICKS)));
    double step = power;
    for (int i = 0; i < 4 && span / step > WANTED_TICKS; i++) {
        step = power * factor[i];
    }
    step = axis->is_whole ? fmax(step, 1) : step;
    const double first = ceil(axis->low / step - 1e-9);
    axis->n = 0;
    while (axis->n < AM_AXIS_TICKS && (first + axis->n) * step <= axis->high + 1e-9 * span) {
        axis->tick[axis->n] = (first + axis->n) * step;
        axis->n++;
    }
}

/* Ticks at the mantissas of every `stride`-th decade. */
static void log_ticks_at(am_axis *axis, const double *mantissa, int n, int stride)
{
    axis->n = 0;
    for (int decade = (int)floor(log10(axis->low)); decade <= (int)ceil(log10(axis->high));
         decade++) {
        for (int i = 0; i < n && ((decade % stride) + stride) % stride == 0; i++) {
            const double value = mantissa[i] * pow(10, decade);
            if (value >= axis->low * (1 - 1e-9) && value <= axis->high * (1 + 1e-9) &&
                axis->n < AM_AXIS_TICKS) {
                axis->tick[axis->n++] = value;
            }
        }
    }
}

static void log_ticks(am_axis *axis)
{
    static const double mantissa[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, few[] = {1, 2, 5};
    const double decades = log10(axis->high / axis->low);
    if (decades < 0.7) {
        log_ticks_at(axis, mantissa, 9, 1);
    } else if (decades < 2) {
        log_ticks_at(axis, few, 3, 1);
    } else {
        log_ticks_at(axis, mantissa, 1, (int)ceil(decades / LOG_TICKS));
    }
}

static void fit_ticks(am_axis *axis)
{
    if (axis->is_log) {
        log_ticks(axis);
    } else {
        linear_ticks(axis);
    }
}

void am_axis_fit(am_axis *axis, double low, double high, bool is_log)
{
    const double margin = 0.05;
    axis->is_log = is_log;
    if (!(isfinite(low) && isfinite(high) && low <= high && (!is_log || low > 0))) {
        low = is_log ? 0.1 : 0;
        high = 1;
    }
    if (is_log) {
        const double factor = low == high ? 2 : pow(high / low, margin);
        axis->low = low / factor;
        axis->high = high * factor;
    } else {
        const double size = fmax(fabs(low), fabs(high));
        const double pad = high - low > 1e-9 * size ? margin * (high - low)
                           : size > 0               ? 0.1 * size
                                                    : 1;
        axis->low = low - pad;
        axis->high = high + pad;
    }
    fit_ticks(axis);
}

void am_axis_fix(am_axis *axis, double low, double high)
{
    axis->is_log = false;
    axis->low = low;
    axis->high = high;
    fit_ticks(axis);
}

double am_axis_at(const am_axis *axis, double value)
{
    const double share =
        axis->is_log ? log(fmax(value, axis->low * 1e-3) / axis->low) / log(axis->high / axis->low)
                     : (value - axis->low) / (axis->high - axis->low);
    return axis->from + share * (axis->to - axis->from);
}

/* "3·10⁻⁴": mantissa (none if 1) and a power of ten. */
static void power_label(double value, char out[AM_AXIS_LABEL])
{
    static const char *const raised[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                         "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
    char text[AM_AXIS_LABEL];
    snprintf(text, sizeof text, "%.2e", value);
    char *exponent = strchr(text, 'e');
    int power = 0;
    sscanf(exponent + 1, "%d", &power);
    *exponent = '\0';
    for (char *end = exponent - 1; end > text && (*end == '0' || *end == '.'); end--) {
        const bool is_point = *end == '.';
        *end = '\0';
        if (is_point) {
            break;
        }
    }
    int at = strcmp(text, "1") == 0 ? snprintf(out, AM_AXIS_LABEL, "10")
                                    : snprintf(out, AM_AXIS_LABEL, "%s\u00b710", text);
    at += snprintf(out + at, (size_t)(AM_AXIS_LABEL - at), "%s", power < 0 ? "\u207b" : "");
    char digits[16];
    snprintf(digits, sizeof digits, "%d", power < 0 ? -power : power);
    for (const char *d = digits; *d != '\0' && at < AM_AXIS_LABEL; d++) {
        at += snprintf(out + at, (size_t)(AM_AXIS_LABEL - at), "%s", raised[*d - '0']);
    }
}

void am_axis_label(const am_axis *axis, double value, char out[AM_AXIS_LABEL])
{
    const double step = axis->n > 1 ? axis->tick[1] - axis->tick[0] : 1;
    if (!axis->is_log && fabs(value) < 1e-9 * (axis->high - axis->low)) {
        snprintf(out, AM_AXIS_LABEL, "0");
    } else if (axis->is_log && value >= 0.01 && value < 9999) {
        snprintf(out, AM_AXIS_LABEL, "%g", value);
    } else if (value != 0 && (axis->is_log || fmax(fabs(axis->low), fabs(axis->high)) < 1e-3 ||
                              fabs(value) >= 1e5)) {
        power_label(value, out);
    } else {
        const int decimals = step >= 0.999 ? 0 : (int)ceil(-log10(step) - 1e-6);
        snprintf(out, AM_AXIS_LABEL, "%.*f", decimals, value);
    }
}

double am_axis_width(const am_axis *axis)
{
    double width = 0;
    for (int i = 0; i < axis->n; i++) {
        char label[AM_AXIS_LABEL];
        am_axis_label(axis, axis->tick[i], label);
        width = fmax(width, am_svg_width(label));
    }
    return width;
}
