/* Matrices in colours: see plot.h. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "jobs/report/plot.h"
#include "jobs/report/svg.h"

enum { NAME = 16, TOP = 4 };

/* Colour by opacity of one of two hues over the paper, so that it reads in light and dark; the
 * number in the cell changes its colour where the cell is full. */
static void cell(am_html *html, const am_heat *heat, double x, double y, double wide, double high,
                 double value, double most)
{
    const double share = fmin(1, fabs(value) / most);
    fprintf(html->out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"var(--%s)\" "
            "fill-opacity=\"%.3f\"/>\n",
            x, y, wide - 1, high - 1, value < 0 ? "minus" : "plus", share);
    char text[32];
    snprintf(text, sizeof text, "%.*f", heat->digits, fabs(value));
    const bool is_zero = strspn(text, "0.") == strlen(text);
    snprintf(text, sizeof text, "%s%.*f", value < 0 && !is_zero ? "\u2212" : "", heat->digits,
             fabs(value));
    if (am_svg_width(text) <= wide + 6) {
        am_svg_text(html, x + (wide - 1) / 2, y + high / 2 + 3.5, "middle", share > 0.6 ? "v" : "",
                    0, sizeof text, text);
    }
}

void am_plot_heat(am_html *html, const am_heat *heat)
{
    double most = heat->most, left = 0;
    for (int r = 0; r < heat->n_rows; r++) {
        left = fmax(left, fmin(am_svg_width(heat->rows[r]), NAME * am_svg_width("m")));
        for (int c = 0; heat->most == 0 && c < heat->n_columns; c++) {
            const double value = fabs(heat->value[r * heat->n_columns + c]);
            most = isnan(value) ? most : fmax(most, value);
        }
    }
    left += 8;
    const double wide = (AM_SVG_WIDTH - 4 - left) / heat->n_columns;
    const double high = fmin(fmax(wide * 0.62, 15), 30);
    const double bottom = TOP + high * heat->n_rows;
    am_axis x = {.low = -0.5, .high = heat->n_columns - 0.5, .from = left, .to = AM_SVG_WIDTH - 4};
    am_svg_begin(html, bottom + am_svg_names(NULL, &x, 0, heat->columns, heat->n_columns) + 4,
                 heat->caption);
    for (int r = 0; r < heat->n_rows; r++) {
        const double y = TOP + r * high;
        am_svg_text(html, left - 6, y + high / 2 + 3.5, "end", "t", 0, NAME, heat->rows[r]);
        for (int c = 0; c < heat->n_columns; c++) {
            const double value = heat->value[r * heat->n_columns + c];
            if (!isnan(value)) {
                cell(html, heat, left + c * wide, y, wide, high, value, most > 0 ? most : 1);
            }
        }
    }
    (void)am_svg_names(html, &x, bottom, heat->columns, heat->n_columns);
    am_svg_caption(html);
    am_html_text(html, heat->caption);
    am_svg_end(html);
}
