/* Active elements of task vectors. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/reinforced.h"

#include <math.h>
#include <string.h>

/* Counts, then marks. */
int am_reinforced_scratch(int models)
{
    (void)models;
    return 2;
}

void am_reinforced_active(const am_tile *tile, int t, double epsilon, bool *active)
{
    const double *x = tile->x[t];
    const float limit = (float)epsilon;
    for (int64_t i = 0; i < tile->n; i++) {
        active[i] = (float)fabs(x[i] - tile->base[i]) > limit;
    }
}

void am_reinforced_counts(const am_tile *tile, double epsilon, double *count)
{
    bool *active = (bool *)(void *)(tile->scratch + tile->n);
    memset(count, 0, (size_t)tile->n * sizeof *count);
    for (int t = 0; t < tile->models; t++) {
        am_reinforced_active(tile, t, epsilon, active);
        for (int64_t i = 0; i < tile->n; i++) {
            count[i] += active[i];
        }
    }
}

void am_reinforced_combine(const am_tile *tile, double epsilon, const double *factor)
{
    double *count = tile->scratch;
    bool *active = (bool *)(void *)(tile->scratch + tile->n);
    am_reinforced_counts(tile, epsilon, count);
    memset(tile->out, 0, (size_t)tile->n * sizeof *tile->out);
    for (int t = 0; t < tile->models; t++) {
        const double alone = factor != NULL ? factor[t] : 1;
        am_reinforced_active(tile, t, epsilon, active);
        for (int64_t i = 0; i < tile->n; i++) {
            const double delta = tile->x[t][i] - tile->base[i];
            const double part = count[i] == 1 ? alone * delta : delta / count[i];
            tile->out[i] += active[i] ? part : 0;
        }
    }
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] += tile->base[i];
    }
}
