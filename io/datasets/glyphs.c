/* Glyph tasks: printed characters of one script, one class a character, drawn from every usable
 * face of the font packages; no font family is in two splits.
 * `scripts` is one set over many other scripts with the union of their characters as classes: it
 * is for pretraining. Their faces are few, so training images are drawn again with small
 * random rotations, shears, scales and shifts. Some of them are tasks, too.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/dataset/font_packages.h"
#include "io/dataset/glyph.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { TRAIN = 4000, VALIDATION = 1000, TEST = 2000 };
enum { SCRIPTS_TRAIN = 15000, SCRIPTS_VALIDATION = 2000, SCRIPTS_TEST = 2000 };

static const double glyph_share[AM_SPLITS] = {0.60, 0.15, 0.25};
static const double scripts_share[AM_SPLITS] = {0.74, 0.13, 0.13};

static const am_script suite_scripts[] = {
    {"latin", "Latin capitals, 26 classes", "0041-005A"},
    {"cyrillic", "Cyrillic small letters, 32 classes", "0430-044F"},
    {"greek", "Greek small letters, 24 classes", "03B1-03C1 03C3-03C9"},
    {"hebrew", "Hebrew letters with final forms, 27 classes", "05D0-05EA"},
    {"arabic", "Arabic letters, isolated forms, 28 classes", "0627-0628 062A-063A 0641-0648 064A"},
};
enum { N_SUITE = sizeof suite_scripts / sizeof suite_scripts[0] };

static const am_script subset_scripts[] = {
    {"latin_small", "Latin small letters, 26 classes", "0061-007A"},
    {"digits", "digits, 10 classes", "0030-0039"},
    {"latin_accented", "Latin capitals of Latin-1, 30 classes", "00C0-00D6 00D8-00DE"},
    {"latin_accented_small", "Latin small letters of Latin-1, 31 classes", "00DF-00F6 00F8-00FE"},
    {"latin_extended", "Latin small letters of Central Europe, 26 classes",
     "0105 0107 010D 010F 0111 0119 011B 013A 013E 0142 0144 0148 0151 0155 0159 015B 015F 0161 "
     "0165 016F 0171 017A 017C 017E 0103 0163"},
    {"cyrillic_capital", "Cyrillic capitals, 32 classes", "0410-042F"},
    {"greek_capital", "Greek capitals, 24 classes", "0391-03A1 03A3-03A9"},
    {"math", "signs of mathematics, 19 classes",
     "002B 003C-003E 00AC 00B1 00D7 00F7 2202 2206 220F 2211 221A 221E 222B 2248 2260 2264-2265"},
};
enum { N_SUBSET = sizeof subset_scripts / sizeof subset_scripts[0] };

static const am_script other_scripts[] = {
    {"thai", "", "0E01-0E2E"},
    {"georgian", "", "10D0-10F0"},
    {"armenian", "", "0561-0586"},
    {"ethiopic", "",
     "1200 1208 1210 1218 1220 1228 1230 1238 1240 1260 1270 1278 1280 1290 1298 12A0 12A8 12B8 "
     "12C8 12D0 12D8 12E0 12E8 12F0 1300 1308 1320 1328 1330 1338 1340 1348 1350"},
    {"hiragana", "",
     "3042 3044 3046 3048 304A-304B 304D 304F 3051 3053 3055 3057 3059 305B 305D 305F 3061 3064 "
     "3066 3068 306A-306F 3072 3075 3078 307B 307E-3082 3084 3086 3088-308D 308F 3092-3093"},
    {"katakana", "",
     "30A2 30A4 30A6 30A8 30AA-30AB 30AD 30AF 30B1 30B3 30B5 30B7 30B9 30BB 30BD 30BF 30C1 30C4 "
     "30C6 30C8 30CA-30CF 30D2 30D5 30D8 30DB 30DE-30E2 30E4 30E6 30E8-30ED 30EF 30F2-30F3"},
    {"devanagari", "", "0915-0928 092A-0930 0932 0935-0939"},
    {"bengali", "", "0995-09A8 09AA-09B0 09B2 09B6-09B9"},
    {"tamil", "", "0B85-0B8A 0B95 0B99-0B9A 0B9E-0B9F 0BA3-0BA4 0BA8-0BAA 0BAE-0BB5"},
    {"kannada", "", "0C95-0CA8 0CAA-0CB0 0CB2-0CB3 0CB5-0CB9"},
    {"telugu", "", "0C15-0C28 0C2A-0C30 0C32-0C33 0C35-0C39"},
    {"gujarati", "", "0A95-0AA8 0AAA-0AB0 0AB2-0AB3 0AB5-0AB9"},
    {"gurmukhi", "", "0A15-0A28 0A2A-0A30 0A32 0A35 0A38-0A39"},
};
enum { N_OTHER = sizeof other_scripts / sizeof other_scripts[0] };

static const char *const suite_tasks[] = {"latin", "cyrillic", "greek", "hebrew", "arabic", NULL};
/* Of the other scripts those with enough families for three splits. */
static const char *const extra_tasks[] = {"scripts",
                                          "latin_small",
                                          "digits",
                                          "latin_accented",
                                          "latin_accented_small",
                                          "latin_extended",
                                          "cyrillic_capital",
                                          "greek_capital",
                                          "math",
                                          "thai",
                                          "georgian",
                                          "armenian",
                                          "ethiopic",
                                          "devanagari",
                                          "bengali",
                                          "gujarati",
                                          NULL};

/* A task in the making. */
typedef struct am_drawing {
    const char *task;
    uint64_t seed;
    am_packages packages;
    bool *used; /* [packages] */
    am_pool pool[AM_SPLITS];
    am_names families; /* of all scripts, "script: family" for scripts */
    am_names classes;  /* characters */
} am_drawing;

static void drawing_free(am_drawing *d)
{
    for (int s = 0; s < AM_SPLITS; s++) {
        am_pool_free(&d->pool[s]);
    }
    am_names_free(&d->families);
    am_names_free(&d->classes);
    am_packages_free(&d->packages);
    free(d->used);
}

/* Send the images of a script to the splits by family. */
static int divide(am_drawing *d, const am_script *script, const am_pool *all, int64_t families,
                  const double share[AM_SPLITS])
{
    int rc = 0;
    int64_t *weight = am_new(families, sizeof *weight, "families");
    am_split *split = am_new(families, sizeof *split, "families");
    if (weight == NULL || split == NULL) {
        AM_TRY(AM_E_NOMEM);
    }
    for (int64_t i = 0; i < all->n; i++) {
        weight[all->group[i]]++;
    }
    am_rng rng = am_rng_make(d->seed, "families", 0, 0, script->name);
    am_split_groups(&rng, weight, families, share, split);
    for (int64_t i = 0; i < all->n; i++) {
        AM_TRY(am_pool_add(&d->pool[split[all->group[i]]], all->x + i * AM_PIXELS, all->y[i],
                           all->group[i] + (int32_t)d->families.n));
    }
cleanup:
    free(weight);
    free(split);
    return rc;
}

/* Draw one script into the pools; its classes follow those of the scripts before it. */
static int draw_script(am_drawing *d, const am_script *script, const double share[AM_SPLITS])
{
    int rc = 0;
    am_pool all = {0};
    am_names families = {0};
    uint32_t codes[AM_MAX_SCRIPT];
    int64_t n = 0;
    AM_TRY(
        am_glyphs_collect(&d->packages, script, (int32_t)d->classes.n, &all, &families, d->used));
    AM_TRY(divide(d, script, &all, families.n, share));
    AM_TRY(am_script_codes(script, codes, &n));
    for (int64_t k = 0; k < n; k++) {
        char text[8];
        am_utf8(codes[k], text);
        if (am_names_add(&d->classes, text) < 0) {
            AM_TRY(AM_E_NOMEM);
        }
    }
    for (int64_t k = 0; k < families.n; k++) {
        char text[256];
        (void)snprintf(text, sizeof text, "%s: %.200s", script->name, families.name[k]);
        if (am_names_add(&d->families, text) < 0) {
            AM_TRY(AM_E_NOMEM);
        }
    }
cleanup:
    am_pool_free(&all);
    am_names_free(&families);
    return rc;
}

/* Draw a script if the task is about it. */
static int draw_if(am_drawing *d, const am_script *script, bool is_wanted,
                   const double share[AM_SPLITS])
{
    return is_wanted || strcmp(script->name, d->task) == 0 ? draw_script(d, script, share) : 0;
}

/* Add warped copies of the pool's own images, in turn, until it holds `target`. */
static int warp_up_to(am_drawing *d, am_pool *pool, int64_t target)
{
    am_rng rng = am_rng_make(d->seed, "warp", 0, 0, d->task);
    int64_t own = pool->n;
    uint8_t from[AM_PIXELS], image[AM_PIXELS];
    int rc = 0;
    for (int64_t i = 0; rc == 0 && pool->n < target; i++) {
        const am_warp warp = {
            .scale = 0.8 + 0.2 * am_rng_uniform(&rng, 5 * i),
            .tan_half = 0.16 * am_rng_uniform(&rng, 5 * i + 1) - 0.08, /* about +-9 degrees */
            .shear = 0.4 * am_rng_uniform(&rng, 5 * i + 2) - 0.2,
            .dx = 4.0 * am_rng_uniform(&rng, 5 * i + 3) - 2.0,
            .dy = 4.0 * am_rng_uniform(&rng, 5 * i + 4) - 2.0,
        };
        int64_t k = i % own;
        memcpy(from, pool->x + k * AM_PIXELS, AM_PIXELS);
        am_image_warp(from, &warp, image);
        rc = am_pool_add(pool, image, pool->y[k], pool->group[k]);
    }
    return rc;
}

/* Move families into the result and fill the splits. */
static int finish(am_drawing *d, const int64_t limit[AM_SPLITS], am_prepared *out)
{
    int rc = 0;
    for (int s = 0; s < AM_SPLITS; s++) {
        AM_TRY(am_prepared_draw(out, (am_split)s, &d->pool[s], limit[s], d->seed, d->task));
    }
    AM_TRY(am_prepared_classes(out, (const char *const *)d->classes.name, d->classes.n));
    AM_TRY(am_prepared_origin(out, &d->packages, d->used, AM_FONT_LICENCE));
    out->group_name = d->families.name;
    out->groups = d->families.n;
    d->families = (am_names){0};
cleanup:
    return rc;
}

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    static const int64_t limit[AM_SPLITS] = {TRAIN, VALIDATION, TEST};
    static const int64_t scripts_limit[AM_SPLITS] = {SCRIPTS_TRAIN, SCRIPTS_VALIDATION,
                                                     SCRIPTS_TEST};
    int rc = 0;
    bool is_scripts = strcmp(task, extra_tasks[0]) == 0;
    am_drawing d = {.task = task, .seed = seed};
    AM_TRY(am_packages_open(roots, AM_FONT_PACKAGES, &d.packages));
    d.used = am_new(d.packages.n, sizeof *d.used, "packages");
    if (d.used == NULL) {
        AM_TRY(AM_E_NOMEM);
    }
    for (int i = 0; i < N_SUITE; i++) {
        AM_TRY(draw_if(&d, &suite_scripts[i], false, glyph_share));
    }
    for (int i = 0; i < N_SUBSET; i++) {
        AM_TRY(draw_if(&d, &subset_scripts[i], false, glyph_share));
    }
    const bool has_many = d.classes.n > 0;
    for (int i = 0; i < N_OTHER; i++) {
        AM_TRY(
            draw_if(&d, &other_scripts[i], is_scripts, is_scripts ? scripts_share : glyph_share));
    }
    if (!has_many) {
        AM_TRY(warp_up_to(&d, &d.pool[AM_TRAIN], is_scripts ? SCRIPTS_TRAIN : TRAIN));
    }
    AM_TRY(finish(&d, is_scripts ? scripts_limit : limit, out));
cleanup:
    drawing_free(&d);
    return rc;
}

const am_dataset_source am_dataset_source_glyphs = {
    .name = "glyphs",
    .help =
        "printed letters; one task a script or part of one, and `scripts` over 13 for pretraining",
    .packages = AM_FONT_PACKAGES,
    .licence = AM_FONT_LICENCE,
    .tasks = suite_tasks,
    .extra = extra_tasks,
    .prepare = prepare,
};
