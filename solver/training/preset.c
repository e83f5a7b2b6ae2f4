/* Finding and building presets. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/preset.h"

#include <stdio.h>
#include <string.h>
#include "mpi/error.h"

const am_preset *am_preset_find(const char *name)
{
    for (int i = 0; am_preset_table[i] != NULL; i++) {
        if (strcmp(am_preset_table[i]->name, name) == 0) {
            return am_preset_table[i];
        }
    }
    return NULL;
}

int am_preset_make(const char *name, const char *options, const am_preset_list *list, am_net *net)
{
    _Alignas(16) unsigned char values[AM_PRESET_OPTION_BYTES] = {0};
    char text[512], *rest = NULL;
    const am_preset *preset = am_preset_find(name);
    *net = (am_net){0};
    if (preset == NULL || snprintf(text, sizeof text, "%s", options) >= (int)sizeof text) {
        return am_fail(AM_E_RECIPE, "there is no preset '%s' with these options", name);
    }
    int rc = am_param_defaults(preset->params, values);
    for (char *word = strtok_r(text, " ", &rest); rc == 0 && word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        if (equals == NULL) {
            return am_fail(AM_E_RECIPE, "preset %s: '%s' is not key=value", name, word);
        }
        *equals = '\0';
        rc = am_param_set(preset->params, values, word, equals + 1, name);
    }
    AM_KEEP(preset->build(values, list != NULL ? list : &preset->list, net));
    AM_KEEP(net->error);
    return rc;
}
