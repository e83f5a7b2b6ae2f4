/* Presets: each file in solver/presets/ is one architecture, a typed table of options and a
 * function that lists its layers. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_PRESET_H
#define AM_SOLVER_TRAINING_PRESET_H

#include "solver/training/net.h"

enum { AM_PRESET_OPTION_BYTES = 256, AM_PRESET_MAX_LIST = 32 };

/* A list of whole numbers beside the options: the widths of mlp, the channels of cnn. */
typedef struct am_preset_list {
    const char *key; /* NULL: the preset has none */
    int n;
    int64_t value[AM_PRESET_MAX_LIST];
    const char *help;
} am_preset_list;

typedef struct am_preset {
    const char *name, *summary;
    const am_param *params; /* of a struct of at most AM_PRESET_OPTION_BYTES, without strings */
    am_preset_list list;    /* with its default */
    /* Append the nodes to an empty network. Errors: AM_E_RECIPE for options that do not fit
     * together; those of am_net_add stay in net->error. */
    int (*build)(const void *options, const am_preset_list *list, am_net *net);
} am_preset;

extern const am_preset *const am_preset_table[]; /* in name order, NULL-terminated */

/** Preset by name, NULL if unknown. */
const am_preset *am_preset_find(const char *name);

/** Build from text, for tests and tools: "key=value key=value"; list: the default when NULL.
 * net is overwritten, freed by the caller also after an error. Errors: AM_E_RECIPE, AM_E_NOMEM. */
int am_preset_make(const char *name, const char *options, const am_preset_list *list, am_net *net);

#endif
