/* What is measured by round: see points.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate/points.h"

void am_points_json(const am_point *point, int64_t n, int64_t epochs, am_json *json)
{
    static const char *const key[AM_POINT_REALS] = {"validation_accuracy", "validation_loss_nats",
                                                    "test_accuracy",       "test_loss_nats",
                                                    "noise_energy",        "noise_expected"};
    am_json_array(json, "points");
    for (int64_t k = 0; k <= n; k++) {
        const double *value = (const double *)&point[k];
        am_json_object(json, NULL);
        am_json_int(json, "round", k);
        am_json_int(json, "epochs", k * epochs);
        for (int i = 0; i < AM_POINT_REALS; i++) {
            am_json_real(json, key[i], value[i]);
        }
        am_json_end_object(json);
    }
    am_json_end_array(json);
}
