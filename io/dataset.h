/* Data sets: labelled samples in one HDF5 file a task, with train, validation and test splits.
 * A source that can be prepared (fashion, mnist5k, glyphs, ...) is one file in io/datasets/.
 *
 * File layout:  /train/x [n,28,28] u8  /train/y [n] i32   the same for /validation and /test;
 * root attributes: name, classes (JSON array of class names), source (package and version),
 * licence, features, and allmerge (format version). No time stamps: the same input gives the same
 * bytes. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_H
#define AM_IO_DATASET_H

#include <mpi.h>
#include "mpi/block.h"

typedef enum am_split { AM_TRAIN, AM_VALIDATION, AM_TEST, AM_SPLITS } am_split;

typedef struct am_dataset am_dataset; /* all splits of one task, in memory on every rank */

/** Read a prepared file. limit[3]: at most that many samples of a split (0: all), the first ones
 * of the file (files are shuffled by the preparation).
 * Collective [comm]; arguments [same]; rank 0 reads, bytes are broadcast.
 * Errors: AM_E_NOINPUT; AM_E_DATA (not a data set, label out of range, shapes differ). */
int am_dataset_open_all(MPI_Comm comm, const char *path, const int64_t limit[AM_SPLITS],
                        am_dataset **out);
void am_dataset_close(am_dataset **data);
const char *am_dataset_name(const am_dataset *data);
int64_t am_dataset_classes(const am_dataset *data);
int64_t am_dataset_features(const am_dataset *data);
/** Samples of a split; inputs scaled to [0,1] f32. Borrowed from `data`. */
am_samples am_dataset_samples(const am_dataset *data, am_split split);

/* ---- preparation ---- */
typedef struct am_prepared { /* what a source hands over; freed by the caller */
    int64_t n[AM_SPLITS];
    uint8_t *x[AM_SPLITS]; /* [n, 28*28] owned */
    int32_t *y[AM_SPLITS]; /* [n] owned */
    int64_t classes;
    char **class_name;      /* [classes] owned */
    char *source, *licence; /* owned */
} am_prepared;

typedef struct am_dataset_source {
    const char *name;     /* "fashion" */
    const char *help;     /* one line */
    const char *packages; /* Debian packages that hold it, space separated */
    /* Several tasks from one file (glyph scripts): names, NULL-terminated; NULL: just `name`. */
    const char *const *tasks;
    bool optional; /* not part of the suite */
    /* Make `task` from the files below `root` ("" for /, or a folder of unpacked packages; both are
     * tried). Local, rank 0. Errors: AM_E_NOINPUT naming file and package; AM_E_DATA. */
    int (*prepare)(const char *task, const char *const *roots, uint64_t seed, am_prepared *out);
} am_dataset_source;
extern const am_dataset_source *const am_dataset_source_table[];

#endif
