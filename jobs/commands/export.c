/* allmerge export TRUNK OUT --like FOLDER: a trained or merged trunk in Hugging Face layout; or the
 * adapters of a trained one.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/companion.h"
#include "jobs/command.h"
#include "jobs/interop/hf_adapter.h"
#include "jobs/interop/hf_model.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct export_options {
    char *like, *heads, *task;
    int64_t shard_bytes;
    bool overwrite;
} export_options;

static const am_param options[] = {
    {"like", AM_PARAM_STRING, offsetof(export_options, like), "", 0, 0, NULL,
     "the folder that the model was imported from: names, types, configuration, tokenizer"},
    {"heads", AM_PARAM_STRING, offsetof(export_options, heads), "", 0, 0, NULL,
     "checkpoint of heads (RUN/heads.h5); default: the head of the folder"},
    {"task", AM_PARAM_STRING, offsetof(export_options, task), "", 0, 0, NULL,
     "task whose head is taken"},
    {"shard-size", AM_PARAM_BYTES, offsetof(export_options, shard_bytes), "0", 0, 0x1p62, NULL,
     "largest file of the folder, 0: 5GB; an adapter is one file"},
    AM_OPTION_OVERWRITE(export_options),
    {0}};

static const int64_t shard_bytes = 5000000000; /* as Hugging Face divides models */

/* Positions that the trunk was trained with: rows of its embedding; 0: it has none, or an image's.
 */
static int find_context_all(MPI_Comm comm, const char *trunk, const char *folder, int64_t *context)
{
    am_hf_config config;
    am_ckpt *ckpt = NULL;
    int rc = 0;
    *context = 0;
    AM_TRY(am_hf_config_read_all(comm, folder, &config));
    AM_TRY(am_ckpt_open_all(comm, trunk, &ckpt));
    const am_tensor_table *tensors = am_ckpt_tensors(ckpt);
    const int64_t k = am_tensor_table_find(tensors, "position.weight");
    if (config.positions > 0 && k >= 0 && tensors->t[k].ndim == 2) {
        *context = tensors->t[k].shape[0];
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

static int load_heads_all(MPI_Comm comm, const am_hf_model *m, const export_options *o,
                          double *head)
{
    am_tensor_table tensors = {0};
    char name[AM_MAX_NAME];
    int rc = m->head.n > 0
                 ? 0
                 : am_fail(AM_E_DATA, "%s has no head that --heads could replace", o->like);
    for (int64_t k = 0; rc == 0 && k < m->head.tensors.n; k++) {
        const am_tensor *t = &m->head.tensors.t[k];
        const int n = snprintf(name, sizeof name, "%s.%s", o->task, t->name);
        rc = n < (int)sizeof name ? 0 : am_fail(AM_E_USAGE, "--task: the name is too long");
        AM_KEEP(am_tensor_table_add(&tensors, name, t->dtype, t->ndim, t->shape));
    }
    AM_KEEP(am_tensor_table_finish(&tensors));
    AM_AGREE(comm);
    rc = am_ckpt_load_all(comm, o->heads, &tensors, m->head.offset, head); /* in the same order */
cleanup:
    am_tensor_table_free(&tensors);
    return rc;
}

/* All tensors of the folder: ours from the block, the others copied. */
static int write_all(MPI_Comm comm, const am_hf_model *m, const char *output,
                     const char *const *inputs, const export_options *o, const double *theirs)
{
    const am_tensor_table *all = am_ckpt_tensors(m->ckpt);
    am_companions files = {0};
    int rc = 0, rank;
    MPI_Comm_rank(comm, &rank);
    int64_t *offset = am_new(all->n + 1, sizeof *offset, output);
    AM_KEEP(offset != NULL ? 0 : AM_E_NOMEM);
    if (rank == 0) {
        AM_KEEP(am_companions_find(o->like, &files));
    }
    for (int64_t i = 0; rc == 0 && i < all->n; i++) {
        const int64_t k = am_tensor_table_find(&m->mapped, all->t[i].name);
        offset[i] = k >= 0 ? m->offset[k] : -1;
    }
    AM_AGREE(comm);
    const am_ckpt_options how = {.overwrite = o->overwrite,
                                 .shard_bytes = o->shard_bytes > 0 ? o->shard_bytes : shard_bytes,
                                 .meta = am_ckpt_meta(m->ckpt),
                                 .inputs = inputs,
                                 .companions = &files};
    rc = am_hf_model_write_all(comm, m, output, all, offset, theirs, &how);
cleanup:
    free(offset);
    am_companions_free(&files);
    return rc;
}

/* peft_type: NULL for a model. */
static int report(const am_hf_model *m, const char *output, const char *peft_type,
                  am_hf_written written)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "output", output);
    am_json_string(&j, "model_type", m->architecture->model_type);
    if (peft_type != NULL) {
        am_json_string(&j, "peft_type", peft_type);
    }
    am_json_int(&j, "tensors", written.tensors);
    am_json_int(&j, "data_bytes", written.bytes);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int check_options(const export_options *o, const char *output)
{
    const size_t n = strlen(output);
    const bool is_file = (n > 3 && strcmp(output + n - 3, ".h5") == 0) ||
                         (n > 12 && strcmp(output + n - 12, ".safetensors") == 0);
    return o->like == NULL ? am_fail(AM_E_USAGE, "name the imported folder: --like FOLDER")
           : is_file       ? am_fail(AM_E_USAGE, "%s: export writes a folder", output)
           : (o->heads == NULL) != (o->task == NULL)
               ? am_fail(AM_E_USAGE, "--heads FILE and --task NAME belong together")
               : 0;
}

static int check_adapter_options(const export_options *o, const char *source)
{
    return o->heads != NULL
               ? am_fail(AM_E_USAGE,
                         "%s is an adapter, without heads: leave out --heads and --task", source)
           : o->shard_bytes > 0
               ? am_fail(AM_E_USAGE,
                         "%s is an adapter, which PEFT reads from one file: leave out --shard-size",
                         source)
               : 0;
}

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    MPI_Comm comm = am_world();
    const export_options *o = args->options;
    const char *source = args->positional[0], *output = args->positional[1];
    const char *const inputs[] = {source, o->like, o->heads, NULL};
    am_hf_model m = {0};
    double *theirs = NULL, *trunk = NULL, *head = NULL;
    int64_t context = 0;
    bool is_adapter = false;
    am_hf_written written = {0};
    int rc = check_options(o, output);
    AM_AGREE(comm);
    AM_TRY(am_hf_is_adapter_all(comm, source, &is_adapter));
    if (is_adapter) {
        rc = check_adapter_options(o, source);
        AM_AGREE(comm);
        AM_TRY(am_hf_model_open_all(comm, o->like, 0, &m));
        AM_TRY(am_hf_adapter_export_all(comm, &m, source, output, o->overwrite, &written));
        rc = report(&m, output, "LORA", written);
        AM_AGREE(comm);
        goto cleanup; /* done */
    }
    AM_TRY(find_context_all(comm, source, o->like, &context));
    AM_TRY(am_hf_model_open_all(comm, o->like, context, &m));
    theirs = am_new(m.reals + 1, sizeof *theirs, output);
    trunk = am_new(m.trunk.n + 1, sizeof *trunk, output);
    head = am_new(m.head.n + 1, sizeof *head, output);
    AM_KEEP(theirs && trunk && head ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(am_hf_model_load_all(comm, &m, theirs)); /* positions beyond the context, the head */
    am_hf_model_to_ours(&m, theirs, trunk, head);
    AM_TRY(am_ckpt_load_all(comm, source, &m.trunk.tensors, m.trunk.offset, trunk));
    if (o->heads != NULL) {
        AM_TRY(load_heads_all(comm, &m, o, head));
    }
    rc = am_hf_model_check_head(&m, source, trunk, head);
    AM_AGREE(comm);
    am_hf_model_to_theirs(&m, trunk, head, theirs);
    AM_TRY(write_all(comm, &m, output, inputs, o, theirs));
    written =
        (am_hf_written){am_ckpt_tensors(m.ckpt)->n, am_tensor_table_bytes(am_ckpt_tensors(m.ckpt))};
    rc = report(&m, output, NULL, written);
    AM_AGREE(comm);
cleanup:
    free(theirs);
    free(trunk);
    free(head);
    am_hf_model_close(&m);
    return rc;
}

const am_command am_command_export = {
    .name = "export",
    .synopsis = "TRUNK|ADAPTER OUT --like FOLDER [--heads FILE --task NAME] [--shard-size SIZE] "
                "[--overwrite]",
    .summary = "Write a trained or merged trunk back as a folder in Hugging Face layout.",
    .help =
        "Names, float types, configuration and tokenizer are those of FOLDER, which the model "
        "was imported from; tensors that training does not know are copied. ADAPTER is the folder "
        "RUN/adapter of a run with adapters: OUT is then a PEFT adapter of FOLDER.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(export_options),
    .run_all = run_all,
};
