/* Multi-head attention over fused queries, keys and values: a row of the input is H queries, then
 * G keys, then G values of D numbers each; query head h attends to group h G / H. Scores are made
 * by blocks with a running softmax, so that memory does not grow with T^2: forward keeps the
 * logarithm of each row's sum and backward makes the probabilities again. Rotary positions turn
 * pairs (i, i + D/2) by t base^(-2i/D). Sources: Vaswani et al. (2017); Milakov & Gimelshein (2018)
 * and Dao et al. (2022) for the running softmax; Ainslie et al. (2023) for groups; Su et al. (2021)
 * for rotary positions. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_lanes.h"
#include "solver/training/real_layer.h"
#include "solver/training/real_math.h"

typedef struct am_attention {
    int64_t heads, groups;
    bool causal;
    double rotary;
} am_attention;

static const am_param attrs[] = {
    {"heads", AM_PARAM_INT, offsetof(am_attention, heads), NULL, 1, 65536, NULL, "query heads"},
    {"groups", AM_PARAM_INT, offsetof(am_attention, groups), "0", 0, 65536, NULL,
     "key and value heads, 0: as many as queries"},
    {"causal", AM_PARAM_BOOL, offsetof(am_attention, causal), "no", 0, 0, NULL,
     "a position sees itself and those before it only"},
    {"rotary", AM_PARAM_REAL, offsetof(am_attention, rotary), "0", 0, 1e12, NULL,
     "base of rotary positions, 0: none"},
    {0},
};

enum { AM_QUERIES = 64, AM_KEYS = 128 }; /* of a block */

typedef struct am_attention_size {
    int64_t T, H, G, D, width; /* width: of an input row, (H + 2 G) D */
    real scale;
    bool causal;
} am_attention_size;

static am_attention_size am_attention_size_of(const am_layer_site *s)
{
    const am_attention *o = s->attrs;
    am_attention_size z = {.T = s->in[0].d[0], .H = o->heads, .causal = o->causal};
    z.G = o->groups > 0 ? o->groups : o->heads;
    z.width = am_shape_features(&s->in[0]);
    z.D = z.width / (z.H + 2 * z.G);
    z.scale = (real)(1 / sqrt((double)(z.D > 0 ? z.D : 1)));
    return z;
}

static int am_attention_shape(const am_layer_site *s, am_shape *out)
{
    if (s->in[0].n != 2) {
        return am_layer_fail(s, "takes positions [T,F], not %s", am_shape_text(&s->in[0]));
    }
    const am_attention *o = s->attrs;
    const am_attention_size z = am_attention_size_of(s);
    if (z.D < 1 || z.D * (z.H + 2 * z.G) != z.width || z.H % z.G != 0) {
        return am_layer_fail(s,
                             "%lld features are not queries, keys and values of %lld heads in %lld "
                             "groups of equal size",
                             (long long)z.width, (long long)z.H, (long long)z.G);
    }
    if (o->rotary > 0 && z.D % 2 != 0) {
        return am_layer_fail(s, "rotary positions need heads of an even size, not %lld",
                             (long long)z.D);
    }
    *out = (am_shape){.n = 2, .d = {z.T, z.H * z.D}};
    return 0;
}

static void am_attention_heads(const am_layer_site *s, am_layer_heads *out)
{
    const am_attention_size z = am_attention_size_of(s);
    *out = (am_layer_heads){z.H, z.G, z.D, ((const am_attention *)s->attrs)->rotary > 0};
}

static unsigned am_attention_uses(const am_layer_site *s)
{
    (void)s;
    return AM_LAYER_READS_X | AM_LAYER_READS_Y;
}

static bool am_attention_turns(const am_layer_site *s)
{
    return ((const am_attention *)s->attrs)->rotary > 0;
}

/* log-sums [B,H,T], and with rotary positions the turned input */
static int64_t am_attention_kept(const am_layer_site *s, int64_t B)
{
    const am_attention_size z = am_attention_size_of(s);
    const int64_t turned = am_attention_turns(s) ? z.T * z.width : 0;
    return B * (z.H * z.T + turned) * (int64_t)sizeof(real);
}

/* Two blocks of scores, three numbers a query, a turned sample of the tangent. */
static int64_t am_attention_scratch(const am_layer_site *s, int64_t B)
{
    const am_attention_size z = am_attention_size_of(s);
    (void)B;
    return (2 * AM_QUERIES * AM_KEYS + 3 * AM_QUERIES + z.T * z.width + z.T) *
           (int64_t)sizeof(real);
}

/* Tangents of the log-sums [B,H,T], kept by tangent. */
static int64_t am_attention_kept_dot(const am_layer_site *s, int64_t B)
{
    const am_attention_size z = am_attention_size_of(s);
    return B * z.H * z.T * (int64_t)sizeof(real);
}

/* Four blocks of scores, a turned sample of the tangent, two numbers a position. */
static int64_t am_attention_curve_scratch(const am_layer_site *s, int64_t B)
{
    const am_attention_size z = am_attention_size_of(s);
    (void)B;
    return (4 * AM_QUERIES * AM_KEYS + z.T * z.width + 2 * z.T) * (int64_t)sizeof(real);
}

/* ---- rotary positions ---- */

/* Turn queries and keys of one sample by sign times their angles, in place. */
static void am_attention_turn(const am_layer_site *s, double sign, real *x)
{
    const am_attention_size z = am_attention_size_of(s);
    const double base = ((const am_attention *)s->attrs)->rotary;
    const int64_t half = z.D / 2;
    for (int64_t i = 0; i < half; i++) {
        const double frequency = pow(base, -2.0 * (double)i / (double)z.D);
        for (int64_t t = 0; t < z.T; t++) {
            const real c = (real)cos((double)t * frequency);
            const real n = (real)(sign * sin((double)t * frequency));
            for (int64_t h = 0; h < z.H + z.G; h++) {
                real *p = x + t * z.width + h * z.D + i, u = p[0], v = p[half];
                p[0] = u * c - v * n;
                p[half] = v * c + u * n;
            }
        }
    }
}

/* Turned input of sample b: kept, or the input itself. */
static const real *am_attention_input(const am_layer_args *a, int64_t b)
{
    const am_attention_size z = am_attention_size_of(a->site);
    const real *turned = (const real *)a->keep + a->B * z.H * z.T;
    return (am_attention_turns(a->site) ? turned : a->x[0]) + b * z.T * z.width;
}

/* ---- blocks ---- */

/* One head of one sample: rows lie `width` apart, those of the output H D apart. */
typedef struct am_head_view {
    const am_attention_size *z;
    const real *q, *k, *v;
    int64_t h;
} am_head_view;

static am_head_view am_attention_head(const am_attention_size *z, const real *x, int64_t h)
{
    const int64_t g = h * z->G / z->H;
    return (am_head_view){.z = z,
                          .q = x + h * z->D,
                          .k = x + (z->H + g) * z->D,
                          .v = x + (z->H + z->G + g) * z->D,
                          .h = h};
}

static am_operand am_rows_at(const real *at, int64_t row, int64_t ld, bool transpose)
{
    return (am_operand){.at = at + row * ld, .ld = ld, .transpose = transpose};
}

/* Keys that query block [q, q + n) sees: those below the result. */
static int64_t am_attention_seen(const am_attention_size *z, int64_t q, int64_t n)
{
    return z->causal && q + n < z->T ? q + n : z->T;
}

/* s [nq,nk] = scale Q K^T */
static void am_attention_scores(const am_head_view *w, int64_t q, int64_t nq, int64_t k, int64_t nk,
                                real *s)
{
    AM_R(am_gemm_in)
    (nq, nk, w->z->D, w->z->scale, am_rows_at(w->q, q, w->z->width, false),
     am_rows_at(w->k, k, w->z->width, true), false, s, nk);
}

/* Visible keys of query q in block [k, k + nk). */
static int64_t am_attention_visible(const am_attention_size *z, int64_t q, int64_t k, int64_t nk)
{
    const int64_t n = z->causal ? q + 1 - k : nk;
    return n < 0 ? 0 : n > nk ? nk : n;
}

/* s := exp(s - m), what is not visible 0; returns the sum, made in fixed lanes. */
__attribute__((always_inline)) static inline real am_attention_exp(real *restrict s, int64_t n,
                                                                   int64_t nk, real m)
{
    enum { LANES = 16 };
    real lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            s[i + j] = am_real_exp(s[i + j] - m);
            lane[j] += s[i + j];
        }
    }
    for (int j = 0; i < n; i++, j++) {
        s[i] = am_real_exp(s[i] - m);
        lane[j] += s[i];
    }
    for (; i < nk; i++) {
        s[i] = 0;
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) {
            lane[j] += lane[j + half];
        }
    }
    return lane[0];
}

__attribute__((always_inline)) static inline real am_attention_most(const real *s, int64_t n,
                                                                    real m)
{
    for (int64_t i = 0; i < n; i++) {
        m = s[i] > m || s[i] != s[i] ? s[i] : m; /* NaN is seen */
    }
    return m;
}

/* ---- forward ---- */

/* A block of keys joins the running softmax of each query row: m its largest score, l its sum. */
AM_CLONES static void am_attention_join(const am_attention_size *z, int64_t q, int64_t nq,
                                        int64_t k, int64_t nk, real *s, real *m, real *l, real *y)
{
    for (int64_t i = 0; i < nq; i++) {
        const int64_t n = am_attention_visible(z, q + i, k, nk);
        const real most = am_attention_most(s + i * nk, n, m[i]);
        const real shrink = k == 0 ? 0 : am_real_exp(m[i] - most);
        l[i] = l[i] * shrink + am_attention_exp(s + i * nk, n, nk, most);
        m[i] = most;
        real *restrict row = y + i * z->H * z->D;
        for (int64_t d = 0; d < z->D; d++) {
            row[d] = k == 0 ? 0 : row[d] * shrink;
        }
    }
}

static void am_attention_forward_rows(const am_head_view *w, int64_t q, int64_t nq, real *scratch,
                                      real *y, real *log_sum)
{
    const am_attention_size *z = w->z;
    real *s = scratch, *m = s + 2 * AM_QUERIES * AM_KEYS, *l = m + AM_QUERIES;
    const int64_t end = am_attention_seen(z, q, nq), ld = z->H * z->D;
    for (int64_t i = 0; i < nq; i++) {
        m[i] = (real)-INFINITY;
        l[i] = 0;
    }
    for (int64_t k = 0; k < end; k += AM_KEYS) {
        const int64_t nk = end - k < AM_KEYS ? end - k : AM_KEYS;
        am_attention_scores(w, q, nq, k, nk, s);
        am_attention_join(z, q, nq, k, nk, s, m, l, y);
        AM_R(am_gemm_in)
        (nq, z->D, nk, 1, am_rows_at(s, 0, nk, false), am_rows_at(w->v, k, z->width, false), true,
         y, ld);
    }
    for (int64_t i = 0; i < nq; i++) {
        const real inverse = 1 / l[i];
        for (int64_t d = 0; d < z->D; d++) {
            y[i * ld + d] *= inverse;
        }
        log_sum[i] = m[i] + (real)log((double)l[i]);
    }
}

static void am_attention_forward(const am_layer_args *a)
{
    const am_attention_size z = am_attention_size_of(a->site);
    const int64_t n = z.T * z.width, ld = z.H * z.D;
    real *log_sum = a->keep;
    if (am_attention_turns(a->site)) {
        memcpy(log_sum + a->B * z.H * z.T, a->x[0], (size_t)(a->B * n) * sizeof(real));
        for (int64_t b = 0; b < a->B; b++) {
            am_attention_turn(a->site, 1, (real *)am_attention_input(a, b));
        }
    }
    for (int64_t i = 0; i < a->B * z.H; i++) {
        const int64_t b = i / z.H, h = i % z.H;
        const am_head_view w = am_attention_head(&z, am_attention_input(a, b), h);
        for (int64_t q = 0; q < z.T; q += AM_QUERIES) {
            const int64_t nq = z.T - q < AM_QUERIES ? z.T - q : AM_QUERIES;
            am_attention_forward_rows(&w, q, nq, a->scratch, a->y + (b * z.T + q) * ld + h * z.D,
                                      log_sum + i * z.T + q);
        }
    }
}

/* ---- backward ---- */

/* Probabilities of a block from its scores and the log-sums. */
AM_CLONES static void am_attention_again(const am_attention_size *z, int64_t q, int64_t nq,
                                         int64_t k, int64_t nk, const real *log_sum, real *s)
{
    for (int64_t i = 0; i < nq; i++) {
        am_attention_exp(s + i * nk, am_attention_visible(z, q + i, k, nk), nk, log_sum[i]);
    }
}

/* ds := p (dp - c) scale, with c the dot of dy and y of the row */
AM_CLONES static void am_attention_slope(int64_t nq, int64_t nk, real scale, const real *p,
                                         const real *c, real *ds)
{
    for (int64_t i = 0; i < nq; i++) {
        for (int64_t j = 0; j < nk; j++) {
            ds[i * nk + j] = p[i * nk + j] * (ds[i * nk + j] - c[i]) * scale;
        }
    }
}

/* c[t] = dy[t] . y[t] of one head */
AM_CLONES static void am_attention_dots(const am_attention_size *z, const real *y, const real *dy,
                                        real *c)
{
    for (int64_t t = 0; t < z->T; t++) {
        const int64_t at = t * z->H * z->D;
        c[t] = (real)am_lanes_dot(y + at, dy + at, 0, z->D);
    }
}

/* Block of queries q and keys k:  dV += P^T dy;  dS = P (dy V^T - c) scale;  dQ += dS K;
 * dK += dS^T Q */
static void am_attention_backward_block(const am_head_view *w, int64_t q, int64_t nq, int64_t k,
                                        int64_t nk, const real *dy, const real *log_sum,
                                        const real *c, real *scratch, real *dx)
{
    const am_attention_size *z = w->z;
    const int64_t ld = z->H * z->D, g = w->h * z->G / z->H;
    real *p = scratch, *ds = p + AM_QUERIES * AM_KEYS;
    real *dq = dx + q * z->width + w->h * z->D, *dk = dx + k * z->width + (z->H + g) * z->D;
    real *dv = dk + z->G * z->D;
    am_attention_scores(w, q, nq, k, nk, p);
    am_attention_again(z, q, nq, k, nk, log_sum + q, p);
    AM_R(am_gemm_in)
    (nk, z->D, nq, 1, am_rows_at(p, 0, nk, true), am_rows_at(dy, q, ld, false), true, dv, z->width);
    AM_R(am_gemm_in)
    (nq, nk, z->D, 1, am_rows_at(dy, q, ld, false), am_rows_at(w->v, k, z->width, true), false, ds,
     nk);
    am_attention_slope(nq, nk, z->scale, p, c + q, ds);
    AM_R(am_gemm_in)
    (nq, z->D, nk, 1, am_rows_at(ds, 0, nk, false), am_rows_at(w->k, k, z->width, false), true, dq,
     z->width);
    AM_R(am_gemm_in)
    (nk, z->D, nq, 1, am_rows_at(ds, 0, nk, true), am_rows_at(w->q, q, z->width, false), true, dk,
     z->width);
}

static void am_attention_backward(const am_layer_args *a)
{
    const am_attention_size z = am_attention_size_of(a->site);
    const int64_t n = z.T * z.width, out = z.T * z.H * z.D;
    const real *log_sum = a->keep;
    real *c = (real *)a->scratch + 2 * AM_QUERIES * AM_KEYS + 3 * AM_QUERIES;
    memset(a->dx[0], 0, (size_t)(a->B * n) * sizeof(real));
    for (int64_t i = 0; i < a->B * z.H; i++) {
        const int64_t b = i / z.H, h = i % z.H;
        const am_head_view w = am_attention_head(&z, am_attention_input(a, b), h);
        const real *y = a->y + b * out + h * z.D, *dy = a->dy + b * out + h * z.D;
        am_attention_dots(&z, y, dy, c);
        for (int64_t q = 0; q < z.T; q += AM_QUERIES) {
            const int64_t nq = z.T - q < AM_QUERIES ? z.T - q : AM_QUERIES;
            const int64_t end = am_attention_seen(&z, q, nq);
            for (int64_t k = 0; k < end; k += AM_KEYS) {
                const int64_t nk = end - k < AM_KEYS ? end - k : AM_KEYS;
                am_attention_backward_block(&w, q, nq, k, nk, dy, log_sum + i * z.T, c, a->scratch,
                                            a->dx[0] + b * n);
            }
        }
    }
    for (int64_t b = 0; am_attention_turns(a->site) && b < a->B; b++) {
        am_attention_turn(a->site, -1, a->dx[0] + b * n);
    }
}

/* ---- tangent ---- */

/* s := p s, c[i] += sum of the row */
static void am_attention_weigh(int64_t nq, int64_t nk, const real *p, real *s, real *c)
{
    for (int64_t i = 0; i < nq; i++) {
        double sum = 0;
        for (int64_t j = 0; j < nk; j++) {
            s[i * nk + j] *= p[i * nk + j];
            sum += (double)s[i * nk + j];
        }
        c[i] += (real)sum;
    }
}

/* s [nq,nk] = scale (Q_dot K^T + Q K_dot^T) */
static void am_attention_scores_dot(const am_head_view *w, const am_head_view *dot, int64_t q,
                                    int64_t nq, int64_t k, int64_t nk, real *s)
{
    const am_attention_size *z = w->z;
    AM_R(am_gemm_in)
    (nq, nk, z->D, z->scale, am_rows_at(dot->q, q, z->width, false),
     am_rows_at(w->k, k, z->width, true), false, s, nk);
    AM_R(am_gemm_in)
    (nq, nk, z->D, z->scale, am_rows_at(w->q, q, z->width, false),
     am_rows_at(dot->k, k, z->width, true), true, s, nk);
}

/* s_dot = scale (q_dot k + q k_dot);  y_dot = sum p s_dot v - (sum p s_dot) y + sum p v_dot.
 * sum p s_dot is the tangent of the log-sum. */
static void am_attention_tangent_rows(const am_head_view *w, const am_head_view *dot, int64_t q,
                                      int64_t nq, const real *log_sum, real *scratch, const real *y,
                                      real *y_dot, real *log_sum_dot)
{
    const am_attention_size *z = w->z;
    const int64_t end = am_attention_seen(z, q, nq), ld = z->H * z->D;
    real *p = scratch, *s = p + AM_QUERIES * AM_KEYS, *c = s + AM_QUERIES * AM_KEYS;
    memset(c, 0, AM_QUERIES * sizeof(real));
    for (int64_t k = 0; k < end; k += AM_KEYS) {
        const int64_t nk = end - k < AM_KEYS ? end - k : AM_KEYS;
        am_attention_scores(w, q, nq, k, nk, p);
        am_attention_again(z, q, nq, k, nk, log_sum + q, p);
        am_attention_scores_dot(w, dot, q, nq, k, nk, s);
        am_attention_weigh(nq, nk, p, s, c);
        AM_R(am_gemm_in)
        (nq, z->D, nk, 1, am_rows_at(s, 0, nk, false), am_rows_at(w->v, k, z->width, false), k > 0,
         y_dot, ld);
        AM_R(am_gemm_in)
        (nq, z->D, nk, 1, am_rows_at(p, 0, nk, false), am_rows_at(dot->v, k, z->width, false), true,
         y_dot, ld);
    }
    for (int64_t i = 0; i < nq * z->D; i++) {
        const int64_t at = i / z->D * ld + i % z->D;
        y_dot[at] -= c[i / z->D] * y[at];
    }
    if (log_sum_dot != NULL) {
        memcpy(log_sum_dot, c, (size_t)nq * sizeof(real));
    }
}

/* The tangent of sample b, turned as its input is. */
static void am_attention_turn_dot(const am_layer_args *a, int64_t b, real *turned)
{
    const am_attention_size z = am_attention_size_of(a->site);
    const int64_t n = z.T * z.width;
    memcpy(turned, a->x_dot[0] + b * n, (size_t)n * sizeof(real));
    if (am_attention_turns(a->site)) {
        am_attention_turn(a->site, 1, turned);
    }
}

static void am_attention_tangent(const am_layer_args *a)
{
    const am_attention_size z = am_attention_size_of(a->site);
    const int64_t ld = z.H * z.D;
    const real *log_sum = a->keep;
    real *log_sum_dot = a->keep_dot;
    real *turned = (real *)a->scratch + 2 * AM_QUERIES * AM_KEYS + 3 * AM_QUERIES;
    for (int64_t b = 0; b < a->B; b++) {
        am_attention_turn_dot(a, b, turned);
        for (int64_t h = 0; h < z.H; h++) {
            const am_head_view w = am_attention_head(&z, am_attention_input(a, b), h);
            const am_head_view dot = am_attention_head(&z, turned, h);
            for (int64_t q = 0; q < z.T; q += AM_QUERIES) {
                const int64_t nq = z.T - q < AM_QUERIES ? z.T - q : AM_QUERIES;
                const int64_t at = (b * z.T + q) * ld + h * z.D, row = (b * z.H + h) * z.T;
                am_attention_tangent_rows(&w, &dot, q, nq, log_sum + row, a->scratch, a->y + at,
                                          a->y_dot + at,
                                          log_sum_dot != NULL ? log_sum_dot + row + q : NULL);
            }
        }
    }
}

/* ---- curve ---- */

/* p_dot := p (s_dot - l_dot), from s_dot, with l_dot the tangent of the row's log-sum */
AM_CLONES static void am_attention_spread(int64_t nq, int64_t nk, const real *p, const real *l_dot,
                                          real *p_dot)
{
    for (int64_t i = 0; i < nq; i++) {
        for (int64_t j = 0; j < nk; j++) {
            p_dot[i * nk + j] = p[i * nk + j] * (p_dot[i * nk + j] - l_dot[i]);
        }
    }
}

/* With dp and dp_dot given:  ds_dot := (p_dot (dp - c) + p (dp_dot - c_dot)) scale;
 * ds := p (dp - c) scale */
AM_CLONES static void am_attention_slope_dot(int64_t nq, int64_t nk, real scale, const real *p,
                                             const real *p_dot, const real *c, const real *c_dot,
                                             real *ds, real *ds_dot)
{
    for (int64_t i = 0; i < nq; i++) {
        for (int64_t j = i * nk; j < (i + 1) * nk; j++) {
            const real d = ds[j] - c[i];
            ds_dot[j] = (p_dot[j] * d + p[j] * (ds_dot[j] - c_dot[i])) * scale;
            ds[j] = p[j] * d * scale;
        }
    }
}

/* One head of one sample: what curve reads beside its views, and where it adds. */
typedef struct am_head_curve {
    const real *dy, *dy_dot, *log_sum, *log_sum_dot, *c, *c_dot;
    real *scratch, *dx_dot;
} am_head_curve;

/* out [M,D] += A B + A_dot B_dot, blocks A [M,K] of scores, perhaps transposed, and rows B [K,D].
 */
static void am_attention_add_both(const am_attention_size *z, int64_t M, int64_t K, am_operand a,
                                  am_operand b, am_operand a_dot, am_operand b_dot, real *out)
{
    AM_R(am_gemm_in)(M, z->D, K, 1, a, b, true, out, z->width);
    AM_R(am_gemm_in)(M, z->D, K, 1, a_dot, b_dot, true, out, z->width);
}

/* Block of queries q and keys k:  dV_dot += P_dot^T dy + P^T dy_dot;
 * dQ_dot += dS_dot K + dS K_dot;  dK_dot += dS_dot^T Q + dS^T Q_dot */
static void am_attention_curve_block(const am_head_view *w, const am_head_view *dot,
                                     const am_head_curve *v, int64_t q, int64_t nq, int64_t k,
                                     int64_t nk)
{
    const am_attention_size *z = w->z;
    const int64_t ld = z->H * z->D, g = w->h * z->G / z->H, size = AM_QUERIES * AM_KEYS;
    real *p = v->scratch, *p_dot = p + size, *ds = p_dot + size, *ds_dot = ds + size;
    real *dq = v->dx_dot + q * z->width + w->h * z->D;
    real *dk = v->dx_dot + k * z->width + (z->H + g) * z->D, *dv = dk + z->G * z->D;
    const am_operand dy = am_rows_at(v->dy, q, ld, false);
    const am_operand dy_dot = am_rows_at(v->dy_dot, q, ld, false);
    const am_operand value = am_rows_at(w->v, k, z->width, true);
    am_attention_scores(w, q, nq, k, nk, p);
    am_attention_again(z, q, nq, k, nk, v->log_sum + q, p);
    am_attention_scores_dot(w, dot, q, nq, k, nk, p_dot);
    am_attention_spread(nq, nk, p, v->log_sum_dot + q, p_dot);
    am_attention_add_both(z, nk, nq, am_rows_at(p_dot, 0, nk, true), dy, am_rows_at(p, 0, nk, true),
                          dy_dot, dv);
    AM_R(am_gemm_in)(nq, nk, z->D, 1, dy, value, false, ds, nk);
    AM_R(am_gemm_in)(nq, nk, z->D, 1, dy_dot, value, false, ds_dot, nk);
    AM_R(am_gemm_in)
    (nq, nk, z->D, 1, dy, am_rows_at(dot->v, k, z->width, true), true, ds_dot, nk);
    am_attention_slope_dot(nq, nk, z->scale, p, p_dot, v->c + q, v->c_dot + q, ds, ds_dot);
    am_attention_add_both(z, nq, nk, am_rows_at(ds_dot, 0, nk, false),
                          am_rows_at(w->k, k, z->width, false), am_rows_at(ds, 0, nk, false),
                          am_rows_at(dot->k, k, z->width, false), dq);
    am_attention_add_both(z, nk, nq, am_rows_at(ds_dot, 0, nk, true),
                          am_rows_at(w->q, q, z->width, false), am_rows_at(ds, 0, nk, true),
                          am_rows_at(dot->q, q, z->width, false), dk);
}

static void am_attention_curve_head(const am_head_view *w, const am_head_view *dot,
                                    const am_head_curve *v)
{
    const am_attention_size *z = w->z;
    for (int64_t q = 0; q < z->T; q += AM_QUERIES) {
        const int64_t nq = z->T - q < AM_QUERIES ? z->T - q : AM_QUERIES;
        const int64_t end = am_attention_seen(z, q, nq);
        for (int64_t k = 0; k < end; k += AM_KEYS) {
            am_attention_curve_block(w, dot, v, q, nq, k, end - k < AM_KEYS ? end - k : AM_KEYS);
        }
    }
}

/* With p_dot = p (s_dot - l_dot) of the tangent and c = dy . y:  c_dot = dy_dot . y + dy . y_dot;
 * dS = p (dy V^T - c) scale;  dS_dot = (p_dot (dy V^T - c) + p (dy_dot V^T + dy V_dot^T - c_dot))
 * scale, and the products above. */
static void am_attention_curve(const am_layer_args *a)
{
    const am_attention_size z = am_attention_size_of(a->site);
    const int64_t n = z.T * z.width, out = z.T * z.H * z.D;
    const real *log_sum = a->keep, *log_sum_dot = a->keep_dot;
    real *turned = (real *)a->scratch + 4 * AM_QUERIES * AM_KEYS, *c = turned + n, *c_dot = c + z.T;
    memset(a->dx_dot[0], 0, (size_t)(a->B * n) * sizeof(real));
    for (int64_t b = 0; b < a->B; b++) {
        am_attention_turn_dot(a, b, turned);
        for (int64_t h = 0; h < z.H; h++) {
            const int64_t at = b * out + h * z.D, row = (b * z.H + h) * z.T;
            const am_head_view w = am_attention_head(&z, am_attention_input(a, b), h);
            const am_head_view dot = am_attention_head(&z, turned, h);
            const am_head_curve v = {.dy = a->dy + at,
                                     .dy_dot = a->dy_dot + at,
                                     .log_sum = log_sum + row,
                                     .log_sum_dot = log_sum_dot + row,
                                     .c = c,
                                     .c_dot = c_dot,
                                     .scratch = a->scratch,
                                     .dx_dot = a->dx_dot[0] + b * n};
            am_attention_dots(&z, a->y_dot + at, a->dy + at, c); /* for the sum */
            am_attention_dots(&z, a->y + at, a->dy_dot + at, c_dot);
            AM_R(am_layer_sum)(z.T, c, c_dot);
            am_attention_dots(&z, a->y + at, a->dy + at, c);
            am_attention_curve_head(&w, &dot, &v);
        }
        if (am_attention_turns(a->site)) {
            am_attention_turn(a->site, -1, a->dx_dot[0] + b * n);
        }
    }
}

const am_layer AM_R(am_layer_attention) = {
    .name = "attention",
    .summary = "multi-head attention over fused queries, keys and values",
    .attrs = attrs,
    .inputs = 1,
    .axes = {.rule = AM_AXES_HEADS},
    .heads = am_attention_heads,
    .shape = am_attention_shape,
    .uses = am_attention_uses,
    .kept = am_attention_kept,
    .scratch = am_attention_scratch,
    .kept_dot = am_attention_kept_dot,
    .curve_scratch = am_attention_curve_scratch,
    .forward = am_attention_forward,
    .backward = am_attention_backward,
    .tangent = am_attention_tangent,
    .curve = am_attention_curve,
};
