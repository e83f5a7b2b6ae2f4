/* Shares and cosines of gradients by epoch of finetuning. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include "jobs/report/page.h"
#include "jobs/report/plot.h"
#include "mpi/error.h"

const am_rule am_gradients_rules[] = {{"gradients", AM_RULE_LIST},
                                      {"gradients[].task", AM_RULE_NAME},
                                      {"gradients[].epoch", AM_RULE_NUMBER},
                                      {"gradients[].gradient", AM_RULE_NUMBER},
                                      {"gradients[].share", AM_RULE_NUMBER},
                                      {"gradients[].accumulated_share", AM_RULE_NUMBER},
                                      {"gradients[].cosine_first_gradient", AM_RULE_NUMBER},
                                      {"gradients[].cosine_first_accumulated", AM_RULE_NUMBER},
                                      {"gradients[].cosine_accumulated", AM_RULE_NUMBER},
                                      {"gradients[].cosine_task_vector", AM_RULE_NUMBER},
                                      {0}};

static const double least_share = 0.3, most_share = 0.7, least_cosine = 0.8;
enum { EARLY = 5 }; /* epochs that are claimed to keep the direction of the first */

/* A member by task over the epochs. */
static void read_member(const am_report *report, const char *key, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *list = json_object_get(report->run[r].result, "gradients");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *epoch = json_array_get(list, i);
            am_grid_put(grid, am_member_text(epoch, "task"), am_member_number(epoch, "epoch"), r,
                        am_member_number(epoch, key));
        }
    }
}

/* The smallest of epochs 2 to EARLY, by run. */
static am_stat least_early(const am_grid *grid, const char *task)
{
    am_grid least = {.runs = grid->runs};
    for (int epoch = 2; epoch <= EARLY; epoch++) {
        const double *values = am_grid_at(grid, task, epoch);
        for (int r = 0; values != NULL && r < grid->runs; r++) {
            const double *before = am_grid_at(&least, "", 0);
            am_grid_put(&least, "", 0, r, fmin(before != NULL ? before[r] : NAN, values[r]));
        }
    }
    const am_stat stat = am_grid_stat(&least, "", 0);
    am_grid_free(&least);
    return stat;
}

typedef struct tally {
    int holds, fails, n;
    am_verdict all;
    double low, high; /* of the means */
} tally;

static void count(tally *t, am_verdict verdict, double mean)
{
    t->all = t->n == 0 ? verdict : am_verdict_and(t->all, verdict);
    t->holds += verdict == AM_HOLDS;
    t->fails += verdict == AM_FAILS;
    t->low = t->n == 0 ? mean : fmin(t->low, mean);
    t->high = t->n == 0 ? mean : fmax(t->high, mean);
    t->n++;
}

static void claim_share(const am_grid *shares, const char *of, am_html *html)
{
    tally t = {0};
    for (int s = 0; s < shares->n; s++) {
        const am_stat share = am_grid_stat(shares, shares->series[s].name, 1);
        if (share.n > 0) {
            count(&t,
                  am_verdict_and(am_verdict_above(share, least_share),
                                 am_verdict_within(share, most_share)),
                  share.mean);
        }
    }
    if (t.n > 0) {
        am_html_claim(html, t.all,
                      "The first epoch carries %g to %g of the sum of the gradient norms of all "
                      "epochs, of every task (%s). Here %.3f to %.3f over %d tasks: inside for %d, "
                      "outside for %d beyond two standard errors. The paper's own data: inside for "
                      "4 of 7 tasks, 0.124 to 0.681.",
                      least_share, most_share, of, t.low, t.high, t.n, t.holds, t.fails);
    }
}

static void claim_cosine(const am_grid *cosines, const char *of, am_html *html)
{
    tally t = {0};
    for (int s = 0; s < cosines->n; s++) {
        const am_stat least = least_early(cosines, cosines->series[s].name);
        if (least.n > 0) {
            count(&t, am_verdict_above(least, least_cosine), least.mean);
        }
    }
    if (t.n > 0) {
        am_html_claim(html, t.all,
                      "Gradients of epochs 2 to %d keep a cosine above %g with that of the first, "
                      "of every task (%s). Here the smallest is %.3f to %.3f over %d tasks: above "
                      "for %d, below for %d beyond two standard errors.",
                      EARLY, least_cosine, of, t.low, t.high, t.n, t.holds, t.fails);
    }
}

static void write_table(const am_grid *grids, am_html *html)
{
    static const char *const heads[] = {"task",
                                        "share, accumulated",
                                        "share, full batch",
                                        "least cosine, accumulated",
                                        "least cosine, full batch",
                                        "task vector, 1 epoch",
                                        "task vector, last"};
    am_html_table(html,
                  "First epoch's share; least cosine of epochs 2 to 5 with the first; cosine of "
                  "the task vector with minus the first gradient",
                  heads, 7);
    for (int s = 0; s < grids[0].n; s++) {
        const char *task = grids[0].series[s].name;
        const am_series *vectors = am_grid_find(&grids[4], task);
        am_html_row(html, task);
        am_html_stat(html, am_grid_stat(&grids[0], task, 1), 3);
        am_html_stat(html, am_grid_stat(&grids[1], task, 1), 3);
        am_html_stat(html, least_early(&grids[2], task), 3);
        am_html_stat(html, least_early(&grids[3], task), 3);
        am_html_stat(html, am_grid_stat(&grids[4], task, 1), 3);
        am_html_stat(html,
                     vectors != NULL ? am_grid_stat(&grids[4], task, vectors->x[vectors->n - 1])
                                     : (am_stat){0},
                     3);
        am_html_row_end(html);
    }
    am_html_table_end(html);
}

int am_section_gradients(const am_report *report, am_html *html)
{
    enum { N = 8 };
    static const struct measure {
        const char *key, *axis, *caption;
    } measures[N] = {
        {"accumulated_share", "share",
         "Norm of the accumulated gradient of an epoch as a share of those of all epochs."},
        {"share", "share",
         "Norm of the full-batch gradient at an epoch's start as a share of those of all epochs."},
        {"cosine_first_accumulated", "cosine",
         "Cosine of the accumulated gradient of an epoch with that of the first."},
        {"cosine_first_gradient", "cosine",
         "Cosine of the full-batch gradient with that at the base."},
        {"cosine_task_vector", "cosine",
         "Cosine of the task vector so far with minus the first full-batch gradient."},
        {"cosine_accumulated", "cosine",
         "Cosine of the accumulated with the full-batch gradient of the same epoch."},
        {"gradient", "norm", "Norm of the full-batch gradient."},
        {"loss_nats", "loss (nats)", "Training loss at an epoch's start."}};
    am_grid grids[N];
    int rc = 0;
    for (int m = 0; m < N; m++) {
        grids[m] = (am_grid){.runs = report->n};
        read_member(report, measures[m].key, &grids[m]);
        AM_KEEP(am_grid_finish(&grids[m]));
    }
    if (rc == 0 && am_grid_has(&grids[0])) {
        am_html_heading(html, "Gradients by epoch of finetuning");
        am_html_paragraph(html,
                          "Accumulated: the mean over an epoch of the gradients of its steps, at "
                          "their weights and before clipping, as the paper's. Full batch: the "
                          "gradient at the epoch's first weights.");
        claim_share(&grids[0], "accumulated", html);
        claim_share(&grids[1], "full batch", html);
        claim_cosine(&grids[2], "accumulated", html);
        claim_cosine(&grids[3], "full batch", html);
        write_table(grids, html);
        am_html_raw(html, "<div class=\"plots\">\n");
        for (int m = 0; m < N; m++) {
            am_plot_lines(html,
                          &(am_plot){.caption = measures[m].caption,
                                     .x = "epoch",
                                     .y = measures[m].axis,
                                     .log_y = m == 6},
                          &grids[m]);
        }
        am_html_raw(html, "</div>\n");
    }
    for (int m = 0; m < N; m++) {
        am_grid_free(&grids[m]);
    }
    return rc;
}
