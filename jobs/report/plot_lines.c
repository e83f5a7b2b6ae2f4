/* Lines, or marks over names, with standard errors: see plot.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include "jobs/report/plot.h"
#include "jobs/report/svg.h"
#include "mpi/arena.h"

enum { HEIGHT = 250, TOP = 10, MOST_BARS = 16, MOST_MARKS = 40 };

typedef struct frame {
    am_axis x, y;
    const am_plot *plot;
    const am_grid *grid;
} frame;

static bool is_shown(const frame *f, double x, double y)
{
    return isfinite(y) && (!f->plot->log_y || y > 0) && (!f->plot->log_x || x > 0);
}

static void widen(double *low, double *high, double value)
{
    *low = fmin(*low, value);
    *high = fmax(*high, value);
}

/* Rounds, epochs: all x are whole numbers. */
static bool is_whole(const am_grid *grid)
{
    for (int s = 0; s < grid->n; s++) {
        for (int i = 0; i < grid->series[s].n; i++) {
            if (grid->series[s].x[i] != floor(grid->series[s].x[i])) {
                return false;
            }
        }
    }
    return true;
}

/* Axes around all that is shown. */
static void fit(frame *f)
{
    double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
    for (int s = 0; s < f->grid->n; s++) {
        const am_series *series = &f->grid->series[s];
        for (int i = 0; i < series->n; i++) {
            const am_stat stat = am_stat_of(am_grid_values(f->grid, series, i), f->grid->runs);
            const double error = isnan(stat.error) ? 0 : stat.error;
            if (series->is_level || is_shown(f, series->x[i], stat.mean)) {
                widen(&y_low, &y_high, stat.mean + error);
                widen(&y_low, &y_high,
                      f->plot->log_y && stat.mean <= error ? stat.mean : stat.mean - error);
            }
            if (!series->is_level && is_shown(f, series->x[i], stat.mean)) {
                widen(&x_low, &x_high, series->x[i]);
            }
        }
    }
    if (f->plot->low < f->plot->high) {
        am_axis_fix(&f->y, f->plot->low, f->plot->high);
    } else {
        am_axis_fit(&f->y, y_low, y_high, f->plot->log_y);
    }
    if (f->plot->names != NULL) {
        am_axis_fix(&f->x, -0.5, f->plot->n_names - 0.5);
        f->x.n = 0;
    } else {
        f->x.is_whole = is_whole(f->grid);
        am_axis_fit(&f->x, x_low, x_high, f->plot->log_x);
    }
    f->x.from = 24 + am_axis_width(&f->y);
    f->x.to = AM_SVG_WIDTH - 12;
    f->y.from = TOP + HEIGHT;
    f->y.to = TOP;
}

/* Marks of several series at one name stand beside each other. */
static double place(const frame *f, int s, double x)
{
    const int n = f->grid->n;
    const double step = fmin(0.12, 0.7 / n);
    return am_axis_at(&f->x, f->plot->names == NULL ? x : x + (s - (n - 1) / 2.0) * step);
}

static double clip(const frame *f, double y)
{
    return fmin(fmax(am_axis_at(&f->y, y), f->y.to), f->y.from);
}

/* Bars of one standard error; true if there was one. */
static bool draw_bars(am_html *html, const frame *f, int s)
{
    const am_series *series = &f->grid->series[s];
    bool is_begun = false;
    for (int i = 0; i < series->n; i++) {
        const am_stat stat = am_stat_of(am_grid_values(f->grid, series, i), f->grid->runs);
        if (isnan(stat.error) || !is_shown(f, series->x[i], stat.mean)) {
            continue;
        }
        if (!is_begun) {
            fprintf(html->out, "<path class=\"bar l%d\" d=\"", s % AM_HTML_COLOURS);
            is_begun = true;
        }
        const double x = place(f, s, series->x[i]);
        const double top = clip(f, stat.mean + stat.error), low = clip(f, stat.mean - stat.error);
        fprintf(html->out, "M%.1f %.1fV%.1fM%.1f %.1fh5M%.1f %.1fh5", x, top, low, x - 2.5, top,
                x - 2.5, low);
    }
    if (is_begun) {
        am_html_raw(html, "\"/>\n");
    }
    return is_begun;
}

/* A band of one standard error around a long line. */
static bool draw_band(am_html *html, const frame *f, int s)
{
    const am_series *series = &f->grid->series[s];
    bool is_begun = false;
    for (int side = 1; side >= -1; side -= 2) {
        for (int k = 0; k < series->n; k++) {
            const int i = side > 0 ? k : series->n - 1 - k;
            const am_stat stat = am_stat_of(am_grid_values(f->grid, series, i), f->grid->runs);
            if (isnan(stat.error) || !is_shown(f, series->x[i], stat.mean)) {
                continue;
            }
            if (!is_begun) {
                fprintf(html->out, "<path class=\"band f%d\" d=\"M", s % AM_HTML_COLOURS);
            }
            fprintf(html->out, "%s%.1f %.1f", is_begun ? "L" : "", place(f, s, series->x[i]),
                    clip(f, stat.mean + side * stat.error));
            is_begun = true;
        }
    }
    if (is_begun) {
        am_html_raw(html, "Z\"/>\n");
    }
    return is_begun;
}

static void draw_line(am_html *html, const frame *f, int s)
{
    const am_series *series = &f->grid->series[s];
    bool is_joined = false;
    fprintf(html->out, "<path class=\"line l%d\"%s d=\"", s % AM_HTML_COLOURS, am_plot_dash(s));
    for (int i = 0; i < series->n; i++) {
        const am_stat stat = am_stat_of(am_grid_values(f->grid, series, i), f->grid->runs);
        const bool is_here = is_shown(f, series->x[i], stat.mean);
        if (is_here) {
            fprintf(html->out, "%s%.1f %.1f", is_joined ? "L" : "M", place(f, s, series->x[i]),
                    clip(f, stat.mean));
        }
        is_joined = is_here;
    }
    am_html_raw(html, "\"/>\n");
}

static void draw_marks(am_html *html, const frame *f, int s)
{
    const am_series *series = &f->grid->series[s];
    for (int i = 0; i < series->n; i++) {
        const am_stat stat = am_stat_of(am_grid_values(f->grid, series, i), f->grid->runs);
        if (is_shown(f, series->x[i], stat.mean)) {
            fprintf(html->out, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n",
                    s % AM_HTML_COLOURS, place(f, s, series->x[i]), clip(f, stat.mean));
        }
    }
}

static void draw_level(am_html *html, const frame *f, int s)
{
    const am_series *series = &f->grid->series[s];
    const am_stat stat = am_stat_of(am_grid_values(f->grid, series, 0), f->grid->runs);
    fprintf(html->out, "<path class=\"level\" d=\"M%.1f %.1fH%.1f\"/>\n", f->x.from,
            clip(f, stat.mean), f->x.to);
}

/* Bit 1: bars were drawn, 2: bands. */
static int draw(am_html *html, const frame *f)
{
    int kinds = 0;
    for (int s = 0; s < f->grid->n; s++) {
        const am_series *series = &f->grid->series[s];
        if (series->is_level) {
            draw_level(html, f, s);
            continue;
        }
        if (f->plot->names != NULL || series->n <= MOST_BARS) {
            kinds |= draw_bars(html, f, s) ? 1 : 0;
        } else {
            kinds |= draw_band(html, f, s) ? 2 : 0;
        }
        if (f->plot->names == NULL) {
            draw_line(html, f, s);
        }
        if (f->plot->names != NULL || series->n <= MOST_MARKS) {
            draw_marks(html, f, s);
        }
    }
    return kinds;
}

void am_plot_lines(am_html *html, const am_plot *plot, const am_grid *grid)
{
    frame f = {.plot = plot, .grid = grid};
    am_legend *names = am_new(grid->n + 1, sizeof *names, "names of a figure");
    if (names == NULL || grid->n == 0) {
        free(names);
        return; /* the end of the page tells of no memory */
    }
    for (int s = 0; s < grid->n; s++) {
        names[s] = (am_legend){grid->series[s].name, grid->series[s].is_level ? AM_LEGEND_LEVEL
                                                     : plot->names != NULL    ? AM_LEGEND_MARK
                                                                              : AM_LEGEND_LINE};
    }
    fit(&f);
    const double below =
        f.y.from +
        (plot->names == NULL ? 20 : am_svg_names(NULL, &f.x, 0, plot->names, plot->n_names) + 2);
    const double title = plot->names == NULL ? AM_SVG_LINE : 0;
    const bool is_named = grid->n > 1 || plot->names == NULL;
    const double legend = am_plot_legend(NULL, names, is_named ? grid->n : 0, f.x.from, 0);
    am_svg_begin(html, below + title + legend + 4, plot->caption);
    am_svg_axes(html, &f.x, &f.y, plot->names == NULL ? plot->x : "", plot->y);
    if (plot->names != NULL) {
        (void)am_svg_names(html, &f.x, f.y.from, plot->names, plot->n_names);
    }
    const int kinds = draw(html, &f);
    (void)am_plot_legend(html, names, is_named ? grid->n : 0, f.x.from, below + title);
    am_svg_caption(html);
    am_html_text(html, plot->caption);
    if (kinds != 0) {
        am_html_print(html, " %s: one standard error over %d seeds.",
                      kinds == 1   ? "Bars"
                      : kinds == 2 ? "Bands"
                                   : "Bars and bands",
                      grid->runs);
    }
    am_svg_end(html);
    free(names);
}
