/* Shared steps of the data set sources. SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/prepare.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/partition.h"

/* ---- pools ---- */

static int pool_reserve(am_pool *pool, int64_t capacity)
{
    uint8_t *x = realloc(pool->x, (size_t)capacity * AM_PIXELS);
    if (x != NULL) {
        pool->x = x;
    }
    int32_t *y = realloc(pool->y, (size_t)capacity * sizeof *y);
    if (y != NULL) {
        pool->y = y;
    }
    int32_t *group = realloc(pool->group, (size_t)capacity * sizeof *group);
    if (group != NULL) {
        pool->group = group;
    }
    if (x == NULL || y == NULL || group == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for %lld images", (long long)capacity);
    }
    pool->capacity = capacity;
    return 0;
}

int am_pool_add(am_pool *pool, const uint8_t image[AM_PIXELS], int32_t label, int32_t group)
{
    if (pool->n == pool->capacity) {
        int rc = pool_reserve(pool, pool->capacity > 0 ? 2 * pool->capacity : 1024);
        if (rc != 0) {
            return rc;
        }
    }
    memcpy(pool->x + pool->n * AM_PIXELS, image, AM_PIXELS);
    pool->y[pool->n] = label;
    pool->group[pool->n] = group;
    pool->n++;
    return 0;
}

void am_pool_free(am_pool *pool)
{
    free(pool->x);
    free(pool->y);
    free(pool->group);
    *pool = (am_pool){0};
}

/* ---- from pools to splits ---- */

int am_prepared_draw(am_prepared *out, am_split split, const am_pool *pool, int64_t limit,
                     uint64_t seed, const char *task)
{
    if (pool->n == 0) {
        return am_fail(AM_E_DATA, "%s: the source gives no samples for split %d", task, (int)split);
    }
    int64_t n = pool->n < limit ? pool->n : limit;
    out->x[split] = am_new(n, AM_PIXELS, "images");
    out->y[split] = am_new(n, sizeof(int32_t), "labels");
    out->group[split] = am_new(n, sizeof(int32_t), "groups");
    if (out->x[split] == NULL || out->y[split] == NULL || out->group[split] == NULL) {
        return AM_E_NOMEM;
    }
    out->n[split] = n;
    am_rng rng = am_rng_make(seed, "draw", 0, split, task);
    for (int64_t i = 0; i < n; i++) {
        int64_t from = am_rng_permute(&rng, pool->n, i);
        memcpy(out->x[split] + i * AM_PIXELS, pool->x + from * AM_PIXELS, AM_PIXELS);
        out->y[split][i] = pool->y[from];
        out->group[split][i] = pool->group[from];
    }
    return 0;
}

int am_prepared_classes(am_prepared *out, const char *const *name, int64_t n)
{
    out->class_name = am_new(n, sizeof *out->class_name, "class names");
    if (out->class_name == NULL) {
        return AM_E_NOMEM;
    }
    out->classes = n;
    for (int64_t k = 0; k < n; k++) {
        out->class_name[k] = strdup(name[k]);
        if (out->class_name[k] == NULL) {
            return am_fail(AM_E_NOMEM, "no memory for class names");
        }
    }
    return 0;
}

int am_prepared_origin(am_prepared *out, const am_packages *packages, const bool *used,
                       const char *licence)
{
    out->source = am_packages_describe(packages, used);
    out->licence = strdup(licence);
    if (out->source == NULL || out->licence == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for the description of the source");
    }
    return 0;
}

/* ---- text ---- */

enum { TEXT_PARTS = 100 };

static am_split split_of_part(int64_t part)
{
    return part % 10 == 4 ? AM_VALIDATION : part % 10 == 9 ? AM_TEST : AM_TRAIN;
}

/* Starts of the samples of one split into start[], NULL to count; returns how many. */
static int64_t list_samples(int64_t bytes, int64_t T, am_split split, int64_t *start)
{
    int64_t n = 0;
    for (int64_t part = 0; part < TEXT_PARTS; part++) {
        int64_t lo = 0, hi = 0;
        am_part_range(bytes, TEXT_PARTS, part, &lo, &hi);
        for (; split_of_part(part) == split && lo + T + 1 <= hi; lo += T) {
            if (start != NULL) {
                start[n] = lo;
            }
            n++;
        }
    }
    return n;
}

int am_prepared_text(am_prepared *out, const uint8_t *text, int64_t bytes, int64_t T, uint64_t seed,
                     const char *task)
{
    out->features = T;
    for (int s = 0; s < AM_SPLITS; s++) {
        const int64_t n = list_samples(bytes, T, (am_split)s, NULL);
        if (n == 0) {
            return am_fail(AM_E_DATA, "%s: %lld bytes of text are too few for samples of %lld",
                           task, (long long)bytes, (long long)T + 1);
        }
        int64_t *start = am_new(n, sizeof *start, "samples of a text");
        out->x[s] = am_new(n, (size_t)T + 1, "tokens");
        if (start == NULL || out->x[s] == NULL) {
            free(start);
            return AM_E_NOMEM;
        }
        (void)list_samples(bytes, T, (am_split)s, start);
        const am_rng rng = am_rng_make(seed, "draw", 0, s, task);
        for (int64_t i = 0; i < n; i++) {
            const int64_t from = start[am_rng_permute(&rng, n, i)];
            memcpy(out->x[s] + i * (T + 1), text + from, (size_t)T + 1);
        }
        out->n[s] = n;
        free(start);
    }
    out->classes = 256;
    return 0;
}

void am_prepared_free(am_prepared *p)
{
    for (int s = 0; s < AM_SPLITS; s++) {
        free(p->x[s]);
        free(p->real[s]);
        free(p->y[s]);
        free(p->group[s]);
    }
    for (int64_t k = 0; p->class_name != NULL && k < p->classes; k++) {
        free(p->class_name[k]);
    }
    for (int64_t k = 0; p->group_name != NULL && k < p->groups; k++) {
        free(p->group_name[k]);
    }
    free(p->class_name);
    free(p->group_name);
    free(p->source);
    free(p->licence);
    *p = (am_prepared){0};
}

void am_split_groups(const am_rng *rng, const int64_t *weight, int64_t n,
                     const double share[AM_SPLITS], am_split *split)
{
    double total = 0.0, held[AM_SPLITS] = {0};
    for (int64_t i = 0; i < n; i++) {
        total += (double)weight[i];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t g = am_rng_permute(rng, n, i);
        int best = AM_TRAIN;
        for (int s = 1; s < AM_SPLITS; s++) {
            if (share[s] * total - held[s] > share[best] * total - held[best]) {
                best = s;
            }
        }
        split[g] = (am_split)best;
        held[best] += (double)weight[g];
    }
}

/* ---- names ---- */

int64_t am_names_add(am_names *names, const char *name)
{
    for (int64_t i = names->n; i-- > 0;) { /* from the end: repeats are mostly neighbours */
        if (strcmp(names->name[i], name) == 0) {
            return i;
        }
    }
    if (names->n == names->capacity) {
        int64_t capacity = names->capacity > 0 ? 2 * names->capacity : 64;
        char **grown = realloc(names->name, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            (void)am_fail(AM_E_NOMEM, "no memory for names");
            return -1;
        }
        names->name = grown;
        names->capacity = capacity;
    }
    names->name[names->n] = strdup(name);
    if (names->name[names->n] == NULL) {
        (void)am_fail(AM_E_NOMEM, "no memory for names");
        return -1;
    }
    return names->n++;
}

void am_names_free(am_names *names)
{
    for (int64_t i = 0; i < names->n; i++) {
        free(names->name[i]);
    }
    free(names->name);
    *names = (am_names){0};
}

/* ---- images ---- */

uint8_t am_to_u8(double v)
{
    return v <= 0.0 ? 0 : v >= 255.0 ? 255 : (uint8_t)(v + 0.5);
}

static double pixel(const uint8_t *in, int row, int column)
{
    bool is_inside = row >= 0 && row < AM_SIDE && column >= 0 && column < AM_SIDE;
    return is_inside ? in[row * AM_SIDE + column] : 0.0;
}

static int floor_int(double v)
{
    int i = (int)v;
    return i - (v < i);
}

void am_image_warp(const uint8_t in[AM_PIXELS], const am_warp *warp, uint8_t out[AM_PIXELS])
{
    /* out(p) = in(A p + c): A = (rotation back) (shear back) / scale about the centre */
    double t = warp->tan_half, c = (1.0 - t * t) / (1.0 + t * t), s = 2.0 * t / (1.0 + t * t);
    double centre = (AM_SIDE - 1) / 2.0;
    for (int row = 0; row < AM_SIDE; row++) {
        for (int column = 0; column < AM_SIDE; column++) {
            double x = (column - centre - warp->dx) / warp->scale;
            double y = (row - centre - warp->dy) / warp->scale;
            double u = c * x + s * y + centre, v = c * y - s * x;
            u += warp->shear * v;
            v += centre;
            int i = floor_int(v), j = floor_int(u);
            double a = v - i, b = u - j;
            double top = pixel(in, i, j) * (1.0 - b) + pixel(in, i, j + 1) * b;
            double bottom = pixel(in, i + 1, j) * (1.0 - b) + pixel(in, i + 1, j + 1) * b;
            out[row * AM_SIDE + column] = am_to_u8(top * (1.0 - a) + bottom * a);
        }
    }
}
