/* allmerge inspect CKPT: tensors, dtypes, shapes, metadata and, with --stats, what the values are.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "jobs/command.h"
#include "jobs/sweep.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

typedef struct inspect_options {
    bool json, stats;
} inspect_options;

static const am_param options[] = {
    AM_OPTION_JSON(inspect_options),
    {.key = "stats",
     .type = AM_PARAM_BOOL,
     .offset = offsetof(inspect_options, stats),
     .fallback = "false",
     .help = "read all values: norm, mean, smallest, largest, count of NaN and infinity"},
    {0}};

/* Of each tensor; integers are taken as real numbers. */
typedef struct stats {
    am_source source;
    double *x, *ones;       /* [AM_CHUNK] */
    am_exact *sum, *square; /* [tensors], over the finite values */
    double *low, *high;     /* [tensors], low negated for the MAX; -Inf: no finite value */
    int64_t *non_finite;    /* [tensors] */
} stats;

static void count_chunk(stats *s, int64_t tensor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(s->x[i])) {
            s->non_finite[tensor]++;
            s->x[i] = 0.0;
            continue;
        }
        s->low[tensor] = fmax(s->low[tensor], -s->x[i]);
        s->high[tensor] = fmax(s->high[tensor], s->x[i]);
    }
    am_dot_chunk(s->x, s->x, n, &s->square[tensor]);
    am_dot_chunk(s->x, s->ones, n, &s->sum[tensor]);
}

static int visit(void *self, int64_t tensor, int64_t lo, int64_t n)
{
    stats *s = self;
    for (int64_t at = 0; at < n; at += AM_CHUNK) {
        int64_t step = n - at < AM_CHUNK ? n - at : AM_CHUNK;
        int rc = s->source.load(s->source.self, tensor, lo + at, step, s->x);
        if (rc != 0) {
            return rc;
        }
        count_chunk(s, tensor, step);
    }
    return 0;
}

static int prepare(stats *s, am_ckpt *ckpt)
{
    int64_t n = am_ckpt_tensors(ckpt)->n + 1;
    s->x = am_new(AM_CHUNK, sizeof *s->x, "statistics");
    s->ones = am_new(AM_CHUNK, sizeof *s->ones, "statistics");
    s->sum = am_new(n, sizeof *s->sum, "statistics");
    s->square = am_new(n, sizeof *s->square, "statistics");
    s->low = am_new(n, sizeof *s->low, "statistics");
    s->high = am_new(n, sizeof *s->high, "statistics");
    s->non_finite = am_new(n, sizeof *s->non_finite, "statistics");
    if (!s->x || !s->ones || !s->sum || !s->square || !s->low || !s->high || !s->non_finite) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < AM_CHUNK; i++) {
        s->ones[i] = 1.0;
    }
    for (int64_t i = 0; i < n; i++) {
        am_exact_zero(&s->sum[i]);
        am_exact_zero(&s->square[i]);
        s->low[i] = s->high[i] = -INFINITY;
    }
    return am_ckpt_source(ckpt, 0, &s->source);
}

static void release(stats *s)
{
    free(s->x);
    free(s->ones);
    free(s->sum);
    free(s->square);
    free(s->low);
    free(s->high);
    free(s->non_finite);
}

static int gather_stats_all(MPI_Comm comm, am_ckpt *ckpt, stats *s)
{
    int64_t n = am_ckpt_tensors(ckpt)->n;
    int rc = prepare(s, ckpt);
    AM_AGREE(comm);
    am_sweep sweep = {.tensors = am_ckpt_tensors(ckpt),
                      .n_sources = 1,
                      .source = {&s->source},
                      .visit = visit,
                      .self = s,
                      .title = "inspect"};
    AM_TRY(am_sweep_all(comm, &sweep));
    AM_TRY(am_exact_sum_all(comm, s->sum, n));
    AM_TRY(am_exact_sum_all(comm, s->square, n));
    AM_TRY(am_max_f64_all(comm, s->low, n));
    AM_TRY(am_max_f64_all(comm, s->high, n));
    AM_TRY(am_sum_i64_all(comm, s->non_finite, n));
cleanup:
    return rc;
}

/* ---- output, rank 0 ---- */

typedef struct summary {
    double norm, mean, low, high; /* NaN: no finite value */
} summary;

static summary summarise(const stats *s, const am_tensor *t, int64_t i)
{
    int64_t finite = t->numel - s->non_finite[i];
    double none = finite > 0 ? 0.0 : NAN;
    return (summary){.norm = sqrt(am_exact_round(&s->square[i])),
                     .mean = finite > 0 ? am_exact_round(&s->sum[i]) / (double)finite : NAN,
                     .low = -s->low[i] + none,
                     .high = s->high[i] + none};
}

static void write_tensor(am_json *j, const am_tensor *t, const stats *s, int64_t i)
{
    am_json_object(j, NULL);
    am_json_string(j, "name", t->name);
    am_json_string(j, "dtype", am_dtype_name(t->dtype));
    am_json_array(j, "shape");
    for (int d = 0; d < t->ndim; d++) {
        am_json_int(j, NULL, t->shape[d]);
    }
    am_json_end_array(j);
    am_json_int(j, "bytes", t->numel * am_dtype_bytes(t->dtype));
    if (s != NULL) {
        summary sum = summarise(s, t, i);
        am_json_real(j, "norm", sum.norm);
        am_json_real(j, "mean", sum.mean);
        am_json_real(j, "min", sum.low);
        am_json_real(j, "max", sum.high);
        am_json_int(j, "non_finite_values", s->non_finite[i]);
    }
    am_json_end_object(j);
}

static bool is_reserved(const char *key)
{
    return strncmp(key, "allmerge.", 9) == 0;
}

static int print_json(const am_ckpt *ckpt, const stats *s)
{
    const am_tensor_table *table = am_ckpt_tensors(ckpt);
    const am_meta *meta = am_ckpt_meta(ckpt);
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "path", am_ckpt_path(ckpt));
    am_json_string(&j, "format", am_ckpt_format(ckpt));
    am_json_int(&j, "parameters", am_tensor_table_numel(table));
    am_json_int(&j, "data_bytes", am_tensor_table_bytes(table));
    am_json_object(&j, "metadata");
    for (int64_t i = 0; i < meta->n; i++) {
        if (!is_reserved(meta->key[i])) {
            am_json_string(&j, meta->key[i], meta->value[i]);
        }
    }
    am_json_end_object(&j);
    am_json_array(&j, "tensors");
    for (int64_t i = 0; i < table->n; i++) {
        write_tensor(&j, &table->t[i], s, i);
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    return am_result_end(&j);
}

/* One line of text whatever the value holds. */
static void print_line(const char *key, const char *value)
{
    printf("  %s = ", key);
    for (int i = 0; value[i] != '\0' && i < 100; i++) {
        unsigned char c = (unsigned char)value[i];
        putchar(c < 0x20 || c == 0x7f ? ' ' : c);
    }
    puts(strlen(value) > 100 ? "..." : "");
}

static int print_text(const am_ckpt *ckpt, const stats *s)
{
    const am_tensor_table *table = am_ckpt_tensors(ckpt);
    const am_meta *meta = am_ckpt_meta(ckpt);
    int width = 4;
    for (int64_t i = 0; i < table->n; i++) {
        int n = (int)strlen(table->t[i].name);
        width = n > width && n <= 60 ? n : width;
    }
    printf("%s: %s, %lld tensors, %lld parameters, %s\n", am_ckpt_path(ckpt), am_ckpt_format(ckpt),
           (long long)table->n, (long long)am_tensor_table_numel(table),
           am_format_bytes(am_tensor_table_bytes(table)));
    for (int64_t i = 0; i < meta->n; i++) {
        if (!is_reserved(meta->key[i])) {
            print_line(meta->key[i], meta->value[i]);
        }
    }
    for (int64_t i = 0; i < table->n; i++) {
        const am_tensor *t = &table->t[i];
        printf("  %-*s  %s", width, t->name, am_tensor_describe(t));
        if (s != NULL) {
            summary sum = summarise(s, t, i);
            printf("  norm %.9g  mean %.3g  min %.6g  max %.6g", sum.norm, sum.mean, sum.low,
                   sum.high);
            if (s->non_finite[i] > 0) {
                printf("  NaN or infinite: %lld", (long long)s->non_finite[i]);
            }
        }
        putchar('\n');
    }
    return fflush(stdout) == 0 ? 0
                               : am_fail_errno(AM_E_IO, errno, "cannot write to standard output");
}

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    int rc = 0;
    MPI_Comm comm = am_world();
    const inspect_options *o = args->options;
    am_ckpt *ckpt = NULL;
    stats s = {0};
    AM_TRY(am_ckpt_open_all(comm, args->positional[0], &ckpt));
    if (o->stats) {
        AM_TRY(gather_stats_all(comm, ckpt, &s));
    }
    if (am_world_rank() == 0) {
        const stats *shown = o->stats ? &s : NULL;
        rc = o->json ? print_json(ckpt, shown) : print_text(ckpt, shown);
    }
    AM_AGREE(comm);
cleanup:
    release(&s);
    am_ckpt_close(&ckpt);
    return rc;
}

const am_command am_command_inspect = {
    .name = "inspect",
    .synopsis = "CKPT [--json] [--stats]",
    .summary = "Show what a checkpoint holds.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(inspect_options),
    .run_all = run_all,
};
