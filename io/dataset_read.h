/* What rank 0 makes of a data set file before it is broadcast. Private to io/dataset*.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_READ_H
#define AM_IO_DATASET_READ_H

#include "io/dataset.h"

typedef struct am_dataset_part {
    int64_t n;
    int64_t value_bytes; /* 1: u8, scaled to [0,1] by gather; 4: f32, as it is */
    void *x;             /* [n, features] owned */
    int32_t *y;          /* [n] owned */
} am_dataset_part;

typedef struct am_dataset_raw {
    int64_t classes, features;
    char *name;       /* owned */
    char *class_json; /* owned: JSON array of class names, "" if the file names none */
    am_dataset_part part[AM_SPLITS];
} am_dataset_raw;

/** Read and check a whole file with the serial HDF5 driver. Local.
 * Errors: AM_E_NOINPUT; AM_E_DATA naming file, dataset and rule; AM_E_NOMEM. */
int am_dataset_read(const char *path, const int64_t limit[AM_SPLITS], am_dataset_raw *out);
void am_dataset_raw_free(am_dataset_raw *raw);

#endif
