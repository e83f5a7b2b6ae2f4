/* allmerge methods [NAME]: what each merge method is and takes.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "jobs/command.h"
#include "jobs/help.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "solver/merge/method.h"

typedef struct methods_options {
    bool json;
} methods_options;

static const am_param options[] = {AM_OPTION_JSON(methods_options), {0}};

static const struct {
    unsigned bit;
    const char *name, *text;
} properties[] = {
    {AM_PROP_ORDER_INVARIANT, "order_invariant", "the order of the models does not matter"},
    {AM_PROP_EQUAL_IDENTITY, "equal_identity", "equal models, weights summing to one: that model"},
    {AM_PROP_ELEMENTWISE, "elementwise", "each element on its own, one pass"},
    {AM_PROP_LINEAR, "linear", "linear in the task vectors"},
    {AM_PROP_ZERO_REMOVES, "zero_removes", "a model of weight 0 takes no part"},
};
enum { N_PROPERTIES = sizeof properties / sizeof properties[0] };

static bool is_bounded(const am_method_param *p)
{
    return p->low != 0 || p->high != 0;
}

/* Two words of a mask in the order of its bits. */
static const char *const scopes[] = {"tensor", "global"};
static const char *const semantics[] = {"paper", "mergekit"};

static void write_choices(am_json *j, const char *key, const char *const words[2], unsigned mask)
{
    am_json_array(j, key);
    for (unsigned i = 0; i < 2; i++) {
        if ((mask & 1U << i) != 0) {
            am_json_string(j, NULL, words[i]);
        }
    }
    am_json_end_array(j);
}

static void print_choices(FILE *out, const char *key, const char *const words[2], unsigned mask)
{
    if (mask != 0) {
        fprintf(out, "  %-11s %s%s%s\n", key, (mask & 1) != 0 ? words[0] : "",
                mask == 3 ? " or " : "", (mask & 2) != 0 ? words[1] : "");
    }
}

/* The key of the checkpoint that a method needs beside each model; NULL: none. */
static const char *beside(const am_method *method)
{
    return method->needs_aux ? "fisher" : method->needs_gram ? "stats" : NULL;
}

static void write_json(am_json *j, const am_method *method)
{
    am_json_object(j, NULL);
    am_json_string(j, "name", method->name);
    am_json_string(j, "summary", method->summary);
    am_json_string(j, "source", method->source);
    am_json_bool(j, "needs_base", method->needs_base);
    am_json_bool(j, "takes_base", method->takes_base);
    am_json_string(j, "beside_models", beside(method));
    am_json_bool(j, "merges_matrices", method->is_dense != NULL);
    am_json_bool(j, "on_grid", method->on_grid);
    am_json_int(j, "min_models", method->min_models);
    am_json_int(j, "max_models", method->max_models > 0 ? method->max_models : AM_MAX_MODELS);
    write_choices(j, "scopes", scopes, method->scopes);
    write_choices(j, "semantics", semantics, method->semantics);
    am_json_array(j, "properties");
    for (int i = 0; i < N_PROPERTIES; i++) {
        if (method->properties & properties[i].bit) {
            am_json_string(j, NULL, properties[i].name);
        }
    }
    am_json_end_array(j);
    am_json_array(j, "parameters");
    for (const am_method_param *p = method->params; p->key != NULL; p++) {
        am_json_object(j, NULL);
        am_json_string(j, "key", p->key);
        am_json_string(j, "type", p->is_bool ? "bool" : "real");
        am_json_bool(j, "per_model", p->per_model);
        am_json_bool(j, "required", p->required);
        if (!p->required && p->is_bool) {
            am_json_bool(j, "default", p->fallback != 0);
        } else if (!p->required) {
            am_json_real(j, "default", p->fallback);
        }
        if (is_bounded(p)) {
            am_json_real(j, "low", p->low);
            am_json_real(j, "high", p->high);
        }
        am_json_string(j, "help", p->help);
        am_json_end_object(j);
    }
    am_json_end_array(j);
    am_json_end_object(j);
}

static void print_param(FILE *out, const am_method_param *p)
{
    int column = fprintf(out, "    %-12s ", p->key);
    char text[512];
    int n = snprintf(text, sizeof text, "%s, one a %s", p->is_bool ? "bool" : "real",
                     p->per_model ? "model" : "tensor");
    if (is_bounded(p)) {
        n += snprintf(text + n, sizeof text - (size_t)n, ", %g to %g", p->low, p->high);
    }
    if (p->required) {
        n += snprintf(text + n, sizeof text - (size_t)n, ", required");
    } else if (p->is_bool) {
        n += snprintf(text + n, sizeof text - (size_t)n, ", default %s",
                      p->fallback != 0 ? "true" : "false");
    } else {
        n += snprintf(text + n, sizeof text - (size_t)n, ", default %g", p->fallback);
    }
    snprintf(text + n, sizeof text - (size_t)n, ": %s", p->help);
    am_help_wrap(out, column, 17, text);
}

static void print_method(FILE *out, const am_method *method)
{
    fprintf(out, "%s: ", method->name);
    am_help_wrap(out, (int)strlen(method->name) + 2, 4, method->summary);
    fputs("  source      ", out);
    am_help_wrap(out, 14, 14, method->source);
    const char *base = method->needs_base   ? "a base, "
                       : method->takes_base ? "perhaps a base, "
                                            : "";
    fprintf(out, "  needs       %s%d model%s or more\n", base, method->min_models,
            method->min_models == 1 ? "" : "s");
    if (beside(method) != NULL) {
        fprintf(out, "              %s: CHECKPOINT beside each model\n", beside(method));
    }
    if (method->max_models > 0) {
        fprintf(out, "              at most %d models\n", method->max_models);
    }
    if (method->is_dense != NULL) {
        fprintf(out, "  matrices    whole on one rank%s\n",
                method->on_grid ? ", or with `grid` spread over several" : " each");
    }
    print_choices(out, "scope", scopes, method->scopes);
    print_choices(out, "semantics", semantics, method->semantics);
    fputs("  parameters\n", out);
    for (const am_method_param *p = method->params; p->key != NULL; p++) {
        print_param(out, p);
    }
    fputs("  properties\n", out);
    for (int i = 0; i < N_PROPERTIES; i++) {
        if (method->properties & properties[i].bit) {
            fprintf(out, "    %s\n", properties[i].text);
        }
    }
}

static int fail_unknown(const char *name)
{
    const char *names[AM_MAX_MODELS + 1];
    int n = 0;
    for (; am_method_table[n] != NULL && n < AM_MAX_MODELS; n++) {
        names[n] = am_method_table[n]->name;
    }
    names[n] = NULL;
    const char *nearest = am_nearest(names, name);
    return nearest != NULL
               ? am_fail(AM_E_USAGE, "unknown method '%s'; did you mean '%s'?", name, nearest)
               : am_fail(AM_E_USAGE, "unknown method '%s'; see `allmerge methods`", name);
}

static int print_json(const am_method *only)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_array(&j, "methods");
    for (int i = 0; am_method_table[i] != NULL; i++) {
        if (only == NULL || only == am_method_table[i]) {
            write_json(&j, am_method_table[i]);
        }
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    const methods_options *o = args->options;
    const am_method *only = NULL;
    int rc = 0;
    if (args->n_positional > 0) {
        only = am_method_find(args->positional[0]);
        rc = only != NULL ? 0 : fail_unknown(args->positional[0]);
    }
    if (rc == 0 && o->json) {
        rc = print_json(only);
    } else if (rc == 0 && am_world_rank() == 0) {
        for (int i = 0; am_method_table[i] != NULL; i++) {
            if (only == NULL || only == am_method_table[i]) {
                print_method(stdout, am_method_table[i]);
            }
        }
        if (fflush(stdout) != 0) {
            rc = am_fail_errno(AM_E_IO, errno, "cannot write to standard output");
        }
    }
    return am_agree_all(am_world(), rc);
}

const am_command am_command_methods = {
    .name = "methods",
    .synopsis = "[NAME] [--json]",
    .summary = "List the merge methods, their parameters and properties.",
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(methods_options),
    .run_all = run_all,
};
