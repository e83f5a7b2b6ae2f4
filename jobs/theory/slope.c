/* Fitted slopes in results: see slope.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/theory/slope.h"

void am_theory_slope_json(const am_theory_slope *slope, am_json *json)
{
    am_json_real(json, "slope", slope->slope);
    am_json_real(json, "standard_error", slope->error);
    am_json_real(json, "low", slope->low);
    am_json_real(json, "high", slope->high);
    am_json_int(json, "points", slope->points);
}
