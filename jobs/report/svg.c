/* Inline SVG figures: see svg.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/svg.h"

#include <math.h>
#include <stddef.h>

static const double character = 6.6; /* width of a character of the font of figures, 11 px */
static const double slant = 38;      /* degrees of names that do not fit side by side */
enum { NAME_LENGTH = 22 };

double am_svg_width(const char *text)
{
    return character * am_html_width(text);
}

void am_svg_begin(am_html *html, double height, const char *label)
{
    fprintf(html->out,
            "<figure><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" "
            "role=\"img\" aria-label=\"",
            AM_SVG_WIDTH, height);
    am_html_text(html, label);
    am_html_raw(html, "\">\n");
}

void am_svg_caption(am_html *html)
{
    am_html_raw(html, "</svg><figcaption>");
}

void am_svg_end(am_html *html)
{
    am_html_raw(html, "</figcaption></figure>\n");
}

void am_svg_text(am_html *html, double x, double y, const char *anchor, const char *class,
                 double turn, int most, const char *text)
{
    fprintf(html->out, "<text x=\"%.1f\" y=\"%.1f\"", x, y);
    if (anchor[0] != 's') {
        fprintf(html->out, " text-anchor=\"%s\"", anchor);
    }
    if (class[0] != '\0') {
        fprintf(html->out, " class=\"%s\"", class);
    }
    if (turn != 0) {
        fprintf(html->out, " transform=\"rotate(%g %.1f %.1f)\"", turn, x, y);
    }
    am_html_raw(html, ">");
    am_html_short(html, text, most);
    am_html_raw(html, "</text>\n");
}

/* Lines across the plot at the ticks of one axis, as one path. */
static void grid_lines(am_html *html, const am_axis *x, const am_axis *y)
{
    am_html_raw(html, "<path class=\"grid\" d=\"");
    for (int i = 0; i < x->n; i++) {
        fprintf(html->out, "M%.1f %.1fV%.1f", am_axis_at(x, x->tick[i]), y->from, y->to);
    }
    for (int i = 0; i < y->n; i++) {
        fprintf(html->out, "M%.1f %.1fH%.1f", x->from, am_axis_at(y, y->tick[i]), x->to);
    }
    am_html_raw(html, "\"/>\n");
}

void am_svg_axes(am_html *html, const am_axis *x, const am_axis *y, const char *x_title,
                 const char *y_title)
{
    enum { LONG = 80 };
    char label[AM_AXIS_LABEL];
    double right = -1e9; /* end of the last label: the next one must not touch it */
    grid_lines(html, x, y);
    fprintf(html->out, "<path class=\"axis\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", x->from, y->to,
            y->from, x->to);
    for (int i = 0; i < x->n; i++) {
        am_axis_label(x, x->tick[i], label);
        const double at = am_axis_at(x, x->tick[i]), half = am_svg_width(label) / 2;
        if (at - half > right + 2) {
            am_svg_text(html, at, y->from + 14, "middle", "t", 0, LONG, label);
            right = at + half;
        }
    }
    for (int i = 0; i < y->n; i++) {
        am_axis_label(y, y->tick[i], label);
        am_svg_text(html, x->from - 5, am_axis_at(y, y->tick[i]) + 3.5, "end", "t", 0, LONG, label);
    }
    const double middle = (y->from + y->to) / 2;
    am_svg_text(html, (x->from + x->to) / 2, y->from + 30, "middle", "", 0, LONG, x_title);
    am_svg_text(html, 11, middle, "middle", "", -90, LONG, y_title);
}

double am_svg_names(am_html *html, const am_axis *x, double y, const char *const *names, int n)
{
    const double slot = fabs(am_axis_at(x, 1) - am_axis_at(x, 0));
    double widest = 0;
    for (int i = 0; i < n; i++) {
        widest = fmax(widest, fmin(am_svg_width(names[i]), character * NAME_LENGTH));
    }
    const bool is_slanted = widest > slot - 4;
    for (int i = 0; html != NULL && i < n; i++) {
        const double at = am_axis_at(x, i);
        if (is_slanted) {
            am_svg_text(html, at + 4, y + 11, "end", "t", -slant, NAME_LENGTH, names[i]);
        } else {
            am_svg_text(html, at, y + 14, "middle", "t", 0, NAME_LENGTH, names[i]);
        }
    }
    return is_slanted ? widest * sin(slant * acos(-1) / 180) + 14 : AM_SVG_LINE;
}
