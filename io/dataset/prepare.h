/* What the sources in io/datasets/ share: pools of images, drawing samples from a pool into a
 * split, dividing groups (font families) between splits, and small image operations.
 * All calls are local; random choices depend on (seed, task) only.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_PREPARE_H
#define AM_IO_DATASET_PREPARE_H

#include "io/dataset/dataset.h"
#include "io/dataset/packages.h"
#include "mpi/rng.h"

enum { AM_SIDE = 28, AM_PIXELS = AM_SIDE * AM_SIDE };

/* A growing set of labelled images. */
typedef struct am_pool {
    int64_t n, capacity;
    uint8_t *x;     /* [n, AM_PIXELS] owned */
    int32_t *y;     /* [n] owned */
    int32_t *group; /* [n] owned: font family or pattern, -1: none */
} am_pool;

int am_pool_add(am_pool *pool, const uint8_t image[AM_PIXELS], int32_t label, int32_t group);
void am_pool_free(am_pool *pool);

/** Fill one split with at most `limit` samples of the pool, chosen and ordered by (seed, task,
 * split). Errors: AM_E_DATA for an empty pool; AM_E_NOMEM. */
int am_prepared_draw(am_prepared *out, am_split split, const am_pool *pool, int64_t limit,
                     uint64_t seed, const char *task);
/** Set classes and class names from `name` [n] (copied). */
int am_prepared_classes(am_prepared *out, const char *const *name, int64_t n);
/** Set source (the packages with their versions; `used` as in am_packages_describe) and licence. */
int am_prepared_origin(am_prepared *out, const am_packages *packages, const bool *used,
                       const char *licence);

/** Cut a text into samples of T + 1 bytes that start T apart, and fill `out`: features, x, no
 * labels.
 *
 * The text is cut into 100 parts of equal length; of every ten parts the fifth is for validation
 * and the tenth for test, so no sample has bytes of another split. Samples lie inside a part and
 * are ordered by (seed, task). Errors: AM_E_DATA when a split stays empty; AM_E_NOMEM. */
int am_prepared_text(am_prepared *out, const uint8_t *text, int64_t bytes, int64_t T, uint64_t seed,
                     const char *task);

/** Divide n groups between the splits so that every split holds about its share of the weight.
 *
 * Groups are taken in an order drawn by `rng`; each goes to the split that lacks most of its share.
 * A group is never divided. weight [n]; share [AM_SPLITS], sum 1; split [n] out. */
void am_split_groups(const am_rng *rng, const int64_t *weight, int64_t n,
                     const double share[AM_SPLITS], am_split *split);

/* Names in the order of first use; index = position. */
typedef struct am_names {
    int64_t n, capacity;
    char **name; /* [n] owned */
} am_names;
/** Index of `name`, appended if it is new; -1 when out of memory. */
int64_t am_names_add(am_names *names, const char *name);
void am_names_free(am_names *names);

/** The image under an affine map about the centre, bilinear, zero outside.
 *
 * scale > 0; tan_half tangent of half the angle; shear; dx, dy shift in pixels. Only + - * / are
 * used, so every IEEE machine gives the same bytes. */
typedef struct am_warp {
    double scale, tan_half, shear, dx, dy;
} am_warp;
void am_image_warp(const uint8_t in[AM_PIXELS], const am_warp *warp, uint8_t out[AM_PIXELS]);

/** v rounded to nearest and clamped to 0..255. */
uint8_t am_to_u8(double v);

#endif
