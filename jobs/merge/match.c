/* What every tensor of the output is made of.
 *
 * All tensors of all inputs are listed under the name that they have in the output, and sorted; a
 * run of equal names is one tensor. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/match.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/merge/complaints.h"
#include "mpi/arena.h"
#include "mpi/log.h"

/* A tensor of an input under the name that it has in the output. */
typedef struct am_record {
    const char *name;
    char *owned; /* NULL: the name is the input's */
    int slice, input, file;
    int64_t tensor;
} am_record;

typedef struct am_piece {
    char *name; /* owned */
    am_tensor shape;
    am_view_place at;
    int slice;
    bool copy;
    am_view_place *place; /* [n_inputs] owned */
} am_piece;

typedef struct am_matcher {
    const am_merge_recipe *recipe;
    const am_match_files *files;
    am_record *record;
    int64_t n_records, record_capacity;
    am_piece *piece;
    int64_t n_pieces, piece_capacity;
    am_complaints complaints;
    bool names_missing, names_vocab; /* keys that the complaints point to */
    int64_t left_out, completed, copied;
    am_match *out;
} am_matcher;

/* One tensor of the output while it is made. */
typedef struct am_group {
    const char *name;
    int slice;
    const am_record *of[AM_MAX_MODELS + 1]; /* [n_inputs] NULL: lacks it, or is not in the slice */
    int first;                              /* lowest input that has it */
} am_group;

/* A place more in a growing array; NULL: AM_E_NOMEM. */
static void *grow(void **array, int64_t n, int64_t *capacity, size_t size)
{
    if (n == *capacity) {
        const int64_t more = *capacity > 0 ? 2 * *capacity : 256;
        void *wider = realloc(*array, (size_t)more * size);
        if (wider == NULL) {
            (void)am_fail(AM_E_NOMEM, "no memory for a table of %" PRId64 " tensors", more);
            return NULL;
        }
        *array = wider;
        *capacity = more;
    }
    return (char *)*array + (size_t)n * size;
}

/* ---- listing ---- */

static const am_tensor *tensor_of(const am_matcher *m, const am_record *r)
{
    return &m->files->tensors[r->file]->t[r->tensor];
}

static bool is_last(const am_matcher *m, const am_merge_slice *slice)
{
    return slice == &m->recipe->slices[m->recipe->n_slices - 1];
}

/* Whether a tensor of an input that gives layers [lo, ...) belongs to the slice; its layer in the
 * output, -1 for the name that it has. */
static bool belongs(const am_matcher *m, const am_merge_slice *slice, int64_t lo, const char *name,
                    int64_t *layer)
{
    const int64_t own = am_layer_number(&m->recipe->layers, name);
    *layer = -1;
    if (slice->node == NULL) {
        return true;
    }
    if (own < 0) {
        return am_layer_is_before(name) ? slice == m->recipe->slices : is_last(m, slice);
    }
    *layer = slice->at + own - lo;
    return own >= lo && own < lo + slice->layers;
}

static int add_record(am_matcher *m, am_record record, int64_t layer)
{
    const char *name = tensor_of(m, &record)->name;
    am_record *r = grow((void **)&m->record, m->n_records, &m->record_capacity, sizeof *r);
    if (r == NULL) {
        return AM_E_NOMEM;
    }
    record.owned = layer >= 0 ? am_layer_rename(&m->recipe->layers, name, layer) : NULL;
    record.name = record.owned != NULL ? record.owned : name;
    if (layer >= 0 && record.owned == NULL) {
        return AM_E_NOMEM;
    }
    *r = record;
    m->n_records++;
    return 0;
}

/* mergekit merges what stands behind the layers over as many sources of the last slice as the first
 * slice has. */
static bool is_cut_off(const am_matcher *m, const am_merge_slice *slice,
                       const am_merge_model *model, const char *name)
{
    return slice->node != NULL && m->recipe->semantics == AM_SEMANTICS_MERGEKIT &&
           model->place >= m->recipe->slices[0].entries &&
           am_layer_number(&m->recipe->layers, name) < 0 && !am_layer_is_before(name);
}

/* All tensors that one input gives to a slice. node: the entry that names its layers. */
static int list_input(am_matcher *m, int s, int input, int file, const am_merge_model *model)
{
    const am_merge_slice *slice = &m->recipe->slices[s];
    const am_tensor_table *tensors = m->files->tensors[file];
    const int64_t lo = model != NULL ? model->lo : slice->base_lo;
    int64_t layers = 0;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        const int64_t own = am_layer_number(&m->recipe->layers, tensors->t[i].name);
        int64_t layer;
        layers = own >= layers ? own + 1 : layers;
        if (belongs(m, slice, lo, tensors->t[i].name, &layer) &&
            (model == NULL || !is_cut_off(m, slice, model, tensors->t[i].name))) {
            rc = add_record(m, (am_record){.slice = s, .input = input, .file = file, .tensor = i},
                            layer);
        }
    }
    if (rc == 0 && slice->node != NULL && layers < lo + slice->layers) {
        rc = am_node_fail(model != NULL ? model->node : slice->node,
                          "layers [%" PRId64 ", %" PRId64 ") are wanted of %s, which has %" PRId64
                          "; see the key layer_pattern if they have other names",
                          lo, lo + slice->layers, m->files->path[file], layers);
    }
    return rc;
}

static int compare_records(const void *a, const void *b)
{
    const am_record *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    return order != 0 ? order : x->input - y->input;
}

static int list_tensors(am_matcher *m)
{
    const am_merge_recipe *r = m->recipe;
    int rc = 0;
    for (int s = 0; s < r->n_slices; s++) {
        const am_merge_slice *slice = &r->slices[s];
        if (r->has_base) {
            AM_KEEP(list_input(m, s, 0, m->files->base[s], NULL));
        }
        for (int k = slice->first; k < slice->first + slice->n; k++) {
            const int input = r->models[k].slot + r->has_base;
            AM_KEEP(list_input(m, s, input, input, &r->models[k]));
        }
    }
    if (rc == 0 && m->n_records > 0) {
        qsort(m->record, (size_t)m->n_records, sizeof *m->record, compare_records);
    }
    return rc;
}

/* ---- policies ---- */

/* Which file an input reads for a tensor, -1: none, it is not in the slice. */
static int file_of(const am_matcher *m, const am_group *g, int input)
{
    const am_merge_slice *s = &m->recipe->slices[g->slice];
    if (m->recipe->has_base && input == 0) {
        return m->files->base[g->slice];
    }
    for (int k = s->first; k < s->first + s->n; k++) {
        const am_merge_model *model = &m->recipe->models[k];
        if (model->slot + m->recipe->has_base == input) {
            return is_cut_off(m, s, model, g->name) ? -1 : input;
        }
    }
    return -1;
}

static void complain_missing(am_matcher *m, const am_group *g)
{
    int reference = 0;
    while (file_of(m, g, reference) < 0) {
        reference++;
    }
    const char *const *path = m->files->path;
    const int file = file_of(m, g, reference);
    m->names_missing = true;
    for (int k = reference + 1; k < m->files->n_inputs; k++) {
        if (file_of(m, g, k) < 0 || (g->of[k] != NULL) == (g->of[reference] != NULL)) {
            continue;
        }
        if (g->of[k] == NULL) {
            am_complain(&m->complaints, "%s: tensor '%s' is missing (%s has it)",
                        path[file_of(m, g, k)], g->name, path[file]);
        } else {
            am_complain(&m->complaints, "%s: tensor '%s' is not in %s", path[g->of[k]->file],
                        g->name, path[file]);
        }
    }
}

/* Apply `missing`; false: the output has no such tensor. */
static bool complete(am_matcher *m, am_group *g)
{
    const am_missing policy = m->recipe->missing;
    bool is_whole = true;
    for (int k = 0; k < m->files->n_inputs; k++) {
        is_whole = is_whole && (g->of[k] != NULL || file_of(m, g, k) < 0);
    }
    if (is_whole) {
        return true;
    }
    if (policy == AM_MISSING_ERROR) {
        complain_missing(m, g);
    }
    if (policy == AM_MISSING_INTERSECTION || (policy == AM_MISSING_BASE && g->of[0] == NULL)) {
        m->left_out++;
        return false;
    }
    m->completed++;
    for (int k = 0; policy == AM_MISSING_BASE && k < m->files->n_inputs; k++) {
        g->of[k] = g->of[k] == NULL && file_of(m, g, k) >= 0 ? g->of[0] : g->of[k];
    }
    return true;
}

/* Same shape but for the number of rows. */
static bool has_same_columns(const am_tensor *a, const am_tensor *b)
{
    bool same = a->ndim == b->ndim && a->ndim > 0;
    for (int d = 1; same && d < a->ndim; d++) {
        same = a->shape[d] == b->shape[d];
    }
    return same;
}

static bool has_same_shape(const am_tensor *a, const am_tensor *b)
{
    return a->ndim == b->ndim &&
           (a->ndim == 0 || (has_same_columns(a, b) && a->shape[0] == b->shape[0]));
}

/* All inputs against the first that has the tensor. Returns whether only numbers of rows differ, as
 * the key `vocab` allows. */
static bool check_shapes(am_matcher *m, const am_group *g)
{
    const am_tensor *a = tensor_of(m, g->of[g->first]);
    const bool is_outside = am_layer_number(&m->recipe->layers, g->name) < 0;
    bool has_other_rows = false;
    for (int k = g->first + 1; k < m->files->n_inputs; k++) {
        const am_tensor *b = g->of[k] != NULL ? tensor_of(m, g->of[k]) : a;
        const bool same_kind =
            am_dtype_is_float(a->dtype) ? am_dtype_is_float(b->dtype) : a->dtype == b->dtype;
        if (same_kind && has_same_shape(a, b)) {
            continue;
        }
        const bool may_differ =
            same_kind && am_dtype_is_float(a->dtype) && is_outside && has_same_columns(a, b);
        if (may_differ && m->recipe->vocab != AM_VOCAB_ERROR) {
            has_other_rows = true;
            continue;
        }
        m->names_vocab = m->names_vocab || may_differ;
        am_complain(&m->complaints, "%s: tensor '%s' is %s, but %s in %s",
                    m->files->path[g->of[k]->file], b->name, am_tensor_describe(b),
                    am_tensor_describe(a), m->files->path[g->of[g->first]->file]);
    }
    return has_other_rows;
}

/* ---- pieces ---- */

static am_view_place place_of(const am_record *r, int input, int64_t offset)
{
    return (am_view_place){
        .source = r->file == input ? 0 : 1 + r->file, .tensor = r->tensor, .offset = offset};
}

/* Rows [lo, hi) of output tensor `tensor`; who has them takes part. */
static int add_piece(am_matcher *m, const am_group *g, int64_t tensor, int64_t lo, int64_t hi)
{
    const int n = m->files->n_inputs;
    const am_tensor *whole = &m->out->output.t[tensor];
    const int64_t columns =
        whole->ndim > 0 && whole->shape[0] > 0 ? whole->numel / whole->shape[0] : 0;
    am_piece *p = grow((void **)&m->piece, m->n_pieces, &m->piece_capacity, sizeof *p);
    if (p == NULL) {
        return AM_E_NOMEM;
    }
    *p = (am_piece){.shape = *whole, .slice = g->slice};
    m->n_pieces++;
    p->at = (am_view_place){.tensor = tensor, .offset = lo * columns};
    p->place = am_new(n, sizeof *p->place, "a table of tensors");
    p->name = lo == 0 ? am_text("%s", whole->name)
                      : am_text("%s[%" PRId64 ":%" PRId64 "]", whole->name, lo, hi);
    if (p->place == NULL || p->name == NULL) {
        return AM_E_NOMEM;
    }
    if (whole->ndim > 0) {
        p->shape.shape[0] = hi - lo;
    }
    const am_record *first = NULL;
    int n_models = 0;
    for (int k = n - 1; k >= 0; k--) {
        const am_record *r = g->of[k];
        const bool has_rows = r != NULL && (whole->ndim == 0 || tensor_of(m, r)->shape[0] >= hi);
        p->place[k] = has_rows ? place_of(r, k, p->at.offset) : (am_view_place){.source = -1};
        first = has_rows ? r : first;
        n_models += has_rows && k >= m->recipe->has_base;
    }
    if (m->recipe->has_base && p->place[0].source < 0) {
        p->place[0] = place_of(first, 0, p->at.offset); /* its task vector is then zero */
    }
    p->copy = !am_dtype_is_float(whole->dtype) || n_models < m->recipe->method->min_models;
    m->copied += p->copy && am_dtype_is_float(whole->dtype);
    for (int k = 0; k < n; k++) {
        const bool is_own = p->place[k].source <= 0 && p->place[k].offset == 0;
        m->out->has_views = m->out->has_views || !is_own;
    }
    m->out->has_views =
        m->out->has_views || (p->copy && tensor_of(m, first)->dtype != whole->dtype);
    return 0;
}

/* A piece for each number of rows that an input has. */
static int add_pieces(am_matcher *m, const am_group *g, int64_t tensor)
{
    const int64_t most = m->out->output.t[tensor].shape[0];
    int64_t lo = 0;
    int rc = 0;
    do {
        int64_t hi = most;
        for (int k = 0; k < m->files->n_inputs; k++) {
            const int64_t rows = g->of[k] != NULL ? tensor_of(m, g->of[k])->shape[0] : most;
            hi = rows > lo && rows < hi ? rows : hi;
        }
        rc = add_piece(m, g, tensor, lo, hi);
        m->out->has_parts = m->out->has_parts || lo > 0;
        lo = hi;
    } while (rc == 0 && lo < most);
    return rc;
}

static int add_tensor(am_matcher *m, const am_group *g, bool has_other_rows)
{
    am_tensor shape = *tensor_of(m, g->of[g->first]);
    const bool is_crop = m->recipe->vocab == AM_VOCAB_CROP;
    const int64_t tensor = m->out->output.n;
    for (int k = g->first + 1; has_other_rows && k < m->files->n_inputs; k++) {
        const int64_t rows = g->of[k] != NULL ? tensor_of(m, g->of[k])->shape[0] : shape.shape[0];
        shape.shape[0] = is_crop == (rows < shape.shape[0]) ? rows : shape.shape[0];
    }
    if (am_dtype_is_float(shape.dtype) && m->recipe->dtype != AM_DTYPE_COUNT) {
        shape.dtype = m->recipe->dtype;
    }
    int rc = am_tensor_table_add(&m->out->output, g->name, shape.dtype, shape.ndim, shape.shape);
    if (rc == 0 && has_other_rows) {
        am_info("%s: %" PRId64 " rows (vocab: %s)", g->name, shape.shape[0],
                is_crop ? "crop" : "pad");
    }
    if (rc == 0) {
        rc = has_other_rows && !is_crop
                 ? add_pieces(m, g, tensor)
                 : add_piece(m, g, tensor, 0, shape.ndim > 0 ? shape.shape[0] : 1);
    }
    return rc;
}

static int match_groups(am_matcher *m)
{
    int rc = 0;
    for (int64_t lo = 0, hi; rc == 0 && lo < m->n_records; lo = hi) {
        am_group g = {
            .name = m->record[lo].name, .slice = m->record[lo].slice, .first = m->record[lo].input};
        for (hi = lo; hi < m->n_records && strcmp(m->record[hi].name, g.name) == 0; hi++) {
            g.of[m->record[hi].input] = &m->record[hi];
        }
        if (complete(m, &g)) {
            const bool has_other_rows = check_shapes(m, &g);
            rc = m->complaints.n == 0 ? add_tensor(m, &g, has_other_rows) : 0;
        }
    }
    return rc;
}

/* ---- the result ---- */

static int compare_pieces(const void *a, const void *b)
{
    return strcmp(((const am_piece *)a)->name, ((const am_piece *)b)->name);
}

static int allocate(am_match *out, int64_t n)
{
    out->at = am_new(n + 1, sizeof *out->at, "a table of tensors");
    out->place = am_new(n * out->n_inputs + 1, sizeof *out->place, "a table of tensors");
    out->slice = am_new(n + 1, sizeof *out->slice, "a table of tensors");
    out->layer = am_new(n + 1, sizeof *out->layer, "a table of tensors");
    out->depth = am_new(n + 1, sizeof *out->depth, "a table of tensors");
    out->copy = am_new(n + 1, sizeof *out->copy, "a table of tensors");
    return out->at != NULL && out->place != NULL && out->slice != NULL && out->layer != NULL &&
                   out->depth != NULL && out->copy != NULL
               ? 0
               : AM_E_NOMEM;
}

/* How many layers each stack has ("vision.layers.", "text.layers."): names are sorted, so those of
 * a stack stand together. */
static void count_depths(const am_matcher *m)
{
    am_match *out = m->out;
    for (int64_t lo = 0, hi; lo < out->pieces.n; lo = hi) {
        const char *name = out->pieces.t[lo].name;
        const int64_t stack = am_layer_stack(&m->recipe->layers, name);
        int64_t depth = 0;
        hi = lo;
        do {
            depth = out->layer[hi] >= depth ? out->layer[hi] + 1 : depth;
            hi++;
        } while (stack > 0 && hi < out->pieces.n &&
                 strncmp(out->pieces.t[hi].name, name, (size_t)stack) == 0);
        for (int64_t i = lo; i < hi; i++) {
            out->depth[i] = out->layer[i] >= 0 ? depth : 0;
        }
        out->layers = depth > out->layers ? depth : out->layers;
    }
}

static int fill(am_matcher *m)
{
    am_match *out = m->out;
    const int64_t n = m->n_pieces;
    int rc = allocate(out, n);
    if (n > 0) {
        qsort(m->piece, (size_t)n, sizeof *m->piece, compare_pieces);
    }
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const am_piece *p = &m->piece[i];
        rc = am_tensor_table_add(&out->pieces, p->name, p->shape.dtype, p->shape.ndim,
                                 p->shape.shape);
        out->at[i] = p->at;
        out->slice[i] = p->slice;
        out->copy[i] = p->copy;
        out->layer[i] = am_layer_number(&m->recipe->layers, out->output.t[p->at.tensor].name);
        for (int k = 0; k < out->n_inputs; k++) {
            out->place[k * n + i] = p->place[k];
        }
    }
    AM_KEEP(am_tensor_table_finish(&out->output));
    AM_KEEP(am_tensor_table_finish(&out->pieces));
    if (rc == 0) {
        count_depths(m);
    }
    return rc;
}

static int report(const am_matcher *m)
{
    char title[160] = "the inputs do not match";
    if (m->names_missing || m->names_vocab) {
        strcat(title, "; see the recipe's key ");
        strcat(title, m->names_missing ? "'missing'" : "");
        strcat(title, m->names_missing && m->names_vocab ? " and " : "");
        strcat(title, m->names_vocab ? "'vocab'" : "");
    }
    const int rc = am_complaints_fail(&m->complaints, title);
    if (rc == 0 && m->left_out > 0) {
        am_info("%" PRId64 " tensors that not all inputs have are left out", m->left_out);
    }
    if (rc == 0 && m->completed > 0) {
        am_info("%" PRId64 " tensors are missing in some inputs", m->completed);
    }
    if (rc == 0 && m->copied > 0) {
        am_info("%" PRId64
                " tensors or parts of them that fewer models have than %s needs are copied",
                m->copied, m->recipe->method->name);
    }
    return rc;
}

int am_match_make(const am_merge_recipe *recipe, const am_match_files *files, am_match *out)
{
    *out = (am_match){.n_inputs = files->n_inputs};
    am_matcher *m = am_new(1, sizeof *m, "a table of tensors");
    if (m == NULL) {
        return AM_E_NOMEM;
    }
    m->recipe = recipe;
    m->files = files;
    m->out = out;
    int rc = list_tensors(m);
    AM_KEEP(match_groups(m));
    AM_KEEP(report(m));
    AM_KEEP(fill(m));
    for (int64_t i = 0; i < m->n_records; i++) {
        free(m->record[i].owned);
    }
    for (int64_t i = 0; i < m->n_pieces; i++) {
        free(m->piece[i].name);
        free(m->piece[i].place);
    }
    free(m->record);
    free(m->piece);
    free(m);
    return rc;
}

void am_match_free(am_match *match)
{
    am_tensor_table_free(&match->output);
    am_tensor_table_free(&match->pieces);
    free(match->at);
    free(match->place);
    free(match->slice);
    free(match->layer);
    free(match->depth);
    free(match->copy);
    *match = (am_match){0};
}
