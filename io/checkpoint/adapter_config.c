/* Writing adapter_config.json: see adapter.h. SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/checkpoint/adapter.h"
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"

void am_adapter_config_begin(const am_adapter_config *config, am_json *json)
{
    static const char *const nothing[] = {"auto_mapping", "base_model_name_or_path", "revision",
                                          "task_type"};
    am_json_object(json, NULL);
    am_json_string(json, "peft_type", "LORA");
    am_json_int(json, "r", config->r);
    am_json_real(json, "lora_alpha", config->alpha);
    am_json_real(json, "lora_dropout", config->dropout);
    am_json_bool(json, "use_rslora", config->is_rs);
    am_json_string(json, "bias", config->bias != NULL ? config->bias : "none");
    am_json_bool(json, "fan_in_fan_out", config->fan_in_fan_out);
    am_json_bool(json, "inference_mode", true);
    am_json_bool(json, "init_lora_weights", true);
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        am_json_raw(json, nothing[i], "null");
    }
    am_json_raw(json, "modules_to_save",
                config->modules_to_save != NULL ? config->modules_to_save : "null");
    if (config->ranks != NULL) {
        am_json_raw(json, "rank_pattern", config->ranks);
        am_json_raw(json, "alpha_pattern", config->ranks);
    }
    am_json_array(json, "target_modules");
}

void am_adapter_config_add(const char *weight, am_json *json)
{
    char module[AM_MAX_NAME];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(weight) - strlen(".weight")), weight);
    am_json_string(json, NULL, module);
}

int am_adapter_config_end(am_json *json)
{
    am_json_end_array(json);
    am_json_end_object(json);
    const int rc = am_json_finish(json);
    return rc == 0 && strlen(json->text) > AM_ADAPTER_CONFIG_MOST
               ? am_fail(AM_E_DATA,
                         "the adapter's " AM_ADAPTER_CONFIG " would have more than %d MiB, which "
                         "is not read: give fewer modules factors",
                         AM_ADAPTER_CONFIG_MOST >> 20)
               : rc;
}

int am_adapter_folder_make(const char *folder)
{
    return mkdir(folder, 0777) == 0 || errno == EEXIST
               ? 0
               : am_fail_errno(AM_E_CREATE, errno, "cannot make the folder %s", folder);
}

void am_adapter_folder_drop(const char *folder)
{
    (void)rmdir(folder);
}
