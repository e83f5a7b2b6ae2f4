/* A surface as filled contours, and paths over it: see plot.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include "jobs/report/plot.h"
#include "jobs/report/svg.h"
#include "mpi/arena.h"

enum { LEVELS = 10, TOP = 10, LEAST_HEIGHT = 200, MOST_HEIGHT = 400, STRIP = 34, CORNERS = 8 };
static const double opacity = 0.09; /* of one level; they lie on one another */
static const double log_from = 10;  /* quotient of values from which levels grow by factors */

typedef struct map {
    const am_plane *plane;
    am_axis x, y;
    double level[LEVELS];
    bool has_levels;
} map;

static void extend(double *low, double *high, const double *x, int n)
{
    for (int i = 0; i < n; i++) {
        if (isfinite(x[i])) {
            *low = fmin(*low, x[i]);
            *high = fmax(*high, x[i]);
        }
    }
}

static void fit_axis(am_axis *axis, const double *at, int n, const am_plane *plane, bool is_x)
{
    double low = INFINITY, high = -INFINITY;
    extend(&low, &high, at, n);
    const double first = low, last = high;
    for (int p = 0; p < plane->n_paths; p++) {
        extend(&low, &high, is_x ? plane->path[p].x : plane->path[p].y, plane->path[p].n);
    }
    if (n > 1 && low == first && high == last) {
        am_axis_fix(axis, low, high); /* the surface fills the plot */
    } else {
        am_axis_fit(axis, low, high, false);
    }
}

static void fit_levels(map *m)
{
    const am_plane *plane = m->plane;
    double low = INFINITY, high = -INFINITY;
    extend(&low, &high, plane->value, plane->n_x * plane->n_y);
    m->has_levels = plane->n_x > 1 && plane->n_y > 1 && low < high;
    for (int i = 0; i < LEVELS && m->has_levels; i++) {
        const double share = (i + 0.5) / LEVELS;
        m->level[i] = low > 0 && high / low > log_from ? low * pow(high / low, share)
                                                       : low + share * (high - low);
    }
}

typedef struct corner {
    double x, y, value;
} corner;

static corner corner_of(const map *m, int i, int j)
{
    return (corner){am_axis_at(&m->x, m->plane->at_x[i]), am_axis_at(&m->y, m->plane->at_y[j]),
                    m->plane->value[j * m->plane->n_x + i]};
}

/* The part of a cell above the level, as a polygon: 0 to 8 corners. full: all of it. */
static int clip_cell(const corner c[4], double level, corner out[CORNERS], bool *full)
{
    int n = 0, above = 0;
    for (int k = 0; k < 4; k++) {
        const corner a = c[k], b = c[(k + 1) % 4];
        if (isnan(a.value)) {
            *full = false;
            return 0;
        }
        if (a.value >= level) {
            out[n++] = a;
            above++;
        }
        if ((a.value >= level) != (b.value >= level) && !isnan(b.value)) {
            const double t = (level - a.value) / (b.value - a.value);
            out[n++] = (corner){a.x + t * (b.x - a.x), a.y + t * (b.y - a.y), level};
        }
    }
    *full = above == 4;
    return n;
}

/* All that lies above a level: whole cells joined along their row, and the cut ones. */
static void fill_level(am_html *html, const map *m, double level)
{
    fprintf(html->out, "<path fill=\"var(--s3)\" fill-opacity=\"%g\" d=\"", opacity);
    for (int j = 0; j + 1 < m->plane->n_y; j++) {
        int open = -1; /* first of the whole cells that are not written yet */
        for (int i = 0; i < m->plane->n_x; i++) {
            corner polygon[CORNERS];
            bool full = false;
            int n = 0;
            if (i + 1 < m->plane->n_x) {
                const corner c[4] = {corner_of(m, i, j), corner_of(m, i + 1, j),
                                     corner_of(m, i + 1, j + 1), corner_of(m, i, j + 1)};
                n = clip_cell(c, level, polygon, &full);
            }
            if (full) {
                open = open < 0 ? i : open;
                continue;
            }
            if (open >= 0) {
                const corner a = corner_of(m, open, j), b = corner_of(m, i, j + 1);
                fprintf(html->out, "M%.1f %.1fH%.1fV%.1fH%.1fZ", a.x, a.y, b.x, b.y, a.x);
                open = -1;
            }
            for (int k = 0; k < n; k++) {
                fprintf(html->out, "%s%.1f %.1f", k == 0 ? "M" : "L", polygon[k].x, polygon[k].y);
            }
            am_html_raw(html, n > 0 ? "Z" : "");
        }
    }
    am_html_raw(html, "\"/>\n");
}

static void draw_line(am_html *html, const map *m, const am_path *path, const char *class,
                      const char *dash)
{
    fprintf(html->out, "<path class=\"%s\"%s d=\"", class, dash);
    for (int i = 0; i < path->n; i++) {
        fprintf(html->out, "%s%.1f %.1f", i == 0 ? "M" : "L", am_axis_at(&m->x, path->x[i]),
                am_axis_at(&m->y, path->y[i]));
    }
    am_html_raw(html, "\"/>\n");
}

/* The last mark of a line is larger, that of a single point the largest. */
static void draw_path(am_html *html, const map *m, int p)
{
    const am_path *path = &m->plane->path[p];
    char class[16];
    snprintf(class, sizeof class, "line l%d", p % AM_HTML_COLOURS);
    const bool is_line = path->n > 1 && !path->is_scatter;
    if (is_line) {
        draw_line(html, m, path, "halo", "");
        draw_line(html, m, path, class, am_plot_dash(p));
    }
    for (int i = 0; i < path->n; i++) {
        const double radius = path->n == 1       ? 4.5
                              : path->is_scatter ? 3
                              : i == path->n - 1 ? 3.6
                                                 : 2;
        fprintf(html->out,
                "<circle class=\"f%d\" stroke=\"var(--paper)\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"%.1f\"/>\n",
                p % AM_HTML_COLOURS, am_axis_at(&m->x, path->x[i]), am_axis_at(&m->y, path->y[i]),
                radius);
    }
}

/* What the shades mean: a box for each, its level below the edge between two. */
static void draw_strip(am_html *html, const map *m, double top)
{
    const double wide = (m->x.to - m->x.from) / (LEVELS + 1);
    for (int i = 1; i <= LEVELS; i++) {
        const double x = m->x.from + i * wide;
        char label[AM_AXIS_LABEL];
        fprintf(html->out,
                "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"9\" fill=\"var(--s3)\" "
                "fill-opacity=\"%.3f\"/>\n",
                x, top, wide, 1 - pow(1 - opacity, i));
        snprintf(label, sizeof label, "%.3g", m->level[i - 1]);
        am_svg_text(html, x, top + 21, "middle", "t", 0, (int)sizeof label, label);
    }
    am_svg_text(html, m->x.from, top + 8, "start", "t", 0, 8, "below");
}

void am_plot_plane(am_html *html, const am_plane *plane)
{
    map m = {.plane = plane};
    am_legend *names = am_new(plane->n_paths + 1, sizeof *names, "names of a figure");
    if (names == NULL) {
        return; /* the end of the page tells of no memory */
    }
    for (int p = 0; p < plane->n_paths; p++) {
        names[p] = (am_legend){plane->path[p].name,
                               plane->path[p].n > 1 && !plane->path[p].is_scatter ? AM_LEGEND_LINE
                                                                                  : AM_LEGEND_MARK};
    }
    fit_axis(&m.x, plane->at_x, plane->n_x, plane, true);
    fit_axis(&m.y, plane->at_y, plane->n_y, plane, false);
    fit_levels(&m);
    m.x.from = 24 + am_axis_width(&m.y);
    m.x.to = AM_SVG_WIDTH - 12;
    const double equal = (m.x.to - m.x.from) * (m.y.high - m.y.low) / (m.x.high - m.x.low);
    const double height = fmin(fmax(equal, LEAST_HEIGHT), MOST_HEIGHT);
    m.y.to = TOP;
    m.y.from = TOP + height;
    const double below = m.y.from + 38, strip = m.has_levels ? STRIP : 0;
    const double legend = am_plot_legend(NULL, names, plane->n_paths, m.x.from, 0);
    am_svg_begin(html, below + strip + legend + 4, plane->caption);
    for (int i = 0; i < LEVELS && m.has_levels; i++) {
        fill_level(html, &m, m.level[i]);
    }
    am_svg_axes(html, &m.x, &m.y, plane->x, plane->y);
    for (int p = plane->n_paths - 1; p >= 0; p--) { /* the first on top */
        draw_path(html, &m, p);
    }
    if (m.has_levels) {
        draw_strip(html, &m, below);
    }
    (void)am_plot_legend(html, names, plane->n_paths, m.x.from, below + strip);
    am_svg_caption(html);
    am_html_text(html, plane->caption);
    am_html_print(html, " Shades: %s.%s", plane->z,
                  height == equal ? "" : " The axes have scales of their own.");
    am_svg_end(html);
    free(names);
}
