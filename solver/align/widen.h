/* A network that holds the units of two: matched pairs as one unit, the others side by side.
 *
 *   field of n units, k pairs      merged units   0 .. k      k .. n        n .. 2 n - k
 *                                                 pairs       of one alone  of two alone
 *
 * Fields that can grow: those whose values are made by layers with an attribute `out` and pass
 * through nothing that mixes features or has their number as an attribute (channels of an image).
 * Others (a residual stream with its norms, heads of attention, the samples) keep their width: all
 * units are paired.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_WIDEN_H
#define AM_SOLVER_ALIGN_WIDEN_H

#include "solver/align/axes.h"

typedef struct am_widen_field {
    int64_t n, pairs;   /* merged units; of them pairs, the first ones */
    int64_t *one, *two; /* [n] owned: unit of the one and of the other network, -1: it has none */
} am_widen_field;

typedef struct am_widen {
    const am_net *narrow;  /* borrowed: of both networks */
    const am_align *from;  /* borrowed: of that, its orders those of two */
    am_net net;            /* owned, shaped */
    am_param_layout trunk; /* owned, f64 */
    am_align align;        /* owned, of the wide network: the same fields with more units */
    am_widen_field *field; /* [from->n_fields] owned */
    int n_grown;           /* fields that can */
} am_widen;

/** Units of a field of n in a network of `budget` times the width, 1 to 2. Pure. */
int64_t am_widen_units(int64_t n, double budget);

/** Lay out the wide network; pairs are set by am_widen_pair. Local. align: of `narrow` with its
 * last value free to move. out: freed by am_widen_free, also after an error. Errors: AM_E_RECIPE,
 * AM_E_NOMEM. */
int am_widen_make(const am_net *narrow, const am_align *align, double budget, am_widen *out);
void am_widen_free(am_widen *widen); /* accepts a zeroed one */

/** Unit i of one goes with unit order[i] of two in the `pairs` of each field whose activations are
 * nearest, ties by i. cross, own: as am_align_options has them. Local. Errors: AM_E_NOMEM. */
int am_widen_pair(am_widen *widen, const double *const *cross, const double *const *own);

/** one, two [length of the wide axis]: indices of axis `dim` of tensor `tensor` of the trunk in the
 * two networks, -1: none. Pure. */
void am_widen_axis(const am_widen *widen, int tensor, int dim, int64_t *one, int64_t *two);
/** The same of the features that node net->n, the heads, reads. */
void am_widen_head_axis(const am_widen *widen, int64_t *one, int64_t *two);

#endif
