/* What a stored task vector has lost: norms and errors, of a tensor or of all.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_EXTRACT_TALLY_H
#define AM_JOBS_EXTRACT_TALLY_H

#include <mpi.h>
#include "mpi/jsonw.h"
#include "mpi/reduce.h"

/* Sums of squares: of all differences, of those that are kept, of the errors of these as they are
 * stored; and the largest error. */
typedef struct am_loss {
    double all, kept, error, largest;
} am_loss;

/** Over tensors, in their order. */
void am_loss_add(am_loss *to, const am_loss *from);
/** sqrt(part / whole), 0 where whole is 0. */
double am_loss_share(double part, double whole);
/** Members of an open object: "relative_l2" and "max_abs" (errors of what is kept), "norm", and
 * "kept_norm", its share that is kept. */
void am_loss_write(am_json *j, const am_loss *loss);

/* The same of one tensor, being summed without error. */
typedef struct am_tally {
    am_exact all, kept, error;
    double largest;
} am_tally;

/** One chunk (am_dot_chunk) of kept differences and of errors. Local. */
void am_tally_add(am_tally *tally, const double *kept, const double *error, int64_t n);
am_loss am_tally_round(const am_tally *tally);
/** Over ranks. Collective [comm]. Errors: AM_E_NOMEM, agreed. */
int am_tally_all(MPI_Comm comm, am_tally *tally, am_loss *out);

#endif
