/* Names and options of the optimisers. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/optim.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include "mpi/error.h"

enum { AM_OPTIM_MAX = 32, AM_OPTIM_TEXT = 512 };

/* The tables of both real types hold the same optimisers in the same order (real_optim.h). */
const char *am_optim_name_f32(int index);

const char *const *am_optim_names(void)
{
    static const char *names[AM_OPTIM_MAX + 1];
    if (names[0] == NULL) {
        for (int i = 0; am_optim_name_f32(i) != NULL; i++) {
            AM_ASSERT(i < AM_OPTIM_MAX);
            names[i] = am_optim_name_f32(i);
        }
    }
    return names;
}

int am_optim_find(const char *name)
{
    const char *const *names = am_optim_names();
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* "adamw|sgd", made once from the table. */
static const char *am_optim_choices(void)
{
    static char text[AM_OPTIM_TEXT];
    if (text[0] == '\0') {
        size_t used = 0;
        for (const char *const *name = am_optim_names(); *name != NULL; name++) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used > 0 ? "|" : "",
                                     *name);
            AM_ASSERT(used < sizeof text);
        }
    }
    return text;
}

#define FIELD(member) offsetof(am_optim_options, member)

static am_param params[] = {
    {"optimizer", AM_PARAM_CHOICE, FIELD(method), "sgd", 0, 0, NULL, "optimiser"},
    {"lr", AM_PARAM_REAL, FIELD(lr), "0.1", 0, 1e6, NULL, "learning rate"},
    {"momentum", AM_PARAM_REAL, FIELD(momentum), "0", 0, 1, NULL,
     "sgd: heavy-ball momentum; nesterov: Nesterov's"},
    {"weight_decay", AM_PARAM_REAL, FIELD(weight_decay), "0", 0, 1e6, NULL,
     "decay of the parameters: L2 for sgd and nesterov, decoupled for adamw and lion"},
    {"decoupled_decay", AM_PARAM_BOOL, FIELD(decoupled_decay), "no", 0, 0, NULL,
     "sgd, nesterov: decoupled decay too"},
    {"no_decay", AM_PARAM_STRING, FIELD(no_decay), "", 0, 0, NULL,
     "patterns of tensors without decay, such as \"*.bias, *norm*\""},
    {"beta1", AM_PARAM_REAL, FIELD(beta1), "0.9", 0, 0.9999999, NULL,
     "adamw, lion, lamb: mean of gradients"},
    {"beta2", AM_PARAM_REAL, FIELD(beta2), "0.999", 0, 0.9999999, NULL,
     "adamw, lamb: mean of squares; lion: decay of the momentum"},
    {"epsilon", AM_PARAM_REAL, FIELD(epsilon), "1e-8", 0, 1, NULL,
     "adamw, lamb: added to the root"},
    {"clip", AM_PARAM_REAL, FIELD(clip), "0", 0, 1e30, NULL,
     "largest norm of the whole gradient, 0: off"},
    {"bf16_weights", AM_PARAM_BOOL, FIELD(bf16_weights), "no", 0, 0, NULL,
     "weights are rounded to bfloat16 after every step; the optimiser keeps float32 ones"},
    {"shard_optimizer", AM_PARAM_BOOL, FIELD(is_sharded), "no", 0, 0, NULL,
     "every rank of a task group keeps the optimiser's state of its slice only; the same bits"},
    {0},
};

const am_param *am_optim_params(void)
{
    params[0].choices = am_optim_choices();
    return params;
}

bool am_optim_decays(const am_optim_options *options, const char *tensor)
{
    static const char separators[] = ", \t\n";
    const char *at = options->no_decay != NULL ? options->no_decay : "";
    char pattern[AM_OPTIM_TEXT];
    for (at += strspn(at, separators); *at != '\0'; at += strspn(at, separators)) {
        const size_t length = strcspn(at, separators);
        snprintf(pattern, sizeof pattern, "%.*s", (int)length, at);
        if (length < sizeof pattern && fnmatch(pattern, tensor, 0) == 0) {
            return false;
        }
        at += length;
    }
    return true;
}

double am_optim_l2(const am_optim_options *options)
{
    return options->decoupled_decay ? 0 : options->weight_decay;
}

double am_optim_keep(const am_optim_options *options)
{
    return options->decoupled_decay ? 1 - options->lr * options->weight_decay : 1;
}
