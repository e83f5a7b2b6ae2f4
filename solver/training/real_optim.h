/* Optimisers: each file in optim/ exports one `const am_optim am_optim_<file>` per real type.
 * An optimiser walks flat arrays once and knows neither layers nor ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_OPTIM_H
#define AM_SOLVER_TRAINING_REAL_OPTIM_H

#include "solver/training/optim.h"
#include "solver/training/real.h"

enum { AM_OPTIM_MAX_STATES = 2 };

typedef struct am_optim {
    const char *name, *summary;
    /* Blocks of state that it keeps under these options, <= AM_OPTIM_MAX_STATES; zeroed before the
     * first step. */
    int (*states)(const am_optim_options *options);
    /* Step `step` (from 1) of w[n] along the gradient scale * g[n]; state[i] is [n]. Elementwise:
     * any split of the arrays gives the same bits. */
    void (*update)(const am_optim_options *options, int64_t step, double scale, int64_t n, real *w,
                   const real *g, real *const *state);
} am_optim;

extern const am_optim *const AM_R(am_optim_table)[]; /* in name order, NULL-terminated */

/** Name of optimiser `index`, NULL past the end: what optim.c, compiled once, sees of the table. */
const char *AM_R(am_optim_name)(int index);

/** Sum of the squares of g[n] in f64, by fixed lanes; not finite if any g[i] is not (or if the sum
 * overflows f64). Local, pure. */
double AM_R(am_norm2)(const real *g, int64_t n);

#endif
