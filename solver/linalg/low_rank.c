/* See low_rank.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/low_rank.h"

#include <math.h>
#include "solver/linalg/random_svd.h"
#include "solver/linalg/svd.h"

enum { POWER = 2, LARGE = 512, SHARE = 8 };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t am_low_rank_most(int64_t m, int64_t n, const am_low_rank_rule *rule)
{
    const int64_t k = least(m, n);
    int64_t most = k;
    if (rule->most > 0) {
        most = least(most, rule->most);
    }
    if (rule->fraction > 0) {
        const int64_t share = (int64_t)floor(rule->fraction * (double)k + 1e-9);
        most = least(most, share > 1 ? share : 1);
    }
    return most;
}

static bool is_random(int64_t m, int64_t n, const am_low_rank_rule *rule)
{
    const int64_t k = least(m, n), most = am_low_rank_most(m, n, rule);
    return rule->way == AM_LOW_RANK_RANDOM ||
           (rule->way == AM_LOW_RANK_AUTO && k >= LARGE && most <= k / SHARE);
}

int64_t am_low_rank_bytes(int64_t m, int64_t n, const am_low_rank_rule *rule)
{
    const bool random = is_random(m, n, rule);
    const int64_t most = am_low_rank_most(m, n, rule), k = random ? most : least(m, n);
    return am_matrix_bytes(m, most) + am_matrix_bytes(1, k) + am_matrix_bytes(most, n) +
           (random ? am_random_svd_bytes(m, n, most) : am_svd_bytes_on(NULL, m, n, most));
}

/* How many of s [k] stay, of which `most` can; `total`: sum of all squares over s[0]^2. */
static int64_t count(const am_low_rank_rule *rule, int64_t rank, int64_t most, const double *s,
                     double total)
{
    double sum = 0;
    int64_t n = 0;
    for (; n < rank && n < most && s[n] > rule->smallest; n++) {
        if (rule->energy < 1 && sum >= rule->energy * total) {
            break;
        }
        sum += (s[n] / s[0]) * (s[n] / s[0]);
    }
    return n;
}

/* Sum of the squares of s [k] over s[0]^2, the smallest first. */
static double squares(const double *s, int64_t k)
{
    double sum = 0;
    for (int64_t i = k - 1; i >= 0; i--) {
        sum += (s[i] / s[0]) * (s[i] / s[0]);
    }
    return sum;
}

int am_low_rank_find(am_arena *work, am_matrix a, const am_low_rank_rule *rule, const am_rng *rng,
                     am_low_rank *out)
{
    const int64_t m = a.rows, n = a.cols, most = am_low_rank_most(m, n, rule);
    *out = (am_low_rank){.is_random = is_random(m, n, rule)};
    const int64_t k = out->is_random ? most : least(m, n);
    const am_matrix u = am_matrix_take(work, m, most), vt = am_matrix_take(work, most, n);
    double *s = am_matrix_take(work, 1, k).at, norm = am_matrix_norm(a);
    const int rc = out->is_random ? am_random_svd(work, a, k, POWER, rng, u, s, vt, NULL)
                                  : am_svd(work, a, u, s, vt);
    if (rc == 0 && k > 0 && s[0] > 0) {
        const double total = out->is_random ? (norm / s[0]) * (norm / s[0]) : squares(s, k);
        int64_t rank = 0; /* s beyond are rounding */
        while (rank < k && s[rank] > (double)(m > n ? m : n) * 0x1p-52 * s[0]) {
            rank++;
        }
        out->rank = count(rule, rank, most, s, total);
    }
    out->u = am_matrix_part(u, 0, 0, m, out->rank);
    out->vt = am_matrix_part(vt, 0, 0, out->rank, n);
    out->s = s;
    return rc;
}
