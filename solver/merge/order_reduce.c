/* What ranks tell each other of an order. SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "solver/merge/order.h"

/* ties_here becomes the number of ties on the ranks before this one. */
static int count_ties_before_all(MPI_Comm comm, am_order *o)
{
    enum { MOST = 256 };
    int64_t ties[MOST];
    int rc = 0;
    for (int64_t at = 0; at < o->n; at += MOST) {
        const int64_t n = o->n - at < MOST ? o->n - at : MOST;
        for (int64_t i = 0; i < n; i++) {
            ties[i] = o->pick[at + i].ties_here;
        }
        AM_TRY(am_prefix_i64_all(comm, ties, n));
        for (int64_t i = 0; i < n; i++) {
            o->pick[at + i].ties_here = ties[i];
        }
    }
cleanup:
    return rc;
}

/* The digits of a cut that is among the candidates of the ranks. */
static int find_candidate_all(MPI_Comm comm, am_pick *p)
{
    enum { DIGITS = 1 << AM_BRACKET_DIGIT };
    int64_t here[DIGITS], total[DIGITS];
    int rc = 0;
    for (int shift = am_bracket_shift(&p->bracket); shift >= 0; shift -= AM_BRACKET_DIGIT) {
        am_bracket_digits(&p->bracket, p->prefix, shift, here);
        memcpy(total, here, sizeof total);
        AM_TRY(am_sum_i64_all(comm, total, DIGITS));
        am_order_digit(p, here, total);
    }
    am_order_found(p);
cleanup:
    return rc;
}

static int reduce_sweep_all(MPI_Comm comm, am_order *o)
{
    int rc = 0;
    for (int64_t i = 0; i < o->n; i++) {
        int64_t sum[AM_SWEEP_SUMS];
        am_order_swept(&o->pick[i], sum);
        AM_TRY(am_sum_i64_all(comm, sum, AM_SWEEP_SUMS));
        if (am_order_is_inside(&o->pick[i], sum)) {
            AM_TRY(find_candidate_all(comm, &o->pick[i]));
        }
    }
    am_order_end_sweep(o);
cleanup:
    return rc;
}

static int reduce_counts_all(MPI_Comm comm, am_order *o)
{
    const int64_t n = o->n_counts << o->width;
    if (o->total != o->here && n > 0) {
        memcpy(o->total, o->here, (size_t)n * sizeof *o->here);
    }
    return am_sum_i64_all(comm, o->total, n);
}

int am_order_reduce_all(MPI_Comm comm, am_order *o)
{
    int rc = 0, size = 1;
    MPI_Comm_size(comm, &size);
    if (o->phase == AM_ORDER_SWEEP) {
        AM_TRY(reduce_sweep_all(comm, o));
    } else {
        AM_TRY(reduce_counts_all(comm, o));
        if (o->phase == AM_ORDER_SAMPLE) {
            am_order_bracket(o, size);
        } else {
            (void)am_order_narrow(o);
        }
    }
    rc = o->phase == AM_ORDER_FOUND ? count_ties_before_all(comm, o) : 0;
cleanup:
    return rc;
}
