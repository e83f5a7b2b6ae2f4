/* allmerge extract BASE MODEL -o TV: a task vector (model - base) as a checkpoint, rounded or
 * quantised, whole, only its largest elements, or matrices as their leading singular directions
 * (io/checkpoint/taskvec.h). SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/dtype.h"
#include "io/checkpoint/taskvec.h"
#include "jobs/command.h"
#include "jobs/extract/elements.h"
#include "jobs/extract/factors.h"
#include "jobs/merge/memory.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/progress.h"
#include "mpi/runtime.h"
#include "solver/analysis/matrices.h"

enum { READ_AHEAD = 32 << 20 };

typedef struct extract_options {
    char *output;
    int dtype;
    double density;
    am_rank_options ranks;
    bool overwrite;
} extract_options;

static const am_param options[] = {
    {.key = "output",
     .type = AM_PARAM_STRING,
     .offset = offsetof(extract_options, output),
     .help = "the task vector: NAME.h5, NAME.safetensors, or a folder"},
    {.key = "dtype",
     .type = AM_PARAM_CHOICE,
     .offset = offsetof(extract_options, dtype),
     .fallback = "f32",
     .choices = "f64|f32|f16|bf16|int8",
     .help = "of the differences; int8: blocks with one f32 scale each"},
    {.key = "density",
     .type = AM_PARAM_REAL,
     .offset = offsetof(extract_options, density),
     .fallback = "1",
     .low = 1e-9,
     .high = 1,
     .help = "share of each tensor's elements that is kept, the largest; the others become 0"},
    AM_RANK_OPTIONS(extract_options, ranks, "0"),
    AM_OPTION_OVERWRITE(extract_options),
    {0}};

static const am_dtype dtypes[] = {AM_DTYPE_F64, AM_DTYPE_F32, AM_DTYPE_F16, AM_DTYPE_BF16,
                                  AM_DTYPE_I8};

typedef struct extract {
    am_elements elements;
    am_tv_tensor *form; /* [base's tensors] */
    am_factors factors;
    am_loss all; /* of all tensors */
} extract;

static const am_tensor_table *tensors_of(const extract *x)
{
    return x->elements.base->tensors;
}

/* ---- all tensors ---- */

/* What one tensor lost, and how large it is in the file. */
static void write_tensor(am_json *j, const extract *x, int64_t tensor, const am_loss *loss)
{
    const am_tv_tensor *form = &x->form[tensor];
    am_json_object(j, tensors_of(x)->t[tensor].name);
    am_loss_write(j, loss);
    am_json_int(j, "data_bytes", am_tv_tensor_bytes(x->elements.sink.tensors, form));
    if (form->rank >= 0) {
        am_json_int(j, "rank", form->rank);
        am_json_bool(j, "is_random", x->factors.of[tensor].is_random);
    }
    am_json_end_object(j);
}

static int store(const am_sink *sink, int64_t part, const void *data)
{
    const int64_t n = sink->tensors->t[part].numel;
    return n > 0 ? sink->store_raw(sink->self, part, 0, n, data) : 0;
}

/* Its owner has the factors. */
static int write_factors(const extract *x, int64_t tensor)
{
    const am_tv_tensor *form = &x->form[tensor];
    const am_factor *f = &x->factors.of[tensor];
    const am_sink *sink = &x->elements.sink;
    int rc = 0;
    if (x->factors.owner[tensor] == am_world_rank()) {
        rc = store(sink, form->u, f->left);
        AM_KEEP(store(sink, form->s, f->s));
        AM_KEEP(store(sink, form->vt, f->right));
        AM_KEEP(sink->flush(sink->self));
    }
    return rc;
}

static int extract_tensor_all(MPI_Comm comm, extract *x, int64_t tensor, am_json *tensors)
{
    am_loss loss = x->factors.of[tensor].loss;
    const bool has_factors = x->form[tensor].rank >= 0; /* the same on every rank */
    const int rc = has_factors ? am_agree_step_all(comm, write_factors(x, tensor))
                               : am_elements_write_all(comm, &x->elements, tensor, &loss);
    if (rc == 0) {
        write_tensor(tensors, x, tensor, &loss);
        am_loss_add(&x->all, &loss);
    }
    return rc;
}

static int extract_tensors_all(MPI_Comm comm, extract *x, am_json *tensors)
{
    am_progress progress;
    int rc = 0;
    am_progress_start(&progress, "extract", tensors_of(x)->n, "tensors");
    for (int64_t i = 0; rc == 0 && i < tensors_of(x)->n; i++) {
        if (x->form[i].is_stored) { /* an error is agreed */
            rc = extract_tensor_all(comm, x, i, tensors);
        }
        am_progress_add(&progress, 1);
    }
    am_progress_end(&progress);
    return rc;
}

/* ---- the command ---- */

static int prepare(extract *x, const am_inputs *inputs, const extract_options *o)
{
    x->form = am_new(inputs->source[0].tensors->n + 1, sizeof *x->form, "a task vector");
    x->elements = (am_elements){.base = &inputs->source[0],
                                .model = &inputs->source[1],
                                .form = x->form,
                                .density = o->density};
    const int rc = am_elements_create(&x->elements);
    return x->form != NULL ? rc : AM_E_NOMEM;
}

static bool has_ranks(const extract_options *o)
{
    const am_rank_options *r = &o->ranks;
    return r->most > 0 || r->fraction > 0 || r->energy < 1 || r->smallest > 0;
}

static int check_options(const am_args *args)
{
    static const char *const of_ranks[] = {"svd", "memory", NULL};
    const extract_options *o = args->options;
    const char *const ranks = "--max-rank, --rank-fraction, --energy and --sv-epsilon";
    if (!has_ranks(o)) {
        return am_args_refuse(args, options, of_ranks,
                              "goes with --max-rank, --rank-fraction, --energy or --sv-epsilon");
    }
    if (dtypes[o->dtype] == AM_DTYPE_I8) {
        return am_fail(AM_E_USAGE, "extract: factors are floats: %s do not go with --dtype int8",
                       ranks);
    }
    return o->density < 1 ? am_fail(AM_E_USAGE,
                                    "extract: directions are those of the whole difference: %s "
                                    "do not go with --density",
                                    ranks)
                          : 0;
}

/* The factors of what may be smaller as factors, and from their ranks the table. */
static int plan_all(MPI_Comm comm, extract *x, const am_inputs *inputs, const extract_options *o,
                    am_tensor_table *table)
{
    const am_tensor_table *tensors = tensors_of(x);
    const am_dtype dtype = dtypes[o->dtype];
    int rc = 0;
    int64_t *rank = am_new(tensors->n + 1, sizeof *rank, "factors");
    x->factors = (am_factors){.inputs = inputs,
                              .rule = am_rank_rule(&o->ranks),
                              .scale = AM_FACTOR_APART,
                              .dtype = dtype,
                              .memory = o->ranks.memory};
    AM_KEEP(rank != NULL ? am_factors_create(&x->factors) : AM_E_NOMEM);
    AM_AGREE(comm);
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        x->factors.of[i].is_wanted =
            has_ranks(o) && am_is_matrix(t) && am_tv_factors_pay(t, dtype, o->density, 1);
    }
    AM_TRY(am_factors_find_all(comm, &x->factors));
    for (int64_t i = 0; i < tensors->n; i++) {
        rank[i] = x->factors.of[i].is_wanted ? x->factors.of[i].rank : -1;
    }
    rc = am_tv_plan(tensors, dtype, o->density, rank, table, x->form);
    AM_AGREE(comm);
cleanup:
    free(rank);
    return rc;
}

static void release(extract *x)
{
    free(x->form);
    am_elements_free(&x->elements);
    am_factors_free(&x->factors);
}

static int make_meta(const extract_options *o, const char *fingerprint, am_meta *meta)
{
    char density[32];
    (void)snprintf(density, sizeof density, "%.17g", o->density);
    int rc = am_meta_set(meta, AM_TV_META, "1");
    AM_KEEP(am_meta_set(meta, AM_TV_META_DTYPE, am_dtype_name(dtypes[o->dtype])));
    AM_KEEP(am_meta_set(meta, AM_TV_META_DENSITY, density));
    AM_KEEP(am_meta_set(meta, AM_TV_META_BASE, fingerprint));
    return rc;
}

static int report(const extract_options *o, const extract *x, const am_tensor_table *table,
                  const am_json *tensors)
{
    am_json j = {0};
    int64_t n_factored = 0;
    for (int64_t i = 0; i < tensors_of(x)->n; i++) {
        n_factored += x->form[i].rank >= 0;
    }
    am_json_object(&j, NULL);
    am_json_string(&j, "output", o->output);
    am_json_string(&j, "dtype", am_dtype_name(dtypes[o->dtype]));
    am_json_real(&j, "density", o->density);
    am_json_int(&j, "data_bytes", am_tensor_table_bytes(table));
    am_json_int(&j, "factored", n_factored);
    am_json_object(&j, "global");
    am_loss_write(&j, &x->all);
    am_json_end_object(&j);
    am_json_raw(&j, "tensors", tensors->text);
    am_json_end_object(&j);
    int rc = am_json_finish(&j);
    if (rc == 0) {
        am_info("%s: relative error %.3g, largest %.3g; kept norm %.4g of the task vector's; %s",
                o->output, am_loss_share(x->all.error, x->all.kept), x->all.largest,
                am_loss_share(x->all.kept, x->all.all),
                am_format_bytes(am_tensor_table_bytes(table)));
        am_result(&j);
    }
    am_json_free(&j);
    return rc;
}

static int run_all(const am_args *args, int *exit_status)
{
    const extract_options *o = args->options;
    MPI_Comm comm = am_world();
    extract x = {0};
    am_inputs inputs = {0};
    am_tensor_table table = {0};
    am_meta meta = {0};
    am_json tensors = {0};
    am_ckpt_writer *writer = NULL;
    char fingerprint[17];
    (void)exit_status;
    am_memory_keep_no_holes();
    int rc = check_options(args);
    AM_AGREE(comm);
    AM_TRY(am_inputs_open_all(comm, args->positional, 2, true, READ_AHEAD, &inputs));
    AM_TRY(am_inputs_compare_all(comm, am_model_tensors(inputs.model[0]), inputs.input, inputs.n));
    AM_TRY(am_tv_fingerprint_all(comm, &inputs.source[0], fingerprint));
    rc = prepare(&x, &inputs, o);
    AM_KEEP(make_meta(o, fingerprint, &meta));
    AM_AGREE(comm);
    AM_TRY(plan_all(comm, &x, &inputs, o, &table));
    const am_ckpt_options write = {
        .overwrite = o->overwrite, .meta = &meta, .inputs = inputs.files};
    AM_TRY(am_ckpt_create_all(comm, o->output, &table, &write, &writer));
    rc = am_agree_all(comm, am_ckpt_sink(writer, &x.elements.sink));
    am_json_object(&tensors, NULL);
    if (rc == 0) { /* agreed */
        rc = extract_tensors_all(comm, &x, &tensors);
    }
    am_json_end_object(&tensors);
    AM_KEEP(am_json_finish(&tensors));
    AM_TRY(am_ckpt_publish_all(&writer, rc));
    rc = report(o, &x, &table, &tensors);
    AM_AGREE(comm);
cleanup:
    am_json_free(&tensors);
    am_meta_free(&meta);
    am_tensor_table_free(&table);
    release(&x);
    am_inputs_close(&inputs);
    return rc;
}

const am_command am_command_extract = {
    .name = "extract",
    .synopsis = "BASE MODEL -o TV [--dtype f64|f32|f16|bf16|int8] [--density D] [--max-rank N] "
                "[--rank-fraction F] [--energy E] [--memory SIZE] [--overwrite]",
    .summary = "Write the task vector (model - base) as a checkpoint that merges can read.",
    .help =
        "A merge takes TV in place of the model when its recipe has the same base. int8 stores "
        "a scale for every 128 elements, an error of at most half of it; with a density only "
        "the largest elements of each tensor are kept, as index and value where that is "
        "smaller; with --max-rank, --rank-fraction, --energy or --sv-epsilon a matrix is stored "
        "as its leading singular directions where these are smaller (TSV-C). The JSON line "
        "tells the errors and sizes, global and per tensor. Tensors that are not floats must "
        "be equal and are not stored.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(extract_options),
    .run_all = run_all,
};
