/* Data sets: labelled samples in one HDF5 file a task, with train, validation and test splits.
 * A source that can be prepared (fashion, mnist5k, glyphs, ...) is one file in io/datasets/.
 *
 * File layout:  /train/x [n,28,28] u8  /train/y [n] i32   the same for /validation and /test;
 * root attributes: name, classes (JSON array of class names), source (packages and versions),
 * licence, features, seed, and allmerge (format version). Where samples come in groups (font
 * families): /train/group [n] i32 and the root attribute groups (JSON array). No time stamps: the
 * same input gives the same bytes. Files that users make need x and y only: io/datasets/README.md.
 * Text:  /train/tokens [n, T + 1] u8 and no labels: inputs are the first T, labels the last T.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_DATASET_H
#define AM_IO_DATASET_DATASET_H

#include <mpi.h>
#include "mpi/block.h"

typedef enum am_split { AM_TRAIN, AM_VALIDATION, AM_TEST, AM_SPLITS } am_split;
extern const char *const am_dataset_split_name[AM_SPLITS]; /* "train", "validation", "test" */

typedef struct am_dataset am_dataset; /* all splits of one task */

/** Read a prepared file. limit[3]: at most that many samples of a split (0: all), the first ones
 * of the file (files are shuffled by the preparation).
 *
 * room: bytes that a rank may take for the samples; 0: any. What fits is kept whole: rank 0 reads,
 * bytes are broadcast. Else every rank reads the samples that it needs from the file, in pages, of
 * which it keeps as many as there is room for; then the file must stay as it is until the data set
 * is closed, and a value against the rules is met when it is read. Samples are the same bytes.
 *
 * Collective [comm]; arguments [same].
 * Errors: AM_E_NOINPUT; AM_E_DATA (not a data set, label out of range, shapes differ); AM_E_NOMEM
 * (also: no room for a few pages). */
int am_dataset_open_all(MPI_Comm comm, const char *path, const int64_t limit[AM_SPLITS],
                        int64_t room, am_dataset **out);
void am_dataset_close(am_dataset **data);

/* What the headers of a file say. */
typedef struct am_dataset_shape {
    int64_t n[AM_SPLITS], value_bytes[AM_SPLITS];
    int64_t features, classes;
    bool is_text;
    int64_t fewest_bytes; /* the least room that am_dataset_open_all takes, unless less is all */
} am_dataset_shape;

/** Shapes without values. Collective [comm]; arguments and errors as am_dataset_open_all. */
int am_dataset_shape_all(MPI_Comm comm, const char *path, const int64_t limit[AM_SPLITS],
                         am_dataset_shape *out);
/** Bytes that am_dataset_open_all keeps on every rank without a limit. Pure. */
int64_t am_dataset_shape_bytes(const am_dataset_shape *shape);
const char *am_dataset_name(const am_dataset *data);
int64_t am_dataset_classes(const am_dataset *data);
int64_t am_dataset_features(const am_dataset *data);
/** Name of class k, borrowed; NULL if the file does not name its classes. */
const char *am_dataset_class_name(const am_dataset *data, int64_t k);
/** True for text: inputs are token ids, and a sample has one label a position. */
bool am_dataset_is_text(const am_dataset *data);
/** Samples of a split; u8 inputs scaled to [0,1] f32, real inputs as they are. Borrowed from
 * `data`. */
am_samples am_dataset_samples(const am_dataset *data, am_split split);
/** The first half of a split, rounded down, or the rest of it. Borrowed from `data`. */
am_samples am_dataset_half(const am_dataset *data, am_split split, bool is_second);

/* ---- preparation ---- */
typedef struct am_prepared { /* what a source hands over; freed by the caller */
    int64_t n[AM_SPLITS];
    int64_t features;          /* 0: images of 28*28 */
    uint8_t *x[AM_SPLITS];     /* [n, features] owned; of tokens [n, features + 1] */
    float *real[AM_SPLITS];    /* [n, features] owned, instead of x; NULL: none */
    int32_t *y[AM_SPLITS];     /* [n] owned; NULL for tokens: each byte's label is the next */
    int32_t *group[AM_SPLITS]; /* [n] owned: font family or pattern of a sample; may be NULL */
    int64_t classes, groups;
    char **class_name;      /* [classes] owned */
    char **group_name;      /* [groups] owned; NULL: the samples have no groups */
    char *source, *licence; /* owned */
} am_prepared;
void am_prepared_free(am_prepared *prepared); /* accepts a zeroed or half-filled one */

/** Write a prepared task as PATH (temporary name, fsync, rename). Local. The bytes depend on the
 * arguments only. seed is recorded.
 * Errors: AM_E_CREATE (PATH exists and not overwrite, folder missing or not writable); AM_E_IO. */
int am_prepared_write(const char *path, const char *name, uint64_t seed, const am_prepared *p,
                      bool overwrite);

/** Is PATH a file that am_prepared_write made for this name and seed? Local.
 * *is_present false if PATH does not exist.
 * Errors: AM_E_CREATE when PATH is something else: it is not overwritten without being asked. */
int am_prepared_present(const char *path, const char *name, uint64_t seed, bool *is_present);

typedef struct am_dataset_source {
    const char *name;     /* "fashion" */
    const char *help;     /* one line */
    const char *packages; /* Debian packages that hold it, space separated */
    const char *licence;  /* of the data, one line */
    /* Several tasks from one file (glyph scripts): names, NULL-terminated; NULL: just `name`. */
    const char *const *tasks;
    const char *const *extra; /* further tasks that are not part of the suite; NULL: none */
    bool optional;            /* no task of it is part of the suite */
    /* Make `task` from the files below `root` ("" for /, or a folder of unpacked packages; both are
     * tried). Local, rank 0. Errors: AM_E_NOINPUT naming file and package; AM_E_DATA. */
    int (*prepare)(const char *task, const char *const *roots, uint64_t seed, am_prepared *out);
} am_dataset_source;
extern const am_dataset_source *const am_dataset_source_table[];

#endif
