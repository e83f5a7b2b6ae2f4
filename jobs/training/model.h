/* The section `model` of a training recipe: a preset with its options, or a list of layers; what is
 * frozen; how labels are smoothed. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_MODEL_H
#define AM_JOBS_TRAINING_MODEL_H

#include "jobs/recipe/yaml.h"
#include "mpi/jsonw.h"
#include "solver/training/lora.h"
#include "solver/training/preset.h"

typedef struct am_model {
    am_net net;              /* owned; without shapes: these need the data */
    am_lora_options lora;    /* r is 0 without adapters */
    bool linearised;         /* at the base: am_net.anchor, set by the job that has it */
    const am_preset *preset; /* NULL: a list of layers */
    _Alignas(16) unsigned char options[AM_PRESET_OPTION_BYTES]; /* of the preset */
    am_preset_list list;
} am_model;

/** Read the section; `map` NULL: the defaults of preset mlp. Local, pure. out is overwritten, freed
 * by the caller also after an error. Errors: AM_E_RECIPE with the place; AM_E_NOMEM. */
int am_model_read(const am_node *map, am_model *out);
/** The section with all defaults, as the member "model" of an open object. */
void am_model_print(const am_model *model, am_json *json);
void am_model_free(am_model *model); /* accepts a zeroed one */

#endif
