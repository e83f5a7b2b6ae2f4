/* Iso-C: the sum of the task vectors with all of its singular values made equal.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/linalg/polar.h"
#include "solver/merge/spectral.h"

static const am_method_param params[] = {AM_SPECTRAL_PARAMS(1), {0}};

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    return am_polar_bytes_on(s.on, s.m, s.n);
}

/* M = U S V^T: out = lambda mean(S) U V^T, a polar factor; the sum of S is <U V^T, M>. Directions
 * that M has not get nothing (published code: mean(S) along whatever the library returns). */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const am_matrix sum = matrix->delta[0];
    am_spectral_sum(matrix, matrix->out);
    am_matrix_copy(matrix->out, sum);
    const int rc = am_polar(matrix->work, matrix->out, 0, AM_POLAR_AUTO);
    if (rc == 0) {
        am_matrix_scale(matrix->out, am_matrix_inner(matrix->out, sum) / (double)s.k);
        am_spectral_scale(matrix, matrix->out);
    }
    return rc;
}

const am_method am_method_iso_c = {
    .name = "iso_c",
    .summary = "sum of the task vectors with equal singular values (Iso-C)",
    .source = "Marczak et al. 2025 (arXiv:2502.04959), Iso-C: mean(S) U V^T of sum_t delta_t = U S "
              "V^T",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .on_grid = true,
    .dense_bytes = dense_bytes,
    .merge_dense = merge_dense,
};
