/* Legends of figures: see plot.h. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include "jobs/report/plot.h"
#include "jobs/report/svg.h"

enum { LONGEST = 44, SAMPLE = 20, GAP = 14 };

const char *am_plot_dash(int i)
{
    static const char *const dash[] = {"", " stroke-dasharray=\"6 2\"", " stroke-dasharray=\"2 2\"",
                                       " stroke-dasharray=\"8 2 2 2\""};
    return dash[i / AM_HTML_COLOURS % 4];
}

static void draw(am_html *html, const am_legend *entry, int i, double x, double y)
{
    const int colour = i % AM_HTML_COLOURS;
    am_svg_text(html, x + SAMPLE, y + 3.5, "start", "", 0, LONGEST, entry->name);
    if (entry->kind == AM_LEGEND_LEVEL) {
        fprintf(html->out, "<path class=\"level\" d=\"M%.1f %.1fh%d\"/>\n", x, y, SAMPLE - 4);
        return;
    }
    if (entry->kind == AM_LEGEND_LINE) {
        fprintf(html->out, "<path class=\"line l%d\"%s d=\"M%.1f %.1fh%d\"/>\n", colour,
                am_plot_dash(i), x, y, SAMPLE - 4);
    }
    fprintf(html->out, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", colour,
            x + (SAMPLE - 4) / 2.0, y);
}

double am_plot_legend(am_html *html, const am_legend *entries, int n, double left, double top)
{
    double x = left, y = top;
    for (int i = 0; i < n; i++) {
        const double width =
            SAMPLE + GAP + fmin(am_svg_width(entries[i].name), LONGEST * am_svg_width("m"));
        if (x > left && x + width - GAP > AM_SVG_WIDTH) {
            x = left;
            y += AM_SVG_LINE;
        }
        if (html != NULL) {
            draw(html, &entries[i], i, x, y + AM_SVG_LINE / 2.0);
        }
        x += width;
    }
    return n > 0 ? y + AM_SVG_LINE - top : 0;
}
