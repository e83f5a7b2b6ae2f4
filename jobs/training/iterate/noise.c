/* Rounds with a merge that drops elements at random. With share p dropped and the rest divided by
 * 1 - p, the merged update is right in the mean, and off by noise of the energy (squared norm)
 *
 *     lambda^2 p / (1 - p) sum_t ||w_t delta_t||^2
 *
 * which the next round starts from. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "jobs/training/iterate/parts.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "solver/merge/sparsify.h"

void am_iterate_noise_warn(const am_run *run)
{
    const double p = am_train_merge_drops(run->merge);
    if (p > 0 && run->rounds > 1) {
        am_warn("iterate: %s drops %g of the task vectors at random in each of %lld rounds: every "
                "round adds noise of about %.3g times their energy, times alpha squared, which the "
                "next "
                "one begins with; use task_arithmetic, a density near 1, or smaller alphas",
                run->merge->name, p, (long long)run->rounds, p / (1 - p));
    }
}

/* Squared norm of a - b: the same on every rank, which all have the whole trunks. */
static double distance_energy(const am_iterate *it, const void *a, const void *b)
{
    const int64_t n = it->suite.trunk.n;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = it->recipe->dtype == AM_DTYPE_F64
                             ? ((const double *)a)[i] - ((const double *)b)[i]
                             : (double)((const float *)a)[i] - (double)((const float *)b)[i];
        sum += d * d;
    }
    return sum;
}

/* By the formula; NaN where it does not hold. */
static double expected(const am_iterate *it, const am_train_merge *merge, double alpha,
                       double vectors_energy)
{
    const double p = am_train_merge_drops(merge), *param = merge->param;
    double weight = param[AM_SPARSE_WEIGHT];
    if (param[AM_SPARSE_NORMALIZE] != 0) {
        weight = 1.0 / it->suite.n;
    }
    /* Elections of a sign, and probabilities by rank, have no such formula. */
    return strcmp(merge->method->name, "dare_linear") == 0 && param[AM_SPARSE_RESCALE] != 0
               ? alpha * alpha * weight * weight * p / (1 - p) * vectors_energy
               : NAN;
}

int am_iterate_noise_all(am_iterate *it, const am_train_merge *merge, double alpha, int64_t round,
                         double vectors_energy, const void *merged, am_point *out)
{
    int rc = AM_OK;
    if (am_train_merge_drops(merge) > 0) {
        am_train_merge whole = *merge;
        whole.param[AM_SPARSE_DENSITY] = 1;
        AM_TRY(am_iterate_merge_all(it, &whole, alpha, round, it->merged));
        out->noise = distance_energy(it, merged, it->merged);
        out->noise_expected = expected(it, merge, alpha, vectors_energy);
    }
cleanup:
    return rc;
}
