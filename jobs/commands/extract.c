/* allmerge extract BASE MODEL -o TV: a task vector (model - base) as a checkpoint, rounded or
 * quantised, whole, only its largest elements, or matrices as their leading singular directions
 * (io/checkpoint/taskvec.h). SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "io/checkpoint/taskvec.h"
#include "jobs/command.h"
#include "jobs/extract/factors.h"
#include "jobs/extract/tally.h"
#include "jobs/merge/memory.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/progress.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/analysis/matrices.h"

enum {
    READ_AHEAD = 32 << 20,
    HIGH_BINS = 1 << 16,                        /* of the upper bits of a key */
    LOW_BITS = 15,                              /* a key is |difference| as f32: 31 bits */
    BLOCK_SCALES = AM_BLOCK / AM_TV_DENSE_BLOCK /* of the blocks of a dense tensor */
};

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
    const am_source *base, *model;
    am_sink sink;
    am_tv_tensor *form; /* [base->tensors->n] */
    double density;
    int rank, size;
    double *delta, *other, *error; /* [AM_CHUNK] */
    unsigned char *raw;            /* [AM_CHUNK * 8] */
    uint16_t *index;               /* [AM_CHUNK] */
    float *scale;                  /* [BLOCK_SCALES] */
    int64_t *bins;                 /* [HIGH_BINS] */
    /* The tensor at hand: */
    int64_t tensor;
    int64_t lo, hi; /* this rank's elements: whole blocks */
    bool is_trimmed;
    uint32_t threshold; /* key of the smallest that is kept */
    int64_t ties;       /* how many of those with that key are kept */
    int64_t *count;     /* [2, chunks]: keys above the threshold, and equal to it, of each chunk */
    int64_t *start;     /* [chunks + 1] kept elements before each chunk */
    am_tally one;
    am_loss all; /* of all tensors */
    am_factors factors;
} extract;

/* ---- differences ---- */

static int64_t chunk_size(const extract *x, int64_t lo)
{
    return x->hi - lo < AM_CHUNK ? x->hi - lo : AM_CHUNK;
}

static int check_finite(const extract *x, int64_t lo, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x->delta[i])) {
            return am_fail(AM_E_DATA, "tensor '%s': element %" PRId64 ": %s - %s is not finite",
                           x->base->tensors->t[x->tensor].name, lo + i, x->model->label,
                           x->base->label);
        }
    }
    return 0;
}

static int load_delta(extract *x, int64_t lo, int64_t n)
{
    int rc = x->base->load(x->base->self, x->tensor, lo, n, x->other);
    AM_KEEP(x->model->load(x->model->self, x->tensor, lo, n, x->delta));
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        x->delta[i] -= x->other[i];
    }
    am_alive("extract");
    return rc != 0 ? rc : check_finite(x, lo, n);
}

static uint32_t key_of(double delta)
{
    const float magnitude = (float)fabs(delta);
    uint32_t key;
    memcpy(&key, &magnitude, sizeof key);
    return key;
}

/* ---- the largest k of a tensor, exactly; ties by position ---- */

/* Histogram of one part of the keys: of the upper bits of all, or of the lower bits of those whose
 * upper bits are `high`. */
static int count_keys(extract *x, int64_t high)
{
    int rc = 0;
    memset(x->bins, 0, HIGH_BINS * sizeof *x->bins);
    for (int64_t lo = x->lo; rc == 0 && lo < x->hi; lo += AM_CHUNK) {
        const int64_t n = chunk_size(x, lo);
        rc = load_delta(x, lo, n);
        for (int64_t i = 0; rc == 0 && i < n; i++) {
            const uint32_t key = key_of(x->delta[i]);
            if (high < 0) {
                x->bins[key >> LOW_BITS]++;
            } else if (key >> LOW_BITS == (uint32_t)high) {
                x->bins[key & ((1u << LOW_BITS) - 1)]++;
            }
        }
    }
    return rc;
}

/* The bin in which the *k-th largest lies; *k: its number within the bin, from 1. */
static int64_t find_bin(const int64_t *bins, int64_t *k)
{
    int64_t b = HIGH_BINS - 1;
    while (b > 0 && bins[b] < *k) {
        *k -= bins[b--];
    }
    return b;
}

static int find_threshold_all(MPI_Comm comm, extract *x)
{
    int64_t k = am_tv_kept(x->base->tensors->t[x->tensor].numel, x->density), high = -1, low = 0;
    int rc = 0;
    for (int pass = 0; pass < 2; pass++) {
        rc = count_keys(x, high);
        AM_AGREE(comm);
        AM_TRY(am_sum_i64_all(comm, x->bins, HIGH_BINS));
        *(pass == 0 ? &high : &low) = find_bin(x->bins, &k);
    }
    x->threshold = (uint32_t)(high << LOW_BITS | low);
    x->ties = k;
cleanup:
    return rc;
}

static int count_chunks(extract *x, int64_t chunks)
{
    int rc = 0;
    for (int64_t lo = x->lo; rc == 0 && lo < x->hi; lo += AM_CHUNK) {
        const int64_t n = chunk_size(x, lo), c = lo / AM_CHUNK;
        rc = load_delta(x, lo, n);
        for (int64_t i = 0; rc == 0 && i < n; i++) {
            const uint32_t key = key_of(x->delta[i]);
            x->count[c] += key > x->threshold;
            x->count[chunks + c] += key == x->threshold;
        }
    }
    return rc;
}

/* Which elements stay: threshold, and how many ties of each chunk; where each chunk's entries are.
 */
static int trim_all(MPI_Comm comm, extract *x)
{
    const int64_t chunks = am_part_units(x->base->tensors->t[x->tensor].numel, AM_CHUNK);
    int rc = 0;
    x->count = am_new(2 * chunks + 1, sizeof *x->count, "counts of chunks");
    x->start = am_new(chunks + 1, sizeof *x->start, "counts of chunks");
    AM_KEEP(x->count != NULL && x->start != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(find_threshold_all(comm, x));
    rc = count_chunks(x, chunks);
    AM_AGREE(comm);
    AM_TRY(am_sum_i64_all(comm, x->count, 2 * chunks));
    int64_t ties = x->ties;
    for (int64_t c = 0; c < chunks; c++) {
        int64_t *equal = &x->count[chunks + c];
        *equal = *equal < ties ? *equal : ties; /* from here on: how many of them are kept */
        ties -= *equal;
        x->start[c + 1] = x->start[c] + x->count[c] + *equal;
    }
cleanup:
    return rc;
}

/* Differences of a chunk that are cut off become 0; index[] of the others. Returns how many. */
static int64_t keep_largest(extract *x, int64_t chunk, int64_t n)
{
    const int64_t chunks = am_part_units(x->base->tensors->t[x->tensor].numel, AM_CHUNK);
    int64_t ties = x->is_trimmed ? x->count[chunks + chunk] : 0, kept = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = key_of(x->delta[i]);
        const bool is_tie = x->is_trimmed && key == x->threshold;
        if (x->is_trimmed && (key < x->threshold || (is_tie && ties == 0))) {
            x->delta[i] = 0;
        } else {
            ties -= is_tie;
            x->index[kept++] = (uint16_t)i;
        }
    }
    return kept;
}

/* ---- rounding ---- */

/* delta[n] to int8 and back; other[n] is what a reader will see. */
static int quantise(extract *x, int64_t lo, int64_t n, float *scale)
{
    const int64_t block = x->form[x->tensor].block;
    int8_t *q = (int8_t *)x->raw;
    for (int64_t at = 0; at < n; at += block) {
        const int64_t end = at + block < n ? at + block : n;
        double largest = 0;
        for (int64_t i = at; i < end; i++) {
            largest = fmax(largest, fabs(x->delta[i]));
        }
        const float s = am_tv_scale(largest);
        scale[at / block] = s;
        if (!isfinite(s)) {
            return am_fail(AM_E_NUMERIC, "tensor '%s': element %" PRId64 ": too large for int8",
                           x->base->tensors->t[x->tensor].name, lo + at);
        }
        for (int64_t i = at; i < end; i++) {
            q[i] = s > 0 ? (int8_t)rint(x->delta[i] / (double)s) : 0; /* nearest even */
            x->other[i] = (double)s * q[i];
        }
    }
    return 0;
}

static int round_chunk(extract *x, int64_t lo, int64_t n)
{
    const am_dtype dtype = x->form[x->tensor].dtype;
    am_dtype_from_f64(dtype, x->delta, n, x->raw);
    am_dtype_to_f64(dtype, x->raw, n, x->other);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x->other[i])) {
            return am_fail(AM_E_NUMERIC,
                           "tensor '%s': element %" PRId64 ": the difference %g is too large for "
                           "%s; choose a wider --dtype",
                           x->base->tensors->t[x->tensor].name, lo + i, x->delta[i],
                           am_dtype_name(dtype));
        }
    }
    return 0;
}

static void tally_chunk(extract *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x->error[i] = x->delta[i] - x->other[i];
    }
    am_tally_add(&x->one, x->delta, x->error, n);
}

/* ---- writing ---- */

static int store(extract *x, int64_t part, int64_t lo, int64_t n, const void *data)
{
    return n > 0 ? x->sink.store_raw(x->sink.self, part, lo, n, data) : 0;
}

/* Entries of a chunk: gather the values in place, which are at least as far along as their number.
 */
static int store_sparse(extract *x, int64_t lo, int64_t kept)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const int64_t bytes = am_dtype_bytes(form->dtype), at = x->start[lo / AM_CHUNK];
    for (int64_t e = 0; e < kept; e++) {
        memmove(x->raw + e * bytes, x->raw + x->index[e] * bytes, (size_t)bytes);
    }
    int rc = store(x, form->index, at, kept, x->index);
    AM_KEEP(store(x, form->value, at, kept, x->raw));
    return rc;
}

static int write_chunk(extract *x, int64_t lo, float *scale)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const int64_t n = chunk_size(x, lo);
    int rc = load_delta(x, lo, n);
    if (rc != 0) {
        return rc;
    }
    am_dot_chunk(x->delta, x->delta, n, &x->one.all);
    const int64_t kept = keep_largest(x, lo / AM_CHUNK, n);
    rc = form->dtype == AM_DTYPE_I8 ? quantise(x, lo, n, scale) : round_chunk(x, lo, n);
    if (rc != 0) {
        return rc;
    }
    tally_chunk(x, n);
    return form->is_sparse ? store_sparse(x, lo, kept) : store(x, form->value, lo, n, x->raw);
}

/* This rank's blocks; the scales of a block follow it, so that its bytes are written in one run. */
static int write_blocks(extract *x)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    int rc = 0;
    for (int64_t lo = x->lo; rc == 0 && lo < x->hi; lo += AM_BLOCK) {
        const int64_t end = x->hi - lo < AM_BLOCK ? x->hi : lo + AM_BLOCK;
        for (int64_t at = lo; rc == 0 && at < end; at += AM_CHUNK) {
            rc = write_chunk(x, at, x->scale + (at - lo) / form->block);
        }
        if (form->scale >= 0) {
            AM_KEEP(store(x, form->scale, lo / form->block,
                          (end - lo + form->block - 1) / form->block, x->scale));
        }
        AM_KEEP(x->sink.flush(x->sink.self));
    }
    return rc;
}

/* What one rank writes for all. */
static int write_tables(extract *x)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const am_tensor *t = &x->base->tensors->t[x->tensor];
    int rc = 0;
    if (form->is_sparse && x->lo == 0 && x->hi > 0) {
        rc = store(x, form->shape, 0, t->ndim, t->shape);
        AM_KEEP(store(x, form->start, 0, am_part_units(t->numel, AM_CHUNK) + 1, x->start));
        AM_KEEP(x->sink.flush(x->sink.self));
    }
    return rc;
}

/* ---- all tensors ---- */

/* What one tensor lost, and how large it is in the file. */
static void write_tensor(am_json *j, const extract *x, const am_loss *loss)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    am_json_object(j, x->base->tensors->t[x->tensor].name);
    am_loss_write(j, loss);
    am_json_int(j, "data_bytes", am_tv_tensor_bytes(x->sink.tensors, form));
    if (form->rank >= 0) {
        am_json_int(j, "rank", form->rank);
        am_json_bool(j, "is_random", x->factors.of[x->tensor].is_random);
    }
    am_json_end_object(j);
}

/* Its owner has the factors. */
static int write_factors(extract *x)
{
    const am_tv_tensor *form = &x->form[x->tensor];
    const am_factor *f = &x->factors.of[x->tensor];
    const am_tensor *u = &x->sink.tensors->t[form->u], *vt = &x->sink.tensors->t[form->vt];
    int rc = 0;
    if (x->factors.owner[x->tensor] == x->rank) {
        rc = store(x, form->u, 0, u->numel, f->left);
        AM_KEEP(store(x, form->s, 0, f->rank, f->s));
        AM_KEEP(store(x, form->vt, 0, vt->numel, f->right));
        AM_KEEP(x->sink.flush(x->sink.self));
    }
    return rc;
}

static int extract_factors_all(MPI_Comm comm, extract *x, am_loss *loss)
{
    *loss = x->factors.of[x->tensor].loss;
    return am_agree_step_all(comm, write_factors(x));
}

static int extract_elements_all(MPI_Comm comm, extract *x, am_loss *loss)
{
    const am_tensor *t = &x->base->tensors->t[x->tensor];
    int64_t lo = 0, hi = 0;
    int rc = 0;
    /* Blocks by turns from tensor to tensor, so that small ones do not all fall on one rank. */
    am_part_range(am_part_units(t->numel, AM_BLOCK), x->size,
                  (x->rank + x->tensor % x->size) % x->size, &lo, &hi);
    x->lo = lo * AM_BLOCK;
    x->hi = hi * AM_BLOCK < t->numel ? hi * AM_BLOCK : t->numel;
    x->hi = x->hi > x->lo ? x->hi : x->lo;
    x->is_trimmed = am_tv_kept(t->numel, x->density) < t->numel;
    x->one = (am_tally){.largest = 0};
    if (x->is_trimmed) {
        AM_TRY(trim_all(comm, x));
    }
    rc = write_blocks(x);
    AM_KEEP(write_tables(x));
    AM_TRY(am_agree_step_all(comm, rc));
    AM_TRY(am_tally_all(comm, &x->one, loss));
cleanup:
    free(x->count);
    free(x->start);
    x->count = x->start = NULL;
    return rc;
}

static int extract_tensor_all(MPI_Comm comm, extract *x, int64_t tensor, am_json *tensors)
{
    am_loss loss = {0};
    x->tensor = tensor;
    const bool has_factors = x->form[tensor].rank >= 0; /* the same on every rank */
    const int rc =
        has_factors ? extract_factors_all(comm, x, &loss) : extract_elements_all(comm, x, &loss);
    if (rc == 0) {
        write_tensor(tensors, x, &loss);
        am_loss_add(&x->all, &loss);
    }
    return rc;
}

static int extract_tensors_all(MPI_Comm comm, extract *x, am_json *tensors)
{
    am_progress progress;
    int rc = 0;
    am_progress_start(&progress, "extract", x->base->tensors->n, "tensors");
    for (int64_t i = 0; rc == 0 && i < x->base->tensors->n; i++) {
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
    x->base = &inputs->source[0];
    x->model = &inputs->source[1];
    x->density = o->density;
    x->rank = am_world_rank();
    x->size = am_world_size();
    x->form = am_new(x->base->tensors->n + 1, sizeof *x->form, "a task vector");
    x->delta = am_new(AM_CHUNK, sizeof *x->delta, "differences");
    x->other = am_new(AM_CHUNK, sizeof *x->other, "differences");
    x->error = am_new(AM_CHUNK, sizeof *x->error, "differences");
    x->raw = am_new(AM_CHUNK, sizeof(double), "differences");
    x->index = am_new(AM_CHUNK, sizeof *x->index, "differences");
    x->scale = am_new(BLOCK_SCALES, sizeof *x->scale, "scales");
    x->bins = am_new(HIGH_BINS, sizeof *x->bins, "a histogram");
    return x->form != NULL && x->delta != NULL && x->other != NULL && x->error != NULL &&
                   x->raw != NULL && x->index != NULL && x->scale != NULL && x->bins != NULL
               ? 0
               : AM_E_NOMEM;
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
    const am_tensor_table *tensors = x->base->tensors;
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
    free(x->delta);
    free(x->other);
    free(x->error);
    free(x->raw);
    free(x->index);
    free(x->scale);
    free(x->bins);
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
    for (int64_t i = 0; i < x->base->tensors->n; i++) {
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
    rc = am_agree_all(comm, am_ckpt_sink(writer, &x.sink));
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
