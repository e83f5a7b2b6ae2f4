/* fashion: 28x28 grey pictures of clothes in ten classes, from gzipped IDX files.
 *
 *   u32 big-endian: magic 0x803 (images) or 0x801 (labels), n, and for images 28, 28; then bytes.
 * Source: Xiao, Rasul, Vollgraf, Fashion-MNIST (2017). SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "io/dataset/prepare.h"
#include "mpi/error.h"

enum { CLASSES = 10, TRAIN = 4000, VALIDATION = 1000, TEST = 2000, MAX_BYTES = 1 << 28 };
#define FASHION_PACKAGES "dataset-fashion-mnist"
#define FASHION_LICENCE  "Expat (MIT)"

static const char *const fashion_classes[CLASSES] = {
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};

static uint32_t be32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* One IDX file, checked: `item` bytes a sample; *bytes owned, samples start after the header. */
static int read_idx(const am_packages *packages, const char *suffix, int dims, uint8_t **bytes,
                    int64_t *n)
{
    int rc = 0;
    const char *path = NULL;
    int64_t got = 0, header = 4 + 4 * dims, item = dims == 3 ? AM_PIXELS : 1;
    *bytes = NULL;
    AM_TRY(am_package_file(packages, suffix, &path));
    AM_TRY(am_read_whole(path, MAX_BYTES, bytes, &got));
    bool is_good = got >= header && be32(*bytes) == 0x800u + (uint32_t)dims &&
                   (dims == 1 || (be32(*bytes + 8) == AM_SIDE && be32(*bytes + 12) == AM_SIDE));
    if (!is_good || got != header + (int64_t)be32(*bytes + 4) * item) {
        AM_TRY(am_fail(AM_E_DATA, "%s: not an IDX file of %s, or truncated", path,
                       dims == 3 ? "28x28 images" : "labels"));
    }
    *n = be32(*bytes + 4);
cleanup:
    return rc;
}

/* Images and labels of one part ("train", "t10k") into a pool, in file order. */
static int read_part(const am_packages *packages, const char *part, am_pool *pool)
{
    int rc = 0;
    int64_t n = 0, n_labels = 0;
    uint8_t *images = NULL, *labels = NULL;
    bool is_train = part[1] == 'r';
    AM_TRY(read_idx(packages,
                    is_train ? "/train-images-idx3-ubyte.gz" : "/t10k-images-idx3-ubyte.gz", 3,
                    &images, &n));
    AM_TRY(read_idx(packages,
                    is_train ? "/train-labels-idx1-ubyte.gz" : "/t10k-labels-idx1-ubyte.gz", 1,
                    &labels, &n_labels));
    if (n != n_labels) {
        AM_TRY(am_fail(AM_E_DATA, "fashion %s: %lld images but %lld labels", part, (long long)n,
                       (long long)n_labels));
    }
    for (int64_t i = 0; i < n; i++) {
        if (labels[8 + i] >= CLASSES) {
            AM_TRY(am_fail(AM_E_DATA, "fashion %s: label %d of sample %lld", part, labels[8 + i],
                           (long long)i));
        }
        AM_TRY(am_pool_add(pool, images + 16 + i * AM_PIXELS, labels[8 + i], -1));
    }
cleanup:
    free(images);
    free(labels);
    return rc;
}

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    int rc = 0;
    am_packages packages = {0};
    am_pool train = {0}, test = {0}, part[2] = {{0}, {0}};
    AM_TRY(am_packages_open(roots, FASHION_PACKAGES, &packages));
    AM_TRY(read_part(&packages, "train", &train));
    AM_TRY(read_part(&packages, "t10k", &test));
    /* The source has no validation part: one training sample in five, drawn, is kept for it. */
    am_rng rng = am_rng_make(seed, "validation", 0, 0, task);
    for (int64_t i = 0; i < train.n; i++) {
        int to = am_rng_permute(&rng, train.n, i) < train.n / 5;
        AM_TRY(am_pool_add(&part[to], train.x + i * AM_PIXELS, train.y[i], -1));
    }
    AM_TRY(am_prepared_draw(out, AM_TRAIN, &part[0], TRAIN, seed, task));
    AM_TRY(am_prepared_draw(out, AM_VALIDATION, &part[1], VALIDATION, seed, task));
    AM_TRY(am_prepared_draw(out, AM_TEST, &test, TEST, seed, task));
    AM_TRY(am_prepared_classes(out, fashion_classes, CLASSES));
    AM_TRY(am_prepared_origin(out, &packages, NULL, FASHION_LICENCE));
cleanup:
    am_pool_free(&train);
    am_pool_free(&test);
    am_pool_free(&part[0]);
    am_pool_free(&part[1]);
    am_packages_free(&packages);
    return rc;
}

const am_dataset_source am_dataset_source_fashion = {
    .name = "fashion",
    .help = "clothes, 10 classes (Fashion-MNIST)",
    .packages = FASHION_PACKAGES,
    .licence = FASHION_LICENCE,
    .prepare = prepare,
};
