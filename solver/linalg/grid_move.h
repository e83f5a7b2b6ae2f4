/* Matrices between ranks that hold runs of their elements, as files are read and written, and a
 * grid. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_GRID_MOVE_H
#define AM_SOLVER_LINALG_GRID_MOVE_H

#include "solver/linalg/grid.h"

/* Elements [lo, hi) of a matrix, row by row. */
typedef struct am_run {
    int64_t lo, hi;
} am_run;

/* Room to move runs of at most `part` elements of every rank at a time. */
typedef struct am_mover {
    const am_grid *grid;
    int64_t part;
    double *mine;        /* [part] the caller's: what it brings, what it gets */
    double *near, *far;  /* [part], [part * ranks] packed */
    int64_t *count, *at; /* [2 * ranks] bytes and places: of `near`, of `far` */
    am_run *run;         /* [ranks] the caller's: whose elements */
} am_mover;

/** Elements that a rank moves at a time, so that its room stays the same for large grids. Pure. */
int64_t am_mover_part(const am_layout *layout);
int64_t am_mover_bytes(const am_layout *layout);
/** From an arena. */
am_mover am_mover_take(am_arena *arena, const am_grid *grid);

/** Elements run[r] of rank r, in its `mine`, to where a [m,n] has them; runs do not overlap.
 * Collective [the grid's ranks]; run [same], all of them. Errors: MPI's; agreed. */
int am_mover_spread_all(am_mover *mover, am_matrix a);
/** The reverse. */
int am_mover_collect_all(am_mover *mover, am_matrix a);

#endif
