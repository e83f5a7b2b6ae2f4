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
    return am_json_finish(json);
}

/* ---- the file ---- */

enum { FINAL, PARTIAL };

static char *path_of(const char *folder, int which)
{
    return am_text("%s/adapter_config.json%s", folder, which == PARTIAL ? ".partial" : "");
}

int am_adapter_config_stage(const char *folder, const char *text)
{
    char *partial = path_of(folder, PARTIAL);
    int rc = partial != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0 && mkdir(folder, 0777) != 0 && errno != EEXIST) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot make the folder %s", folder);
    } else if (rc == 0 && unlink(partial) != 0 && errno != ENOENT) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", partial);
    }
    AM_KEEP(am_file_dump(partial, text, (int64_t)strlen(text)));
    free(partial);
    return rc;
}

int am_adapter_config_publish(const char *folder)
{
    char *partial = path_of(folder, PARTIAL), *final = path_of(folder, FINAL);
    int rc = partial != NULL && final != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0 && rename(partial, final) != 0) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot rename %s to %s", partial, final);
    }
    AM_KEEP(am_file_sync_folder(final));
    free(partial);
    free(final);
    return rc;
}

void am_adapter_config_drop(const char *folder)
{
    char *partial = path_of(folder, PARTIAL);
    if (partial != NULL) {
        (void)unlink(partial);
        (void)rmdir(folder); /* if nothing else is there */
    }
    free(partial);
}
