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
    /* Names of its arrays in a saved state, in their order in state[]. */
    const char *state_names[AM_OPTIM_MAX_STATES];
    /* How many of them it keeps under these options; zeroed before the first step. */
    int (*states)(const am_optim_options *options);

    /* One of two ways. Both are elementwise: any split of the arrays gives the same bits. state[i]
     * is [n], `step` counts from 1, the gradient is scale * g[n]. */

    /* Step w[n] along the gradient. */
    void (*update)(const am_optim_options *options, int64_t step, double scale, int64_t n, real *w,
                   const real *g, real *const *state);
    /* Or, with norms over a whole tensor between two sweeps: turn g[n] into the direction u; the
     * loop then takes w := w - lr trust(|w|, |u|) u. */
    void (*direct)(const am_optim_options *options, int64_t step, double scale, int64_t n,
                   const real *w, real *g, real *const *state);
    double (*trust)(double weight_norm, double direction_norm);
} am_optim;

extern const am_optim *const AM_R(am_optim_table)[]; /* in name order, NULL-terminated */

/** Name of optimiser `index`, NULL past the end: what optim.c, compiled once, sees of the table. */
const char *AM_R(am_optim_name)(int index);

/** Sum of the squares of g[n] in f64, by fixed lanes; not finite if any g[i] is not (or if the sum
 * overflows f64). Local, pure. */
double AM_R(am_norm2)(const real *g, int64_t n);

/** w[n] := w - rate u. Local. */
void AM_R(am_optim_move)(double rate, int64_t n, real *w, const real *u);

#if AM_REAL == 32
#define real_sqrt sqrtf
#else
#define real_sqrt sqrt
#endif

#endif
