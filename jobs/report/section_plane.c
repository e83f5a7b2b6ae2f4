/* Models in the plane of their principal components, over the loss in that plane.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/page.h"
#include "jobs/report/plot.h"
#include "mpi/arena.h"
#include "mpi/error.h"

const am_rule am_plane_rules[] = {{"plane", AM_RULE_OBJECT},
                                  {"plane.explained", AM_RULE_LIST},
                                  {"plane.explained[]", AM_RULE_NUMBER},
                                  {"plane.x", AM_RULE_ROWS},
                                  {"plane.x[]", AM_RULE_NUMBER},
                                  {"plane.y", AM_RULE_ROWS},
                                  {"plane.y[]", AM_RULE_NUMBER},
                                  {"plane.loss_nats", AM_RULE_ROWS},
                                  {"plane.loss_nats[]", AM_RULE_ROWS},
                                  {"plane.loss_nats[][]", AM_RULE_NUMBER},
                                  {"plane.points", AM_RULE_ROWS},
                                  {"plane.points[].name", AM_RULE_TEXT},
                                  {"plane.points[].kind", AM_RULE_NAME},
                                  {"plane.points[].method", AM_RULE_TEXT},
                                  {"plane.points[].epochs", AM_RULE_NUMBER},
                                  {"plane.points[].round", AM_RULE_NUMBER},
                                  {"plane.points[].x", AM_RULE_NUMBER},
                                  {"plane.points[].y", AM_RULE_NUMBER},
                                  {0}};

/* Published coordinates: ten rounds go 11.9 times as far from the base as task arithmetic, in a
 * line (way over path 1.000) with a last step of 0.44 of the first. */
static const double published_far = 11.9, published_line = 1.0, published_step = 0.44;
static const double least_line = 0.9; /* way over path of what is called straight */

enum { NAME = 96, MOST_PATHS = 72 };

/* ---- paths: points of one kind and method, in the order of their step ---- */

typedef struct paths {
    int n, points; /* points: room in each path */
    char (*name)[NAME];
    am_path *path;
    double *x, *y, *step; /* [MOST_PATHS][points] */
} paths;

static int paths_make(int points, paths *out)
{
    *out = (paths){.points = points};
    const int64_t n = (int64_t)MOST_PATHS * points;
    out->name = am_new(MOST_PATHS, sizeof *out->name, "paths of a figure");
    out->path = am_new(MOST_PATHS, sizeof *out->path, "paths of a figure");
    out->x = am_new(n, sizeof *out->x, "paths of a figure");
    out->y = am_new(n, sizeof *out->y, "paths of a figure");
    out->step = am_new(n, sizeof *out->step, "paths of a figure");
    return out->name && out->path && out->x && out->y && out->step ? 0 : AM_E_NOMEM;
}

static void paths_free(paths *p)
{
    free(p->name);
    free(p->path);
    free(p->x);
    free(p->y);
    free(p->step);
}

/* Individual models are one scatter; all else has a path for each kind, method and, of rounds,
 * epochs a round. */
static double path_of(const json_t *point, char name[NAME])
{
    const char *kind = am_member_text(point, "kind"), *method = am_member_text(point, "method");
    const double round = am_member_number(point, "round");
    const double epochs = am_member_number(point, "epochs");
    if (strcmp(kind, "individual") == 0) {
        snprintf(name, NAME, "individual models");
        return 0;
    }
    int at = snprintf(name, NAME, "%.30s%s%.40s",
                      strcmp(kind, "one_shot") == 0    ? "one-shot"
                      : strcmp(kind, "iterative") == 0 ? "rounds"
                                                       : kind,
                      method != NULL ? " " : "", method != NULL ? method : "");
    if (strcmp(kind, "iterative") == 0) {
        if (round > 0 && epochs > round) {
            snprintf(name + at, (size_t)(NAME - at), ", %.6g epochs each", epochs / round);
        }
        return round;
    }
    return isnan(epochs) ? 0 : epochs;
}

static am_path *path_named(paths *p, const char *name)
{
    for (int i = 0; i < p->n; i++) {
        if (strcmp(p->name[i], name) == 0) {
            return &p->path[i];
        }
    }
    if (p->n == MOST_PATHS) {
        return NULL;
    }
    snprintf(p->name[p->n], NAME, "%s", name);
    p->path[p->n] = (am_path){.name = p->name[p->n],
                              .x = p->x + (int64_t)p->n * p->points,
                              .y = p->y + (int64_t)p->n * p->points};
    return &p->path[p->n++];
}

/* Into its place by step; equal steps keep their order. */
static void insert(paths *p, am_path *path, double step, double x, double y)
{
    const int64_t first = (path - p->path) * (int64_t)p->points;
    int at = path->n++;
    while (at > 0 && p->step[first + at - 1] > step) {
        p->step[first + at] = p->step[first + at - 1];
        p->x[first + at] = p->x[first + at - 1];
        p->y[first + at] = p->y[first + at - 1];
        at--;
    }
    p->step[first + at] = step;
    p->x[first + at] = x;
    p->y[first + at] = y;
}

static int paths_read(const json_t *plane, paths *out)
{
    const json_t *points = json_object_get(plane, "points");
    const int rc = paths_make((int)json_array_size(points) + 1, out);
    for (size_t i = 0; rc == 0 && i < json_array_size(points); i++) {
        const json_t *point = json_array_get(points, i);
        const double x = am_member_number(point, "x"), y = am_member_number(point, "y");
        char name[NAME];
        const double step = path_of(point, name);
        am_path *path = isfinite(x) && isfinite(y) ? path_named(out, name) : NULL;
        if (path != NULL) {
            path->is_scatter = am_is_text(point, "kind", "individual");
            insert(out, path, step, x, y);
        }
    }
    return rc;
}

static const am_path *find(const paths *p, const char *name)
{
    for (int i = 0; i < p->n; i++) {
        if (strcmp(p->name[i], name) == 0) {
            return &p->path[i];
        }
    }
    return NULL;
}

/* ---- what is measured of them, by run ---- */

/* Of a merge of one_shot, by the name that the recipe gives it, or its method's. */
static bool drops_at_random(const json_t *recipe, const char *name)
{
    const json_t *methods = json_object_get(json_object_get(recipe, "one_shot"), "methods");
    for (size_t i = 0; i < json_array_size(methods); i++) {
        const json_t *method = json_array_get(methods, i);
        const char *own = am_member_text(method, "merge_method");
        if (am_is_text(method, "name", name) && own != NULL) {
            name = own;
            break;
        }
    }
    return strstr(name, "dare") != NULL || strstr(name, "della") != NULL;
}

/* Rounds 1 to n without a hole, begun at the base. */
static bool is_whole(const json_t *recipe, const paths *p, int i)
{
    bool whole = !am_is_text(json_object_get(recipe, "iterate"), "start", "one_shot");
    for (int k = 0; k < p->path[i].n; k++) {
        whole = whole && p->step[(int64_t)i * p->points + k] == k + 1;
    }
    return whole;
}

/* Far: end of the rounds over the farthest one-shot merge, both from the base; line: way over path;
 * step: last over first, both where all rounds are there. Series are the paths of rounds. */
typedef struct geometry {
    am_grid far, line, step;
} geometry;

static void measure_path(const am_path *base, const am_path *path, double merges, bool whole,
                         int run, geometry *out)
{
    double length = 0, first = NAN, last = NAN, x = base->x[0], y = base->y[0];
    for (int i = 0; i < path->n; i++) {
        last = hypot(path->x[i] - x, path->y[i] - y);
        if (last > 0) {
            first = isnan(first) ? last : first;
            length += last;
        }
        x = path->x[i];
        y = path->y[i];
    }
    const double way = hypot(x - base->x[0], y - base->y[0]);
    am_grid_put(&out->far, path->name, 0, run, merges > 0 ? way / merges : NAN);
    am_grid_put(&out->line, path->name, 0, run, whole && length > 0 ? way / length : NAN);
    am_grid_put(&out->step, path->name, 0, run, whole && path->n > 1 ? last / first : NAN);
}

static void measure(const paths *p, const json_t *recipe, int run, geometry *out)
{
    const am_path *base = find(p, "base");
    double merges = NAN;
    for (int i = 0; base != NULL && i < p->n; i++) {
        const am_path *path = &p->path[i];
        if (strncmp(path->name, "one-shot ", strlen("one-shot ")) == 0 &&
            !drops_at_random(recipe, path->name + strlen("one-shot "))) {
            for (int k = 0; k < path->n; k++) {
                merges = fmax(merges, hypot(path->x[k] - base->x[0], path->y[k] - base->y[0]));
            }
        }
    }
    for (int i = 0; base != NULL && i < p->n; i++) {
        if (strncmp(p->path[i].name, "rounds", strlen("rounds")) == 0) {
            measure_path(base, &p->path[i], merges, is_whole(recipe, p, i), run, out);
        }
    }
}

static void write_claims(const geometry *g, am_html *html)
{
    char text[AM_STAT_TEXT];
    for (int s = 0; s < g->far.n; s++) {
        const char *name = g->far.series[s].name;
        am_html_claim(html, am_verdict_above(am_grid_stat(&g->far, name, 0), 1),
                      "One-shot merges stay near the base, iterative merging travels. %s: the last "
                      "round is %s times as far from the base, in the plane, as the farthest "
                      "one-shot merge that drops nothing at random; the paper: %.1f times (rule: "
                      "above 1).",
                      name, am_stat_text(text, am_grid_stat(&g->far, name, 0), 2), published_far);
    }
    for (int s = 0; s < g->line.n; s++) {
        const char *name = g->line.series[s].name;
        const am_stat line = am_grid_stat(&g->line, name, 0);
        am_html_claim(html, am_verdict_above(line, least_line),
                      "The way is nearly straight. %s: from the base to the end is %s of the "
                      "length of the path in the plane; the paper: %.3f (rule: above %g).",
                      name, am_stat_text(text, line, 3), published_line, least_line);
    }
    for (int s = 0; s < g->step.n; s++) {
        const char *name = g->step.series[s].name;
        const am_stat step = am_grid_stat(&g->step, name, 0);
        am_html_claim(html, am_verdict_within(step, 1),
                      "Steps shrink. %s: the last is %s of the first in the plane; the paper: "
                      "%.2f (rule: below 1).",
                      name, am_stat_text(text, step, 3), published_step);
    }
}

/* ---- figure ---- */

static int read_axis(const json_t *list, double **out)
{
    const size_t n = json_array_size(list);
    *out = am_new((int64_t)n + 1, sizeof **out, "the plane");
    for (size_t i = 0; *out != NULL && i < n; i++) {
        (*out)[i] = am_item_number(list, i);
    }
    return *out != NULL ? 0 : AM_E_NOMEM;
}

static int plot(const am_report *report, int run, const paths *p, am_html *html)
{
    const json_t *plane = json_object_get(report->run[run].result, "plane");
    const json_t *x = json_object_get(plane, "x"), *y = json_object_get(plane, "y");
    const json_t *rows = json_object_get(plane, "loss_nats");
    const json_t *explained = json_object_get(plane, "explained");
    const int n_x = (int)json_array_size(x), n_y = (int)json_array_size(y);
    double *at_x = NULL, *at_y = NULL;
    double *value = am_new((int64_t)n_x * n_y + 1, sizeof *value, "the plane");
    int rc = value != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(read_axis(x, &at_x));
    AM_KEEP(read_axis(y, &at_y));
    for (int i = 0; rc == 0 && i < n_x * n_y; i++) {
        value[i] = am_item_number(json_array_get(rows, (size_t)(i / n_x)), (size_t)(i % n_x));
    }
    if (rc == 0) {
        char caption[200], x_title[64], y_title[64];
        snprintf(caption, sizeof caption,
                 "Models in the plane of their two principal components, seed %lld; a line's last "
                 "mark is the larger one.",
                 (long long)report->run[run].seed);
        snprintf(x_title, sizeof x_title, "component 1 (%.1f %% of the variance)",
                 100 * am_item_number(explained, 0));
        snprintf(y_title, sizeof y_title, "component 2 (%.1f %%)",
                 100 * am_item_number(explained, 1));
        am_plot_plane(html, &(am_plane){.caption = caption,
                                        .x = x_title,
                                        .y = y_title,
                                        .z = "mean validation loss, nats",
                                        .n_x = n_x,
                                        .n_y = n_y,
                                        .at_x = at_x,
                                        .at_y = at_y,
                                        .value = value,
                                        .n_paths = p->n,
                                        .path = p->path});
    }
    free(at_x);
    free(at_y);
    free(value);
    return rc;
}

/* Shares of variance, and how far the plane's loss is from the models' own. */
static void write_fit(const am_report *report, am_html *html)
{
    am_grid grid = {.runs = report->n};
    for (int r = 0; r < report->n; r++) {
        const json_t *plane = json_object_get(report->run[r].result, "plane");
        const json_t *explained = json_object_get(plane, "explained");
        const json_t *points = json_object_get(plane, "points");
        double most = NAN;
        for (size_t i = 0; i < json_array_size(points); i++) {
            const json_t *point = json_array_get(points, i);
            most = fmax(most, fabs(am_member_number(point, "loss_nats") -
                                   am_member_number(point, "plane_loss_nats")));
        }
        am_grid_put(&grid, "", 0, r,
                    100 * (am_item_number(explained, 0) + am_item_number(explained, 1)));
        am_grid_put(&grid, "", 1, r, most);
    }
    char share[AM_STAT_TEXT], loss[AM_STAT_TEXT];
    am_html_paragraph(html,
                      "The two components hold %s %% of the variance of the models. A model's own "
                      "loss differs from the loss at its place in the plane by up to %s nats: the "
                      "surface is a guide, not the models' loss.",
                      am_stat_text(share, am_grid_stat(&grid, "", 0), 1),
                      am_stat_text(loss, am_grid_stat(&grid, "", 1), 3));
    am_grid_free(&grid);
}

int am_section_plane(const am_report *report, am_html *html)
{
    enum { MOST_FIGURES = 2 }; /* every seed has a plane of its own */
    geometry g = {
        .far = {.runs = report->n}, .line = {.runs = report->n}, .step = {.runs = report->n}};
    int rc = 0;
    if (!json_is_object(am_report_member(report, "plane"))) {
        return 0;
    }
    am_html_heading(html, "Models in a plane");
    for (int pass = 0; pass < 2 && rc == 0; pass++) { /* claims are told before the figures */
        if (pass == 1) {
            write_claims(&g, html);
            write_fit(report, html);
            am_html_raw(html, "<div class=\"plots\">\n");
        }
        for (int r = 0; r < (pass == 0 || report->n < MOST_FIGURES ? report->n : MOST_FIGURES);
             r++) {
            paths p = {0};
            AM_KEEP(paths_read(json_object_get(report->run[r].result, "plane"), &p));
            if (rc == 0 && pass == 0) {
                measure(&p, report->run[r].recipe, r, &g);
            } else if (rc == 0) {
                rc = plot(report, r, &p, html);
            }
            paths_free(&p);
        }
    }
    am_html_raw(html, "</div>\n");
    AM_KEEP(am_grid_finish(&g.far));
    AM_KEEP(am_grid_finish(&g.line));
    AM_KEEP(am_grid_finish(&g.step));
    am_grid_free(&g.far);
    am_grid_free(&g.line);
    am_grid_free(&g.step);
    return rc;
}
