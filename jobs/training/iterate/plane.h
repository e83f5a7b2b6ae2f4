/* The plane of a run: where its models lie in the two principal components of all of them, and the
 * loss around them there. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_PLANE_H
#define AM_JOBS_TRAINING_ITERATE_PLANE_H

#include <stdio.h>
#include "jobs/training/iterate/iterate.h"

typedef struct am_plane_point {
    char name[2 * AM_TABLE_NAME];
    char file[AM_RUN_PATH / 8]; /* in the run folder */
    am_table_choice how;        /* phase: its kind; round and epochs -1, alpha NaN: do not apply */
    int task;                   /* of an individual model, else -1 */
    double x, y, distance;      /* in the plane, and from it */
    double loss, plane_loss;    /* mean validation loss: its own, and at its place in the plane */
} am_plane_point;

enum { AM_PLANE_VECTORS = 3 }; /* f64, of a trunk: origin and axes */

struct am_plane {
    int n;
    am_plane_point *point; /* [n] owned */
    double explained[2];
    int64_t grid;
    double *x, *y; /* [grid] owned: axes */
    double *loss;  /* [grid][grid] owned: a row for each y */
};

/** Models that the plane of a run may have to draw, before the run makes them. */
int64_t am_plane_models(const am_train_recipe *recipe);
/** Bytes that their Gram matrix takes on a rank, of values of `real` bytes. */
int64_t am_plane_gram_bytes(const am_train_recipe *recipe, int64_t real);
/** Save a merge that the plane is to show, as RUN/plane/KEY.h5, if the recipe asks for a plane.
 * Collective [it->suite.comm]. */
int am_plane_keep_all(const am_iterate *it, const char *key, const void *trunk,
                      const am_table_choice *how);
/** Find the models in the run folder, their plane and the losses in it, if the recipe asks for it,
 * into it->plane; it->merged is overwritten. The losses of a row of the grid are a unit on disk.
 * Collective [it->suite.comm]. Errors: those of the parts; AM_E_STOPPED. */
int am_iterate_plane_all(am_iterate *it);
/** Member "plane" of the result, and the points for people; nothing if there is no plane. */
void am_plane_json(const am_iterate *it, am_json *json);
void am_plane_write(const am_iterate *it, FILE *out);
void am_plane_free(am_iterate *it);

#endif
