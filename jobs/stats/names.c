/* Names of statistics: see names.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/names.h"

#include <stdio.h>
#include <string.h>

int64_t am_stats_find_fisher(const am_tensor_table *tensors, const char *name)
{
    static const char prefix[] = "fisher.";
    char of_stats[AM_MAX_NAME + sizeof prefix];
    snprintf(of_stats, sizeof of_stats, "%s%s", prefix, name);
    return am_tensor_table_find(tensors, of_stats);
}

int64_t am_stats_find_gram(const am_tensor_table *tensors, const char *name)
{
    static const char prefix[] = "gram.", suffix[] = ".weight";
    char of_stats[AM_MAX_NAME + sizeof prefix];
    const size_t n = strlen(name), end = strlen(suffix);
    if (n <= end || strcmp(name + n - end, suffix) != 0) {
        return -1;
    }
    snprintf(of_stats, sizeof of_stats, "%s%.*s", prefix, (int)(n - end), name);
    return am_tensor_table_find(tensors, of_stats);
}
