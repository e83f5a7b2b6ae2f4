/* Kinds of figures, one file each. All take means over runs; bars and bands are one standard error.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_PLOT_H
#define AM_JOBS_REPORT_PLOT_H

#include "jobs/report/grid.h"
#include "jobs/report/html.h"

typedef struct am_plot {
    const char *caption, *x, *y; /* titles of the axes */
    bool log_x, log_y;
    const char *const *names; /* [n_names] of x = 0..n_names-1: marks beside each other, no lines */
    int n_names;
    double low, high; /* ends of y, both 0: from the values */
} am_plot;

/** Lines (plot_lines.c): a grid's series over x; nothing if it has no value. */
void am_plot_lines(am_html *html, const am_plot *plot, const am_grid *grid);

typedef struct am_heat {
    const char *caption;
    const char *const *rows, *const *columns; /* names */
    int n_rows, n_columns;
    const double *value; /* [n_rows, n_columns], NaN: empty */
    double most;         /* the value of full colour; 0: the largest */
    int digits;          /* decimals of the numbers in the cells */
} am_heat;

/** A matrix in colours with its numbers (plot_heat.c). */
void am_plot_heat(am_html *html, const am_heat *heat);

typedef struct am_path {
    const char *name;
    int n;
    const double *x, *y;
    bool is_scatter; /* marks alone; else a line, of one point a mark */
} am_path;

typedef struct am_plane {
    const char *caption, *x, *y, *z; /* z: name of what the surface shows */
    int n_x, n_y;                    /* 0: no surface */
    const double *at_x, *at_y;       /* ascending */
    const double *value;             /* [n_y, n_x], NaN: unknown */
    int n_paths;
    const am_path *path;
} am_plane;

/** Filled contours of a surface and paths over it (plot_plane.c). */
void am_plot_plane(am_html *html, const am_plane *plane);

typedef struct am_legend {
    const char *name;
    enum { AM_LEGEND_LINE, AM_LEGEND_MARK, AM_LEGEND_LEVEL } kind;
} am_legend;

/** What the colours of a figure mean, in rows from `top`: returns the height. html NULL: only that.
 */
double am_plot_legend(am_html *html, const am_legend *entries, int n, double left, double top);
/** Dash pattern of series i (" stroke-dasharray=..." or ""), once colours repeat. */
const char *am_plot_dash(int i);

#endif
