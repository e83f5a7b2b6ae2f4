/* Rendering characters with FreeType: outlines are scaled from font units (no hinting), so that
 * the result depends on the outline alone. SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/glyph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "mpi/arena.h"
#include "mpi/error.h"

int am_script_codes(const am_script *script, uint32_t codes[AM_MAX_SCRIPT], int64_t *n)
{
    *n = 0;
    const char *at = script->ranges;
    while (*at != '\0') {
        char *end = NULL;
        unsigned long lo = strtoul(at, &end, 16), hi = lo;
        if (*end == '-') {
            hi = strtoul(end + 1, &end, 16);
        }
        if (end == at || (*end != ' ' && *end != '\0') || hi < lo ||
            *n + (int64_t)(hi - lo) >= AM_MAX_SCRIPT) {
            return am_fail(AM_E_BUG, "script %s: bad ranges at '%s'", script->name, at);
        }
        for (unsigned long code = lo; code <= hi; code++) {
            codes[(*n)++] = (uint32_t)code;
        }
        at = end + (*end == ' ');
    }
    return 0;
}

void am_utf8(uint32_t code, char text[8])
{
    static const uint8_t lead[4] = {0x00, 0xC0, 0xE0, 0xF0};
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    text[0] = (char)(lead[more] | (code >> (6 * more)));
    for (int i = 1; i <= more; i++) {
        text[i] = (char)(0x80 | ((code >> (6 * (more - i))) & 0x3F));
    }
    text[more + 1] = '\0';
}

#ifdef AM_WITH_FREETYPE
#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_OUTLINE_H
#include FT_BBOX_H

enum { INK = 26 }; /* pixels of the longer side */

static bool is_font(const char *path)
{
    static const char *const suffixes[] = {".ttf", ".ttc", ".otf", ".pfb", ".pfa", NULL};
    const char *dot = strrchr(path, '.');
    if (strstr(path, "/usr/share/fonts/") == NULL || strstr(path, "/X11/") != NULL) {
        return false; /* X11 folders repeat the fonts; fetch-data leaves them out */
    }
    for (int i = 0; dot != NULL && suffixes[i] != NULL; i++) {
        if (strcasecmp(dot, suffixes[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Scale the outline of `face->glyph` so that its box is INK pixels long, centre it, draw it. */
static bool draw_outline(FT_Library library, FT_Face face, uint8_t image[AM_PIXELS])
{
    FT_Outline *outline = &face->glyph->outline;
    FT_BBox box;
    if (face->glyph->format != FT_GLYPH_FORMAT_OUTLINE || outline->n_contours == 0 ||
        FT_Outline_Get_BBox(outline, &box) != 0) {
        return false;
    }
    FT_Pos w = box.xMax - box.xMin, h = box.yMax - box.yMin, longer = w > h ? w : h;
    if (longer <= 0 || longer > 1 << 20) {
        return false;
    }
    FT_Fixed scale = FT_DivFix(INK * 64, longer);
    FT_Matrix matrix = {.xx = scale, .yy = scale};
    FT_Outline_Transform(outline, &matrix);
    if (FT_Outline_Get_BBox(outline, &box) != 0) {
        return false;
    }
    FT_Outline_Translate(outline, (AM_SIDE * 64 - box.xMin - box.xMax) / 2,
                         (AM_SIDE * 64 - box.yMin - box.yMax) / 2);
    memset(image, 0, AM_PIXELS);
    FT_Bitmap bitmap = {.rows = AM_SIDE,
                        .width = AM_SIDE,
                        .pitch = AM_SIDE,
                        .buffer = image,
                        .num_grays = 256,
                        .pixel_mode = FT_PIXEL_MODE_GRAY};
    return FT_Outline_Get_Bitmap(library, outline, &bitmap) == 0;
}

/* All characters of one face into image [n, AM_PIXELS]; false if the face is not usable. */
static bool draw_face(FT_Library library, FT_Face face, const uint32_t *codes, int64_t n,
                      uint8_t *image)
{
    if (!FT_IS_SCALABLE(face) || face->family_name == NULL ||
        FT_Select_Charmap(face, FT_ENCODING_UNICODE) != 0) {
        return false;
    }
    for (int64_t k = 0; k < n; k++) {
        if (FT_Get_Char_Index(face, codes[k]) == 0) {
            return false;
        }
    }
    for (int64_t k = 0; k < n; k++) {
        FT_UInt glyph = FT_Get_Char_Index(face, codes[k]);
        if (FT_Load_Glyph(face, glyph, FT_LOAD_NO_SCALE | FT_LOAD_NO_BITMAP) != 0 ||
            !draw_outline(library, face, image + k * AM_PIXELS)) {
            return false;
        }
        for (int64_t j = 0; j < k; j++) {
            if (memcmp(image + j * AM_PIXELS, image + k * AM_PIXELS, AM_PIXELS) == 0) {
                return false;
            }
        }
    }
    return true;
}

/* What a collection in progress holds. */
typedef struct am_collection {
    FT_Library library;
    uint32_t codes[AM_MAX_SCRIPT];
    int64_t n;      /* codes */
    uint8_t *image; /* [n, AM_PIXELS] of one face */
    uint64_t *seen; /* [faces] hashes of the faces kept */
    int64_t faces, capacity;
} am_collection;

static int is_copy(am_collection *c, bool *out)
{
    uint64_t hash = am_hash64(c->image, c->n * AM_PIXELS, 0);
    *out = false;
    for (int64_t i = 0; i < c->faces && !*out; i++) {
        *out = c->seen[i] == hash;
    }
    if (*out) {
        return 0;
    }
    if (c->faces == c->capacity) {
        int64_t capacity = c->capacity > 0 ? 2 * c->capacity : 256;
        uint64_t *seen = realloc(c->seen, (size_t)capacity * sizeof *seen);
        if (seen == NULL) {
            return am_fail(AM_E_NOMEM, "no memory for %lld faces", (long long)capacity);
        }
        c->seen = seen;
        c->capacity = capacity;
    }
    c->seen[c->faces++] = hash;
    return 0;
}

static int add_face(am_collection *c, FT_Face face, int32_t label0, am_pool *pool,
                    am_names *families, bool *is_used)
{
    bool is_known = false;
    if (!draw_face(c->library, face, c->codes, c->n, c->image)) {
        return 0;
    }
    int rc = is_copy(c, &is_known);
    if (rc != 0 || is_known) {
        return rc;
    }
    int64_t family = am_names_add(families, face->family_name);
    if (family < 0) {
        return AM_E_NOMEM;
    }
    for (int64_t k = 0; rc == 0 && k < c->n; k++) {
        rc = am_pool_add(pool, c->image + k * AM_PIXELS, label0 + (int32_t)k, (int32_t)family);
    }
    *is_used = true;
    return rc;
}

/* Every face of a font file (collections hold several); damaged or foreign files are passed over.
 */
static int add_file(am_collection *c, const char *path, int32_t label0, am_pool *pool,
                    am_names *families, bool *is_used)
{
    FT_Long count = 1;
    int rc = 0;
    for (FT_Long i = 0; rc == 0 && i < count; i++) {
        FT_Face face;
        if (FT_New_Face(c->library, path, i, &face) != 0) {
            break;
        }
        count = face->num_faces;
        rc = add_face(c, face, label0, pool, families, is_used);
        (void)FT_Done_Face(face);
    }
    return rc;
}

int am_glyphs_collect(const am_packages *packages, const am_script *script, int32_t label0,
                      am_pool *pool, am_names *families, bool *used)
{
    int rc = 0;
    am_collection c = {0};
    AM_TRY(am_script_codes(script, c.codes, &c.n));
    c.image = am_new(c.n, AM_PIXELS, "characters");
    if (c.image == NULL) {
        AM_TRY(AM_E_NOMEM);
    }
    if (FT_Init_FreeType(&c.library) != 0) {
        c.library = NULL;
        AM_TRY(am_fail(AM_E_NOMEM, "FreeType does not start"));
    }
    for (int64_t p = 0; p < packages->n; p++) {
        for (int64_t i = 0; i < packages->p[p].n; i++) {
            if (is_font(packages->p[p].file[i])) {
                AM_TRY(add_file(&c, packages->p[p].file[i], label0, pool, families, &used[p]));
            }
        }
    }
    if (c.faces == 0) {
        AM_TRY(
            am_fail(AM_E_DATA, "%s: no font of the packages has all its characters", script->name));
    }
cleanup:
    if (c.library != NULL) {
        (void)FT_Done_FreeType(c.library);
    }
    free(c.image);
    free(c.seen);
    return rc;
}

#else

int am_glyphs_collect(const am_packages *packages, const am_script *script, int32_t label0,
                      am_pool *pool, am_names *families, bool *used)
{
    (void)packages, (void)label0, (void)pool, (void)families, (void)used;
    return am_fail(AM_E_USAGE,
                   "%s is drawn from fonts, and this allmerge was built without FreeType: install "
                   "libfreetype-dev, run cmake again and rebuild",
                   script->name);
}

#endif
