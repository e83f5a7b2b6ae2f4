/* One least-squares problem: see fit.h. All that is needed is linear in u = (x, y, 1): the merged
 * input X = M u, what is wanted T u, what is left R = T - W0 M. So the sums over rows are those of
 * u u^T = G:  D (M G M^T + ridge) = R G M^T.  SPDX-License-Identifier: BSD-3-Clause */
#include "solver/align/fit.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/linalg/cholesky.h"

typedef struct work {
    const am_fit *fit;
    int64_t J, N;  /* 2 C + 1; merged terms, and one more with a bias */
    double *G;     /* [N,N] M G M^T, then with the ridge its factor */
    double *sums;  /* [N,N] M G M^T */
    double *R;     /* [K,J] */
    double *RG;    /* [K,J] */
    double *start; /* [K,N] W0 */
    double *D;     /* [K,N] */
} work;

/* Columns of u that merged term t is the mean of; returns how many. */
static int columns(const work *w, int64_t t, int64_t at[2])
{
    const am_fit *f = w->fit;
    int n = 0;
    if (t == f->C_wide) {
        at[n++] = 2 * f->C;
        return n;
    }
    for (int s = 0; s < (f->is_shared ? 1 : 2); s++) {
        if (f->term[s][t] >= 0) {
            at[n++] = s * f->C + f->term[s][t];
        }
    }
    return n;
}

/* Share of network s in row k, 0 if it has no such row. */
static double share_of(const am_fit *f, int s, int64_t k)
{
    return f->row[s][k] >= 0 && f->weight[s] != NULL ? f->share[s][k] : 0;
}

static void start_weights(work *w)
{
    const am_fit *f = w->fit;
    memset(w->start, 0, (size_t)(f->K_wide * w->N) * sizeof *w->start);
    for (int64_t k = 0; k < f->K_wide; k++) {
        double *row = w->start + k * w->N;
        for (int s = 0; s < 2; s++) {
            const double share = share_of(f, s, k);
            if (share == 0) {
                continue;
            }
            const double *weight = f->weight[s] + f->row[s][k] * f->C;
            for (int64_t t = 0; t < f->C_wide; t++) {
                row[t] += f->term[s][t] >= 0 ? share * weight[f->term[s][t]] : 0;
            }
            if (f->has_bias && f->bias[s] != NULL) {
                row[f->C_wide] += share * f->bias[s][f->row[s][k]];
            }
        }
    }
}

/* R = T, what is wanted. */
static void wanted(work *w)
{
    const am_fit *f = w->fit;
    memset(w->R, 0, (size_t)(f->K_wide * w->J) * sizeof *w->R);
    for (int64_t k = 0; k < f->K_wide; k++) {
        double *row = w->R + k * w->J;
        for (int s = 0; s < 2; s++) {
            const double share = share_of(f, s, k);
            const double *weight = share != 0 ? f->weight[s] + f->row[s][k] * f->C : NULL;
            for (int64_t c = 0; share != 0 && c < f->C; c++) {
                row[(f->is_shared ? 0 : s * f->C) + c] += share * weight[c];
            }
            if (share != 0 && f->has_bias && f->bias[s] != NULL) {
                row[2 * f->C] += share * f->bias[s][f->row[s][k]];
            }
        }
    }
}

/* R -= W0 M */
static void take_start(work *w)
{
    for (int64_t t = 0; t < w->N; t++) {
        int64_t at[2];
        const int n = columns(w, t, at);
        for (int64_t k = 0; k < w->fit->K_wide; k++) {
            for (int i = 0; i < n; i++) {
                w->R[k * w->J + at[i]] -= w->start[k * w->N + t] / n;
            }
        }
    }
}

/* sum of squares of R u over rows; leaves R G in RG */
static double squares(work *w)
{
    const int64_t K = w->fit->K_wide, n = K * w->J;
    double sum = 0;
    am_multiply(1, am_matrix_of(K, w->J, w->R), AM_AS_IS,
                am_matrix_of(w->J, w->J, (double *)w->fit->joint), AM_AS_IS, 0,
                am_matrix_of(K, w->J, w->RG));
    for (int64_t i = 0; i < n; i++) {
        sum += w->R[i] * w->RG[i];
    }
    return sum > 0 ? sum : 0;
}

/* sums = M G M^T, D = R G M^T */
static void gather(work *w)
{
    const double *G = w->fit->joint;
    for (int64_t t = 0; t < w->N; t++) {
        int64_t at[2], other[2];
        const int n = columns(w, t, at);
        for (int64_t v = 0; v < w->N; v++) {
            const int m = columns(w, v, other);
            double sum = 0;
            for (int i = 0; i < n; i++) {
                for (int j = 0; j < m; j++) {
                    sum += G[at[i] * w->J + other[j]];
                }
            }
            w->sums[t * w->N + v] = sum / (n * m);
        }
        for (int64_t k = 0; k < w->fit->K_wide; k++) {
            double sum = 0;
            for (int i = 0; i < n; i++) {
                sum += w->RG[k * w->J + at[i]];
            }
            w->D[k * w->N + t] = sum / n;
        }
    }
}

/* D := D (sums + ridge g)^-1, and what it takes from the squares that are left. */
static int solve(work *w, double ridge, double *gain)
{
    const int64_t K = w->fit->K_wide, N = w->N, n = K * N;
    double trace = 0;
    double *right = w->RG; /* [K,N]: J > N where every term has a column of its own or two */
    int rc = 0;
    for (int64_t i = 0; i < N; i++) {
        trace += w->sums[i * N + i];
    }
    memcpy(w->G, w->sums, (size_t)(N * N) * sizeof *w->G);
    for (int64_t i = 0; i < N; i++) {
        w->G[i * N + i] += ridge * trace / (double)N;
    }
    memcpy(right, w->D, (size_t)n * sizeof *right);
    rc = am_cholesky(am_matrix_of(N, N, w->G));
    AM_KEEP(rc != 0 ? rc : am_cholesky_solve(am_matrix_of(N, N, w->G), am_matrix_of(K, N, w->D)));
    *gain = 0;
    for (int64_t i = 0; i < n; i++) {
        *gain += 2 * w->D[i] * right[i];
    }
    am_multiply(1, am_matrix_of(K, N, w->D), AM_AS_IS, am_matrix_of(N, N, w->sums), AM_AS_IS, 0,
                am_matrix_of(K, N, right));
    for (int64_t i = 0; i < n; i++) {
        *gain -= w->D[i] * right[i];
    }
    return rc;
}

static int work_make(const am_fit *fit, work *w)
{
    const int64_t K = fit->K_wide;
    *w = (work){.fit = fit, .J = 2 * fit->C + 1, .N = fit->C_wide + (fit->has_bias ? 1 : 0)};
    w->G = am_new(w->N * w->N, sizeof *w->G, "least squares");
    w->sums = am_new(w->N * w->N, sizeof *w->sums, "least squares");
    w->R = am_new(K * w->J, sizeof *w->R, "least squares");
    w->RG = am_new(K * w->J, sizeof *w->RG, "least squares");
    w->start = am_new(K * w->N, sizeof *w->start, "least squares");
    w->D = am_new(K * w->N, sizeof *w->D, "least squares");
    return !w->G || !w->sums || !w->R || !w->RG || !w->start || !w->D ? AM_E_NOMEM : 0;
}

static void work_free(work *w)
{
    free(w->G);
    free(w->sums);
    free(w->R);
    free(w->RG);
    free(w->start);
    free(w->D);
}

int64_t am_fit_bytes(int64_t C, int64_t K_wide, int64_t C_wide)
{
    const int64_t J = 2 * C + 1, N = C_wide + 1;
    return (2 * N * N + 2 * K_wide * (J + N)) * (int64_t)sizeof(double);
}

/* Whether the sums say anything: an input that is 0 in all samples has nothing to fit. */
static bool is_seen(const work *w)
{
    bool is = false;
    for (int64_t i = 0; i < w->N; i++) {
        is = is || w->sums[i * w->N + i] > 0;
    }
    return is;
}

int am_fit_solve(const am_fit *fit, double ridge, double *weight, double *bias, am_fit_error *out)
{
    work w;
    double gain = 0;
    int rc = work_make(fit, &w);
    *out = (am_fit_error){0};
    if (rc == 0) {
        start_weights(&w);
        wanted(&w);
        out->wanted = squares(&w);
        take_start(&w);
        out->before = squares(&w);
        gather(&w);
        if (is_seen(&w)) {
            rc = solve(&w, ridge, &gain);
        }
        out->after = out->before > gain ? out->before - gain : 0;
    }
    for (int64_t k = 0; rc == 0 && k < fit->K_wide; k++) {
        const double *start = w.start + k * w.N, *D = w.D + k * w.N;
        for (int64_t t = 0; t < fit->C_wide; t++) {
            weight[k * fit->C_wide + t] = start[t] + D[t];
        }
        if (fit->has_bias) {
            bias[k] = start[fit->C_wide] + D[fit->C_wide];
        }
    }
    work_free(&w);
    return rc;
}
