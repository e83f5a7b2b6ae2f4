/* An HTML page in the making: text is escaped, numbers are written alike everywhere, colours are
 * the variables of its style sheet, so that it reads in light, in dark and in print. What is
 * written is well-formed XML, too. Out of memory is remembered and told by am_html_end.
 * Local functions. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_HTML_H
#define AM_JOBS_REPORT_HTML_H

#include <stdio.h>
#include "jobs/report/stats.h"

enum { AM_HTML_COLOURS = 8 }; /* classes s0 to s7 of series */

typedef struct am_html {
    FILE *out;
    char *text; /* owned; whole after am_html_end */
    size_t bytes;
    int headings; /* ids of sections */
} am_html;

/** Head and style sheet. Errors: AM_E_NOMEM. */
int am_html_begin(am_html *html, const char *title);
/** Foot; text and bytes are the page. Errors: AM_E_NOMEM. */
int am_html_end(am_html *html);
void am_html_free(am_html *html);

/** Text with <, >, &, quotes and what XML forbids escaped; NULL: nothing. */
void am_html_text(am_html *html, const char *text);
/** Markup of our own, as it is: only literals. */
void am_html_raw(am_html *html, const char *markup);
/** A formatted text, escaped. */
void am_html_print(am_html *html, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** The first `most` characters of a text, then an ellipsis if there is more; escaped. */
void am_html_short(am_html *html, const char *text, int most);
/** Characters of UTF-8 text. */
int am_html_width(const char *text);

void am_html_heading(am_html *html, const char *title);
/** A paragraph of formatted, escaped text. */
void am_html_paragraph(am_html *html, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** A claim, what was seen, and the verdict in front of it. */
void am_html_claim(am_html *html, am_verdict verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** A table: caption, then the heads of n columns; rows and cells follow, am_html_table_end. */
void am_html_table(am_html *html, const char *caption, const char *const *heads, int n);
void am_html_row(am_html *html, const char *name);
void am_html_cell(am_html *html, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Mean with `digits` decimals and below it the standard error. */
void am_html_stat(am_html *html, am_stat stat, int digits);
void am_html_row_end(am_html *html);
void am_html_table_end(am_html *html);

#endif
