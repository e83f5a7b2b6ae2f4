/* What method files share: the top of an order, and Gram sums of a tile.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/clones.h"
#include "solver/merge/method.h"

/* Which of a tile's elements equal to the threshold belong to the top: all of them, none, or the
 * first few. Only one tile of a cut, if any, has to tell them apart. */
typedef enum ties { TIES_ALL, TIES_NONE, TIES_SOME } ties;

AM_CLONES static int32_t count_ties(const float *key, int64_t n, float threshold)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += key[i] == threshold;
    }
    return sum;
}

/* Counts this tile's ties; *before: those of earlier tiles. */
static ties meet_ties(const am_tile *tile, int cut, const float *key, int64_t *before)
{
    const am_cut *c = &tile->unit->cut[cut];
    const int64_t n = count_ties(key, tile->n, c->threshold);
    *before = tile->seen[cut];
    tile->seen[cut] += n;
    return *before + n <= c->ties ? TIES_ALL : *before >= c->ties ? TIES_NONE : TIES_SOME;
}

AM_CLONES static void mark_from(const float *key, int64_t n, float threshold, bool *top)
{
    for (int64_t i = 0; i < n; i++) {
        top[i] = key[i] >= threshold;
    }
}

AM_CLONES static void mark_above(const float *key, int64_t n, float threshold, bool *top)
{
    for (int64_t i = 0; i < n; i++) {
        top[i] = key[i] > threshold;
    }
}

void am_tile_top(const am_tile *tile, int cut, const float *key, bool *top)
{
    const am_cut *c = &tile->unit->cut[cut];
    int64_t seen = 0;
    switch (meet_ties(tile, cut, key, &seen)) {
    case TIES_ALL:
        mark_from(key, tile->n, c->threshold, top);
        return;
    case TIES_NONE:
        mark_above(key, tile->n, c->threshold, top);
        return;
    default:
        for (int64_t i = 0; i < tile->n; i++) {
            const bool is_tie = key[i] == c->threshold;
            top[i] = key[i] > c->threshold || (is_tie && seen < c->ties);
            seen += is_tie;
        }
    }
}

AM_CLONES static void keep_from(const float *restrict key, int64_t n, float threshold,
                                double *restrict x)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = key[i] >= threshold ? x[i] : 0;
    }
}

AM_CLONES static void keep_above(const float *restrict key, int64_t n, float threshold,
                                 double *restrict x)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = key[i] > threshold ? x[i] : 0;
    }
}

void am_tile_keep(const am_tile *tile, int cut, const float *key, double *x)
{
    const am_cut *c = &tile->unit->cut[cut];
    int64_t seen = 0;
    switch (meet_ties(tile, cut, key, &seen)) {
    case TIES_ALL:
        keep_from(key, tile->n, c->threshold, x);
        return;
    case TIES_NONE:
        keep_above(key, tile->n, c->threshold, x);
        return;
    default:
        for (int64_t i = 0; i < tile->n; i++) {
            const bool is_tie = key[i] == c->threshold;
            x[i] = key[i] > c->threshold || (is_tie && seen < c->ties) ? x[i] : 0;
            seen += is_tie;
        }
    }
}

AM_CLONES static void drop_from(const float *restrict key, int64_t n, float threshold,
                                double *restrict x)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = key[i] >= threshold ? 0 : x[i];
    }
}

AM_CLONES static void drop_above(const float *restrict key, int64_t n, float threshold,
                                 double *restrict x)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = key[i] > threshold ? 0 : x[i];
    }
}

void am_tile_drop(const am_tile *tile, int cut, const float *key, double *x)
{
    const am_cut *c = &tile->unit->cut[cut];
    int64_t seen = 0;
    switch (meet_ties(tile, cut, key, &seen)) {
    case TIES_ALL:
        drop_from(key, tile->n, c->threshold, x);
        return;
    case TIES_NONE:
        drop_above(key, tile->n, c->threshold, x);
        return;
    default:
        for (int64_t i = 0; i < tile->n; i++) {
            const bool is_tie = key[i] == c->threshold;
            x[i] = key[i] > c->threshold || (is_tie && seen < c->ties) ? 0 : x[i];
            seen += is_tie;
        }
    }
}

enum { LANES = 16 };

/* Element i goes to lane i mod 16, so that the sum has one order. */
AM_CLONES static double dot(const double *restrict x, const double *restrict y, int64_t n)
{
    double lane[LANES] = {0}, sum = 0;
    int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lane[k] += x[i + k] * y[i + k];
        }
    }
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += x[i] * y[i];
    }
    for (int k = 0; k < LANES; k++) {
        sum += lane[k];
    }
    return sum;
}

AM_CLONES static void subtract(double *restrict out, const double *restrict x,
                               const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] - base[i];
    }
}

void am_tile_gram(const am_tile *tile, double *sum)
{
    enum { PART = 256 }; /* small enough that all task vectors of a part stay in the cache */
    double delta[AM_MAX_MODELS][PART];
    for (int64_t lo = 0; lo < tile->n; lo += PART) {
        int64_t n = tile->n - lo < PART ? tile->n - lo : PART;
        double *to = sum;
        for (int i = 0; i < tile->models; i++) {
            const double *x = tile->x[i] + lo;
            if (tile->base != 0) {
                subtract(delta[i], x, tile->base + lo, n);
                x = delta[i];
            }
            for (int j = 0; j <= i; j++) {
                *to++ += dot(x, tile->base != 0 ? delta[j] : tile->x[j] + lo, n);
            }
        }
    }
}

double am_gram_at(const double *sum, int i, int j)
{
    int high = i > j ? i : j, low = i > j ? j : i;
    return sum[high * (high + 1) / 2 + low];
}
