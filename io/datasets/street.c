/* street: printed digits on texture crops, lighter than the ground by a random contrast, with
 * random place, size, slant and a brightness ramp: what house numbers are to handwritten ones.
 * Digit fonts and texture regions of the three splits are disjoint. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "io/dataset/font_packages.h"
#include "io/dataset/glyph.h"
#include "io/dataset/pattern.h"
#include "mpi/arena.h"
#include "mpi/error.h"

#define STREET_PATTERNS                                                                            \
    "Craters Moonfoot brick burlap burlwood cracked crinklepaper granite1 ground1 ice marble1 "    \
    "marble2 pink_marble rain rock slate stone33 walnut wood1 wood2 wood5"
#define STREET_LICENCE "textures GPL-3+; " AM_FONT_LICENCE

enum { CLASSES = 10, TRAIN = 4000, VALIDATION = 1000, TEST = 2000 };
enum { DRAWS = 11 }; /* random numbers of a sample */

static const char *const digit_classes[CLASSES] = {"0", "1", "2", "3", "4",
                                                   "5", "6", "7", "8", "9"};
static const am_script digits = {"digits", "digits", "0030-0039"};
static const double digit_share[AM_SPLITS] = {0.60, 0.15, 0.25};

/* Sample i: ink over ground. u [DRAWS] are its uniform random numbers. */
static void compose(const uint8_t ink[AM_PIXELS], const double u[DRAWS], uint8_t image[AM_PIXELS])
{
    uint8_t mask[AM_PIXELS];
    const am_warp warp = {
        .scale = 0.70 + 0.30 * u[0],
        .tan_half = 0.20 * u[1] - 0.10, /* about +-11 degrees */
        .shear = 0.4 * u[2] - 0.2,
        .dx = 4.0 * u[3] - 2.0,
        .dy = 4.0 * u[4] - 2.0,
    };
    am_image_warp(ink, &warp, mask);
    double mean = 30.0 + 90.0 * u[5];
    am_image_normalise(image, mean, 6.0 + 16.0 * u[6]);
    double contrast = 40.0 + 95.0 * u[7];
    double opacity = 0.75 + 0.25 * u[8];
    double slope_x = 2.0 * u[9] - 1.0, slope_y = 2.0 * u[10] - 1.0; /* grey levels a pixel */
    for (int row = 0; row < AM_SIDE; row++) {
        for (int column = 0; column < AM_SIDE; column++) {
            int i = row * AM_SIDE + column;
            double cover = opacity * mask[i] / 255.0;
            double ground = image[i] * (1.0 - cover) + (mean + contrast) * cover;
            double centre = (AM_SIDE - 1) / 2.0;
            image[i] = am_to_u8(ground + slope_x * (column - centre) + slope_y * (row - centre));
        }
    }
}

/* Make the samples of one split from its digits and its parts of the patterns. */
static int make_split(am_prepared *out, am_split split, const am_pool *ink,
                      const am_patterns *patterns, int64_t n, uint64_t seed, const char *task)
{
    int rc = 0;
    am_pool pool = {0};
    am_rng rng = am_rng_make(seed, "compose", 0, split, task);
    for (int64_t i = 0; i < n && ink->n > 0; i++) {
        double u[DRAWS];
        for (int64_t j = 0; j < DRAWS; j++) {
            u[j] = am_rng_uniform(&rng, i * (DRAWS + 2) + j);
        }
        uint8_t image[AM_PIXELS];
        double pick = am_rng_uniform(&rng, i * (DRAWS + 2) + DRAWS);
        double place = am_rng_uniform(&rng, i * (DRAWS + 2) + DRAWS + 1);
        int64_t from = (int64_t)(pick * (double)ink->n);
        const am_pattern *pattern = &patterns->p[(int64_t)(place * (double)patterns->n)];
        am_rng crop = am_rng_make(seed, "street crop", 0, split, pattern->name);
        am_pattern_crop(pattern, split, &crop, i, image);
        compose(ink->x + from * AM_PIXELS, u, image);
        AM_TRY(am_pool_add(&pool, image, ink->y[from], ink->group[from]));
    }
    AM_TRY(am_prepared_draw(out, split, &pool, n, seed, task));
cleanup:
    am_pool_free(&pool);
    return rc;
}

/* The digits of every face, one pool a split, families apart; family names go to `out`. */
static int draw_digits(const am_packages *packages, uint64_t seed, am_prepared *out, bool *used,
                       am_pool ink[AM_SPLITS])
{
    int rc = 0;
    am_pool all = {0};
    am_names families = {0};
    int64_t *weight = NULL;
    am_split *split = NULL;
    AM_TRY(am_glyphs_collect(packages, &digits, 0, &all, &families, used));
    weight = am_new(families.n, sizeof *weight, "families");
    split = am_new(families.n, sizeof *split, "families");
    if (weight == NULL || split == NULL) {
        AM_TRY(AM_E_NOMEM);
    }
    for (int64_t i = 0; i < all.n; i++) {
        weight[all.group[i]]++;
    }
    am_rng rng = am_rng_make(seed, "families", 0, 0, digits.name);
    am_split_groups(&rng, weight, families.n, digit_share, split);
    for (int64_t i = 0; i < all.n; i++) {
        AM_TRY(
            am_pool_add(&ink[split[all.group[i]]], all.x + i * AM_PIXELS, all.y[i], all.group[i]));
    }
    out->group_name = families.name;
    out->groups = families.n;
    families = (am_names){0};
cleanup:
    am_pool_free(&all);
    am_names_free(&families);
    free(weight);
    free(split);
    return rc;
}

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    static const int64_t n[AM_SPLITS] = {TRAIN, VALIDATION, TEST};
    int rc = 0;
    am_packages packages = {0};
    am_patterns patterns = {0};
    am_pool ink[AM_SPLITS] = {{0}, {0}, {0}};
    bool *used = NULL;
    AM_TRY(am_packages_open(roots, "gimp-data " AM_FONT_PACKAGES, &packages));
    used = am_new(packages.n, sizeof *used, "packages");
    if (used == NULL) {
        AM_TRY(AM_E_NOMEM);
    }
    used[0] = true; /* gimp-data */
    AM_TRY(am_patterns_open(&packages, STREET_PATTERNS, &patterns));
    AM_TRY(draw_digits(&packages, seed, out, used, ink));
    for (int s = 0; s < AM_SPLITS; s++) {
        AM_TRY(make_split(out, (am_split)s, &ink[s], &patterns, n[s], seed, task));
    }
    AM_TRY(am_prepared_classes(out, digit_classes, CLASSES));
    AM_TRY(am_prepared_origin(out, &packages, used, STREET_LICENCE));
cleanup:
    for (int s = 0; s < AM_SPLITS; s++) {
        am_pool_free(&ink[s]);
    }
    free(used);
    am_patterns_free(&patterns);
    am_packages_free(&packages);
    return rc;
}

const am_dataset_source am_dataset_source_street = {
    .name = "street",
    .help = "printed digits on textures, random contrast and place, 10 classes",
    .packages = "gimp-data " AM_FONT_PACKAGES,
    .licence = STREET_LICENCE,
    .prepare = prepare,
};
