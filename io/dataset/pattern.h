/* GIMP pattern files (.pat) and crops of them.
 *
 *   u32 big-endian: header bytes, version 1, width, height, depth (1 grey, 2 grey+alpha, 3 RGB,
 *   4 RGBA), "GPAT"; name, NUL; then width*height*depth bytes of pixels.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_PATTERN_H
#define AM_IO_DATASET_PATTERN_H

#include "io/dataset/prepare.h"

typedef struct am_pattern {
    char *name; /* owned, file name without folder and suffix */
    int64_t width, height;
    uint8_t *grey; /* [height, width] owned */
} am_pattern;

typedef struct am_patterns {
    int64_t n;
    am_pattern *p; /* [n] owned, by name */
} am_patterns;

/** Parse the bytes of a pattern file. path: for messages.
 * Errors: AM_E_DATA naming the file and what is wrong; AM_E_NOMEM. */
int am_pattern_parse(const char *path, const uint8_t *bytes, int64_t n, am_pattern *out);
void am_pattern_free(am_pattern *pattern);

/** The patterns of the packages named in `names` (space separated), in that order.
 * Errors: AM_E_NOINPUT naming a missing one; AM_E_DATA (damaged, or too narrow to cut). */
int am_patterns_open(const am_packages *packages, const char *names, am_patterns *out);
void am_patterns_free(am_patterns *patterns);

enum { AM_PATTERN_MIN_WIDTH = 96 };

/** The 28x28 crop `index` of a split: train crops lie in the left part, validation crops in the
 * middle, test crops in the right, so that crops of two splits share no pixel. */
void am_pattern_crop(const am_pattern *pattern, am_split split, const am_rng *rng, int64_t index,
                     uint8_t out[AM_PIXELS]);

/** Shift and scale an image to the given mean and standard deviation (clamped to 0..255); a flat
 * image becomes the mean. */
void am_image_normalise(uint8_t image[AM_PIXELS], double mean, double deviation);

#endif
