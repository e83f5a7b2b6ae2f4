/* Task vectors and gradients on problems whose answers are known: quadratic losses in closed form,
 * the two tasks that grow like k (k - 1), orders of convergence of a quartic, bounds, fits.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/theory/bound.h"
#include "solver/theory/fit.h"
#include "solver/theory/optimizers.h"
#include "solver/theory/spectrum.h"
#include "solver/theory/sweep.h"
#include "solver/theory/vectors.h"
#include "tests/am_test.h"

enum { MOST_TASKS = 8, N = 6 };

/* L_t = sum_i (a_ti (theta_i - c_ti)^2 / 2 + b_ti theta_i) + quartic_t (q_t theta)^4 / 24 */
typedef struct polynomial {
    double a[MOST_TASKS][N], c[MOST_TASKS][N], b[MOST_TASKS][N], q[MOST_TASKS][N];
    double quartic[MOST_TASKS];
} polynomial;

static double inner(const double *x, const double *y)
{
    double sum = 0;
    for (int i = 0; i < N; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

static int gradient_all(void *self, int t, const double *theta, double *loss, double *gradient)
{
    const polynomial *p = self;
    const double z = inner(p->q[t], theta);
    *loss = p->quartic[t] * z * z * z * z / 24;
    for (int i = 0; i < N; i++) {
        const double d = theta[i] - p->c[t][i];
        *loss += p->a[t][i] * d * d / 2 + p->b[t][i] * theta[i];
        gradient[i] = p->a[t][i] * d + p->b[t][i] + p->quartic[t] * z * z * z / 6 * p->q[t][i];
    }
    return AM_OK;
}

static int product_all(void *self, int t, const double *theta, const double *v, double *out)
{
    const polynomial *p = self;
    const double z = inner(p->q[t], theta), along = inner(p->q[t], v);
    for (int i = 0; i < N; i++) {
        out[i] = p->a[t][i] * v[i] + p->quartic[t] * z * z / 2 * along * p->q[t][i];
    }
    return AM_OK;
}

static am_oracle oracle_of(polynomial *p)
{
    return (am_oracle){.comm = am_world(),
                       .tasks = MOST_TASKS,
                       .n = N,
                       .self = p,
                       .gradient_all = gradient_all,
                       .product_all = product_all};
}

static polynomial drawn(double quartic)
{
    polynomial p = {0};
    const am_rng rng = am_rng_make(am_test_seed(), "polynomial", 0, 0, "");
    for (int t = 0, at = 0; t < MOST_TASKS; t++) {
        p.quartic[t] = quartic;
        for (int i = 0; i < N; i++, at += 3) {
            p.a[t][i] = 0.2 + am_rng_uniform(&rng, at);
            p.c[t][i] = am_rng_normal(&rng, at + 1);
            p.q[t][i] = am_rng_normal(&rng, at + 2) / 2;
        }
    }
    return p;
}

static const double start[N] = {0.3, -0.7, 1.1, 0.2, -0.4, 0.9};
static const int64_t ks[] = {1, 2, 3, 5, 8, 12};
enum { KS = 6 };

/* ---- quadratic losses ---- */

/* One coordinate: displacement of a task vector, of theta_MT after k steps; C. */
static double tau_of(double a, double c, double x, double eta, int64_t k)
{
    return -(1 - pow(1 - eta * a, (double)k)) * (x - c);
}

static double together_of(const polynomial *p, int T, int i, double step, int64_t k)
{
    double sum = 0, weighted = 0;
    for (int t = 0; t < T; t++) {
        sum += p->a[t][i];
        weighted += p->a[t][i] * p->c[t][i];
    }
    const double best = weighted / sum;
    return best + pow(1 - step * sum, (double)k) * (start[i] - best);
}

static double c_of(const polynomial *p, int T, int i, double alpha, double eta, int64_t k)
{
    double c = 0;
    for (int64_t e = 0; e <= k - 2; e++) {
        for (int64_t m = 0; m <= e; m++) {
            const double x = together_of(p, T, i, alpha * eta, m);
            double all = 0;
            for (int t = 0; t < T; t++) {
                all += p->a[t][i] * (x - p->c[t][i]);
            }
            for (int t = 0; t < T; t++) {
                c += p->a[t][i] * (p->a[t][i] * (x - p->c[t][i]) - alpha * all);
            }
        }
    }
    return c;
}

static void quadratic(void)
{
    polynomial p = drawn(0);
    const am_oracle oracle = oracle_of(&p);
    const double alphas[] = {0.3, 1}, eta = 0.05;
    const int T = 4;
    const am_theory_setting setting = {.tasks = T,
                                       .eta = eta,
                                       .n_alphas = 2,
                                       .alpha = alphas,
                                       .n_k = KS,
                                       .k = ks,
                                       .has_norms = true};
    am_theory_row row[2][KS];
    am_theory_epoch epoch[4][12];
    AM_CHECK_OK(am_theory_measure_all(&oracle, start, &setting, row[0], epoch[0]));
    for (int a = 0; a < 2; a++) {
        for (int j = 0; j < KS; j++) {
            double gap = 0, c = 0, rest = 0;
            for (int i = 0; i < N; i++) {
                double ta = 0;
                for (int t = 0; t < T; t++) {
                    ta += alphas[a] * tau_of(p.a[t][i], p.c[t][i], start[i], eta, ks[j]);
                }
                const double d = ta + start[i] - together_of(&p, T, i, alphas[a] * eta, ks[j]);
                const double ci = c_of(&p, T, i, alphas[a], eta, ks[j]);
                gap += d * d;
                c += ci * ci;
                rest += pow(d - alphas[a] * eta * eta * ci, 2);
            }
            AM_CHECK_NEAR(row[a][j].gap, sqrt(gap), 1e-14);
            AM_CHECK_NEAR(row[a][j].c, sqrt(c), 1e-12 * (1 + sqrt(c)));
            AM_CHECK_NEAR(row[a][j].term, alphas[a] * eta * eta * sqrt(c), 1e-13);
            AM_CHECK_NEAR(row[a][j].residual, sqrt(rest), 1e-14);
            AM_CHECK(row[a][j].c <= row[a][j].derived * (1 + 1e-9));
            AM_CHECK(isnan(row[a][j].net_gradient) == (ks[j] > 1));
        }
        AM_CHECK(row[a][0].ulps <= 4 && row[a][0].gap <= row[a][0].noise && row[a][0].c == 0);
        AM_CHECK(row[a][2].gap > 1e-4); /* and it is one */
    }
    /* The Hessian is constant: its norm is the largest a. */
    double most = 0;
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < N; i++) {
            most = fmax(most, p.a[t][i]);
        }
    }
    AM_CHECK_NEAR(row[0][3].hessian, most, 1e-4 * most);
    AM_CHECK(row[0][3].hessian > most - 1e-12); /* the residual is on top */
    /* A task alone: (1 - eta a)^i scales every coordinate of its gradient. */
    double share = 0;
    for (int i = 0; i < 12; i++) {
        double norm = 0, along = 0, first = 0;
        for (int x = 0; x < N; x++) {
            const double g = p.a[1][x] * (start[x] - p.c[1][x]);
            const double now = g * pow(1 - eta * p.a[1][x], i);
            norm += now * now;
            along += g * now;
            first += g * g;
        }
        AM_CHECK_NEAR(epoch[1][i].norm, sqrt(norm), 1e-13);
        AM_CHECK_NEAR(epoch[1][i].cosine_first, along / sqrt(norm * first), 1e-14);
        share += epoch[1][i].share;
    }
    AM_CHECK_NEAR(share, 1, 1e-14);
    AM_CHECK_NEAR(epoch[1][0].cosine_first, 1, 1e-15);
    AM_CHECK_NEAR(epoch[1][0].cosine_tau, 1, 1e-15);
    AM_CHECK(epoch[1][11].cosine_tau < 1 - 1e-6 && epoch[1][11].cosine_tau > 0.9);
}

/* ---- the two tasks of theorem 2 ---- */

/* L_1 = g x + H x^2 / 2 and L_2 = -L_1: theta_MT stays, and C = k (k - 1) H g. */
static void counterexample(void)
{
    polynomial p = {.a = {{1}, {-1}}, .b = {{1}, {-1}}};
    const am_oracle oracle = oracle_of(&p);
    const double alpha = 0.5, zero[N] = {0};
    const am_theory_setting setting = {.tasks = 2,
                                       .eta = 0.01,
                                       .n_alphas = 1,
                                       .alpha = &alpha,
                                       .n_k = KS,
                                       .k = ks,
                                       .has_norms = true};
    am_theory_row row[KS];
    am_theory_epoch epoch[2][12];
    AM_CHECK_OK(am_theory_measure_all(&oracle, zero, &setting, row, epoch[0]));
    for (int j = 0; j < KS; j++) {
        const double k = (double)ks[j];
        AM_CHECK_NEAR(row[j].c, k * (k - 1), 1e-9);
        AM_CHECK_NEAR(row[j].printed, ks[j] < 2 ? 0 : 2 * k, 1e-6);
        AM_CHECK_NEAR(row[j].derived, 2 * k * (k - 1), 1e-6);
        AM_CHECK(row[j].c <= row[j].derived);
        AM_CHECK((row[j].c > row[j].printed) == (ks[j] >= 5));
    }
}

/* ---- spectra ---- */

/* Hessians of the quadratic are diagonal: their eigenvalues are known, also those of sums, and the
 * largest are not those of the largest magnitude. */
static void spectra(void)
{
    polynomial p = drawn(0);
    const am_oracle oracle = oracle_of(&p);
    p.a[1][2] = -5;
    for (int first = 0; first < 4; first++) {
        for (int end = first + 1; end <= 4; end++) {
            double sum[N] = {0}, value[3], residual[3];
            am_eigen_result found = {.value = value, .residual = residual};
            for (int i = 0; i < N; i++) {
                for (int t = first; t < end; t++) {
                    sum[i] += p.a[t][i];
                }
                for (int j = i; j > 0 && sum[j] > sum[j - 1]; j--) {
                    const double swapped = sum[j];
                    sum[j] = sum[j - 1];
                    sum[j - 1] = swapped;
                }
            }
            AM_CHECK_OK(am_theory_spectrum_all(&oracle, first, end, start, 3, 1, &found));
            AM_CHECK(found.is_converged && found.products <= N);
            for (int i = 0; i < 3; i++) {
                AM_CHECK_NEAR(value[i], sum[i], 1e-10);
            }
        }
    }
    AM_CHECK_I64(am_theory_spectrum_products(N, 3), N);
    AM_CHECK_I64(am_theory_spectrum_products(1 << 20, 3), 130);
}

/* Where theta_MT ends: in closed form, and bit by bit on the way of the sweep. */
static void descent(void)
{
    polynomial p = drawn(0);
    const am_oracle oracle = oracle_of(&p);
    const double alpha = 0.3, eta = 0.05;
    const int T = 3;
    const am_theory_setting setting = {
        .tasks = T, .eta = eta, .n_alphas = 1, .alpha = &alpha, .n_k = KS, .k = ks};
    am_theory_row row[KS];
    am_theory_epoch epoch[3][12];
    double theta[N], loss[MOST_TASKS], gradient[N];
    AM_CHECK_OK(am_theory_measure_all(&oracle, start, &setting, row, epoch[0]));
    for (int j = 0; j < KS; j++) {
        AM_CHECK_OK(am_theory_descend_all(&oracle, start, T, alpha * eta, ks[j], theta));
        for (int i = 0; i < N; i++) {
            AM_CHECK_NEAR(theta[i], together_of(&p, T, i, alpha * eta, ks[j]), 1e-14);
        }
        AM_CHECK_OK(am_theory_descend_all(&oracle, start, T, alpha * eta, ks[j] - 1, theta));
        for (int t = 0; t < T; t++) {
            AM_CHECK_OK(gradient_all(&p, t, theta, &loss[t], gradient));
        }
        AM_CHECK_NEAR(row[j].loss, loss[0] + loss[1] + loss[2], 0);
    }
}

/* ---- optimisers ---- */

/* k steps on tasks [first, end) as the papers write them, on theta itself. */
static void steps_all(polynomial *p, const char *name, int first, int end, double lr, int64_t k,
                      double *theta)
{
    double v[N] = {0}, m[N] = {0}, g[N], sum[N], loss;
    for (int64_t step = 1; step <= k; step++) {
        for (int i = 0; i < N; i++) {
            sum[i] = 0;
        }
        for (int t = first; t < end; t++) {
            AM_CHECK_OK(gradient_all(p, t, theta, &loss, g));
            for (int i = 0; i < N; i++) {
                sum[i] += g[i];
            }
        }
        for (int i = 0; i < N; i++) {
            if (name[0] == 'a') {
                m[i] = 0.9 * m[i] + 0.1 * sum[i];
                v[i] = 0.999 * v[i] + 0.001 * sum[i] * sum[i];
                theta[i] -= lr * (m[i] / (1 - pow(0.9, (double)step))) /
                            (sqrt(v[i] / (1 - pow(0.999, (double)step))) + 1e-8);
            } else {
                m[i] = (name[0] == 'm' ? 0.8 : 0) * m[i] + sum[i];
                theta[i] -= lr * m[i];
            }
        }
    }
}

static void optimizers(void)
{
    static const char *const names[] = {"gd", "momentum", "adamw"};
    enum { T = 4, ALPHAS = 2 };
    polynomial p = drawn(1);
    const am_oracle oracle = oracle_of(&p);
    const double alphas[ALPHAS] = {0.3, -0.2}, eta = 0.01;
    const am_theory_setting setting = {
        .tasks = T, .eta = eta, .n_alphas = ALPHAS, .alpha = alphas, .n_k = KS, .k = ks};
    for (int o = 0; o < 3; o++) {
        am_theory_rule rule = {.optim = {.method = am_optim_find(o == 2 ? "adamw" : "sgd"),
                                         .momentum = o == 1 ? 0.8 : 0,
                                         .weight_decay = 7, /* is not read */
                                         .beta1 = 0.9,
                                         .beta2 = 0.999,
                                         .epsilon = 1e-8},
                               .batches = 1};
        am_theory_compared row[ALPHAS][KS];
        AM_CHECK_OK(am_theory_compare_all(&oracle, start, &setting, &rule, row[0]));
        for (int r = 0; r < ALPHAS * KS; r++) {
            const int a = r / KS, j = r % KS;
            double together[N], ta[N] = {0}, gap = 0, path = 0, way = 0, along = 0;
            memcpy(together, start, sizeof together);
            steps_all(&p, names[o], 0, T, alphas[a] * eta, ks[j], together);
            for (int t = 0; t < T; t++) {
                double theta[N];
                memcpy(theta, start, sizeof theta);
                steps_all(&p, names[o], t, t + 1, eta, ks[j], theta);
                for (int i = 0; i < N; i++) {
                    ta[i] += alphas[a] * (theta[i] - start[i]);
                }
            }
            for (int i = 0; i < N; i++) {
                const double mt = together[i] - start[i];
                gap += pow(ta[i] - mt, 2);
                path += mt * mt;
                way += ta[i] * ta[i];
                along += ta[i] * mt;
            }
            AM_CHECK_NEAR(row[a][j].gap, sqrt(gap), 1e-14);
            AM_CHECK_NEAR(row[a][j].path, sqrt(path), 1e-14);
            AM_CHECK_NEAR(row[a][j].relative, sqrt(gap / path), 1e-12);
            AM_CHECK_NEAR(row[a][j].cosine, along / sqrt(path * way), 1e-12);
            AM_CHECK((row[a][j].gap <= row[a][j].noise) == (o < 2 && ks[j] == 1));
        }
        AM_CHECK((row[0][0].relative > 0.1) == (o == 2));
        rule.batches = 2; /* of no samples */
        AM_CHECK_I64(am_theory_compare_all(&oracle, start, &setting, &rule, row[0]), AM_E_BUG);
        am_error_clear();
    }
}

/* ---- orders ---- */

static void orders(void)
{
    enum { ETAS = 5, ALPHAS = 3 };
    polynomial p = drawn(1);
    const am_oracle oracle = oracle_of(&p);
    const double alphas[ALPHAS] = {0.125, 0.3, 1};
    double eta[ETAS], gap[ETAS], residual[ETAS], noise[ETAS];
    static const int tasks[] = {2, 4, 8};
    for (int i = 0; i < ETAS; i++) {
        eta[i] = 1e-4 * pow(0.25, i / 4.0);
    }
    for (int m = 0; m < 3; m++) {
        am_theory_row row[ETAS][ALPHAS][KS - 1];
        am_theory_epoch epoch[MOST_TASKS * 8];
        for (int i = 0; i < ETAS; i++) {
            const am_theory_setting setting = {.tasks = tasks[m],
                                               .eta = eta[i],
                                               .n_alphas = ALPHAS,
                                               .alpha = alphas,
                                               .n_k = KS - 1,
                                               .k = ks};
            AM_CHECK_OK(am_theory_measure_all(&oracle, start, &setting, row[i][0], epoch));
        }
        for (int a = 0; a < ALPHAS; a++) {
            for (int j = 0; j < KS - 1; j++) {
                for (int i = 0; i < ETAS; i++) {
                    gap[i] = row[i][a][j].gap;
                    residual[i] = row[i][a][j].residual;
                    noise[i] = row[i][a][j].noise;
                }
                const am_theory_slope raw = am_theory_fit(ETAS, eta, gap, noise);
                const am_theory_slope left = am_theory_fit(ETAS, eta, residual, noise);
                AM_CHECK_I64(raw.points, ks[j] == 1 ? 0 : ETAS);
                AM_CHECK_I64(left.points, ks[j] == 1 ? 0 : ETAS);
                if (ks[j] > 1) {
                    AM_CHECK_NEAR(raw.slope, 2, 0.02);
                    AM_CHECK_NEAR(left.slope, 3, 0.05);
                    AM_CHECK(raw.error < 0.01 && left.error < 0.02);
                } else {
                    AM_CHECK(row[0][a][j].ulps <= 4);
                }
            }
        }
    }
}

/* ---- bounds ---- */

static double value_of(const char *name, double z)
{
    switch (name[0] == 'g' && name[4] == '_'   ? 'G'
            : name[0] == 's' && name[2] == 'l' ? 'S'
                                               : name[0]) {
    case 'r':
        return z > 0 ? z : 0;
    case 't':
        return tanh(z);
    case 's':
        return 1 / (1 + exp(-z));
    case 'g':
        return z * (1 + erf(z / sqrt(2))) / 2;
    case 'G':
        return z * (1 + tanh(sqrt(2 / M_PI) * (z + 0.044715 * z * z * z))) / 2;
    case 'S':
        return z / (1 + exp(-z));
    default:
        return z;
    }
}

/* The derivatives of functions, sampled, come up to their bounds and not above. */
static void functions(void)
{
    static const char *const names[] = {"none", "relu",      "tanh", "sigmoid",
                                        "gelu", "gelu_tanh", "silu"};
    for (int f = 0; f < 7; f++) {
        const am_theory_function *phi = am_theory_function_of(names[f]);
        double slope = 0, bend = 0;
        const double d = 1e-4;
        for (double z = -8; z < 8; z += 1e-3) {
            const double below = value_of(names[f], z - d), above = value_of(names[f], z + d);
            slope = fmax(slope, fabs(above - below) / (2 * d));
            bend = fmax(bend, fabs(above - 2 * value_of(names[f], z) + below) / (d * d));
        }
        AM_CHECK_NEAR(slope, phi->slope, 2e-6);
        if (f != 1) { /* a kink */
            AM_CHECK_NEAR(bend, phi->bend, 2e-6);
        }
        AM_CHECK_NEAR(value_of(names[f], 0), phi->at_zero, 0);
    }
    AM_CHECK(am_theory_function_of("tan") == NULL);
}

/* Equal layers without biases: the constants of the theorem. */
static void networks(void)
{
    const double X = 1.7, B = 1.3, g = 0.9, c = 0.4;
    const am_theory_loss loss = {.slope = g, .bend = c};
    for (int L = 2; L <= 5; L++) {
        am_theory_layer layer[5];
        double gradient, hessian;
        for (int l = 0; l < L; l++) {
            layer[l] =
                (am_theory_layer){.weight = B,
                                  .whole = B,
                                  .outputs = 7,
                                  .is_trained = 1,
                                  .function = am_theory_function_of(l == L - 1 ? "none" : "relu")};
        }
        am_theory_network_bounds(L, layer, X, loss, &gradient, &hessian);
        AM_CHECK_NEAR(gradient, g * X * pow(B, L - 1) * sqrt(L), 1e-12);
        AM_CHECK_NEAR(hessian,
                      c * X * X * L * pow(B, 2 * (L - 1)) + g * X * (L - 1) * pow(B, L - 2), 1e-12);
        if (L == 2) {
            layer[0].function = am_theory_function_of("tanh");
            am_theory_network_bounds(L, layer, X, loss, &gradient, &hessian);
            AM_CHECK_NEAR(hessian,
                          c * 2 * X * X * B * B + g * (X + layer[0].function->bend * B * X * X),
                          1e-12);
            layer[1].is_trained = 0;
            am_theory_network_bounds(L, layer, X, loss, &gradient, &hessian);
            AM_CHECK_NEAR(gradient, g * X * B, 1e-12);
            AM_CHECK_NEAR(hessian, c * X * X * B * B + g * layer[0].function->bend * B * X * X,
                          1e-12);
            layer[0].has_bias = 1;
            am_theory_network_bounds(L, layer, X, loss, &gradient, &hessian);
            AM_CHECK_NEAR(gradient, g * sqrt(X * X + 1) * B, 1e-12);
        }
    }
}

static void matrices(void)
{
    /* [3 0; 4 5] has the singular values sqrt 45 and sqrt 5. */
    const double w[] = {3, 0, 4, 5}, bias[] = {2, 0}, nothing[6] = {0}, bad[] = {1, NAN};
    double norm = -1;
    AM_CHECK_OK(am_theory_matrix_norm(2, 2, w, NULL, &norm));
    AM_CHECK_NEAR(norm, sqrt(45), 1e-6);
    /* With the column (2, 0): the Gram matrix of the rows is [13 12; 12 41]. */
    AM_CHECK_OK(am_theory_matrix_norm(2, 2, w, bias, &norm));
    AM_CHECK_NEAR(norm, sqrt(27 + sqrt(14.0 * 14 + 12 * 12)), 1e-6);
    AM_CHECK_OK(am_theory_matrix_norm(2, 3, nothing, NULL, &norm));
    AM_CHECK_NEAR(norm, 0, 0);
    AM_CHECK_OK(am_theory_matrix_norm(1, 2, bad, NULL, &norm));
    AM_CHECK(isnan(norm));
}

/* ---- fits ---- */

static void fits(void)
{
    static const double quantile[][2] = {{1, 12.7062047364}, {2, 4.3026527300}, {3, 3.1824463053},
                                         {4, 2.7764451052},  {5, 2.5705818356}, {10, 2.2281388520},
                                         {29, 2.0452296421}};
    for (int i = 0; i < 7; i++) {
        AM_CHECK_NEAR(am_student_quantile((int)quantile[i][0], 0.95), quantile[i][1], 1e-9);
    }
    const double x[] = {1, M_E, M_E * M_E, 9}, none[4] = {0};
    const double y[] = {1, M_E, M_E * M_E * M_E, NAN}, high[] = {0, 0, 100, 0};
    am_theory_slope s = am_theory_fit(4, x, y, none);
    AM_CHECK_I64(s.points, 3);
    AM_CHECK_NEAR(s.slope, 1.5, 1e-14);
    AM_CHECK_NEAR(s.error, sqrt(1.0 / 12), 1e-14);
    AM_CHECK_NEAR(s.high - s.slope, 12.7062047364 * sqrt(1.0 / 12), 1e-9);
    AM_CHECK_NEAR(s.slope - s.low, s.high - s.slope, 1e-12);
    s = am_theory_fit(4, x, y, high);
    AM_CHECK_I64(s.points, 2);
    AM_CHECK_NEAR(s.slope, 1, 1e-14);
    AM_CHECK(isnan(s.error) && isnan(s.low));
    s = am_theory_fit(1, x, y, none);
    AM_CHECK(s.points == 1 && isnan(s.slope));
}

static const am_test tests[] = {
    AM_TEST(quadratic),  AM_TEST(counterexample), AM_TEST(spectra),   AM_TEST(descent),
    AM_TEST(optimizers), AM_TEST(orders),         AM_TEST(functions), AM_TEST(networks),
    AM_TEST(matrices),   AM_TEST(fits),
};
AM_TEST_MAIN("theory", tests)
