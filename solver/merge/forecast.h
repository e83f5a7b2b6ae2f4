/* What a merge will take on each of any number of ranks, from shapes alone: the engine's own
 * slices, sets, groups and batches, without data. Local and pure but for memory.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_FORECAST_H
#define AM_SOLVER_MERGE_FORECAST_H

#include "solver/merge/merge.h"

typedef struct am_forecast am_forecast;

/* One rank's. */
typedef struct am_merge_cost {
    int64_t buffers;  /* bytes of the engine's buffers */
    int64_t dense;    /* bytes of the largest matrix and of all that is made of it */
    int64_t units;    /* bytes of units that are reduced together, sums and orders */
    int64_t batch[2]; /* bytes of the inputs in the two largest batches */
    int64_t held;     /* bytes of the inputs in the largest batch that is visited more than once */
    int64_t piece;    /* bytes of the output in the largest piece */
    int64_t read, written; /* bytes of tensors */
    int64_t rows;          /* elements of the largest tile */
    int visits;            /* of the unit that is visited most */
} am_merge_cost;

/** Cut everything as `ranks` ranks would.
 *
 * job  borrowed; its sink is not used, its block neither.  tensors  borrowed: the output's table.
 * Memory: of (tensors + ranks). Errors: AM_E_NOMEM. out: freed by am_forecast_free, also after an
 * error. */
int am_forecast_create(const am_merge_job *job, const am_tensor_table *tensors, int ranks,
                       am_forecast **out);
void am_forecast_free(am_forecast **forecast);
/** Elements of the largest tile of any rank: inputs are loaded by as many at most. Pure. */
int64_t am_forecast_tile(const am_forecast *forecast);
/** What `rank` takes with batches of `block` elements. */
am_merge_cost am_forecast_cost(am_forecast *forecast, int rank, int64_t block);

#endif
