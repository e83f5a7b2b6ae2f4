/* Task vectors element by element: differences rounded or quantised, all or only the largest of a
 * tensor (io/checkpoint/taskvec.h). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_EXTRACT_ELEMENTS_H
#define AM_JOBS_EXTRACT_ELEMENTS_H

#include "io/checkpoint/taskvec.h"
#include "jobs/extract/tally.h"
#include "mpi/block.h"

typedef struct am_elements {
    const am_source *base, *model; /* borrowed */
    am_sink sink;
    const am_tv_tensor *form; /* [base->tensors->n] borrowed */
    double density;
    /* Its own: */
    int rank, size;
    double *delta, *other, *error; /* [AM_CHUNK] */
    unsigned char *raw;            /* [AM_CHUNK * 8] */
    uint16_t *index;               /* [AM_CHUNK] */
    float *scale;                  /* [scales of a block] */
    int64_t *bins;                 /* of a histogram */
    /* The tensor at hand: */
    int64_t tensor;
    int64_t lo, hi; /* this rank's elements: whole blocks */
    bool is_trimmed;
    uint32_t threshold; /* key of the smallest that is kept */
    int64_t ties;       /* how many of those with that key are kept */
    int64_t *count;     /* [2, chunks]: keys above the threshold, and equal to it, of each chunk */
    int64_t *start;     /* [chunks + 1] kept elements before each chunk */
    am_tally one;
} am_elements;

/** Buffers. Local. Errors: AM_E_NOMEM. */
int am_elements_create(am_elements *elements);
void am_elements_free(am_elements *elements); /* accepts zeros */
/** Write one tensor to the sink, in its form, and say what was lost.
 *
 * Collective [am_world()], tensor [same]; the same bytes on any number of ranks. Errors, agreed:
 * AM_E_DATA a difference that is not finite; AM_E_NUMERIC one that is too large for its dtype;
 * those of source and sink; AM_E_STOPPED; AM_E_NOMEM. */
int am_elements_write_all(MPI_Comm comm, am_elements *elements, int64_t tensor, am_loss *loss);

#endif
