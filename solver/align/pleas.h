/* PLeaS: one network out of two of other initialisations, with a budget of width. Units that go
 * together (match.h) become one, the others stand side by side (widen.h), and the weights of every
 * product are fitted so that it gives what both networks give (fit.h). SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_PLEAS_H
#define AM_SOLVER_ALIGN_PLEAS_H

#include <mpi.h>
#include "solver/align/fit.h"
#include "solver/align/match.h"
#include "solver/align/widen.h"

/* A head [K, features of the last value] in the networks that have it, weight NULL: this one has
 * not; and where the merged one goes. Of a head that both have the merged one gives the mean of the
 * logits. All borrowed. */
typedef struct am_pleas_head {
    const char *name;
    int64_t K;
    const double *weight[2], *bias[2];
    double *to_weight, *to_bias; /* [K, features of the wide last value], [K] */
} am_pleas_head;

typedef struct am_pleas {
    const am_widen *widen;         /* paired */
    const am_stats_layout *layout; /* of statistics with joint sums */
    const double *sums;
    const double *block[2]; /* trunks of both networks, as they are */
    double ridge;
    double *merged; /* [widen->trunk.n] overwritten */
    int n_heads;
    am_pleas_head *head;
    am_fit_error *error; /* [net->n + n_heads] overwritten; of a node that is no product 0 */
} am_pleas;

/** Fill `merged` and the heads.
 *
 * Products are fitted; of other tensors pairs get the mean and other units their own values. A
 * batch_norm right behind a product without an activation keeps its place as an affine map: the
 * scale of a pair is the root mean square of both, and the product's wanted outputs are shared so
 * that the normalised ones are the mean of both.
 *
 * Collective [comm]; arguments [same]; the same bits for any number of ranks: a product is fitted
 * whole on one, and sent to all.
 * Memory: am_pleas_work_bytes.  Errors: AM_E_NUMERIC, AM_E_NOMEM, AM_E_STOPPED; agreed. */
int am_pleas_merge_all(MPI_Comm comm, const am_pleas *pleas);
/** Bytes that matching and merging take beside both trunks and the sums, with the merged trunk and
 * a copy of it to write, for heads of at most `classes`. Pure. */
int64_t am_pleas_work_bytes(const am_align *align, const am_widen *widen, int64_t classes);

#endif
