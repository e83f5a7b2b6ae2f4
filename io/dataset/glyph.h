/* Images of characters from the outline fonts of packages (FreeType, optional at build time).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_GLYPH_H
#define AM_IO_DATASET_GLYPH_H

#include "io/dataset/prepare.h"

/* A script: its characters, class k being the k-th. */
typedef struct am_script {
    const char *name;
    const char *help;
    const char *ranges; /* "0041-005A 0061": code points, hexadecimal, ends included */
} am_script;

enum { AM_MAX_SCRIPT = 128 }; /* characters of one script */

/** Code points of a script, [*n <= AM_MAX_SCRIPT]. Errors: AM_E_BUG for a bad table. */
int am_script_codes(const am_script *script, uint32_t codes[AM_MAX_SCRIPT], int64_t *n);
/** A code point in UTF-8 with a final NUL. */
void am_utf8(uint32_t code, char text[8]);

/** Render every face of the packages that has all characters of the script.
 *
 * Each character fills 26x26 pixels by its longer side, centred in 28x28, ink 255 on 0. A face is
 * left out when it has no Unicode map, no outlines, lacks a character, draws two characters alike
 * (placeholder boxes) or draws what an earlier face drew (copies of one font).
 * pool: label = label0 + position in the script, group = index of the font family in `families`.
 * used [packages->n] is set to true where a package gave a face.
 * Errors: AM_E_USAGE in a build without FreeType; AM_E_NOMEM; AM_E_DATA no face at all. */
int am_glyphs_collect(const am_packages *packages, const am_script *script, int32_t label0,
                      am_pool *pool, am_names *families, bool *used);

#endif
