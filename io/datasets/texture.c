/* texture: 28x28 crops of photographic patterns, one class a pattern, at half brightness so that
 * inputs have the scale of the other tasks. (Crops normalised to one mean and contrast leave a
 * multilayer perceptron little above chance.) Train, validation and test crops lie in different
 * parts of a pattern. SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/pattern.h"
#include "mpi/error.h"

#define PATTERN_PACKAGES "gimp-data"
#define PATTERN_LICENCE  "GPL-3+"
#define PATTERNS         "brick burlap crinklepaper ground1 ice marble1 rain slate stone33 walnut"

enum { TRAIN_EACH = 400, VALIDATION_EACH = 100, TEST_EACH = 200 };

/* All crops of one pattern for one split into the pool. */
static int add_crops(const am_pattern *pattern, am_split split, int32_t label, int64_t n,
                     uint64_t seed, am_pool *pool)
{
    int rc = 0;
    uint8_t image[AM_PIXELS];
    am_rng rng = am_rng_make(seed, "crop", 0, split, pattern->name);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        am_pattern_crop(pattern, split, &rng, i, image);
        for (int j = 0; j < AM_PIXELS; j++) {
            image[j] /= 2;
        }
        rc = am_pool_add(pool, image, label, label);
    }
    return rc;
}

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    static const int64_t each[AM_SPLITS] = {TRAIN_EACH, VALIDATION_EACH, TEST_EACH};
    int rc = 0;
    am_packages packages = {0};
    am_patterns patterns = {0};
    am_pool pool = {0};
    am_names names = {0};
    AM_TRY(am_packages_open(roots, PATTERN_PACKAGES, &packages));
    AM_TRY(am_patterns_open(&packages, PATTERNS, &patterns));
    for (int s = 0; s < AM_SPLITS; s++) {
        pool.n = 0;
        for (int64_t k = 0; k < patterns.n; k++) {
            AM_TRY(add_crops(&patterns.p[k], (am_split)s, (int32_t)k, each[s], seed, &pool));
        }
        AM_TRY(am_prepared_draw(out, (am_split)s, &pool, pool.n, seed, task));
    }
    for (int64_t k = 0; k < patterns.n; k++) {
        if (am_names_add(&names, patterns.p[k].name) < 0) {
            AM_TRY(AM_E_NOMEM);
        }
    }
    AM_TRY(am_prepared_classes(out, (const char *const *)names.name, names.n));
    AM_TRY(am_prepared_origin(out, &packages, NULL, PATTERN_LICENCE));
cleanup:
    am_pool_free(&pool);
    am_names_free(&names);
    am_patterns_free(&patterns);
    am_packages_free(&packages);
    return rc;
}

const am_dataset_source am_dataset_source_texture = {
    .name = "texture",
    .help = "crops of wood, stone, cloth and other patterns, 10 classes",
    .packages = PATTERN_PACKAGES,
    .licence = PATTERN_LICENCE,
    .prepare = prepare,
};
