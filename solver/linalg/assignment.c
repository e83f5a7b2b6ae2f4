/* Shortest augmenting paths: see assignment.h. Inside, costs are negated gains and the prices are
 * lower bounds: u[i] + v[j] <= cost[i][j]. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/assignment.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

typedef struct problem {
    int64_t n, ld;
    const double *gain;
    double scale;    /* of the costs, negative */
    double *u, *v;   /* [n] prices */
    double *reach;   /* [n] length of the shortest path to a column */
    int64_t *column; /* [n] of each row, -1: free; borrowed */
    int64_t *row;    /* [n] of each column, -1: free */
    int64_t *from;   /* [n] row before a column on its path */
    bool *is_done;   /* [n] columns whose shortest path is known */
} problem;

static double cost(const problem *p, int64_t i, int64_t j)
{
    return p->scale * p->gain[i * p->ld + j];
}

static int check(problem *p)
{
    double most = 0;
    for (int64_t i = 0; i < p->n; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            const double x = p->gain[i * p->ld + j];
            if (!isfinite(x)) {
                return am_fail(AM_E_NUMERIC,
                               "assignment: entry [%lld,%lld] of %lld rows is %g, not a number "
                               "that can be compared",
                               (long long)i, (long long)j, (long long)p->n, x);
            }
            most = fmax(most, fabs(x));
        }
    }
    p->scale = most > 0x1p1000 ? -0x1p-24 : -1; /* sums of costs stay finite */
    return 0;
}

/* Prices of the columns: their least cost; each column to the row that has it, if that is free. */
static void reduce_columns(problem *p)
{
    for (int64_t j = 0; j < p->n; j++) {
        int64_t best = j; /* where all are equal, the order stays */
        for (int64_t i = 0; i < p->n; i++) {
            best = cost(p, i, j) < cost(p, best, j) ? i : best;
        }
        p->v[j] = cost(p, best, j);
        p->row[j] = -1;
        if (p->column[best] < 0) {
            p->column[best] = j;
            p->row[j] = best;
        }
    }
}

/* Prices of rows that are left: their least reduced cost; each takes that column, if it is free. */
static void reduce_rows(problem *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        int64_t best = i;
        if (p->column[i] >= 0) {
            continue;
        }
        for (int64_t j = 0; j < p->n; j++) {
            best = cost(p, i, j) - p->v[j] < cost(p, i, best) - p->v[best] ? j : best;
        }
        p->u[i] = cost(p, i, best) - p->v[best];
        if (p->row[best] < 0) {
            p->row[best] = i;
            p->column[i] = best;
        }
    }
}

/* Shorten the paths that go on from row i, which is `so_far` away; the nearest column that is not
 * done, a free one before others, the first of equals. */
static int64_t extend(problem *p, int64_t i, double so_far)
{
    const double *gain = p->gain + i * p->ld, at = so_far - p->u[i], scale = p->scale;
    int64_t best = -1;
    for (int64_t j = 0; j < p->n; j++) {
        if (p->is_done[j]) {
            continue;
        }
        const double length = at + (scale * gain[j] - p->v[j]);
        if (length < p->reach[j]) {
            p->reach[j] = length;
            p->from[j] = i;
        }
        if (best < 0 || p->reach[j] < p->reach[best] ||
            (p->reach[j] == p->reach[best] && p->row[j] < 0 && p->row[best] >= 0)) {
            best = j;
        }
    }
    return best;
}

/* Find the shortest path from a free row to a free column, change the prices along it and match. */
static void augment(problem *p, int64_t start)
{
    double so_far = 0;
    int64_t i = start, j = -1;
    for (int64_t k = 0; k < p->n; k++) {
        p->reach[k] = INFINITY;
        p->is_done[k] = false;
    }
    while (i >= 0) {
        j = extend(p, i, so_far);
        so_far = p->reach[j];
        p->is_done[j] = true;
        i = p->row[j];
    }
    p->u[start] += so_far;
    for (int64_t k = 0; k < p->n; k++) {
        if (p->is_done[k] && p->row[k] >= 0) {
            p->u[p->row[k]] += so_far - p->reach[k];
        }
        p->v[k] -= p->is_done[k] ? so_far - p->reach[k] : 0;
    }
    while (i != start) {
        i = p->from[j];
        p->row[j] = i;
        const int64_t before = p->column[i];
        p->column[i] = j;
        j = before;
    }
}

int am_assignment(int64_t n, const double *gain, int64_t ld, int64_t *match, double *u, double *v)
{
    problem p = {.n = n, .ld = ld, .gain = gain, .column = match};
    int rc = check(&p);
    if (rc != 0) {
        return rc;
    }
    p.u = am_new(n + 1, sizeof *p.u, "assignment");
    p.v = am_new(n + 1, sizeof *p.v, "assignment");
    p.reach = am_new(n + 1, sizeof *p.reach, "assignment");
    p.row = am_new(n + 1, sizeof *p.row, "assignment");
    p.from = am_new(n + 1, sizeof *p.from, "assignment");
    p.is_done = am_new(n + 1, sizeof *p.is_done, "assignment");
    if (!p.u || !p.v || !p.reach || !p.row || !p.from || !p.is_done) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    for (int64_t i = 0; i < n; i++) {
        match[i] = -1;
    }
    reduce_columns(&p);
    reduce_rows(&p);
    for (int64_t i = 0; i < n; i++) {
        if (match[i] < 0) {
            augment(&p, i);
        }
    }
    for (int64_t i = 0; u != NULL && i < n; i++) {
        u[i] = -p.u[i];
        v[i] = -p.v[i];
    }
cleanup:
    free(p.u);
    free(p.v);
    free(p.reach);
    free(p.row);
    free(p.from);
    free(p.is_done);
    return rc;
}
