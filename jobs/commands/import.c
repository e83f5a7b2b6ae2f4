/* allmerge import FOLDER OUT: a model in Hugging Face layout as a trunk (and heads) for training.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/command.h"
#include "jobs/interop/hf_model.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct import_options {
    char *heads, *task;
    int64_t context;
    bool overwrite;
} import_options;

static const am_param options[] = {
    {"heads", AM_PARAM_STRING, offsetof(import_options, heads), "", 0, 0, NULL,
     "write the model's head there, for heads: checkpoint: of a recipe"},
    {"task", AM_PARAM_STRING, offsetof(import_options, task), "", 0, 0, NULL,
     "name of the task that the head is for"},
    {"context", AM_PARAM_INT, offsetof(import_options, context), "0", 0, 1 << 24, NULL,
     "tokens of a sample, 0: as many as the model has positions"},
    AM_OPTION_OVERWRITE(import_options),
    {0}};

/* Exact: F64 if a tensor of theirs is, else F32. */
static am_dtype dtype_for(const am_hf_model *m)
{
    const am_tensor_table *all = am_ckpt_tensors(m->ckpt);
    for (int64_t i = 0; i < all->n; i++) {
        if (all->t[i].dtype == AM_DTYPE_F64) {
            return AM_DTYPE_F64;
        }
    }
    return AM_DTYPE_F32;
}

static int write_trunk_all(MPI_Comm comm, const am_hf_model *m, const char *path,
                           const double *trunk, const am_ckpt_options *how)
{
    am_param_layout layout = {0};
    int rc = am_net_trunk_layout(&m->net, dtype_for(m), &layout);
    AM_AGREE(comm);
    rc = am_hf_model_write_all(comm, m, path, &layout.tensors, layout.offset, trunk, how);
cleanup:
    am_param_layout_free(&layout);
    return rc;
}

static int write_heads_all(MPI_Comm comm, const am_hf_model *m, const import_options *o,
                           const double *head, const am_ckpt_options *how)
{
    am_tensor_table tensors = {0};
    int64_t offset[2] = {0};
    char name[AM_MAX_NAME];
    int rc = 0;
    for (int64_t k = 0; rc == 0 && k < m->head.tensors.n; k++) { /* head.bias, head.weight */
        const am_tensor *t = &m->head.tensors.t[k];
        const int n = snprintf(name, sizeof name, "%s.%s", o->task, t->name);
        rc = n < (int)sizeof name ? 0 : am_fail(AM_E_USAGE, "--task: the name is too long");
        AM_KEEP(am_tensor_table_add(&tensors, name, dtype_for(m), t->ndim, t->shape));
        offset[k] = m->head.offset[k]; /* a common prefix keeps the order */
    }
    AM_KEEP(am_tensor_table_finish(&tensors));
    AM_AGREE(comm);
    rc = am_hf_model_write_all(comm, m, o->heads, &tensors, offset, head, how);
cleanup:
    am_tensor_table_free(&tensors);
    return rc;
}

/* The section `model` of a recipe for this trunk. */
static int report(const am_hf_model *m, const char *output)
{
    am_json j = {0};
    char text[sizeof m->config.options], *rest = NULL;
    am_json_object(&j, NULL);
    am_json_string(&j, "output", output);
    am_json_int(&j, "parameters", m->trunk.n);
    am_json_int(&j, "classes",
                m->head.n > 0 ? m->head.n / (am_shape_features(&m->net.out) + 1) : 0);
    am_json_object(&j, "model");
    am_json_string(&j, "preset", m->architecture->preset);
    snprintf(text, sizeof text, "%s", m->config.options);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        am_json_raw(&j, word, equals + 1);
    }
    if (m->config.is_tied) {
        am_json_array(&j, "freeze");
        am_json_string(&j, NULL, "token.weight");
        am_json_end_array(&j);
    }
    am_json_end_object(&j);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int check_options(const import_options *o)
{
    return (o->heads == NULL) == (o->task == NULL)
               ? 0
               : am_fail(AM_E_USAGE, "--heads FILE and --task NAME belong together");
}

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    MPI_Comm comm = am_world();
    const import_options *o = args->options;
    const char *folder = args->positional[0], *output = args->positional[1];
    const char *const inputs[] = {folder, NULL};
    const am_ckpt_options how = {.overwrite = o->overwrite, .inputs = inputs};
    am_hf_model m = {0};
    double *theirs = NULL, *trunk = NULL, *head = NULL;
    int rc = check_options(o);
    AM_AGREE(comm);
    AM_TRY(am_hf_model_open_all(comm, folder, o->context, &m));
    if (o->heads != NULL && m.head.n == 0) {
        rc = am_fail(AM_E_DATA, "%s has no head for --heads", folder);
    }
    theirs = am_new(m.reals + 1, sizeof *theirs, folder);
    trunk = am_new(m.trunk.n + 1, sizeof *trunk, folder);
    head = am_new(m.head.n + 1, sizeof *head, folder);
    AM_KEEP(theirs && trunk && head ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(am_hf_model_load_all(comm, &m, theirs));
    am_hf_model_to_ours(&m, theirs, trunk, head);
    rc = am_hf_model_check_head(&m, folder, trunk, head);
    AM_AGREE(comm);
    AM_TRY(write_trunk_all(comm, &m, output, trunk, &how));
    if (o->heads != NULL) {
        AM_TRY(write_heads_all(comm, &m, o, head, &how));
    }
    rc = report(&m, output);
    AM_AGREE(comm);
cleanup:
    free(theirs);
    free(trunk);
    free(head);
    am_hf_model_close(&m);
    return rc;
}

const am_command am_command_import = {
    .name = "import",
    .synopsis = "FOLDER OUT [--heads FILE --task NAME] [--context N] [--overwrite]",
    .summary = "Read a ViT, GPT-2 or Llama folder in Hugging Face layout for training.",
    .help = "FOLDER holds config.json and safetensors. Writes the trunk to OUT and prints the "
            "section model of a recipe whose base: checkpoint: it is. What allmerge would compute "
            "otherwise than the configuration says is refused. export writes it back.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(import_options),
    .run_all = run_all,
};
