/* Section `theory:` of a training recipe: what `allmerge theory` measures.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_THEORY_SECTION_H
#define AM_JOBS_THEORY_SECTION_H

#include "jobs/recipe/yaml.h"

enum { AM_THEORY_MAX_LIST = 64, AM_THEORY_MAX_SPECTRUM = 32 };

/* Where norms of Hessians are measured: `eigen`. */
enum { AM_THEORY_EIGEN_NO, AM_THEORY_EIGEN_LARGEST_ETA, AM_THEORY_EIGEN_ALL };

/* Optimisers that the theory is compared for: `optimizers`. */
enum { AM_THEORY_GD, AM_THEORY_SGD, AM_THEORY_MOMENTUM, AM_THEORY_ADAMW, AM_THEORY_OPTIMIZERS };
extern const char *const am_theory_optimizer_names[AM_THEORY_OPTIMIZERS + 1]; /* as recipes do */

typedef struct am_theory_section {
    bool is_given;
    int n_tasks, n_k, n_alphas, n_etas;
    int64_t tasks[AM_THEORY_MAX_LIST]; /* ascending: the first so many of data.tasks */
    int64_t k[AM_THEORY_MAX_LIST];     /* ascending: epochs */
    double alpha[AM_THEORY_MAX_LIST], eta[AM_THEORY_MAX_LIST]; /* no two alike */
    int64_t parts; /* of the samples of a task, for ranks to share */
    int eigen;     /* AM_THEORY_EIGEN_* */
    int spectrum;  /* eigenvalues of each Hessian; 0: none */
    int n_optimizers, optimizer[AM_THEORY_OPTIMIZERS]; /* AM_THEORY_*; only gd: no comparison */
    int64_t batches;                                   /* steps of an epoch of sgd */
    double momentum;                                   /* of the heavy ball */
} am_theory_section;

/** Read the section; map NULL: there is none, and nothing to measure. n_tasks: of the recipe.
 * Errors: AM_E_RECIPE with the place and the key. Local, pure. */
int am_theory_section_read(const am_node *map, int n_tasks, am_theory_section *out);
/** The section with all its values, if there is one. */
void am_theory_section_print(const am_theory_section *section, am_json *json);
/** Index of the largest eta. Pure. */
int am_theory_section_largest(const am_theory_section *section);
/** Whether optimisers are compared: more than gradient descent is listed. Pure. */
bool am_theory_section_compares(const am_theory_section *section);

#endif
