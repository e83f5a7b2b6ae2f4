/* HTML pages: see html.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/html.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/jsonw.h"

/* Light on screens that ask for nothing and on paper, dark where the reader's system is dark. */
static const char style[] =
    ":root{--paper:#fff;--ink:#1b1f24;--soft:#57606a;--rule:#d0d7de;--tint:#f6f8fa;"
    "--s0:#0969b5;--s1:#c4511b;--s2:#1a7f4b;--s3:#8250b5;--s4:#9a6a00;--s5:#b3327a;--s6:#0f7f8c;"
    "--s7:#57606a;--plus:#0969b5;--minus:#c4511b;--good:#1a7f37;--bad:#c0322b;--open:#9a6700}\n"
    "@media screen and (prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;"
    "--soft:#9aa4af;--rule:#363d46;--tint:#161b22;--s0:#58a6ff;--s1:#ff9b5e;--s2:#4fc77b;"
    "--s3:#c297ff;--s4:#e3b341;--s5:#ff7eb6;--s6:#4fd0dd;--s7:#9aa4af;--plus:#58a6ff;"
    "--minus:#ff9b5e;--good:#4fc77b;--bad:#ff7b72;--open:#e3b341}}\n"
    "html{background:var(--paper);color:var(--ink)}\n"
    "body{font:15px/1.5 system-ui,\"Segoe UI\",Helvetica,Arial,sans-serif;max-width:1060px;"
    "margin:2em auto;padding:0 1em}\n"
    "h1{font-size:1.7em;line-height:1.2;margin:0 0 .4em}\n"
    "h2{font-size:1.2em;border-bottom:1px solid var(--rule);margin:2em 0 .6em;"
    "padding-bottom:.2em;break-after:avoid}\n"
    "p{margin:.6em 0;max-width:75em}\n"
    ".soft,figcaption,caption{color:var(--soft);font-size:.9em}\n"
    ".claim{border-left:4px solid var(--rule);padding:.1em 0 .1em .8em;break-inside:avoid}\n"
    ".holds{border-color:var(--good)}.fails{border-color:var(--bad)}"
    ".undecided,.untested{border-color:var(--open)}\n"
    ".holds strong{color:var(--good)}.fails strong{color:var(--bad)}"
    ".undecided strong,.untested strong{color:var(--open)}\n"
    ".wide{overflow-x:auto;margin:1em 0}\n"
    "table{border-collapse:collapse;font-size:.86em;font-variant-numeric:tabular-nums}\n"
    "caption{text-align:left;padding-bottom:.3em;font-size:1em;white-space:nowrap}\n"
    "th,td{padding:.22em .6em;text-align:right;border-bottom:1px solid var(--rule);"
    "vertical-align:top}\n"
    "th{font-weight:600}thead th{background:var(--tint);vertical-align:bottom}\n"
    "th:first-child{text-align:left}tr{break-inside:avoid}thead{display:table-header-group}\n"
    "td small{color:var(--soft);display:block;line-height:1.1}\n"
    ".left td{text-align:left;overflow-wrap:anywhere}\n"
    ".plots{display:flex;flex-wrap:wrap;gap:1em 1.5em}\n"
    "figure{margin:.6em 0;flex:1 1 440px;max-width:640px;break-inside:avoid}\n"
    "figcaption{line-height:1.35;margin-top:.2em}\n"
    "svg{width:100%;height:auto;display:block;font:11px system-ui,\"Segoe UI\",Helvetica,Arial,"
    "sans-serif}\n"
    "svg text{fill:var(--ink)}svg .t{fill:var(--soft)}svg .v{fill:var(--paper)}\n"
    ".axis{stroke:var(--soft);stroke-width:1;fill:none}"
    ".grid{stroke:var(--rule);stroke-width:.6;fill:none}\n"
    ".line{fill:none;stroke-width:1.7;stroke-linejoin:round}.bar{fill:none;stroke-width:1.1}\n"
    ".band{stroke:none;fill-opacity:.16}.level{fill:none;stroke:var(--soft);stroke-width:1.4;"
    "stroke-dasharray:5 3}\n"
    ".contour{fill:none;stroke:var(--ink);stroke-width:.5;stroke-opacity:.35}\n"
    ".halo{fill:none;stroke:var(--paper);stroke-width:4;stroke-linejoin:round}\n"
    "pre{font-size:.8em;background:var(--tint);padding:.8em;overflow-x:auto;"
    "white-space:pre-wrap;overflow-wrap:anywhere}\n"
    "@media print{body{margin:0;max-width:none;font-size:10pt}.wide{overflow:visible}"
    ".plots{display:block}figure{display:inline-block;width:48%;margin-right:1%;"
    "vertical-align:top}"
    "a{color:inherit}}\n"
    "@page{margin:15mm}\n";

/* Classes of series: stroke and fill of a colour. */
static void write_colours(am_html *html)
{
    for (int i = 0; i < AM_HTML_COLOURS; i++) {
        fprintf(html->out, ".l%d{stroke:var(--s%d)}.f%d{fill:var(--s%d)}\n", i, i, i, i);
    }
}

int am_html_begin(am_html *html, const char *title)
{
    *html = (am_html){0};
    html->out = open_memstream(&html->text, &html->bytes);
    if (html->out == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for the page");
    }
    am_html_raw(html, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n"
                      "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>");
    am_html_text(html, title);
    am_html_raw(html, "</title>\n<style>\n");
    am_html_raw(html, style);
    write_colours(html);
    am_html_raw(html, "</style>\n</head>\n<body>\n<h1>");
    am_html_text(html, title);
    am_html_raw(html, "</h1>\n");
    return 0;
}

int am_html_end(am_html *html)
{
    am_html_raw(html, "</body>\n</html>\n");
    const bool is_whole = ferror(html->out) == 0;
    const bool is_closed = fclose(html->out) == 0;
    html->out = NULL;
    return is_whole && is_closed && !html->failed
               ? 0
               : am_fail(AM_E_NOMEM, "out of memory for the page");
}

void am_html_free(am_html *html)
{
    if (html->out != NULL) {
        fclose(html->out);
    }
    free(html->text);
    *html = (am_html){0};
}

/* One character; bytes: those that it takes. */
static void put_character(FILE *out, const char *text, int bytes)
{
    const unsigned char c = (unsigned char)text[0];
    const char *escaped = c == '&'    ? "&amp;"
                          : c == '<'  ? "&lt;"
                          : c == '>'  ? "&gt;"
                          : c == '"'  ? "&quot;"
                          : c == '\'' ? "&#39;"
                                      : NULL;
    const bool is_allowed = bytes > 0 && (c >= 0x20 || c == '\n' || c == '\t') && c != 0x7f &&
                            strncmp(text, "\xef\xbf\xbe", 3) != 0 &&
                            strncmp(text, "\xef\xbf\xbf", 3) != 0;
    if (escaped != NULL) {
        fputs(escaped, out);
    } else if (is_allowed) {
        fwrite(text, 1, (size_t)bytes, out);
    } else {
        fputs("\xef\xbf\xbd", out);
    }
}

void am_html_short(am_html *html, const char *text, int most)
{
    const bool is_cut = am_html_width(text) > most;
    for (int n = 0; *text != '\0' && n < (is_cut ? most - 1 : most); n++) {
        const int bytes = am_utf8_step(text);
        put_character(html->out, text, bytes);
        text += bytes > 0 ? bytes : 1;
    }
    if (is_cut) {
        fputs("\u2026", html->out);
    }
}

void am_html_text(am_html *html, const char *text)
{
    while (text != NULL && *text != '\0') {
        const int bytes = am_utf8_step(text);
        put_character(html->out, text, bytes);
        text += bytes > 0 ? bytes : 1;
    }
}

int am_html_width(const char *text)
{
    int n = 0;
    while (*text != '\0') {
        const int bytes = am_utf8_step(text);
        text += bytes > 0 ? bytes : 1;
        n++;
    }
    return n;
}

void am_html_raw(am_html *html, const char *markup)
{
    fputs(markup, html->out);
}

static void print_escaped(am_html *html, const char *format, va_list arguments)
{
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0) {
        html->failed = true;
        return;
    }
    am_html_text(html, text);
    free(text);
}

/* Escape what is formatted in place of FORMAT and the arguments after it. */
#define PRINT(html, format)                                                                        \
    do {                                                                                           \
        va_list arguments;                                                                         \
        va_start(arguments, format);                                                               \
        print_escaped(html, format, arguments);                                                    \
        va_end(arguments);                                                                         \
    } while (0)

void am_html_print(am_html *html, const char *format, ...)
{
    PRINT(html, format);
}

void am_html_heading(am_html *html, const char *title)
{
    fprintf(html->out, "<h2 id=\"s%d\">", ++html->headings);
    am_html_text(html, title);
    am_html_raw(html, "</h2>\n");
}

void am_html_paragraph(am_html *html, const char *format, ...)
{
    am_html_raw(html, "<p>");
    PRINT(html, format);
    am_html_raw(html, "</p>\n");
}

void am_html_claim(am_html *html, am_verdict verdict, const char *format, ...)
{
    static const struct {
        const char *name, *text;
    } of[] = {[AM_HOLDS] = {"holds", "The claim holds here."},
              [AM_FAILS] = {"fails", "The claim does not hold here."},
              [AM_UNDECIDED] = {"undecided", "Not decided: within two standard errors."},
              [AM_UNTESTED] = {"untested", "Not tested: fewer than two seeds have it."}};
    fprintf(html->out, "<p class=\"claim %s\"><strong>%s</strong> ", of[verdict].name,
            of[verdict].text);
    PRINT(html, format);
    am_html_raw(html, "</p>\n");
}

/* ---- tables ---- */

void am_html_table(am_html *html, const char *caption, const char *const *heads, int n)
{
    am_html_raw(html, "<div class=\"wide\"><table>\n<caption>");
    am_html_text(html, caption);
    am_html_raw(html, "</caption>\n<thead><tr>");
    for (int i = 0; i < n; i++) {
        am_html_raw(html, "<th scope=\"col\">");
        am_html_text(html, heads[i]);
        am_html_raw(html, "</th>");
    }
    am_html_raw(html, "</tr></thead>\n<tbody>\n");
}

void am_html_row(am_html *html, const char *name)
{
    am_html_raw(html, "<tr><th scope=\"row\">");
    am_html_text(html, name);
    am_html_raw(html, "</th>");
}

void am_html_cell(am_html *html, const char *format, ...)
{
    am_html_raw(html, "<td>");
    PRINT(html, format);
    am_html_raw(html, "</td>");
}

void am_html_stat(am_html *html, am_stat stat, int digits)
{
    if (stat.n == 0) {
        am_html_raw(html, "<td>\u2013</td>");
        return;
    }
    fprintf(html->out, "<td>%.*f", digits, stat.mean);
    if (!isnan(stat.error)) {
        fprintf(html->out, "<small>\u00b1 %.*f</small>", digits, stat.error);
    }
    am_html_raw(html, "</td>");
}

void am_html_row_end(am_html *html)
{
    am_html_raw(html, "</tr>\n");
}

void am_html_table_end(am_html *html)
{
    am_html_raw(html, "</tbody></table></div>\n");
}
