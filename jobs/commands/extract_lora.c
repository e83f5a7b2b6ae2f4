/* allmerge extract-lora BASE MODEL -o FOLDER: a task vector as a LoRA adapter that PEFT, and merges
 * as BASE+FOLDER, read. SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/adapter.h"
#include "io/file.h"
#include "jobs/command.h"
#include "jobs/extract/adapter.h"
#include "jobs/merge/memory.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/progress.h"
#include "mpi/runtime.h"
#include "solver/analysis/gram.h"

enum { READ_AHEAD = 16 << 20, PIECE = 1 << 16, MOST_LISTED = 12 };

typedef struct lora_options {
    char *output, *include, *exclude, *save_module, *embedding;
    int dtype;
    am_rank_options ranks;
    bool distribute_scale, embed_lora, skip_undecomposable, fan_in_fan_out, overwrite;
} lora_options;

#define AM_AT(member) offsetof(lora_options, member)
static const am_param options[] = {
    {"output", AM_PARAM_STRING, AM_AT(output), NULL, 0, 0, NULL, "the adapter's folder"},
    AM_RANK_OPTIONS(lora_options, ranks, "32"),
    {"dtype", AM_PARAM_CHOICE, AM_AT(dtype), "f32", 0, 0, "f64|f32|f16|bf16", "of the factors"},
    {"distribute-scale", AM_PARAM_BOOL, AM_AT(distribute_scale), "true", 0, 0, NULL,
     "singular values as roots in both factors; else all in the left one"},
    {"include-regex", AM_PARAM_STRING, AM_AT(include), "", 0, 0, NULL,
     "only modules whose names have this (POSIX, extended); others are left out"},
    {"exclude-regex", AM_PARAM_STRING, AM_AT(exclude), "", 0, 0, NULL,
     "modules whose names have this are left out"},
    {"save-module", AM_PARAM_STRING, AM_AT(save_module), "", 0, 0, NULL,
     "modules whose names have this are stored whole"},
    {"embedding-regex", AM_PARAM_STRING, AM_AT(embedding), "", 0, 0, NULL,
     "modules whose names have this are embeddings; else those whose names have embed, wte, wpe or "
     "embd"},
    {"embed-lora", AM_PARAM_BOOL, AM_AT(embed_lora), "false", 0, 0, NULL,
     "factors of embeddings too; else these are stored whole"},
    {"skip-undecomposable", AM_PARAM_BOOL, AM_AT(skip_undecomposable), "false", 0, 0, NULL,
     "leave out what can have no factors (biases, norms); else it is stored whole"},
    {"fan-in-fan-out", AM_PARAM_BOOL, AM_AT(fan_in_fan_out), "false", 0, 0, NULL,
     "matrices are [in, out] (Conv1D of GPT-2)"},
    AM_OPTION_OVERWRITE(lora_options),
    {0}};
#undef AM_AT

static const am_dtype dtypes[] = {AM_DTYPE_F64, AM_DTYPE_F32, AM_DTYPE_F16, AM_DTYPE_BF16};

typedef struct job {
    const lora_options *o;
    am_lora_choice choice;
    am_inputs inputs;
    double *square; /* [tensors] sums of squares of differences */
    am_lora_fate *fate;
    bool *is_embedding;
    am_factors factors;
    am_lora_file file;
    am_sink sink;
} job;

static const am_tensor_table *tensors_of(const job *x)
{
    return x->inputs.source[0].tensors;
}

/* ---- what becomes of each tensor ---- */

/* Norms of all differences; values that are not finite are found here. */
static int measure_all(MPI_Comm comm, job *x)
{
    const am_tensor_table *tensors = tensors_of(x);
    am_slice slice = {0};
    double all = 0;
    int rc = 0;
    x->square = am_new(tensors->n + 1, sizeof *x->square, "norms");
    x->fate = am_new(tensors->n + 1, sizeof *x->fate, "an adapter");
    x->is_embedding = am_new(tensors->n + 1, sizeof *x->is_embedding, "an adapter");
    AM_KEEP(x->square != NULL && x->fate != NULL && x->is_embedding != NULL ? 0 : AM_E_NOMEM);
    AM_KEEP(am_slice_make(tensors, AM_CHUNK, am_world_size(), am_world_rank(), &slice));
    AM_AGREE(comm);
    AM_TRY(am_gram_all(comm, tensors, &x->inputs.input[0], &x->inputs.input[1], 1, &slice,
                       x->square, &all));
    rc = am_lora_choose(tensors, x->square, &x->choice, x->fate, x->is_embedding);
    AM_AGREE(comm);
cleanup:
    am_slice_free(&slice);
    return rc;
}

static int factorise_all(MPI_Comm comm, job *x)
{
    const lora_options *o = x->o;
    const am_tensor_table *tensors = tensors_of(x);
    int rc = 0;
    x->factors = (am_factors){.inputs = &x->inputs,
                              .rule = am_rank_rule(&o->ranks),
                              .scale = o->distribute_scale ? AM_FACTOR_EVEN : AM_FACTOR_LEFT,
                              .dtype = dtypes[o->dtype],
                              .memory = o->ranks.memory};
    rc = am_factors_create(&x->factors);
    AM_AGREE(comm);
    for (int64_t i = 0; i < tensors->n; i++) {
        am_factor *f = &x->factors.of[i];
        f->is_wanted = x->fate[i] == AM_FATE_FACTORS || x->fate[i] == AM_FATE_EMBEDDING;
        f->is_transposed =
            x->fate[i] == AM_FATE_EMBEDDING || (o->fan_in_fan_out && tensors->t[i].ndim == 2);
    }
    AM_TRY(am_factors_find_all(comm, &x->factors));
    for (int64_t i = 0; i < tensors->n; i++) { /* no singular value was large enough */
        if (x->factors.of[i].is_wanted && x->factors.of[i].rank == 0) {
            x->fate[i] = AM_FATE_LEFT_OUT;
        }
    }
    x->file = (am_lora_file){.factors = &x->factors, .fate = x->fate};
    rc = am_lora_file_plan(&x->choice, &x->file);
    AM_AGREE(comm);
cleanup:
    return rc;
}

/* ---- writing ---- */

static int write_factors(job *x, int64_t i)
{
    const am_factor *f = &x->factors.of[i];
    const am_tensor *a = &x->sink.tensors->t[x->file.a[i]], *b = &x->sink.tensors->t[x->file.b[i]];
    int rc = 0;
    if (x->factors.owner[i] == am_world_rank()) {
        rc = x->sink.store_raw(x->sink.self, x->file.a[i], 0, a->numel,
                               f->is_transposed ? f->left : f->right);
        AM_KEEP(x->sink.store_raw(x->sink.self, x->file.b[i], 0, b->numel,
                                  f->is_transposed ? f->right : f->left));
    }
    return rc;
}

/* This rank's blocks of a tensor that is copied from the model. */
static int copy_whole(job *x, int64_t i, void *buffer)
{
    const am_merge_input *model = &x->inputs.input[1];
    const int64_t numel = x->sink.tensors->t[x->file.a[i]].numel;
    int64_t lo = 0, hi = 0;
    int rc = 0;
    am_part_range(am_part_units(numel, AM_BLOCK), am_world_size(), am_world_rank(), &lo, &hi);
    hi = hi * AM_BLOCK < numel ? hi * AM_BLOCK : numel;
    for (int64_t at = lo * AM_BLOCK; rc == 0 && at < hi; at += PIECE) {
        const int64_t n = hi - at < PIECE ? hi - at : PIECE;
        rc = model->source->load_raw(model->source->self, model->tensor[i], at, n, buffer);
        AM_KEEP(x->sink.store_raw(x->sink.self, x->file.a[i], at, n, buffer));
    }
    return rc;
}

static int write_tensors_all(MPI_Comm comm, job *x)
{
    am_progress progress;
    void *buffer = am_new(PIECE, sizeof(double), "tensors");
    int rc = am_agree_all(comm, buffer != NULL ? 0 : AM_E_NOMEM);
    am_progress_start(&progress, "extract-lora", tensors_of(x)->n, "tensors");
    for (int64_t i = 0; rc == 0 && i < tensors_of(x)->n; i++) {
        if (x->file.b[i] >= 0) {
            rc = write_factors(x, i);
        } else if (x->file.a[i] >= 0) {
            rc = copy_whole(x, i, buffer);
        }
        AM_KEEP(x->sink.flush(x->sink.self));
        rc = am_agree_step_all(comm, rc);
        am_progress_add(&progress, 1);
    }
    am_progress_end(&progress);
    free(buffer);
    return rc;
}

static int write_all(MPI_Comm comm, job *x)
{
    const lora_options *o = x->o;
    am_meta meta = {0};
    am_ckpt_writer *writer = NULL;
    char *path = am_text("%s/" AM_ADAPTER_FACTORS, o->output);
    const bool is_root = am_world_rank() == 0;
    int rc = path != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(am_meta_set(&meta, "format", "pt"));
    AM_KEEP(is_root ? am_adapter_folder_make(o->output) : 0);
    AM_AGREE(comm);
    const am_ckpt_options write = {.overwrite = o->overwrite,
                                   .meta = &meta,
                                   .inputs = x->inputs.files,
                                   .beside = AM_ADAPTER_CONFIG,
                                   .beside_text = x->file.config.text};
    AM_TRY(am_ckpt_create_all(comm, path, &x->file.table, &write, &writer));
    rc = am_agree_all(comm, am_ckpt_sink(writer, &x->sink));
    if (rc == 0) { /* agreed */
        rc = write_tensors_all(comm, x);
    }
    AM_TRY(am_ckpt_publish_all(&writer, rc));
cleanup:
    if (rc != 0 && is_root) {
        am_adapter_folder_drop(o->output);
    }
    am_meta_free(&meta);
    free(path);
    return rc;
}

/* ---- the report ---- */

static am_loss loss_of(const job *x, int64_t i)
{
    const bool is_whole = x->fate[i] == AM_FATE_WHOLE;
    return x->file.b[i] >= 0 ? x->factors.of[i].loss
                             : (am_loss){.all = x->square[i], .kept = is_whole ? x->square[i] : 0};
}

static void write_loss(am_json *j, const am_loss *loss)
{
    am_loss_write(j, loss);
    am_json_real(j, "energy", loss->all > 0 ? loss->kept / loss->all : 1);
}

static void write_tensor(am_json *j, const job *x, int64_t i)
{
    const am_loss loss = loss_of(x, i);
    am_json_object(j, tensors_of(x)->t[i].name);
    am_json_string(j, "how", am_lora_fate_name(x->fate[i]));
    am_json_bool(j, "is_embedding", x->is_embedding[i]);
    if (x->file.b[i] >= 0) {
        am_json_int(j, "rank", x->factors.of[i].rank);
        am_json_bool(j, "is_random", x->factors.of[i].is_random);
    }
    write_loss(j, &loss);
    am_json_end_object(j);
}

static void list_embeddings(const job *x)
{
    int64_t listed = 0;
    for (int64_t i = 0; i < tensors_of(x)->n && listed < MOST_LISTED; i++) {
        if (x->is_embedding[i] && x->fate[i] != AM_FATE_UNCHANGED) {
            am_info("  taken for an embedding, %s: %s", am_lora_fate_name(x->fate[i]),
                    tensors_of(x)->t[i].name);
            listed++;
        }
    }
}

/* What a reader of the log should know: how much is kept, and what is not. */
static void print_summary(const job *x, const am_loss *all)
{
    int64_t count[AM_FATE_LEFT_OUT + 1] = {0}, listed = 0;
    for (int64_t i = 0; i < tensors_of(x)->n; i++) {
        count[x->fate[i]]++;
    }
    am_info("%s: rank %" PRId64 ", %.4g of the task vector's energy; tensors: %" PRId64
            " with factors, %" PRId64 " whole, %" PRId64 " left out, %" PRId64 " unchanged; %s",
            x->o->output, x->file.r, all->all > 0 ? all->kept / all->all : 1,
            count[AM_FATE_FACTORS] + count[AM_FATE_EMBEDDING], count[AM_FATE_WHOLE],
            count[AM_FATE_LEFT_OUT], count[AM_FATE_UNCHANGED],
            am_format_bytes(am_tensor_table_bytes(&x->file.table)));
    for (int64_t i = 0; i < tensors_of(x)->n && listed < MOST_LISTED; i++) {
        if (x->fate[i] == AM_FATE_LEFT_OUT) {
            am_info("  left out: %s, norm %.4g", tensors_of(x)->t[i].name, sqrt(x->square[i]));
            listed++;
        }
    }
    list_embeddings(x);
}

static int report(const job *x)
{
    am_json j = {0};
    am_loss all = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "output", x->o->output);
    am_json_int(&j, "r", x->file.r);
    am_json_string(&j, "dtype", am_dtype_name(x->factors.dtype));
    am_json_int(&j, "data_bytes", am_tensor_table_bytes(&x->file.table));
    am_json_object(&j, "tensors");
    for (int64_t i = 0; i < tensors_of(x)->n; i++) {
        if (am_dtype_is_float(tensors_of(x)->t[i].dtype)) {
            const am_loss loss = loss_of(x, i);
            write_tensor(&j, x, i);
            am_loss_add(&all, &loss);
        }
    }
    am_json_end_object(&j);
    am_json_object(&j, "global");
    write_loss(&j, &all);
    am_json_end_object(&j);
    am_json_end_object(&j);
    const int rc = am_json_finish(&j);
    if (rc == 0) {
        print_summary(x, &all);
        am_result(&j);
    }
    am_json_free(&j);
    return rc;
}

/* ---- the command ---- */

static void release(job *x)
{
    am_lora_file_free(&x->file);
    am_factors_free(&x->factors);
    free(x->square);
    free(x->fate);
    free(x->is_embedding);
    am_inputs_close(&x->inputs);
}

static int run_all(const am_args *args, int *exit_status)
{
    const lora_options *o = args->options;
    MPI_Comm comm = am_world();
    job x = {.o = o,
             .choice = {.include = o->include,
                        .exclude = o->exclude,
                        .save_module = o->save_module,
                        .embedding = o->embedding,
                        .embed_lora = o->embed_lora,
                        .skips_others = o->skip_undecomposable,
                        .fan_in_fan_out = o->fan_in_fan_out}};
    (void)exit_status;
    am_memory_keep_no_holes();
    int rc = am_lora_choice_check(&x.choice);
    AM_AGREE(comm);
    AM_TRY(am_inputs_open_all(comm, args->positional, 2, true, READ_AHEAD, &x.inputs));
    AM_TRY(am_inputs_compare_all(comm, tensors_of(&x), x.inputs.input, 2));
    AM_TRY(measure_all(comm, &x));
    AM_TRY(factorise_all(comm, &x));
    AM_TRY(write_all(comm, &x));
    rc = report(&x);
    AM_AGREE(comm);
cleanup:
    release(&x);
    return rc;
}

const am_command am_command_extract_lora = {
    .name = "extract-lora",
    .synopsis =
        "BASE MODEL -o FOLDER [--max-rank N] [--rank-fraction F] [--energy E] [--sv-epsilon S] "
        "[--svd auto|exact|random] [--dtype TYPE] [--include-regex R] [--exclude-regex R] "
        "[--save-module R] [--embedding-regex R] [--embed-lora] [--skip-undecomposable] "
        "[--fan-in-fan-out] [--no-distribute-scale] [--memory SIZE] [--overwrite]",
    .summary = "Write the task vector (model - base) as a LoRA adapter in PEFT's layout.",
    .help = "Matrices NAME.weight are cut to their leading singular directions; lora_alpha is r, "
            "and where ranks differ rank_pattern and alpha_pattern say so, so that every scale is "
            "1. Embeddings, biases, norms and parameters without a module are stored whole "
            "(modules_to_save), what did not change is not stored. The JSON line says for each "
            "tensor how it is stored and the energy (share of the sum of squares) that is kept. A "
            "merge takes the adapter as BASE+FOLDER.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(lora_options),
    .run_all = run_all,
};
