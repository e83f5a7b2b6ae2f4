/* mnist5k: 5,000 real MNIST digits from one picture, a sheet of 50 x 100 cells of 20x20 pixels,
 * five rows of cells a digit; each is centred in 28x28. libpng is optional at build time.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/prepare.h"
#include "mpi/error.h"

#define MNIST_PACKAGES "opencv-doc"
#define MNIST_LICENCE  "Apache-2.0 (OpenCV samples); digits from MNIST, LeCun and Cortes"

enum { CLASSES = 10, CELL = 20, COLUMNS = 100, ROWS = 50, PER_CLASS = COLUMNS * ROWS / CLASSES };
enum { MARGIN = (AM_SIDE - CELL) / 2 };
/* of the 500 samples of a class */
enum { TRAIN_EACH = 300, VALIDATION_EACH = 50, TEST_EACH = 150 };

static const char *const digit_classes[CLASSES] = {"0", "1", "2", "3", "4",
                                                   "5", "6", "7", "8", "9"};

#ifdef AM_WITH_PNG
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"

/* The sheet as grey bytes [ROWS*CELL, COLUMNS*CELL], owned. */
static int read_sheet(const char *path, uint8_t **sheet)
{
    int rc = 0;
    png_image image = {.version = PNG_IMAGE_VERSION};
    *sheet = NULL;
    if (png_image_begin_read_from_file(&image, path) == 0) {
        AM_TRY(am_fail(AM_E_DATA, "%s: not a readable PNG file: %s", path, image.message));
    }
    image.format = PNG_FORMAT_GRAY;
    if (image.width != COLUMNS * CELL || image.height != ROWS * CELL) {
        AM_TRY(am_fail(AM_E_DATA, "%s: %u x %u pixels, the digit sheet has %d x %d", path,
                       image.width, image.height, COLUMNS * CELL, ROWS * CELL));
    }
    *sheet = am_new(PNG_IMAGE_SIZE(image), 1, "digit sheet");
    if (*sheet == NULL) {
        AM_TRY(AM_E_NOMEM);
    }
    if (png_image_finish_read(&image, NULL, *sheet, 0, NULL) == 0) {
        AM_TRY(am_fail(AM_E_DATA, "%s: damaged PNG file: %s", path, image.message));
    }
cleanup:
    png_image_free(&image);
    if (rc != 0) {
        free(*sheet);
        *sheet = NULL;
    }
    return rc;
}

/* Sample i of class k, padded. */
static void cut_cell(const uint8_t *sheet, int64_t k, int64_t i, uint8_t image[AM_PIXELS])
{
    int64_t row = (k * PER_CLASS + i) / COLUMNS * CELL, column = i % COLUMNS * CELL;
    memset(image, 0, AM_PIXELS);
    for (int64_t r = 0; r < CELL; r++) {
        memcpy(image + (MARGIN + r) * AM_SIDE + MARGIN, sheet + (row + r) * COLUMNS * CELL + column,
               CELL);
    }
}

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    int rc = 0;
    am_packages packages = {0};
    am_pool pool[AM_SPLITS] = {{0}, {0}, {0}};
    const char *path = NULL;
    uint8_t *sheet = NULL, image[AM_PIXELS];
    AM_TRY(am_packages_open(roots, MNIST_PACKAGES, &packages));
    AM_TRY(am_package_file(&packages, "/examples/data/digits.png", &path));
    AM_TRY(read_sheet(path, &sheet));
    for (int64_t k = 0; k < CLASSES; k++) {
        am_rng rng = am_rng_make(seed, "split", 0, k, task);
        for (int64_t i = 0; i < PER_CLASS; i++) {
            int64_t rank = am_rng_permute(&rng, PER_CLASS, i);
            am_split split = rank < TRAIN_EACH                     ? AM_TRAIN
                             : rank < TRAIN_EACH + VALIDATION_EACH ? AM_VALIDATION
                                                                   : AM_TEST;
            cut_cell(sheet, k, i, image);
            AM_TRY(am_pool_add(&pool[split], image, (int32_t)k, -1));
        }
    }
    for (int s = 0; s < AM_SPLITS; s++) {
        AM_TRY(am_prepared_draw(out, (am_split)s, &pool[s], pool[s].n, seed, task));
    }
    AM_TRY(am_prepared_classes(out, digit_classes, CLASSES));
    AM_TRY(am_prepared_origin(out, &packages, NULL, MNIST_LICENCE));
cleanup:
    for (int s = 0; s < AM_SPLITS; s++) {
        am_pool_free(&pool[s]);
    }
    free(sheet);
    am_packages_free(&packages);
    return rc;
}

#else

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    (void)roots, (void)seed, (void)out, (void)digit_classes;
    return am_fail(AM_E_USAGE,
                   "%s comes from a PNG picture, and this allmerge was built without libpng: "
                   "install libpng-dev, run cmake again and rebuild",
                   task);
}

#endif

const am_dataset_source am_dataset_source_mnist5k = {
    .name = "mnist5k",
    .help = "handwritten digits, 10 classes (5,000 of MNIST)",
    .packages = MNIST_PACKAGES,
    .licence = MNIST_LICENCE,
    .prepare = prepare,
};
