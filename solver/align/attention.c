/* Heads of attention: see attention.h. Each pair of groups is matched inside as well as it can be;
 * what that gives is the gain of an assignment of groups. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/align/attention.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/align/axes.h"
#include "solver/linalg/assignment.h"

enum { TURNS = 16 };

typedef struct matcher {
    const am_layer_heads *heads;
    double *const *S;
    int64_t R;        /* query heads of a group */
    double *gain;     /* [D,D] or [R,R] */
    int64_t *query;   /* [R] query heads of the pair at hand */
    int64_t *qk, *vo; /* [D] its features */
    int64_t *group;   /* [G] */
    double *pair;     /* [G,G] */
} matcher;

/* gain[D,D] += block (row, column) of a field of N units */
static void add_block(const matcher *m, int field, int64_t N, int64_t row, int64_t column)
{
    const int64_t D = m->heads->D;
    for (int64_t d = 0; d < D; d++) {
        const double *from = m->S[field] + (row * D + d) * N + column * D;
        for (int64_t e = 0; e < D; e++) {
            m->gain[d * D + e] += from[e];
        }
    }
}

/* Features by what the group itself says (keys or values), and by its query heads. */
static int match_features(const matcher *m, int own, int of_query, bool with_queries, int64_t g,
                          int64_t h, int64_t *match, double *value)
{
    const am_layer_heads *n = m->heads;
    memset(m->gain, 0, (size_t)(n->D * n->D) * sizeof *m->gain);
    add_block(m, own, n->G * n->D, g, h);
    for (int64_t r = 0; with_queries && r < m->R; r++) {
        add_block(m, of_query, n->H * n->D, g * m->R + r, h * m->R + m->query[r]);
    }
    int rc = 0;
    if (own == AM_ALIGN_K && n->is_rotary) {
        for (int64_t d = 0; d < n->D; d++) {
            match[d] = d;
        }
    } else {
        rc = am_assignment(n->D, m->gain, n->D, match, NULL, NULL);
    }
    for (int64_t d = 0; rc == 0 && d < n->D; d++) {
        *value += m->gain[d * n->D + match[d]];
    }
    return rc;
}

static int match_queries(const matcher *m, int64_t g, int64_t h)
{
    const int64_t D = m->heads->D, N = m->heads->H * D;
    for (int64_t r = 0; r < m->R; r++) {
        for (int64_t s = 0; s < m->R; s++) {
            double sum = 0;
            for (int64_t d = 0; d < D; d++) {
                const int64_t row = (g * m->R + r) * D + d, column = (h * m->R + s) * D;
                sum += m->S[AM_ALIGN_Q][row * N + column + m->qk[d]];
                sum += m->S[AM_ALIGN_O][row * N + column + m->vo[d]];
            }
            m->gain[r * m->R + s] = sum;
        }
    }
    return am_assignment(m->R, m->gain, m->R, m->query, NULL, NULL);
}

/* Group g of the base with group h of the model: query, qk, vo, and what they give. */
static int match_pair(const matcher *m, int64_t g, int64_t h, double *value)
{
    double before = 0, ignored = 0;
    int rc = 0;
    *value = 0;
    for (int64_t r = 0; r < m->R; r++) {
        m->query[r] = r;
    }
    if (m->R > 1) {
        AM_TRY(match_features(m, AM_ALIGN_K, AM_ALIGN_Q, false, g, h, m->qk, &ignored));
        AM_TRY(match_features(m, AM_ALIGN_V, AM_ALIGN_O, false, g, h, m->vo, &ignored));
    }
    for (int turn = 0; turn < TURNS; turn++) {
        if (m->R > 1) {
            AM_TRY(match_queries(m, g, h));
        }
        *value = 0;
        AM_TRY(match_features(m, AM_ALIGN_K, AM_ALIGN_Q, true, g, h, m->qk, value));
        AM_TRY(match_features(m, AM_ALIGN_V, AM_ALIGN_O, true, g, h, m->vo, value));
        if (m->R == 1 || (turn > 0 && *value <= before)) {
            break;
        }
        before = *value;
    }
cleanup:
    return rc;
}

/* Group g of the base takes group h of the model, as matched. */
static void take_pair(const matcher *m, int64_t g, int64_t h, int64_t *const match[4])
{
    const int64_t D = m->heads->D;
    for (int64_t d = 0; d < D; d++) {
        match[AM_ALIGN_K][g * D + d] = h * D + m->qk[d];
        match[AM_ALIGN_V][g * D + d] = h * D + m->vo[d];
        for (int64_t r = 0; r < m->R; r++) {
            const int64_t at = (g * m->R + r) * D + d, from = (h * m->R + m->query[r]) * D;
            match[AM_ALIGN_Q][at] = from + m->qk[d];
            match[AM_ALIGN_O][at] = from + m->vo[d];
        }
    }
}

int am_align_attention(const am_layer_heads *heads, double *const S[4], int64_t *const match[4])
{
    const int64_t G = heads->G, D = heads->D, R = heads->H / G, side = D > R ? D : R;
    matcher m = {.heads = heads, .S = S, .R = R};
    double value = 0;
    int rc = 0;
    m.gain = am_new(side * side, sizeof *m.gain, "heads");
    m.query = am_new(R, sizeof *m.query, "heads");
    m.qk = am_new(D, sizeof *m.qk, "heads");
    m.vo = am_new(D, sizeof *m.vo, "heads");
    m.group = am_new(G, sizeof *m.group, "heads");
    m.pair = am_new(G * G, sizeof *m.pair, "heads");
    if (!m.gain || !m.query || !m.qk || !m.vo || !m.group || !m.pair) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    for (int64_t i = 0; i < G * G; i++) {
        AM_TRY(match_pair(&m, i / G, i % G, &m.pair[i]));
    }
    AM_TRY(am_assignment(G, m.pair, G, m.group, NULL, NULL));
    for (int64_t g = 0; g < G; g++) {
        AM_TRY(match_pair(&m, g, m.group[g], &value));
        take_pair(&m, g, m.group[g], match);
    }
cleanup:
    free(m.gain);
    free(m.query);
    free(m.qk);
    free(m.vo);
    free(m.group);
    free(m.pair);
    return rc;
}
