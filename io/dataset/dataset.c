/* Data sets, whole in memory (read on rank 0, broadcast) or in pages, handed out as samples.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/dataset.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "io/dataset/dataset_read.h"
#include "io/dataset/paged.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"

struct am_dataset {
    am_dataset_raw raw;
    am_paged *paged;     /* owned; NULL: raw has the values */
    json_t *class_names; /* array of strings, NULL if the file names none */
    float unit[256];     /* v / 255 */
    struct am_dataset_view {
        const am_dataset *data;
        int split;
        int64_t first;                    /* sample */
    } view[AM_SPLITS], second[AM_SPLITS]; /* what am_samples.self points to; of second halves */
};

/* What the other ranks must know before the arrays arrive. Two NUL-ended texts follow it. */
typedef struct am_dataset_head {
    int64_t classes, features, is_text, name_bytes, class_bytes;
    int64_t n[AM_SPLITS], value_bytes[AM_SPLITS], x_rows[AM_SPLITS], y_rows[AM_SPLITS];
} am_dataset_head;

static int pack_head(const am_dataset_raw *raw, char **bytes, int64_t *n)
{
    am_dataset_head head = {.classes = raw->classes,
                            .features = raw->features,
                            .is_text = raw->is_text,
                            .name_bytes = (int64_t)strlen(raw->name) + 1,
                            .class_bytes = (int64_t)strlen(raw->class_json) + 1};
    for (int s = 0; s < AM_SPLITS; s++) {
        head.n[s] = raw->part[s].n;
        head.value_bytes[s] = raw->part[s].value_bytes;
        head.x_rows[s] = raw->part[s].x_rows;
        head.y_rows[s] = raw->part[s].y_rows;
    }
    *n = (int64_t)sizeof head + head.name_bytes + head.class_bytes;
    *bytes = am_new(*n, 1, "head of a data set");
    if (*bytes == NULL) {
        return AM_E_NOMEM;
    }
    memcpy(*bytes, &head, sizeof head);
    memcpy(*bytes + sizeof head, raw->name, (size_t)head.name_bytes);
    memcpy(*bytes + sizeof head + head.name_bytes, raw->class_json, (size_t)head.class_bytes);
    return 0;
}

/* On the ranks that did not read: fill the description and make room for arrays. */
static int unpack_head(const char *bytes, bool with_values, am_dataset_raw *raw)
{
    am_dataset_head head;
    memcpy(&head, bytes, sizeof head);
    raw->classes = head.classes;
    raw->features = head.features;
    raw->is_text = head.is_text != 0;
    raw->name = strdup(bytes + sizeof head);
    raw->class_json = strdup(bytes + sizeof head + head.name_bytes);
    if (raw->name == NULL || raw->class_json == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for the head of a data set");
    }
    for (int s = 0; s < AM_SPLITS; s++) {
        am_dataset_part *part = &raw->part[s];
        part->n = head.n[s];
        part->value_bytes = head.value_bytes[s];
        part->x_rows = head.x_rows[s];
        part->y_rows = head.y_rows[s];
        if (!with_values) {
            continue;
        }
        part->x = am_new(part->n, (size_t)(am_dataset_width(raw) * part->value_bytes), "inputs");
        part->y = raw->is_text ? NULL : am_new(part->n, sizeof *part->y, "labels");
        if (part->x == NULL || (part->y == NULL && !raw->is_text)) {
            return AM_E_NOMEM;
        }
    }
    return 0;
}

static int share_all(MPI_Comm comm, int rc, int rank, bool with_values, am_dataset *data)
{
    char *bytes = NULL;
    int64_t n = 0;
    if (rank == 0) {
        AM_KEEP(pack_head(&data->raw, &bytes, &n));
    }
    AM_TRY(am_share_bytes_all(comm, 0, rc, &bytes, &n));
    if (rank != 0) {
        AM_KEEP(unpack_head(bytes, with_values, &data->raw));
    }
    AM_AGREE(comm);
    for (int s = 0; with_values && s < AM_SPLITS; s++) {
        const am_dataset_part *part = &data->raw.part[s];
        const int64_t labels = data->raw.is_text ? 0 : part->n;
        AM_TRY(am_bcast_all(comm, 0, part->x,
                            part->n * am_dataset_width(&data->raw) * part->value_bytes));
        AM_TRY(am_bcast_all(comm, 0, part->y, labels * (int64_t)sizeof *part->y));
    }
cleanup:
    free(bytes);
    return rc;
}

int am_dataset_open_all(MPI_Comm comm, const char *path, const int64_t limit[AM_SPLITS],
                        int64_t room, am_dataset **out)
{
    int rc = 0, rank = 0;
    bool is_whole = true;
    am_dataset *data = am_new(1, sizeof *data, "data set");
    *out = NULL;
    AM_KEEP(data == NULL ? AM_E_NOMEM : 0);
    AM_KEEP(MPI_Comm_rank(comm, &rank) == MPI_SUCCESS ? 0 : am_fail(AM_E_BUG, "MPI_Comm_rank"));
    AM_AGREE(comm);
    if (room > 0) {
        am_dataset_shape shape;
        AM_TRY(am_dataset_shape_all(comm, path, limit, &shape));
        is_whole = am_dataset_shape_bytes(&shape) <= room;
    }
    if (rank == 0) {
        AM_KEEP(is_whole ? am_dataset_read(path, limit, &data->raw)
                         : am_dataset_read_head(path, limit, &data->raw));
    }
    AM_TRY(share_all(comm, rc, rank, is_whole, data));
    if (!is_whole) {
        AM_TRY(am_paged_open_all(comm, path, &data->raw, room, &data->paged));
    }
    if (data->raw.class_json[0] != '\0') {
        data->class_names = json_loads(data->raw.class_json, 0, NULL);
        AM_KEEP(data->class_names != NULL ? 0 : am_fail(AM_E_NOMEM, "no memory for class names"));
    }
    AM_AGREE(comm);
    for (int v = 0; v < 256; v++) {
        data->unit[v] = (float)v / 255.0f;
    }
    for (int s = 0; s < AM_SPLITS; s++) {
        data->view[s].data = data;
        data->view[s].split = s;
        data->second[s] = data->view[s];
        data->second[s].first = data->raw.part[s].n / 2;
    }
    *out = data;
    data = NULL;
cleanup:
    am_dataset_close(&data);
    return rc;
}

int am_dataset_shape_all(MPI_Comm comm, const char *path, const int64_t limit[AM_SPLITS],
                         am_dataset_shape *out)
{
    am_dataset_raw raw = {0};
    int rc = 0, rank = 0;
    *out = (am_dataset_shape){0};
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        rc = am_dataset_read_head(path, limit, &raw);
        *out = (am_dataset_shape){
            .features = raw.features, .classes = raw.classes, .is_text = raw.is_text};
        for (int s = 0; s < AM_SPLITS; s++) {
            out->n[s] = raw.part[s].n;
            out->value_bytes[s] = raw.part[s].value_bytes;
        }
        out->fewest_bytes = rc == 0 ? am_paged_fewest_bytes(&raw) : 0;
        am_dataset_raw_free(&raw);
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, out, (int64_t)sizeof *out));
cleanup:
    return rc;
}

int64_t am_dataset_shape_bytes(const am_dataset_shape *shape)
{
    const int64_t width = shape->features + (shape->is_text ? 1 : 0);
    int64_t bytes = 0;
    for (int s = 0; s < AM_SPLITS; s++) {
        bytes += shape->n[s] *
                 (width * shape->value_bytes[s] + (shape->is_text ? 0 : (int64_t)sizeof(int32_t)));
    }
    return bytes;
}

void am_dataset_close(am_dataset **data)
{
    if (*data != NULL) {
        am_paged_close(&(*data)->paged);
        am_dataset_raw_free(&(*data)->raw);
        json_decref((*data)->class_names);
        free(*data);
        *data = NULL;
    }
}

const char *am_dataset_name(const am_dataset *data)
{
    return data->raw.name;
}

int64_t am_dataset_classes(const am_dataset *data)
{
    return data->raw.classes;
}

int64_t am_dataset_features(const am_dataset *data)
{
    return data->raw.features;
}

const char *am_dataset_class_name(const am_dataset *data, int64_t k)
{
    return data->class_names != NULL && k >= 0
               ? json_string_value(json_array_get(data->class_names, (size_t)k))
               : NULL;
}

bool am_dataset_is_text(const am_dataset *data)
{
    return data->raw.is_text;
}

/* One sample of a text: ids, and the next byte at every position. */
static void gather_text(const uint8_t *from, int64_t T, float *x, int32_t *y)
{
    for (int64_t t = 0; t < T; t++) {
        x[t] = (float)from[t];
        y[t] = from[t + 1];
    }
}

/* Inputs as they are kept, and the label, of one sample. */
static int find_sample(const struct am_dataset_view *view, int64_t index, const void **x,
                       int32_t *label)
{
    const am_dataset *data = view->data;
    const am_dataset_part *part = &data->raw.part[view->split];
    const int64_t bytes = am_dataset_width(&data->raw) * part->value_bytes;
    if (index < 0 || index >= part->n) {
        return am_fail(AM_E_BUG, "%s: sample %lld of %lld", data->raw.name, (long long)index,
                       (long long)part->n);
    }
    if (data->paged != NULL) {
        return am_paged_sample(data->paged, (am_split)view->split, index, x, label);
    }
    *x = (const unsigned char *)part->x + index * bytes;
    if (label != NULL) {
        *label = part->y[index];
    }
    return 0;
}

/* am_samples.gather */
static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    const struct am_dataset_view *view = self;
    const am_dataset *data = view->data;
    const int64_t features = data->raw.features;
    for (int64_t i = 0; i < count; i++) {
        const void *from = NULL;
        float *to = x + i * features;
        const int rc =
            find_sample(view, view->first + index[i], &from, data->raw.is_text ? NULL : &y[i]);
        if (rc != 0) {
            return rc;
        }
        if (data->raw.is_text) {
            gather_text(from, features, to, y + i * features);
        } else if (data->raw.part[view->split].value_bytes == 1) {
            const uint8_t *byte = from;
            for (int64_t j = 0; j < features; j++) {
                to[j] = data->unit[byte[j]];
            }
        } else {
            memcpy(to, from, (size_t)features * sizeof *to);
        }
    }
    return 0;
}

/* am_samples.announce */
static void announce(void *self, const int64_t *index, int64_t count)
{
    const struct am_dataset_view *view = self;
    am_paged_announce(view->data->paged, (am_split)view->split, index, count, view->first);
}

am_samples am_dataset_samples(const am_dataset *data, am_split split)
{
    return (am_samples){
        .self = (void *)&data->view[split],
        .label = data->raw.name,
        .n = data->raw.part[split].n,
        .features = data->raw.features,
        .classes = data->raw.classes,
        .labels = data->raw.is_text ? data->raw.features : 1,
        .gather = gather,
        .announce = data->paged != NULL ? announce : NULL,
    };
}

am_samples am_dataset_half(const am_dataset *data, am_split split, bool is_second)
{
    am_samples samples = am_dataset_samples(data, split);
    const int64_t first = samples.n / 2;
    samples.n = is_second ? samples.n - first : first;
    if (is_second) {
        samples.self = (void *)&data->second[split];
    }
    return samples;
}
