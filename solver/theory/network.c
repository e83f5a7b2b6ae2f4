/* Losses of networks: see network.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/network.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/runtime.h"

/* The samples of a task that a sum is over. */
typedef struct range {
    int task;
    int64_t lo, hi;
} range;

/* Samples [lo, hi) of a range, weighted: their gradient, or their product with v, and their loss.
 */
static int leaf(const am_theory_net *self, const range *all, const double *theta, const double *v,
                int64_t lo, int64_t hi, double *out)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    const am_task *task = &self->task[all->task];
    const int64_t n = self->net->trunk.n;
    const double weight = (double)(hi - lo) / (double)(all->hi - all->lo);
    double loss = 0;
    int rc;
    if (hi <= lo) {
        memset(out, 0, (size_t)(n + 1) * sizeof *out);
        return AM_OK;
    }
    if (v == NULL) {
        rc = ops->gradient(self->net, theta, task->head, task->classes, &task->train, lo, hi, &loss,
                           out, NULL);
    } else {
        rc = ops->hvp(self->net, theta, task->head, task->classes, &task->train, lo, hi, v, NULL,
                      &loss, NULL, NULL, out, NULL);
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] *= weight;
    }
    for (int64_t k = 0; k < self->net->trunk.tensors.n; k++) { /* running statistics stay */
        if (!am_param_is_trained(&self->net->trunk, k)) {
            memset(out + self->net->trunk.offset[k], 0,
                   (size_t)self->net->trunk.tensors.t[k].numel * sizeof *out);
        }
    }
    out[n] = loss * weight;
    return rc;
}

/* All parts of a range: out [trunk], *loss. A safe point. */
static int parts_all(const am_theory_net *self, const range *all, const double *theta,
                     const double *v, double *loss, double *out)
{
    const int64_t n = self->net->trunk.n;
    int64_t first, last, lo, hi;
    int rc = AM_OK;
    am_tree_leaves(self->tree, &first, &last);
    for (int64_t i = first; i < last; i++) {
        double *next = am_tree_next(self->tree);
        am_part_range(all->hi - all->lo, self->parts, i, &lo, &hi);
        AM_KEEP(leaf(self, all, theta, v, all->lo + lo, all->lo + hi, next));
        am_tree_push(self->tree);
        am_alive("theory");
    }
    AM_TRY(am_agree_step_all(self->comm, rc));
    AM_TRY(am_tree_sum_all(self->tree, self->sum, true));
    memcpy(out, self->sum, (size_t)n * sizeof *out);
    *loss = self->sum[n];
cleanup:
    return rc;
}

static range whole(const am_theory_net *self, int task)
{
    return (range){.task = task, .lo = 0, .hi = self->task[task].train.n};
}

static int gradient_all(void *self, int task, const double *theta, double *loss, double *gradient)
{
    const range all = whole(self, task);
    return parts_all(self, &all, theta, NULL, loss, gradient);
}

static int batch_all(void *self, int task, int64_t batch, int64_t batches, const double *theta,
                     double *loss, double *gradient)
{
    range all = whole(self, task);
    am_part_range(all.hi, batches, batch, &all.lo, &all.hi);
    return parts_all(self, &all, theta, NULL, loss, gradient);
}

static int product_all(void *self, int task, const double *theta, const double *v, double *out)
{
    const range all = whole(self, task);
    double loss;
    return parts_all(self, &all, theta, v, &loss, out);
}

static int constants(void *self, int tasks, const double *theta, double *gradient, double *hessian)
{
    const am_theory_net *problem = self;
    return am_theory_chain_bounds(&problem->chain, problem->net, tasks, theta, gradient, hessian);
}

int am_theory_net_make_all(MPI_Comm comm, const am_net *net, const am_task *task, int tasks,
                           int64_t parts, am_theory_net *out, am_oracle *oracle)
{
    const int64_t n = net->trunk.n;
    int rc = AM_OK;
    *out = (am_theory_net){.comm = comm, .net = net, .task = task, .tasks = tasks, .parts = parts};
    *oracle = (am_oracle){.comm = comm,
                          .tasks = tasks,
                          .n = n,
                          .self = out,
                          .gradient_all = gradient_all,
                          .batch_all = batch_all,
                          .product_all = product_all};
    for (int t = 0; t < tasks; t++) {
        AM_KEEP(am_net_fits(net, &task[t].train));
    }
    out->sum = am_new(n + 1, sizeof *out->sum, "a gradient");
    AM_KEEP(out->sum == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(comm);
    AM_TRY(am_theory_chain_make_all(comm, net, task, tasks, &out->chain));
    oracle->constants = out->chain.n > 0 ? constants : NULL;
    AM_TRY(am_tree_create_all(comm, parts, n + 1, (int)sizeof *out->sum, &out->tree));
cleanup:
    if (rc != AM_OK) {
        am_theory_net_free(out);
    }
    return rc;
}

void am_theory_net_free(am_theory_net *self)
{
    if (self->tree != NULL) {
        am_tree_free(&self->tree);
    }
    free(self->sum);
    am_theory_chain_free(&self->chain);
    *self = (am_theory_net){0};
}
