/* See hf_model.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/interop/hf_model.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "solver/training/preset.h"

enum { STEP = 1 << 15 }; /* elements copied at once */

/* ---- names ---- */

/* Does `name` fit the pattern; *number: what stands for %d. */
static bool fits(const char *pattern, const char *name, long *number)
{
    const char *hole = strstr(pattern, "%d");
    char *end = NULL;
    *number = 0;
    if (hole == NULL) {
        return strcmp(pattern, name) == 0;
    }
    const size_t length = (size_t)(hole - pattern);
    if (strncmp(pattern, name, length) != 0) {
        return false;
    }
    *number = strtol(name + length, &end, 10);
    return end != name + length && strcmp(end, hole + 2) == 0;
}

static const am_hf_name *entry_of(const am_hf_model *m, const char *name, long *number)
{
    for (const am_hf_name *e = m->architecture->names; e->ours != NULL; e++) {
        if (fits(e->ours, name, number)) {
            return e;
        }
    }
    return NULL;
}

static int their_name(const char *prefix, const char *pattern, long number, char *out)
{
    const char *hole = strstr(pattern, "%d");
    const int n = hole == NULL ? snprintf(out, AM_MAX_NAME, "%s%s", prefix, pattern)
                               : snprintf(out, AM_MAX_NAME, "%s%.*s%ld%s", prefix,
                                          (int)(hole - pattern), pattern, number, hole + 2);
    return n < AM_MAX_NAME ? 0 : am_fail(AM_E_DATA, "the tensor name %.80s... is too long", out);
}

/* The prefix of all their names: that of the architecture, or none. */
static const char *find_prefix(const am_hf_model *m)
{
    char name[AM_MAX_NAME];
    snprintf(name, sizeof name, "%s%s", m->architecture->prefix,
             m->architecture->names[0].theirs[0]);
    return am_tensor_table_find(am_ckpt_tensors(m->ckpt), name) >= 0 ? m->architecture->prefix : "";
}

/* ---- shapes ---- */

/* Sides without those of length 1 in front; returns how many. */
static int sides_of(const am_tensor *t, const int64_t **side)
{
    int skip = 0;
    while (skip < t->ndim - 1 && t->shape[skip] == 1) {
        skip++;
    }
    *side = t->shape + skip;
    return t->ndim - skip;
}

/* Rows of our tensor that theirs has; -1: it does not fit. */
static int64_t rows_of(const am_tensor *ours, const am_tensor *theirs, bool is_transposed)
{
    const int64_t *a, *b;
    const int n = sides_of(ours, &a);
    if (is_transposed) {
        return theirs->ndim == 2 && ours->ndim == 2 && theirs->shape[0] == ours->shape[1]
                   ? theirs->shape[1]
                   : -1;
    }
    bool same = n == sides_of(theirs, &b);
    for (int d = 1; same && d < n; d++) {
        same = a[d] == b[d];
    }
    return same && n > 0 ? b[0] : -1;
}

static int shape_error(const am_hf_model *m, const am_tensor *ours, const char *theirs)
{
    const int64_t i = am_tensor_table_find(am_ckpt_tensors(m->ckpt), theirs);
    return am_fail(AM_E_DATA, "%s: tensor %s is %s, which does not fit %s %s of config.json",
                   am_ckpt_path(m->ckpt), theirs,
                   am_tensor_describe(&am_ckpt_tensors(m->ckpt)->t[i]), ours->name,
                   am_tensor_describe(ours));
}

/* ---- the map ---- */

/* Their tensor `name` becomes one of the mapped ones. */
static int take(am_hf_model *m, const char *name)
{
    const am_tensor_table *all = am_ckpt_tensors(m->ckpt);
    const int64_t i = am_tensor_table_find(all, name);
    if (i < 0) {
        return am_fail(AM_E_DATA, "%s has no tensor %s, which a model of type %s needs",
                       am_ckpt_path(m->ckpt), name, m->architecture->model_type);
    }
    return am_tensor_table_add(&m->mapped, name, AM_DTYPE_F64, all->t[i].ndim, all->t[i].shape);
}

static int take_names(am_hf_model *m, const char *prefix)
{
    const am_tensor_table *all = am_ckpt_tensors(m->ckpt);
    char name[AM_MAX_NAME];
    int rc = 0;
    long number = 0;
    for (int64_t k = 0; rc == 0 && k < m->trunk.tensors.n; k++) {
        const am_hf_name *e = entry_of(m, m->trunk.tensors.t[k].name, &number);
        AM_ASSERT(e != NULL);
        for (int p = 0; p < AM_HF_PARTS && e->theirs[p] != NULL; p++) {
            AM_KEEP(their_name(prefix, e->theirs[p], number, name));
            AM_KEEP(take(m, name));
            m->n_parts++;
        }
    }
    for (int i = 0; rc == 0 && i < 2; i++) {
        const char *own = m->architecture->head[i];
        if (own != NULL && am_tensor_table_find(all, own) >= 0) {
            rc = take(m, own);
        }
    }
    AM_KEEP(am_tensor_table_finish(&m->mapped));
    return rc;
}

/* Every tensor of theirs is ours, or one that no result depends on. */
static int refuse_others(const am_hf_model *m, const char *prefix)
{
    const am_tensor_table *all = am_ckpt_tensors(m->ckpt);
    const size_t length = strlen(prefix);
    for (int64_t i = 0; i < all->n; i++) {
        const char *name = all->t[i].name;
        bool is_known = am_tensor_table_find(&m->mapped, name) >= 0;
        for (int k = 0; !is_known && m->architecture->carried[k] != NULL; k++) {
            is_known = strncmp(name, prefix, length) == 0 &&
                       fnmatch(m->architecture->carried[k], name + length, 0) == 0;
        }
        if (!is_known) {
            return am_fail(AM_E_DATA,
                           "%s: tensor %s has no place in a model of type %s as allmerge computes "
                           "it, so the model is not read",
                           am_ckpt_path(m->ckpt), name, m->architecture->model_type);
        }
    }
    return 0;
}

/* The parts of our tensor k. */
static int place_parts(am_hf_model *m, const char *prefix, int64_t k)
{
    const am_tensor *ours = &m->trunk.tensors.t[k];
    const int64_t rows = ours->shape[0];
    char name[AM_MAX_NAME] = "";
    int64_t row = 0;
    long number = 0;
    const am_hf_name *e = entry_of(m, ours->name, &number);
    int rc = 0;
    for (int p = 0; p < AM_HF_PARTS && e->theirs[p] != NULL; p++) {
        rc = their_name(prefix, e->theirs[p], number, name);
        if (rc != 0) {
            return rc;
        }
        const int64_t i = am_tensor_table_find(&m->mapped, name);
        int64_t own = rows_of(ours, &m->mapped.t[i], e->is_transposed);
        if (e->is_leading && own > rows) {
            own = rows;
        }
        if (own < 1 || own > rows - row) {
            return shape_error(m, ours, name);
        }
        m->part[m->n_parts++] = (am_hf_part){.ours = k,
                                             .theirs = i,
                                             .row = row,
                                             .rows = own,
                                             .cols = ours->numel / rows,
                                             .is_transposed = e->is_transposed};
        row += own;
    }
    return row == rows ? 0 : shape_error(m, ours, name);
}

/* The head: their own, or the token embedding. */
static int place_head(am_hf_model *m)
{
    const char *const *own = m->architecture->head;
    const int64_t token = am_tensor_table_find(&m->trunk.tensors, "token.weight");
    m->weight = am_tensor_table_find(&m->mapped, own[0]);
    m->bias = own[1] != NULL ? am_tensor_table_find(&m->mapped, own[1]) : -1;
    if (m->weight < 0 && !m->config.is_tied) {
        return 0;
    }
    const am_tensor *w = m->weight >= 0 ? &m->mapped.t[m->weight] : &m->trunk.tensors.t[token];
    const int64_t features = am_shape_features(&m->net.out);
    if (w->ndim != 2 || w->shape[1] != features ||
        (own[1] != NULL && (m->bias < 0 || m->mapped.t[m->bias].numel != w->shape[0]))) {
        return am_fail(AM_E_DATA, "%s: the head %s is %s, which does not fit %lld features%s",
                       am_ckpt_path(m->ckpt), w->name, am_tensor_describe(w), (long long)features,
                       own[1] != NULL ? " and its bias" : "");
    }
    return am_net_head_layout(&m->net, w->shape[0], AM_DTYPE_F64, &m->head);
}

static int make_map(am_hf_model *m)
{
    const char *prefix = find_prefix(m);
    int rc = take_names(m, prefix);
    AM_KEEP(refuse_others(m, prefix));
    m->part = am_new(m->n_parts + 1, sizeof *m->part, "a map of names");
    m->offset = am_new(m->mapped.n + 1, sizeof *m->offset, "a map of names");
    AM_KEEP(m->part != NULL && m->offset != NULL ? 0 : AM_E_NOMEM);
    m->n_parts = 0;
    for (int64_t k = 0; rc == 0 && k < m->trunk.tensors.n; k++) {
        rc = place_parts(m, prefix, k);
    }
    for (int64_t i = 0; rc == 0 && i < m->mapped.n; i++) {
        m->offset[i] = m->reals;
        m->reals += m->mapped.t[i].numel;
    }
    AM_KEEP(place_head(m));
    return rc;
}

/* ---- open and close ---- */

static int make_net(am_hf_model *m, const char *folder, int64_t context)
{
    int rc = am_preset_make(m->architecture->preset, m->config.options, NULL, &m->net);
    int64_t features = context > 0 ? context : m->config.positions;
    if (rc == 0 && (context < 0 || context > m->config.positions)) {
        rc = am_fail(AM_E_RECIPE, "%s has %lld positions, not %lld", folder,
                     (long long)m->config.positions, (long long)context);
    }
    if (rc == 0 && m->config.positions == 0) { /* the sides are attributes of the first layer */
        long long height = 0, width = 0, colours = 0;
        AM_ASSERT(sscanf(m->config.options, "height=%lld width=%lld colours=%lld", &height, &width,
                         &colours) == 3);
        features = height < INT16_MAX && width < INT16_MAX ? height * width * colours : 0;
    }
    AM_KEEP(am_net_shape(&m->net, features));
    AM_KEEP(am_net_trunk_layout(&m->net, AM_DTYPE_F64, &m->trunk));
    return rc;
}

int am_hf_model_open_all(MPI_Comm comm, const char *folder, int64_t context, am_hf_model *out)
{
    int rc = 0;
    *out = (am_hf_model){.weight = -1, .bias = -1};
    AM_TRY(am_hf_config_read_all(comm, folder, &out->config));
    out->architecture = &am_hf_architectures[out->config.architecture];
    rc = make_net(out, folder, context);
    AM_AGREE(comm);
    AM_TRY(am_ckpt_open_all(comm, folder, &out->ckpt));
    rc = make_map(out);
    AM_AGREE(comm);
cleanup:
    return rc;
}

void am_hf_model_close(am_hf_model *model)
{
    am_net_free(&model->net);
    am_param_layout_free(&model->trunk);
    am_param_layout_free(&model->head);
    am_ckpt_close(&model->ckpt);
    am_tensor_table_free(&model->mapped);
    free(model->offset);
    free(model->part);
    *model = (am_hf_model){0};
}

int am_hf_model_load_all(MPI_Comm comm, const am_hf_model *model, double *theirs)
{
    return am_ckpt_load_all(comm, am_ckpt_path(model->ckpt), &model->mapped, model->offset, theirs);
}

/* ---- moving values ---- */

/* Where element (r, c) of a part lies in their tensor. */
static int64_t their_place(const am_hf_model *m, const am_hf_part *p, int64_t r, int64_t c)
{
    const int64_t at = m->offset[p->theirs];
    return p->is_transposed ? at + c * m->mapped.t[p->theirs].shape[1] + r : at + r * p->cols + c;
}

static const double *token_of(const am_hf_model *m, const double *trunk)
{
    return trunk + m->trunk.offset[am_tensor_table_find(&m->trunk.tensors, "token.weight")];
}

/* Tensor "head.weight" or "head.bias" of a head block. */
static int64_t head_at(const am_hf_model *m, const char *name, int64_t *n)
{
    const int64_t k = am_tensor_table_find(&m->head.tensors, name);
    *n = m->head.tensors.t[k].numel;
    return m->head.offset[k];
}

void am_hf_model_to_ours(const am_hf_model *m, const double *theirs, double *trunk, double *head)
{
    for (int i = 0; i < m->n_parts; i++) {
        const am_hf_part *p = &m->part[i];
        double *to = trunk + m->trunk.offset[p->ours] + p->row * p->cols;
        for (int64_t r = 0; r < p->rows; r++) {
            for (int64_t c = 0; c < p->cols; c++) {
                to[r * p->cols + c] = theirs[their_place(m, p, r, c)];
            }
        }
    }
    if (head != NULL && m->head.n > 0) {
        int64_t n_weight, n_bias;
        const int64_t weight = head_at(m, "head.weight", &n_weight);
        const int64_t bias = head_at(m, "head.bias", &n_bias);
        memcpy(head + weight, m->weight >= 0 ? theirs + m->offset[m->weight] : token_of(m, trunk),
               (size_t)n_weight * sizeof *head);
        for (int64_t k = 0; k < n_bias; k++) {
            head[bias + k] = m->bias >= 0 ? theirs[m->offset[m->bias] + k] : 0;
        }
    }
}

void am_hf_model_to_theirs(const am_hf_model *m, const double *trunk, const double *head,
                           double *theirs)
{
    for (int i = 0; i < m->n_parts; i++) {
        const am_hf_part *p = &m->part[i];
        const double *from = trunk + m->trunk.offset[p->ours] + p->row * p->cols;
        for (int64_t r = 0; r < p->rows; r++) {
            for (int64_t c = 0; c < p->cols; c++) {
                theirs[their_place(m, p, r, c)] = from[r * p->cols + c];
            }
        }
    }
    if (head != NULL && m->head.n > 0) {
        int64_t n;
        const int64_t weight = head_at(m, "head.weight", &n);
        if (m->weight >= 0) {
            memcpy(theirs + m->offset[m->weight], head + weight, (size_t)n * sizeof *head);
        }
        const int64_t bias = head_at(m, "head.bias", &n);
        if (m->bias >= 0) {
            memcpy(theirs + m->offset[m->bias], head + bias, (size_t)n * sizeof *head);
        }
    }
}

int am_hf_model_check_head(const am_hf_model *m, const char *path, const double *trunk,
                           const double *head)
{
    if (m->head.n == 0) {
        return 0;
    }
    int64_t n;
    const int64_t weight = head_at(m, "head.weight", &n);
    if (m->config.is_tied &&
        memcmp(head + weight, token_of(m, trunk), (size_t)n * sizeof *head) != 0) {
        return am_fail(AM_E_DATA,
                       "%s: token.weight and the head differ, but config.json of %s ties them: "
                       "train with freeze: [token.weight] and frozen heads",
                       path, am_ckpt_path(m->ckpt));
    }
    const int64_t bias = head_at(m, "head.bias", &n);
    for (int64_t k = 0; m->bias < 0 && k < n; k++) {
        if (head[bias + k] != 0) {
            return am_fail(AM_E_DATA,
                           "%s: the head has a bias, for which models of type %s have no place",
                           path, m->architecture->model_type);
        }
    }
    return 0;
}

/* ---- writing ---- */

static int write_span(const am_span *s, const am_sink *sink, const double *from,
                      const am_source *source, int64_t tensor, void *buffer)
{
    int rc = 0;
    for (int64_t lo = s->lo; rc == 0 && lo < s->hi; lo += STEP) {
        const int64_t n = s->hi - lo < STEP ? s->hi - lo : STEP;
        if (from != NULL) {
            rc = sink->store(sink->self, s->tensor, lo, n, from + lo);
        } else {
            rc = source->load_raw(source->self, tensor, lo, n, buffer);
            AM_KEEP(sink->store_raw(sink->self, s->tensor, lo, n, buffer));
        }
    }
    return rc;
}

int am_hf_model_write_all(MPI_Comm comm, const am_hf_model *model, const char *path,
                          const am_tensor_table *tensors, const int64_t *offset,
                          const double *block, const am_ckpt_options *options)
{
    int rc = 0, rank, size;
    am_ckpt_writer *writer = NULL;
    am_slice slice = {0};
    am_sink sink = {0};
    am_source source = {0};
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    double *buffer = am_new(STEP, sizeof *buffer, path);
    AM_KEEP(buffer != NULL ? 0 : AM_E_NOMEM);
    AM_KEEP(am_slice_make(tensors, AM_BLOCK, size, rank, &slice));
    AM_KEEP(am_ckpt_source(model->ckpt, 0, &source));
    AM_AGREE(comm);
    AM_TRY(am_ckpt_create_all(comm, path, tensors, options, &writer));
    rc = am_ckpt_sink(writer, &sink);
    for (int64_t i = 0; rc == 0 && i < slice.n; i++) {
        const int64_t k = slice.spans[i].tensor;
        rc = write_span(&slice.spans[i], &sink, offset[k] >= 0 ? block + offset[k] : NULL, &source,
                        am_tensor_table_find(am_ckpt_tensors(model->ckpt), tensors->t[k].name),
                        buffer);
    }
    rc = am_ckpt_publish_all(&writer, rc);
cleanup:
    free(buffer);
    am_slice_free(&slice);
    return rc;
}
