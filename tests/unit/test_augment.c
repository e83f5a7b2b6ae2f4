/* Augmented samples against their definition: every shift, mirror and crop is found again in the
 * image, noise has its moments, and a sample does not depend on who asks for it and when.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "solver/training/augment.h"
#include "solver/training/preset.h"
#include "tests/am_test.h"

enum { H = 5, W = 7, C = 2, F = H * W * C, SAMPLES = 400 };

/* Pixel [r,c,k] of sample i; a ramp along c and r when `self` is set. */
static float pixel(const void *self, int64_t i, int64_t r, int64_t c, int64_t k)
{
    return self != NULL ? (float)(3 * c - 2 * r + 100 * k)
                        : (float)((i * 31 + r * 17 + c * 5 + k * 3) % 97);
}

static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    for (int64_t b = 0; b < count; b++) {
        for (int64_t j = 0; j < F; j++) {
            x[b * F + j] = pixel(self, index[b], j / C / W, j / C % W, j % C);
        }
        y[b] = (int32_t)(index[b] % 3);
    }
    return 0;
}

static am_net image_net(void)
{
    am_net net = {0};
    int v = am_net_add(&net, "image", "image", AM_NET_SAMPLES, "height=5 width=7 channels=2");
    (void)am_net_add(&net, "flat", "flatten", v, "%s", "");
    AM_CHECK_OK(am_net_shape(&net, F));
    return net;
}

/* All samples in one gather, augmented, in pass `pass`. Owned. */
static float *all_of(am_augment_options options, bool is_ramp, int64_t pass)
{
    static int ramp;
    const am_samples from = {.self = is_ramp ? &ramp : NULL,
                             .label = "a",
                             .n = SAMPLES,
                             .features = F,
                             .classes = 3,
                             .labels = 1,
                             .gather = gather};
    am_net net = image_net();
    am_augment augment = {0};
    int64_t index[SAMPLES];
    int32_t y[SAMPLES];
    float *x = calloc((size_t)SAMPLES * F, sizeof *x);
    AM_ASSERT(x != NULL);
    AM_CHECK_OK(am_augment_make(&options, &net, &from, "a", 9, "finetune", 4, &augment));
    const am_samples samples = am_augment_samples(&augment);
    for (int64_t i = 0; i < SAMPLES; i++) {
        index[i] = i;
    }
    am_augment_pass(&augment, pass);
    AM_CHECK_OK(samples.gather(samples.self, index, SAMPLES, x, y));
    AM_CHECK_I64(y[5], 2);
    for (int64_t i = 0; i < 5; i++) { /* one at a time, in another order */
        float alone[F];
        AM_CHECK_OK(samples.gather(samples.self, &index[7 * (5 - i)], 1, alone, y));
        AM_CHECK(memcmp(alone, x + 7 * (5 - i) * F, sizeof alone) == 0);
    }
    am_augment_free(&augment);
    am_net_free(&net);
    return x;
}

static int64_t within(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Is sample i moved by (down, right), mirrored before that or not? */
static bool is_moved(const float *x, int64_t i, int64_t down, int64_t right, bool is_mirrored)
{
    for (int64_t j = 0; j < F; j++) {
        const int64_t r = j / C / W, c = within(j / C % W - right, W);
        if (x[i * F + j] !=
            pixel(NULL, i, within(r - down, H), is_mirrored ? W - 1 - c : c, j % C)) {
            return false;
        }
    }
    return true;
}

static void shift_and_flip(void)
{
    float *x = all_of((am_augment_options){.shift = 1, .flip = 0.25}, false, 0);
    int64_t seen[3][3][2] = {0}, found = 0;
    for (int64_t i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < 18; k++) {
            if (is_moved(x, i, k / 3 % 3 - 1, k % 3 - 1, k >= 9)) {
                seen[k / 3 % 3][k % 3][k >= 9]++;
                found++;
                break;
            }
        }
    }
    AM_CHECK_I64(found, SAMPLES); /* every one is exactly a move of its image */
    int64_t mirrored = 0;
    for (int k = 0; k < 9; k++) {
        const int64_t both = seen[k / 3][k % 3][0] + seen[k / 3][k % 3][1];
        AM_CHECK(both > SAMPLES / 18 && both < SAMPLES / 6); /* all shifts, evenly */
        mirrored += seen[k / 3][k % 3][1];
    }
    AM_CHECK(mirrored > SAMPLES / 6 && mirrored < SAMPLES / 3);
    free(x);
}

/* A crop of a ramp is a flatter ramp: its slope says how large the window was. */
static void crop(void)
{
    float *x = all_of((am_augment_options){.crop = 0.4}, true, 0);
    double least = 1, most = 0;
    for (int64_t i = 0; i < SAMPLES; i++) {
        const float *image = x + i * F;
        const float *row = image + 2 * W * C; /* inner pixels do not meet the edge */
        const double size = (double)(row[4 * C] - row[2 * C]) / 6;
        const double down = (double)(image[(3 * W + 3) * C] - image[(1 * W + 3) * C]) / -4;
        AM_CHECK_NEAR(size, down, 1e-5); /* the same share of both axes */
        AM_CHECK_NEAR(row[3 * C + 1] - row[3 * C], 100, 1e-3);
        least = size < least ? size : least;
        most = size > most ? size : most;
        for (int64_t c = 1; c < W - 1; c++) { /* between the ends of the image */
            AM_CHECK(row[c * C] >= pixel(x, 0, H - 1, 0, 0) && row[c * C] <= pixel(x, 0, 0, W, 0));
        }
    }
    AM_CHECK(least >= 0.6 - 1e-6 && least < 0.65 && most > 0.95 && most <= 1 + 1e-6);
    free(x);
}

static void noise(void)
{
    float *x = all_of((am_augment_options){.noise = 0.5}, false, 3);
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < SAMPLES * F; j++) {
        const double d = x[j] - pixel(NULL, j / F, j % F / C / W, j % F / C % W, j % C);
        sum += d;
        squares += d * d;
    }
    AM_CHECK_NEAR(sum / (SAMPLES * F), 0, 0.02);
    AM_CHECK_NEAR(squares / (SAMPLES * F), 0.25, 0.01);
    free(x);
}

static void passes_differ(void)
{
    const am_augment_options options = {.shift = 2, .crop = 0.3, .noise = 0.1};
    const size_t bytes = (size_t)SAMPLES * F * sizeof(float);
    float *first = all_of(options, false, 1), *again = all_of(options, false, 1);
    float *next = all_of(options, false, 2);
    AM_CHECK(memcmp(first, again, bytes) == 0);
    for (int64_t i = 0; i < SAMPLES; i++) {
        AM_CHECK(memcmp(first + i * F, next + i * F, F * sizeof(float)) != 0);
    }
    free(first);
    free(again);
    free(next);
}

static void refusals(void)
{
    const am_augment_options none = {0}, flip = {.flip = 0.5}, noisy = {.noise = 1};
    const am_samples from = {.label = "a", .n = 1, .features = 10, .gather = gather};
    am_augment augment;
    am_net net = {0};
    AM_CHECK(!am_augment_is_on(&none) && am_augment_is_on(&flip) && am_augment_is_on(&noisy));
    AM_CHECK_OK(am_preset_make("mlp", "", &(am_preset_list){.n = 1, .value = {3}}, &net));
    AM_CHECK_OK(am_net_shape(&net, 10));
    AM_CHECK_CODE(am_augment_make(&flip, &net, &from, "a", 0, "p", 0, &augment), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "10 features are no square image");
    am_error_clear();
    am_augment_free(&augment);
    AM_CHECK_OK(am_augment_make(&noisy, &net, &from, "a", 0, "p", 0, &augment));
    am_augment_free(&augment);
    am_net_free(&net);
    AM_CHECK_OK(am_preset_make("gpt", "features=8 depth=1 heads=2", NULL, &net));
    AM_CHECK_OK(am_net_shape(&net, 10));
    AM_CHECK_CODE(am_augment_make(&noisy, &net, &from, "a", 0, "p", 0, &augment), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "token ids");
    am_error_clear();
    am_augment_free(&augment);
    am_net_free(&net);
}

static const am_test tests[] = {
    AM_TEST(shift_and_flip), AM_TEST(crop),     AM_TEST(noise),
    AM_TEST(passes_differ),  AM_TEST(refusals),
};

AM_TEST_MAIN("augment", tests)
