/* The parts of data preparation: packages below a folder, patterns, dividing groups, warps,
 * character ranges. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "tests/am_test.h"
#include "io/dataset/glyph.h"
#include "io/dataset/packages.h"
#include "io/dataset/pattern.h"
#include "io/dataset/prepare.h"
#include "mpi/error.h"

/* ---- patterns ---- */

enum { HEADER = 30 };

/* A pattern file of w x h pixels of `depth` bytes, value = f(x, y, channel); returns its length. */
static int64_t make_pattern(uint8_t *to, uint32_t w, uint32_t h, uint32_t depth)
{
    const uint32_t head[5] = {HEADER, 1, w, h, depth};
    for (int i = 0; i < 20; i++) {
        to[i] = (uint8_t)(head[i / 4] >> (24 - 8 * (i % 4)));
    }
    memcpy(to + 20, "GPATtest!", 10);
    for (uint32_t i = 0; i < w * h * depth; i++) {
        to[HEADER + i] = (uint8_t)(i / depth % w + 3 * (i % depth));
    }
    return HEADER + (int64_t)w * h * depth;
}

static void test_patterns_are_parsed(void)
{
    uint8_t bytes[4096];
    for (uint32_t depth = 1; depth <= 4; depth++) {
        am_pattern p;
        int64_t n = make_pattern(bytes, 7, 5, depth);
        AM_CHECK_OK(am_pattern_parse("t.pat", bytes, n, &p));
        AM_CHECK_I64(p.width, 7);
        AM_CHECK_I64(p.height, 5);
        /* grey: the first channel, or .299 x + .587 (x+3) + .114 (x+6) = x + 2.445 */
        AM_CHECK_I64(p.grey[3 * 7 + 4], depth < 3 ? 4 : 6);
        am_pattern_free(&p);
    }
}

static void test_damaged_patterns_are_refused(void)
{
    uint8_t bytes[4096];
    int64_t n = make_pattern(bytes, 7, 5, 3);
    am_pattern p;
    for (int64_t cut = 0; cut < n; cut++) {
        AM_CHECK_CODE(am_pattern_parse("t.pat", bytes, cut, &p), AM_E_DATA);
        AM_CHECK_CONTAINS(am_error_message(), "t.pat");
        am_error_clear();
    }
    const struct {
        int at;
        uint8_t value;
    } damage[] = {{3, 23},  /* header shorter than its fields */
                  {7, 2},   /* version */
                  {11, 0},  /* width 0 */
                  {8, 255}, /* width 2^32 */
                  {12, 1},  /* height 2^24 */
                  {19, 5},  /* depth */
                  {19, 0},  {20, 'X'}};
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        (void)make_pattern(bytes, 7, 5, 3);
        bytes[damage[i].at] = damage[i].value;
        AM_CHECK_CODE(am_pattern_parse("t.pat", bytes, n, &p), AM_E_DATA);
        am_error_clear();
    }
}

static void test_crops_of_two_splits_share_no_pixel(void)
{
    uint8_t *bytes = malloc(HEADER + 200 * 40);
    am_rng rng = am_rng_make(am_test_seed(), "crop", 0, 0, "");
    for (uint32_t width = AM_PATTERN_MIN_WIDTH; width <= 200; width += 13) {
        am_pattern p; /* its grey level is the column */
        AM_CHECK_OK(am_pattern_parse("t.pat", bytes, make_pattern(bytes, width, 40, 1), &p));
        int lo[AM_SPLITS] = {255, 255, 255}, hi[AM_SPLITS] = {0, 0, 0};
        for (int s = 0; s < AM_SPLITS; s++) {
            for (int64_t i = 0; i < 400; i++) {
                uint8_t crop[AM_PIXELS];
                am_pattern_crop(&p, (am_split)s, &rng, i, crop);
                lo[s] = crop[0] < lo[s] ? crop[0] : lo[s];
                hi[s] = crop[AM_SIDE - 1] > hi[s] ? crop[AM_SIDE - 1] : hi[s];
                AM_CHECK_I64(crop[AM_PIXELS - 1] - crop[AM_PIXELS - AM_SIDE], AM_SIDE - 1);
            }
        }
        AM_CHECK_I64(lo[AM_TRAIN], 0);
        AM_CHECK(hi[AM_TRAIN] < lo[AM_VALIDATION]);
        AM_CHECK(hi[AM_VALIDATION] < lo[AM_TEST]);
        AM_CHECK_I64(hi[AM_TEST], width - 1);
        am_pattern_free(&p);
    }
    free(bytes);
}

static void test_normalise_sets_mean_and_deviation(void)
{
    uint8_t image[AM_PIXELS];
    for (int i = 0; i < AM_PIXELS; i++) {
        image[i] = (uint8_t)(100 + i % 5);
    }
    am_image_normalise(image, 90.0, 20.0);
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < AM_PIXELS; i++) {
        sum += image[i];
        squares += (double)image[i] * image[i];
    }
    double mean = sum / AM_PIXELS;
    AM_CHECK_NEAR(mean, 90.0, 0.5);
    AM_CHECK_NEAR(squares / AM_PIXELS - mean * mean, 400.0, 20.0);
    memset(image, 7, sizeof image);
    am_image_normalise(image, 90.0, 20.0);
    AM_CHECK_I64(image[0], 90);
    AM_CHECK_I64(image[AM_PIXELS - 1], 90);
}

/* ---- groups, warps, characters ---- */

static void test_groups_are_divided_by_share(void)
{
    enum { GROUPS = 200 };
    static const double share[AM_SPLITS] = {0.6, 0.15, 0.25};
    int64_t weight[GROUPS], total = 0, held[AM_SPLITS] = {0};
    am_split split[GROUPS];
    am_rng rng = am_rng_make(am_test_seed(), "groups", 0, 0, "");
    for (int64_t i = 0; i < GROUPS; i++) {
        weight[i] = 1 + am_rng_u32(&rng, i) % 20;
        total += weight[i];
    }
    am_split_groups(&rng, weight, GROUPS, share, split);
    for (int64_t i = 0; i < GROUPS; i++) {
        held[split[i]] += weight[i];
    }
    for (int s = 0; s < AM_SPLITS; s++) { /* within one group of the share */
        AM_CHECK_NEAR((double)held[s], share[s] * (double)total, 20.0);
    }
}

static void test_warps(void)
{
    uint8_t in[AM_PIXELS], out[AM_PIXELS];
    am_rng rng = am_rng_make(am_test_seed(), "image", 0, 0, "");
    for (int64_t i = 0; i < AM_PIXELS; i++) {
        in[i] = (uint8_t)am_rng_u32(&rng, i);
    }
    am_image_warp(in, &(am_warp){.scale = 1.0}, out);
    AM_CHECK(memcmp(in, out, sizeof in) == 0);
    am_image_warp(in, &(am_warp){.scale = 1.0, .dx = 2.0, .dy = -1.0}, out);
    for (int row = 0; row < AM_SIDE; row++) {
        for (int column = 0; column < AM_SIDE; column++) {
            bool is_inside = row + 1 < AM_SIDE && column >= 2;
            AM_CHECK_I64(out[row * AM_SIDE + column],
                         is_inside ? in[(row + 1) * AM_SIDE + column - 2] : 0);
        }
    }
    am_image_warp(in, &(am_warp){.scale = 1.0, .shear = 2.0}, out);
    for (int row = 0; row < AM_SIDE; row++) {
        for (int column = 0; column < AM_SIDE; column++) {
            int from = column + 2 * row - (AM_SIDE - 1);
            bool is_inside = from >= 0 && from < AM_SIDE;
            AM_CHECK_I64(out[row * AM_SIDE + column], is_inside ? in[row * AM_SIDE + from] : 0);
        }
    }
    am_image_warp(in, &(am_warp){.scale = 0.5, .dx = 0.25, .dy = 0.25}, out); /* even pixels */
    AM_CHECK_I64(out[14 * AM_SIDE + 13], in[14 * AM_SIDE + 12]);
    AM_CHECK_I64(out[7 * AM_SIDE + 20], in[0 * AM_SIDE + 26]);
    am_image_warp(in, &(am_warp){.scale = 1.0, .tan_half = 1.0}, out); /* a quarter turn */
    for (int row = 0; row < AM_SIDE; row++) {
        for (int column = 0; column < AM_SIDE; column++) {
            AM_CHECK_I64(out[row * AM_SIDE + column], in[(AM_SIDE - 1 - column) * AM_SIDE + row]);
        }
    }
}

static void test_characters(void)
{
    uint32_t codes[AM_MAX_SCRIPT];
    int64_t n = 0;
    char text[8];
    AM_CHECK_OK(am_script_codes(&(am_script){"t", "", "41-43 10FFFF 5d0"}, codes, &n));
    AM_CHECK_I64(n, 5);
    AM_CHECK_I64(codes[2], 0x43);
    AM_CHECK_I64(codes[3], 0x10FFFF);
    static const char *const bad[] = {"43-41", "xyz", "41,42", "0-1000", "41-"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        AM_CHECK_CODE(am_script_codes(&(am_script){"t", "", bad[i]}, codes, &n), AM_E_BUG);
        am_error_clear();
    }
    const struct {
        uint32_t code;
        const char *utf8;
    } cases[] = {{0x41, "A"},
                 {0x7F, "\x7F"},
                 {0x80, "\xC2\x80"},
                 {0x5D0, "\xD7\x90"},
                 {0x7FF, "\xDF\xBF"},
                 {0x800, "\xE0\xA0\x80"},
                 {0x30A2, "\xE3\x82\xA2"},
                 {0x10000, "\xF0\x90\x80\x80"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        am_utf8(cases[i].code, text);
        AM_CHECK_TEXT(text, cases[i].utf8);
    }
}

/* ---- packages ---- */

static void make_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    AM_CHECK(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void test_packages_are_found_and_listed_in_order(void)
{
    char root[4096], path[4200];
    (void)snprintf(root, sizeof root, "%s", am_test_path("roots"));
    const char *const folders[] = {"", "/pack", "/pack/usr", "/empty"};
    const char *const files[][2] = {{"/pack/usr/b.txt", "b"},
                                    {"/pack/usr/a.txt", "a"},
                                    {"/pack/VERSION", "1:2.0-3\n"},
                                    {"/empty/x", "no VERSION: not complete"}};
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, folders[i]);
        AM_CHECK(mkdir(path, 0777) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, files[i][0]);
        make_file(path, files[i][1]);
    }
    const char *const roots[] = {"/no/such/folder", root, NULL};
    am_packages packages;
    AM_CHECK_OK(am_packages_open(roots, " pack  pack", &packages));
    AM_CHECK_I64(packages.n, 2);
    AM_CHECK_I64(packages.p[0].n, 3);
    AM_CHECK_CONTAINS(packages.p[0].file[1], "/usr/a.txt"); /* after VERSION: bytewise */
    AM_CHECK_CONTAINS(packages.p[0].file[2], "/usr/b.txt");
    char *text = am_packages_describe(&packages, (const bool[]){false, true});
    AM_CHECK_TEXT(text, "pack 1:2.0-3");
    free(text);
    const char *found = NULL;
    AM_CHECK_OK(am_package_file(&packages, "/b.txt", &found));
    AM_CHECK_CONTAINS(found, "/pack/usr/b.txt");
    AM_CHECK_CODE(am_package_file(&packages, "/digits.png", &found), AM_E_NOINPUT);
    AM_CHECK_CONTAINS(am_error_message(), "digits.png");
    am_error_clear();
    am_packages_free(&packages);

    AM_CHECK_CODE(am_packages_open(roots, "pack empty absent", &packages), AM_E_NOINPUT);
    AM_CHECK_CONTAINS(am_error_message(), " empty absent;");
    AM_CHECK_CONTAINS(am_error_message(), "jobs/fetch-data");
    AM_CHECK_I64(packages.n, 0);
    am_error_clear();
    AM_CHECK(am_package_present(roots, "pack"));
    AM_CHECK(!am_package_present(roots, "empty"));
}

static void test_gzip_files_are_read_whole_or_not_at_all(void)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s", am_test_path("data.gz"));
    static uint8_t bytes[300000];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * i >> 7);
    }
    gzFile f = gzopen(path, "wb");
    AM_CHECK(f != NULL && gzwrite(f, bytes, sizeof bytes) == (int)sizeof bytes &&
             gzclose(f) == Z_OK);
    uint8_t *got = NULL;
    int64_t n = 0;
    AM_CHECK_OK(am_read_whole(path, sizeof bytes, &got, &n));
    AM_CHECK(n == (int64_t)sizeof bytes && memcmp(got, bytes, sizeof bytes) == 0);
    free(got);
    AM_CHECK_CODE(am_read_whole(path, sizeof bytes - 1, &got, &n), AM_E_DATA);
    am_error_clear();
    AM_CHECK_CODE(am_read_whole("/no/such/file", 9, &got, &n), AM_E_NOINPUT);
    am_error_clear();
    struct stat st;
    AM_CHECK(stat(path, &st) == 0);
    for (off_t cut = st.st_size - 1; cut > 20; cut = cut * 2 / 3) {
        AM_CHECK(truncate(path, cut) == 0);
        AM_CHECK_CODE(am_read_whole(path, sizeof bytes, &got, &n), AM_E_DATA);
        AM_CHECK_CONTAINS(am_error_message(), path);
        am_error_clear();
    }
}

static const am_test tests[] = {
    AM_TEST(test_patterns_are_parsed),
    AM_TEST(test_damaged_patterns_are_refused),
    AM_TEST(test_crops_of_two_splits_share_no_pixel),
    AM_TEST(test_normalise_sets_mean_and_deviation),
    AM_TEST(test_groups_are_divided_by_share),
    AM_TEST(test_warps),
    AM_TEST(test_characters),
    AM_TEST(test_packages_are_found_and_listed_in_order),
    AM_TEST(test_gzip_files_are_read_whole_or_not_at_all),
};
AM_TEST_MAIN("prepare", tests)
