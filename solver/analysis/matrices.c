/* See matrices.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/analysis/matrices.h"

#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/partition.h"
#include "solver/linalg/checked.h"
#include "solver/merge/input.h"

bool am_is_matrix(const am_tensor *tensor)
{
    return am_dtype_is_float(tensor->dtype) && tensor->ndim >= 2 && tensor->numel > 0;
}

int64_t am_matrix_rows(const am_tensor *tensor)
{
    return tensor->shape[0];
}

int64_t am_matrix_cols(const am_tensor *tensor)
{
    return tensor->numel / tensor->shape[0];
}

int am_matrix_check(const am_tensor *tensor, const char *instead)
{
    const int64_t rows = am_matrix_rows(tensor), cols = am_matrix_cols(tensor);
    return am_lapack_fits(rows, cols)
               ? 0
               : am_fail(AM_E_DATA,
                         "tensor '%s' is a matrix of %lld x %lld, too large for LAPACK's 32-bit "
                         "integers; %s",
                         tensor->name, (long long)rows, (long long)cols, instead);
}

/* Operations of a factorisation, in thousands. */
static int64_t cost_of(const am_tensor *t)
{
    const int64_t rows = am_matrix_rows(t), cols = am_matrix_cols(t);
    return 1 + t->numel * (rows < cols ? rows : cols) / 1000;
}

/* The most expensive matrix without an owner, the first of equals; -1: none. */
static int64_t next_matrix(const int64_t *cost, int64_t n)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        best = cost[i] > 0 && (best < 0 || cost[i] > cost[best]) ? i : best;
    }
    return best;
}

int am_matrices_deal(const am_tensor_table *tensors, const bool *is_wanted, int parts, int *owner)
{
    int64_t *cost = am_new(tensors->n + 1, sizeof *cost, "matrices");
    int64_t *load = am_new(parts, sizeof *load, "matrices");
    int rc = cost != NULL && load != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        cost[i] = is_wanted[i] ? cost_of(&tensors->t[i]) : 0;
        owner[i] = -1;
    }
    for (int64_t i; rc == 0 && (i = next_matrix(cost, tensors->n)) >= 0;) {
        int idle = 0;
        for (int p = 1; p < parts; p++) {
            idle = load[p] < load[idle] ? p : idle;
        }
        owner[i] = idle;
        load[idle] += cost[i];
        cost[i] = 0;
    }
    free(cost);
    free(load);
    return rc;
}

/* Matrices of the part that has most. */
static int64_t most_of_a_part(int64_t n, const int *owner, int parts)
{
    int64_t most = 0;
    for (int p = 0; p < parts; p++) {
        int64_t own = 0;
        for (int64_t i = 0; i < n; i++) {
            own += owner[i] == p;
        }
        most = own > most ? own : most;
    }
    return most;
}

/* Agreements are under way while ranks work: the matrices of one are not those of another. */
int am_matrices_each_all(MPI_Comm comm, int64_t n, const int *owner,
                         int (*work)(void *self, int64_t tensor), void *self)
{
    am_agree_queue queue = {0};
    int64_t at = 0;
    int rank = 0, size = 0, rc = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    const int64_t steps = most_of_a_part(n, owner, size);
    for (int64_t step = 0; rc == 0 && step < steps; step++) {
        while (at < n && owner[at] != rank) {
            at++;
        }
        rc = at < n ? work(self, at++) : 0;
        rc = am_agree_ahead_all(comm, &queue, rc);
    }
    return rc != 0 ? rc : am_agree_finish_all(comm, &queue);
}

int am_matrix_load(const am_merge_input *base, const am_merge_input *model, int64_t tensor,
                   am_matrix out)
{
    const int64_t n = out.rows * out.cols;
    double piece[AM_MATRIX_PIECE];
    int rc = 0;
    AM_ASSERT(out.step == out.cols);
    for (int64_t lo = 0; rc == 0 && lo < n; lo += AM_MATRIX_PIECE) {
        const int64_t step = n - lo < AM_MATRIX_PIECE ? n - lo : AM_MATRIX_PIECE;
        rc = am_input_load(base, tensor, lo, step, false, piece);
        AM_KEEP(am_input_load(model, tensor, lo, step, false, out.at + lo));
        for (int64_t i = 0; rc == 0 && i < step; i++) {
            out.at[lo + i] -= piece[i];
        }
    }
    return rc;
}
