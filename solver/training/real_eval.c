/* Initial parameters, evaluation, and the gradient without MPI.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_train.h"

#include "mpi/agree.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_pass.h"

enum { AM_EVAL_GROUP = 256 }; /* samples: fixes the shape of every product, so never a setting */

int AM_R(am_train_init)(const am_param_layout *layout, uint64_t seed, const char *purpose,
                        void *params)
{
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        const am_tensor *tensor = &layout->tensors.t[i];
        real *w = (real *)params + layout->offset[i];
        const am_rng rng = am_rng_make(seed, purpose, 0, 0, tensor->name);
        const double fill = layout->fill[i], sigma = layout->sigma[i];
        for (int64_t j = 0; j < tensor->numel; j++) {
            w[j] = (real)(sigma > 0 ? fill + sigma * am_rng_normal(&rng, j) : fill);
        }
    }
    return 0;
}

/* Load samples [lo, hi) and run them forward; adds to counts: labels, labels classified right. */
static int am_eval_group(am_pass *pass, const real *trunk, const real *head, int64_t classes,
                         const am_samples *samples, int64_t lo, int64_t hi, am_exact *loss,
                         int64_t *counts)
{
    for (int64_t i = lo; i < hi; i++) {
        pass->index[i - lo] = i;
    }
    const int rc = AM_R(am_pass_load)(pass, samples, hi - lo, classes);
    if (rc != 0) {
        return rc;
    }
    counts[1] += AM_R(am_pass_forward)(pass, trunk, head, hi - lo, classes);
    counts[0] += pass->counted;
    for (int64_t b = 0; b < hi - lo; b++) {
        am_exact_add(loss, pass->loss[b]);
    }
    return 0;
}

int AM_R(am_eval_all)(MPI_Comm comm, const am_net *net, const void *trunk, const void *head,
                      int64_t classes, const am_samples *samples, am_eval_result *result)
{
    am_pass pass = {0};
    am_exact loss;
    int rank = 0, size = 1, rc = 0;
    int64_t lo, hi, counts[2] = {0};
    const int64_t n = samples->n;
    *result = (am_eval_result){0};
    am_exact_zero(&loss);
    am_blas_single_thread();
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    AM_KEEP(AM_R(am_train_check)(net, samples, classes));
    AM_KEEP(AM_R(am_pass_make)(net, n < AM_EVAL_GROUP ? n : AM_EVAL_GROUP, classes, false, &pass));
    am_part_range(am_part_units(n, AM_EVAL_GROUP), size, rank, &lo, &hi);
    for (int64_t group = lo; rc == 0 && group < hi; group++) {
        const int64_t from = group * AM_EVAL_GROUP;
        const int64_t to = n - from < AM_EVAL_GROUP ? n : from + AM_EVAL_GROUP;
        rc = am_eval_group(&pass, trunk, head, classes, samples, from, to, &loss, counts);
        am_alive("evaluate");
    }
    AM_AGREE(comm);
    AM_TRY(am_exact_sum_all(comm, &loss, 1));
    AM_TRY(am_sum_i64_all(comm, counts, 2));
    *result = (am_eval_result){
        .n = counts[0], .correct = counts[1], .loss = am_exact_round(&loss) / (double)n};
cleanup:
    AM_R(am_pass_free)(&pass);
    return rc;
}

int AM_R(am_train_gradient)(const am_net *net, const void *trunk, const void *head, int64_t classes,
                            const am_samples *samples, int64_t lo, int64_t hi, double *loss,
                            void *d_trunk, void *d_head)
{
    am_pass pass = {0};
    am_exact sum;
    int64_t counts[2] = {0};
    int rc = AM_R(am_train_check)(net, samples, classes);
    if (rc == 0 && (lo < 0 || hi <= lo || hi > samples->n)) {
        rc = am_fail(AM_E_BUG, "gradient: [%lld, %lld) are not samples of %s", (long long)lo,
                     (long long)hi, samples->label);
    }
    am_exact_zero(&sum);
    am_blas_single_thread();
    AM_KEEP(AM_R(am_pass_make)(net, hi - lo, classes, true, &pass));
    AM_KEEP(am_eval_group(&pass, trunk, head, classes, samples, lo, hi, &sum, counts));
    if (rc == 0) {
        *loss = am_exact_round(&sum) / (double)(hi - lo);
        if (d_trunk != NULL || d_head != NULL) {
            AM_R(am_pass_backward)
            (&pass, trunk, head, hi - lo, classes, 1 / (double)(hi - lo), d_trunk, d_head);
        }
    }
    AM_R(am_pass_free)(&pass);
    return rc;
}

extern const am_train_ops AM_R(am_train_ops);
const am_train_ops AM_R(am_train_ops) = {
    .name = AM_REAL_NAME,
    .dtype = AM_REAL_DTYPE,
    .init = AM_R(am_train_init),
    .state_make = AM_R(am_train_state_new),
    .train_all = AM_R(am_train_all),
    .eval_all = AM_R(am_eval_all),
    .gradient = AM_R(am_train_gradient),
    .activation_bytes = AM_R(am_pass_bytes),
};
