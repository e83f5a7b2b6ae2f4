/* allmerge convert IN OUT: the same tensors in another format or float type.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include "io/checkpoint/checkpoint.h"
#include "jobs/command.h"
#include "jobs/sweep.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

typedef struct convert_options {
    char *dtype;
    bool overwrite;
    int64_t shard_bytes;
} convert_options;

static const am_param options[] = {
    {.key = "dtype",
     .type = AM_PARAM_STRING,
     .offset = offsetof(convert_options, dtype),
     .fallback = "",
     .help = "float type of all float tensors: f64, f32, f16, bf16 (default: as they are)"},
    AM_OPTION_OVERWRITE(convert_options),
    {.key = "shard-size",
     .type = AM_PARAM_BYTES,
     .offset = offsetof(convert_options, shard_bytes),
     .fallback = "5GB",
     .low = 1,
     .high = 0x1p62,
     .help = "largest file of a folder"},
    {0}};

typedef struct convert {
    am_source source;
    am_sink sink;
    double *real;     /* [AM_SWEEP_ELEMENTS] */
    int64_t overflow; /* finite values that became infinite */
} convert;

/* From here on a value rounds to infinity. */
static double overflow_from(am_dtype dtype)
{
    return dtype == AM_DTYPE_F16    ? 65520.0
           : dtype == AM_DTYPE_BF16 ? 0x1.ffp127
           : dtype == AM_DTYPE_F32  ? 0x1.ffffffp127
                                    : INFINITY;
}

static int visit(void *self, int64_t tensor, int64_t lo, int64_t n)
{
    convert *c = self;
    am_dtype from = c->source.tensors->t[tensor].dtype, to = c->sink.tensors->t[tensor].dtype;
    if (from == to) {
        int rc = c->source.load_raw(c->source.self, tensor, lo, n, c->real);
        return rc != 0 ? rc : c->sink.store_raw(c->sink.self, tensor, lo, n, c->real);
    }
    int rc = c->source.load(c->source.self, tensor, lo, n, c->real);
    double limit = overflow_from(to);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        c->overflow += fabs(c->real[i]) >= limit && isfinite(c->real[i]);
    }
    return rc != 0 ? rc : c->sink.store(c->sink.self, tensor, lo, n, c->real);
}

static int make_table(const am_tensor_table *in, const char *dtype, am_tensor_table *out)
{
    am_dtype to = dtype != NULL ? am_dtype_parse(dtype) : AM_DTYPE_COUNT;
    if (dtype != NULL && (to == AM_DTYPE_COUNT || !am_dtype_is_float(to))) {
        return am_fail(AM_E_USAGE, "--dtype %s: choose f64, f32, f16 or bf16", dtype);
    }
    int rc = am_tensor_table_copy(in, out);
    for (int64_t i = 0; rc == 0 && dtype != NULL && i < out->n; i++) {
        if (am_dtype_is_float(out->t[i].dtype)) {
            out->t[i].dtype = to;
        }
    }
    return rc;
}

static int report(const char *path, const am_tensor_table *table, int64_t overflow)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "output", path);
    am_json_int(&j, "tensors", table->n);
    am_json_int(&j, "data_bytes", am_tensor_table_bytes(table));
    am_json_int(&j, "overflowed", overflow);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    int rc = 0;
    MPI_Comm comm = am_world();
    const convert_options *o = args->options;
    const char *inputs[] = {args->positional[0], NULL}, *output = args->positional[1];
    am_ckpt *ckpt = NULL;
    am_ckpt_writer *writer = NULL;
    am_tensor_table table = {0};
    convert c = {0};
    AM_TRY(am_ckpt_open_all(comm, inputs[0], &ckpt));
    c.real = am_new(AM_SWEEP_ELEMENTS, sizeof *c.real, "conversion");
    AM_KEEP(c.real != NULL ? 0 : AM_E_NOMEM);
    AM_KEEP(make_table(am_ckpt_tensors(ckpt), o->dtype, &table));
    AM_KEEP(am_ckpt_source(ckpt, 0, &c.source));
    AM_AGREE(comm);
    am_ckpt_options write = {.overwrite = o->overwrite,
                             .shard_bytes = o->shard_bytes,
                             .meta = am_ckpt_meta(ckpt),
                             .inputs = inputs};
    AM_TRY(am_ckpt_create_all(comm, output, &table, &write, &writer));
    rc = am_agree_all(comm, am_ckpt_sink(writer, &c.sink));
    am_sweep sweep = {.tensors = &table,
                      .n_sources = 1,
                      .source = {&c.source},
                      .visit = visit,
                      .self = &c,
                      .title = "convert"};
    if (rc == 0) { /* agreed */
        rc = am_sweep_all(comm, &sweep);
    }
    AM_TRY(am_ckpt_publish_all(&writer, rc));
    AM_TRY(am_sum_i64_all(comm, &c.overflow, 1));
    if (c.overflow > 0) {
        am_warn("%lld finite values are too large for %s and became infinite",
                (long long)c.overflow, o->dtype);
    }
    rc = report(output, &table, c.overflow);
    AM_AGREE(comm);
cleanup:
    free(c.real);
    am_tensor_table_free(&table);
    am_ckpt_close(&ckpt);
    return rc;
}

const am_command am_command_convert = {
    .name = "convert",
    .synopsis = "IN OUT [--dtype X] [--overwrite] [--shard-size SIZE]",
    .summary = "Write a checkpoint in another format or float type.",
    .help = "The form of OUT follows its name: .h5, .safetensors, or a folder.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(convert_options),
    .run_all = run_all,
};
