/* Theorem 2: see bound.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/bound.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include "mpi/error.h"

double am_theory_bound_printed(int tasks, int64_t k, double alpha, double gradient, double hessian)
{
    const double h = (double)k - 2, T = tasks;
    return k < 2 ? 0 : T * ((h + 2) / 2) * fabs(alpha * T + 1) * hessian * gradient;
}

double am_theory_bound_derived(int tasks, int64_t k, double alpha, double gradient, double hessian)
{
    const double h = (double)k - 2, T = tasks;
    return k < 2 ? 0 : T * ((h + 1) * (h + 2) / 2) * (1 + fabs(alpha) * T) * hessian * gradient;
}

/* Extrema of the derivatives, rounded up in the last digit:
 *   tanh''     at tanh^2 = 1/3:  4 / (3 sqrt 3)
 *   sigmoid''  at s = 1/2 -+ 1/sqrt 12:  1 / (6 sqrt 3)
 *   gelu'      at z = sqrt 2:  Phi(z) + z phi(z);      gelu''  at 0:  2 phi(0)
 *   gelu_tanh' and silu', by their second derivatives' zeros; their second derivatives at 0. */
static const am_theory_function functions[] = {
    {"none", 1, 0, 0},
    {"relu", 1, 0, 0},
    {"tanh", 1, 0.76980035891950105, 0},
    {"sigmoid", 0.25, 0.096225044864937632, 0.5},
    {"gelu", 1.1289041451851552, 0.79788456080286541, 0},
    {"gelu_tanh", 1.1289930687, 0.79788456080286541, 0},
    {"silu", 1.0998393201, 0.5, 0},
};

const am_theory_function *am_theory_function_of(const char *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    return NULL;
}

am_theory_loss am_theory_cross_entropy(void)
{
    return (am_theory_loss){.slope = 1.4142135623730952, .bend = 0.5};
}

/* What the layers behind z_j can do to it, without that of layer `skip`:
 * Prod_{i=j+1}^{n-1} slope_{i-1} weight_i, where the weight of `skip` counts as 1. */
static double path(int n, const am_theory_layer *layer, int j, int skip)
{
    double product = 1;
    for (int i = j + 1; i < n; i++) {
        product *= layer[i - 1].function->slope * (i == skip ? 1 : layer[i].weight);
    }
    return product;
}

/* a[l] of the inputs of the layers. */
static void inputs(int n, const am_theory_layer *layer, double input, double *a)
{
    for (int l = 0; l < n; l++) {
        const am_theory_layer *before = l > 0 ? &layer[l - 1] : NULL;
        const double size = before == NULL
                                ? input
                                : sqrt((double)before->outputs) * fabs(before->function->at_zero) +
                                      before->function->slope * before->whole * a[l - 1];
        a[l] = layer[l].has_bias ? sqrt(size * size + 1) : size;
    }
}

/* |d z_j / d(W_l b_l)|, j >= l */
static double reach(const am_theory_layer *layer, const double *a, int j, int l)
{
    return a[l] * path(j + 1, layer, l, -1);
}

static double second(int n, const am_theory_layer *layer, const double *a, int l, int m)
{
    const int first = l < m ? l : m, last = l < m ? m : l;
    double sum = l != m ? a[first] * path(n, layer, first, last) : 0;
    for (int j = last; j < n - 1; j++) {
        /* From h_j on: phi_j itself has been differentiated twice. */
        const double behind = path(n, layer, j + 1, -1) * layer[j + 1].weight;
        sum += layer[j].function->bend * behind * reach(layer, a, j, l) * reach(layer, a, j, m);
    }
    return sum;
}

void am_theory_network_bounds(int n, const am_theory_layer *layer, double input,
                              am_theory_loss loss, double *gradient, double *hessian)
{
    double a[AM_THEORY_LAYERS], square = 0, row = 0;
    AM_ASSERT(n <= AM_THEORY_LAYERS);
    inputs(n, layer, input, a);
    for (int l = 0; l < n; l++) {
        double sum = 0;
        if (layer[l].is_trained) {
            const double J = reach(layer, a, n - 1, l);
            square += J * J;
            for (int m = 0; m < n; m++) {
                sum += layer[m].is_trained ? second(n, layer, a, l, m) : 0;
            }
        }
        row = fmax(row, sum);
    }
    *gradient = loss.slope * sqrt(square);
    *hessian = loss.bend * square + loss.slope * row;
}
