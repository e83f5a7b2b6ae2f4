/* Descent on each task alone, by epoch. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include "jobs/report/plot.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

/* A member of `epochs` at the largest eta, a series a task. */
static void read_epochs(const am_report *report, const char *key, am_grid *grid)
{
    const double eta = am_theory_largest(report, "epochs", "eta");
    for (int r = 0; r < report->n; r++) {
        const json_t *epochs = json_object_get(report->run[r].result, "epochs");
        for (size_t i = 0; i < json_array_size(epochs); i++) {
            const json_t *epoch = json_array_get(epochs, i);
            const char *task = am_member_text(epoch, "task");
            if (am_member_number(epoch, "eta") == eta) {
                am_grid_put(grid, task != NULL ? task : "task", am_member_number(epoch, "epoch"), r,
                            am_member_number(epoch, key));
            }
        }
    }
}

int am_theory_page_descent(const am_report *report, am_html *html)
{
    static const struct measure {
        const char *key, *axis, *caption;
    } measures[] = {
        {"loss_nats", "loss (nats)", "Loss of each task on its own descent, by epoch."},
        {"share", "share of gradient norm",
         "Norm of the gradient as a share of the norms of all epochs."},
        {"cosine_first_gradient", "cosine", "Cosine of the gradient with the first one."},
        {"cosine_task_vector", "cosine",
         "Cosine of the task vector so far with minus the first gradient."}};
    int rc = 0;
    if (json_array_size(am_report_member(report, "epochs")) == 0) {
        return 0;
    }
    am_html_heading(html, "Descent on each task alone");
    am_html_paragraph(html,
                      "Full-batch gradient descent at eta = %.6g for %.6g epochs. Shares of equal "
                      "size and cosines near 1 say that the tasks move little in that many steps "
                      "of that size; claims about finetuning until it converges are not tested "
                      "by them.",
                      am_theory_largest(report, "epochs", "eta"),
                      am_theory_largest(report, "epochs", "epoch"));
    am_html_raw(html, "<div class=\"plots\">\n");
    for (int m = 0; m < 4 && rc == 0; m++) {
        am_grid grid = {.runs = report->n};
        read_epochs(report, measures[m].key, &grid);
        am_plot_lines(
            html, &(am_plot){.caption = measures[m].caption, .x = "epoch", .y = measures[m].axis},
            &grid);
        rc = am_grid_finish(&grid);
        am_grid_free(&grid);
    }
    am_html_raw(html, "</div>\n");
    return rc;
}
