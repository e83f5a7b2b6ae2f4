/* Phases of theory. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include "mpi/error.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "solver/theory/spectrum.h"
#include "solver/theory/sweep.h"

/* Gradients and products of the parts of all tasks: activations of the largest, and their sum. */
static int part_need(const am_planner *p, am_train_need *gradient, am_train_need *product)
{
    const am_theory_section *section = &p->recipe->theory;
    int rc = AM_OK;
    *gradient = *product = (am_train_need){0};
    for (int r = 0; r < p->ranks && rc == AM_OK; r++) {
        int64_t bytes = 0;
        rc = am_tree_bytes(section->parts, p->plain.trunk + 1, (int)p->real, p->ranks, r, true,
                           AM_TREE_EVERYWHERE, &bytes);
        gradient->gradients = am_plan_most(gradient->gradients, bytes);
    }
    product->gradients = gradient->gradients;
    for (int i = 0; i < section->tasks[section->n_tasks - 1] && rc == AM_OK; i++) {
        const am_dataset_shape *shape = &p->shape[i];
        const int64_t rows = am_part_units(shape->n[AM_TRAIN], section->parts);
        int64_t bytes = 0;
        rc = p->ops->activation_bytes(&p->plain.net, rows, shape->classes, true, &bytes);
        gradient->activations = am_plan_most(gradient->activations, bytes);
        AM_KEEP(p->ops->hvp_bytes(&p->plain.net, rows, shape->classes, &bytes));
        product->activations = am_plan_most(product->activations, bytes);
    }
    return rc;
}

/* Norms and spectra count as if they needed all the products that they may make. */
int am_plan_theory_phases(am_planner *p, am_train_need *out)
{
    const am_theory_section *section = &p->recipe->theory;
    const int64_t P = p->plain.trunk;
    const int64_t sweep =
        P + P * am_theory_measure_vectors(section->tasks[section->n_tasks - 1], section->n_k,
                                          section->eigen != AM_THEORY_EIGEN_NO);
    am_train_need gradient, product;
    const int rc = part_need(p, &gradient, &product);
    if (rc != AM_OK) {
        return rc;
    }
    am_plan_offer(p, "descent", sweep, gradient, out);
    if (section->k[section->n_k - 1] > 1) {
        product.parameters =
            section->eigen != AM_THEORY_EIGEN_NO ? am_theory_hessian_norm_bytes(P) : 0;
        am_plan_offer(p, "descent", sweep, product, out);
    }
    if (section->spectrum > 0) {
        const int wanted = section->spectrum < P ? section->spectrum : (int)P;
        product.parameters = am_theory_spectrum_bytes(P, wanted);
        am_plan_offer(p, "spectra", 2 * P, product, out);
    }
    return AM_OK;
}
