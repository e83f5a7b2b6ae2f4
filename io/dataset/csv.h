/* Tables as data sets: a CSV file with a header, one sample a row, one column of labels.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_CSV_H
#define AM_IO_DATASET_CSV_H

#include "io/dataset/dataset.h"

/** Read a table and divide its rows between the splits, 80 : 10 : 10, by (seed, file name).
 *
 * Fields are separated by commas, may be quoted ("" is a quote inside) and hold no line breaks; the
 * first line names the columns. Every column but the label's holds numbers, which become f32; the
 * distinct texts of the label column, in bytewise order, are the classes. standardize: each feature
 * minus its mean over the training rows, over its deviation there (constant: left at 0), sums in
 * row order in f64. Local.
 * Errors: AM_E_NOINPUT; AM_E_DATA with file and line for a missing value, a number that is none or
 * not finite, a row of another length, a header that names a column twice or lacks the label's
 * (says the nearest), fewer than ten rows; AM_E_NOMEM. */
int am_csv_read(const char *path, const char *label, bool standardize, uint64_t seed,
                am_prepared *out);

#endif
