/* Inline SVG figures: frames, axes with ticks at round numbers, labels. One unit is a pixel of a
 * figure AM_SVG_WIDTH wide; text is set in classes of the page's style sheet (html.c).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_SVG_H
#define AM_JOBS_REPORT_SVG_H

#include <stdbool.h>
#include "jobs/report/html.h"

enum { AM_SVG_WIDTH = 520, AM_SVG_LINE = 16, AM_AXIS_TICKS = 16, AM_AXIS_LABEL = 32 };

typedef struct am_axis {
    double low, high; /* values at the ends; above 0 if is_log */
    double from, to;  /* their places */
    bool is_log;
    bool is_whole; /* ticks at whole numbers only; set before am_axis_fit */
    int n;
    double tick[AM_AXIS_TICKS];
} am_axis;

/** Ends a little outside of low and high, ticks between them. What is not finite, or not above 0 on
 * a log axis, becomes an axis of one unit (decade). places are set by the caller. */
void am_axis_fit(am_axis *axis, double low, double high, bool is_log);
/** The ends just as given, ticks between them. */
void am_axis_fix(am_axis *axis, double low, double high);
double am_axis_at(const am_axis *axis, double value);
void am_axis_label(const am_axis *axis, double value, char out[AM_AXIS_LABEL]);
/** Width of the widest label. */
double am_axis_width(const am_axis *axis);

/** Estimated width of text in the font of figures: on the safe side. */
double am_svg_width(const char *text);

/** A figure: label is its title for those who cannot see it. */
void am_svg_begin(am_html *html, double height, const char *label);
/** End of the drawing; the caption follows until am_svg_end. */
void am_svg_caption(am_html *html);
void am_svg_end(am_html *html);
/** Text at a place; anchor: start, middle, end; class: "" or t (softer), v (on dark); cut after
 * `most` characters. turn: degrees. */
void am_svg_text(am_html *html, double x, double y, const char *anchor, const char *class,
                 double turn, int most, const char *text);
/** The axes of a plot between x->from..to and y->to..from (y grows downwards), with grid lines,
 * tick labels and titles. names: of x at 0..n-1 instead of numbers, NULL: none. bottom: height that
 * the labels below the plot take. */
void am_svg_axes(am_html *html, const am_axis *x, const am_axis *y, const char *x_title,
                 const char *y_title);
/** Names below an axis at 0..n-1 in place of ticks; slanted where they would overlap. Returns the
 * height that they take; html NULL: only that. */
double am_svg_names(am_html *html, const am_axis *x, double y, const char *const *names, int n);

#endif
