/* GIMP pattern files. SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/pattern.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

enum { PAT_HEADER = 24, PAT_MAX_SIDE = 1 << 14, PAT_MAX_BYTES = 1 << 26 };

static uint32_t be32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* ITU-R BT.601 luma in integers; alpha is ignored. */
static uint8_t grey_of(const uint8_t *pixel, uint32_t depth)
{
    return depth < 3
               ? pixel[0]
               : (uint8_t)((299u * pixel[0] + 587u * pixel[1] + 114u * pixel[2] + 500u) / 1000u);
}

int am_pattern_parse(const char *path, const uint8_t *bytes, int64_t n, am_pattern *out)
{
    *out = (am_pattern){0};
    if (n < PAT_HEADER || memcmp(bytes + 20, "GPAT", 4) != 0 || be32(bytes + 4) != 1) {
        return am_fail(AM_E_DATA, "%s: not a GIMP pattern (version 1)", path);
    }
    uint32_t header = be32(bytes), width = be32(bytes + 8), height = be32(bytes + 12);
    uint32_t depth = be32(bytes + 16);
    if (header < PAT_HEADER || width < 1 || width > PAT_MAX_SIDE || height < 1 ||
        height > PAT_MAX_SIDE || depth < 1 || depth > 4) {
        return am_fail(AM_E_DATA, "%s: header says %u bytes, %u x %u pixels of %u bytes", path,
                       header, width, height, depth);
    }
    int64_t pixels = (int64_t)width * height;
    if ((int64_t)header + pixels * depth > n) {
        return am_fail(AM_E_DATA, "%s: truncated: %lld bytes, needs %lld", path, (long long)n,
                       (long long)(header + pixels * depth));
    }
    out->grey = am_new(pixels, 1, "pattern");
    if (out->grey == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < pixels; i++) {
        out->grey[i] = grey_of(bytes + header + i * depth, depth);
    }
    out->width = width;
    out->height = height;
    return 0;
}

void am_pattern_free(am_pattern *pattern)
{
    free(pattern->name);
    free(pattern->grey);
    *pattern = (am_pattern){0};
}

static int read_named(const am_packages *packages, const char *name, am_pattern *out)
{
    int rc = 0;
    char suffix[256];
    const char *path = NULL;
    uint8_t *bytes = NULL;
    int64_t n = 0;
    (void)snprintf(suffix, sizeof suffix, "/%s.pat", name);
    AM_TRY(am_package_file(packages, suffix, &path));
    AM_TRY(am_read_whole(path, PAT_MAX_BYTES, &bytes, &n));
    AM_TRY(am_pattern_parse(path, bytes, n, out));
    if (out->width < AM_PATTERN_MIN_WIDTH || out->height < AM_SIDE) {
        AM_TRY(am_fail(AM_E_DATA, "%s: %lld x %lld pixels are too few to cut three splits", path,
                       (long long)out->width, (long long)out->height));
    }
    out->name = strdup(name);
    if (out->name == NULL) {
        AM_TRY(am_fail(AM_E_NOMEM, "no memory for a name"));
    }
cleanup:
    free(bytes);
    return rc;
}

int am_patterns_open(const am_packages *packages, const char *names, am_patterns *out)
{
    int rc = 0;
    char *copy = strdup(names), *state = NULL;
    *out = (am_patterns){.p = am_new((int64_t)strlen(names) / 2 + 1, sizeof *out->p, "patterns")};
    if (copy == NULL || out->p == NULL) {
        AM_TRY(am_fail(AM_E_NOMEM, "no memory for patterns"));
    }
    for (char *w = strtok_r(copy, " ", &state); w != NULL; w = strtok_r(NULL, " ", &state)) {
        rc = read_named(packages, w, &out->p[out->n++]);
        AM_TRY(rc);
    }
cleanup:
    free(copy);
    if (rc != 0) {
        am_patterns_free(out);
    }
    return rc;
}

void am_patterns_free(am_patterns *patterns)
{
    for (int64_t i = 0; i < patterns->n; i++) {
        am_pattern_free(&patterns->p[i]);
    }
    free(patterns->p);
    *patterns = (am_patterns){0};
}

/* Columns [*lo, *hi) of a split:  | train | validation w/5 | test w/4 |, at least 28 each. */
static void columns_of(int64_t width, am_split split, int64_t *lo, int64_t *hi)
{
    int64_t test = width / 4 > AM_SIDE ? width / 4 : AM_SIDE;
    int64_t validation = width / 5 > AM_SIDE ? width / 5 : AM_SIDE;
    int64_t bounds[AM_SPLITS + 1] = {0, width - test - validation, width - test, width};
    *lo = bounds[split];
    *hi = bounds[split + 1];
}

void am_pattern_crop(const am_pattern *pattern, am_split split, const am_rng *rng, int64_t index,
                     uint8_t out[AM_PIXELS])
{
    int64_t lo = 0, hi = 0;
    columns_of(pattern->width, split, &lo, &hi);
    double u = am_rng_uniform(rng, 2 * index), v = am_rng_uniform(rng, 2 * index + 1);
    int64_t x = lo + (int64_t)(u * (double)(hi - lo - AM_SIDE + 1));
    int64_t y = (int64_t)(v * (double)(pattern->height - AM_SIDE + 1));
    for (int64_t row = 0; row < AM_SIDE; row++) {
        memcpy(out + row * AM_SIDE, pattern->grey + (y + row) * pattern->width + x, AM_SIDE);
    }
}

void am_image_normalise(uint8_t image[AM_PIXELS], double mean, double deviation)
{
    int64_t sum = 0, squares = 0;
    for (int i = 0; i < AM_PIXELS; i++) {
        sum += image[i];
        squares += (int64_t)image[i] * image[i];
    }
    double centre = (double)sum / AM_PIXELS;
    double variance = (double)(AM_PIXELS * squares - sum * sum) / ((double)AM_PIXELS * AM_PIXELS);
    double factor = variance > 0.0 ? deviation / sqrt(variance) : 0.0;
    for (int i = 0; i < AM_PIXELS; i++) {
        image[i] = am_to_u8(mean + factor * (image[i] - centre));
    }
}
