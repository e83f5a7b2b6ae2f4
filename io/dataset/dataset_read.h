/* What rank 0 makes of a data set file before it is broadcast. Private to io/dataset*.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_DATASET_READ_H
#define AM_IO_DATASET_DATASET_READ_H

#include "io/dataset/dataset.h"

typedef struct am_dataset_part {
    int64_t n;
    int64_t value_bytes;    /* 1: u8, scaled to [0,1] by gather; 4: f32, as it is */
    void *x;                /* [n, features] owned; text: [n, features + 1] */
    int32_t *y;             /* [n] owned; NULL for text */
    int64_t x_rows, y_rows; /* samples that the file stores together, in a chunk: 1 without */
} am_dataset_part;

typedef struct am_dataset_raw {
    int64_t classes, features;
    bool is_text;     /* u8 token ids; the label of a position is the next token */
    char *name;       /* owned */
    char *class_json; /* owned: JSON array of class names, "" if the file names none */
    am_dataset_part part[AM_SPLITS];
} am_dataset_raw;

/** Values stored for a sample. */
static inline int64_t am_dataset_width(const am_dataset_raw *raw)
{
    return raw->features + (raw->is_text ? 1 : 0);
}

/** Read and check a whole file with the serial HDF5 driver. Local.
 * Errors: AM_E_NOINPUT; AM_E_DATA naming file, dataset and rule; AM_E_NOMEM. */
int am_dataset_read(const char *path, const int64_t limit[AM_SPLITS], am_dataset_raw *out);
/** The same without values: x and y are NULL. Labels are looked through, a block at a time, if the
 * file names no classes. */
int am_dataset_read_head(const char *path, const int64_t limit[AM_SPLITS], am_dataset_raw *out);
/** Rules for the values of dataset `label` of a file: n samples of `width` values, the first one's
 * number `first`; classes 0: not known. Local. Errors: AM_E_DATA naming file, dataset, sample. */
int am_dataset_check_label(const char *path, const char *label, int64_t sample, double value,
                           int64_t classes);
int am_dataset_check_floats(const char *path, const char *label, int64_t first, int64_t n,
                            int64_t width, const float *x);
int am_dataset_check_tokens(const char *path, const char *label, int64_t first, int64_t n,
                            int64_t width, const uint8_t *x, int64_t classes);

void am_dataset_raw_free(am_dataset_raw *raw);

#endif
