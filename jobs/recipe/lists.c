/* Lists of numbers: see lists.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/recipe/lists.h"

#include "mpi/error.h"

int am_recipe_list(const am_node *node, const char *what, int64_t most)
{
    int rc = am_node_list(node, what);
    if (rc == AM_OK && (node->n < 1 || node->n > most)) {
        rc = am_node_fail(node, "%s needs 1 to %lld items, not %lld", what, (long long)most,
                          (long long)node->n);
    }
    return rc;
}

int am_recipe_reals(const am_node *node, const char *what, double low, double high, int64_t most,
                    double *out, int *n)
{
    int rc = am_recipe_list(node, what, most);
    for (int64_t i = 0; i < (rc == AM_OK ? node->n : 0); i++) {
        AM_KEEP(am_node_real(node->item[i], what, &out[i]));
        if (rc == AM_OK && (out[i] < low || out[i] > high)) {
            rc = am_node_fail(node->item[i], "%s: %g is outside %g to %g", what, out[i], low, high);
        }
    }
    *n = rc == AM_OK ? (int)node->n : 0;
    return rc;
}

int am_recipe_ascending(const am_node *node, const char *what, int64_t low, int64_t high,
                        int64_t most, int64_t *out, int *n)
{
    int rc = am_recipe_list(node, what, most);
    for (int64_t i = 0; i < (rc == AM_OK ? node->n : 0); i++) {
        AM_KEEP(am_node_int(node->item[i], what, low, high, &out[i]));
        if (rc == AM_OK && i > 0 && out[i] <= out[i - 1]) {
            rc = am_node_fail(node->item[i], "%s must be ascending", what);
        }
    }
    *n = rc == AM_OK ? (int)node->n : 0;
    return rc;
}
