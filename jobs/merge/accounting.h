/* What rounding to the output's dtype did to a merge: a sink before the output's, that sees every
 * element once before it is rounded. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_ACCOUNTING_H
#define AM_JOBS_MERGE_ACCOUNTING_H

#include <mpi.h>
#include "jobs/merge/plan.h"

/* Of one tensor. An update is what the output is before rounding, minus the base. */
typedef struct am_account {
    int64_t updated;       /* elements whose update is not zero */
    int64_t lost;          /* of these: the output is the rounded base */
    int64_t nan, infinite; /* elements of the output */
    double largest;        /* largest magnitude of a finite update */
} am_account;

typedef struct am_accounting {
    const am_merge_plan *plan; /* borrowed */
    const am_sink *sink;       /* borrowed */
    am_account *account;       /* [match.output.n] owned; this rank's, after the sum everybody's */
    double *base;              /* a buffer, owned */
    unsigned char *rounded[2]; /* buffers, owned */
} am_accounting;

/** Stand before `sink`, whose tensors are those of plan->match.pieces; *out is the sink to merge
 * into. Local. Costs one more look at the base, which its read-ahead still holds in the main.
 * Errors: AM_E_NOMEM. a: freed by am_accounting_free, also after an error. */
int am_accounting_start(const am_merge_plan *plan, const am_sink *sink, am_accounting *a,
                        am_sink *out);
/** Sum over the ranks; the same for any number of them. Collective [comm]. Errors: AM_E_NOMEM. */
int am_accounting_sum_all(MPI_Comm comm, am_accounting *a);
/** Members `updated`, `lost`, `largest_update` (null without a base), `nan`, `infinite` of all
 * tensors. */
void am_accounting_totals(const am_accounting *a, am_json *j);
/** A file with an object for each tensor of floats, by its name. Rank 0. Errors: AM_E_CREATE,
 * AM_E_IO, AM_E_NOMEM. */
int am_accounting_save(const am_accounting *a, const char *path);
void am_accounting_free(am_accounting *a);

#endif
