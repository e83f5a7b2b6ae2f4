/* Names, shapes and offsets of the parameters of a network. SPDX-License-Identifier: BSD-3-Clause
 */
#include "solver/training/net.h"

#include <stdio.h>
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

/* Longest side of a layer: a GEMM dimension must fit BLAS's int. */
static const int64_t AM_MAX_WIDTH = INT32_MAX;

void am_param_layout_free(am_param_layout *layout)
{
    am_tensor_table_free(&layout->tensors);
    free(layout->offset);
    *layout = (am_param_layout){0};
}

static int am_net_check(const am_net_spec *spec)
{
    if (spec->inputs < 1 || spec->inputs > AM_MAX_WIDTH) {
        return am_fail(AM_E_RECIPE, "network: inputs must be 1 or more, not %lld",
                       (long long)spec->inputs);
    }
    if (spec->n_widths < 1 || spec->n_widths > AM_MAX_WIDTHS) {
        return am_fail(AM_E_RECIPE, "network: 1 to %d hidden layers are possible, not %d",
                       AM_MAX_WIDTHS, spec->n_widths);
    }
    if (spec->activation != AM_RELU && spec->activation != AM_TANH) {
        return am_fail(AM_E_RECIPE, "network: the activation must be relu or tanh");
    }
    for (int l = 0; l < spec->n_widths; l++) {
        if (spec->widths[l] < 1 || spec->widths[l] > AM_MAX_WIDTH) {
            return am_fail(AM_E_RECIPE, "network: width %d must be 1 or more, not %lld", l,
                           (long long)spec->widths[l]);
        }
    }
    return 0;
}

/* Weight [K,C] and bias [K] of one layer. */
static int am_net_add(am_param_layout *layout, const char *prefix, am_dtype dtype, int64_t K,
                      int64_t C)
{
    char name[64];
    snprintf(name, sizeof name, "%s.weight", prefix);
    int rc = am_tensor_table_add(&layout->tensors, name, dtype, 2, (int64_t[]){K, C});
    snprintf(name, sizeof name, "%s.bias", prefix);
    AM_KEEP(am_tensor_table_add(&layout->tensors, name, dtype, 1, (int64_t[]){K}));
    return rc;
}

/* Sort the table and put the tensors end to end in name order, so that a slice of the tensors is a
 * range of the block. */
static int am_net_place(am_param_layout *layout)
{
    int rc = am_tensor_table_finish(&layout->tensors);
    if (rc == 0) {
        layout->offset = am_new(layout->tensors.n, sizeof *layout->offset, "layout");
        rc = layout->offset == NULL ? AM_E_NOMEM : 0;
    }
    for (int64_t i = 0; rc == 0 && i < layout->tensors.n; i++) {
        layout->offset[i] = layout->n;
        layout->n += layout->tensors.t[i].numel;
    }
    if (rc != 0) {
        am_param_layout_free(layout);
    }
    return rc;
}

int am_net_trunk_layout(const am_net_spec *spec, am_dtype dtype, am_param_layout *out)
{
    *out = (am_param_layout){0};
    int rc = am_net_check(spec);
    for (int l = 0; rc == 0 && l < spec->n_widths; l++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, spec->n_widths < 10 ? "layers.%d" : "layers.%02d", l);
        const int64_t C = l == 0 ? spec->inputs : spec->widths[l - 1];
        rc = am_net_add(out, prefix, dtype, spec->widths[l], C);
    }
    if (rc != 0) {
        am_param_layout_free(out);
        return rc;
    }
    return am_net_place(out);
}

int am_net_head_layout(const am_net_spec *spec, int64_t classes, am_dtype dtype,
                       am_param_layout *out)
{
    *out = (am_param_layout){0};
    int rc = am_net_check(spec);
    if (rc == 0 && (classes < 1 || classes > AM_MAX_WIDTH)) {
        rc = am_fail(AM_E_RECIPE, "network: a head needs 1 or more classes, not %lld",
                     (long long)classes);
    }
    AM_KEEP(am_net_add(out, "head", dtype, classes, spec->widths[spec->n_widths - 1]));
    if (rc != 0) {
        am_param_layout_free(out);
        return rc;
    }
    return am_net_place(out);
}
