/* allmerge diff A B: names, shapes, dtypes and values; exit 0 equal, 1 different.
 * Values are equal if their bits are. Metadata is not compared.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "io/dtype.h"
#include "jobs/command.h"
#include "jobs/sweep.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum { LISTED = 50 };

typedef struct diff_options {
    bool json;
} diff_options;

static const am_param options[] = {AM_OPTION_JSON(diff_options), {0}};

typedef struct diff {
    am_ckpt *ckpt[2];
    am_source source[2];
    am_tensor_table common; /* same name and shape; dtypes of A */
    int64_t *index[2];      /* [common.n] */
    unsigned char *raw[2];  /* [AM_SWEEP_ELEMENTS * 8] */
    double *real[2];        /* [AM_SWEEP_ELEMENTS] */
    /* [common.n]; largest |a - b| over finite pairs, largest distance in units in the last place
     * of a common float dtype, elements whose bits (or values, if dtypes differ) are not equal */
    double *largest;
    int64_t *ulp, *count;
} diff;

static bool same_shape(const am_tensor *a, const am_tensor *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

static am_dtype dtype_of(const diff *d, int side, int64_t i)
{
    return am_ckpt_tensors(d->ckpt[side])->t[d->index[side][i]].dtype;
}

/* ---- values ---- */

/* A float's bits as an integer in the order of the values, -0 and 0 alike. */
static int64_t ordered(am_dtype dtype, const void *data, int64_t i)
{
    if (dtype == AM_DTYPE_F64) {
        int64_t bits = ((const int64_t *)data)[i];
        return bits < 0 ? INT64_MIN - bits : bits;
    }
    int64_t bits, sign;
    if (dtype == AM_DTYPE_F32) {
        bits = ((const uint32_t *)data)[i];
        sign = INT64_C(1) << 31;
    } else {
        bits = ((const uint16_t *)data)[i];
        sign = INT64_C(1) << 15;
    }
    return bits & sign ? sign - bits : bits;
}

/* Distance of two ordered integers, INT64_MAX at most. */
static int64_t distance(int64_t a, int64_t b)
{
    uint64_t gap = a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a;
    return gap > INT64_MAX ? INT64_MAX : (int64_t)gap;
}

static void compare_raw(diff *d, int64_t i, am_dtype dtype, int64_t n)
{
    size_t bytes = (size_t)am_dtype_bytes(dtype);
    for (int64_t k = 0; k < n; k++) {
        if (memcmp(d->raw[0] + (size_t)k * bytes, d->raw[1] + (size_t)k * bytes, bytes) == 0) {
            continue;
        }
        d->count[i]++;
        bool is_number = !isnan(d->real[0][k]) && !isnan(d->real[1][k]);
        if (am_dtype_is_float(dtype) && is_number) {
            int64_t ulp = distance(ordered(dtype, d->raw[0], k), ordered(dtype, d->raw[1], k));
            d->ulp[i] = ulp > d->ulp[i] ? ulp : d->ulp[i];
        }
    }
}

static void compare_real(diff *d, int64_t i, int64_t n, bool count)
{
    const double *a = d->real[0], *b = d->real[1];
    for (int64_t k = 0; k < n; k++) {
        if (count && !(a[k] == b[k] || (isnan(a[k]) && isnan(b[k])))) {
            d->count[i]++;
        }
        if (isfinite(a[k]) && isfinite(b[k])) {
            d->largest[i] = fmax(d->largest[i], fabs(a[k] - b[k]));
        }
    }
}

static int visit(void *self, int64_t i, int64_t lo, int64_t n)
{
    diff *d = self;
    am_dtype dtype[2] = {dtype_of(d, 0, i), dtype_of(d, 1, i)};
    for (int side = 0; side < 2; side++) {
        const am_source *s = &d->source[side];
        int rc = s->load_raw(s->self, d->index[side][i], lo, n, d->raw[side]);
        if (rc != 0) {
            return rc;
        }
    }
    bool is_same = dtype[0] == dtype[1];
    size_t bytes = (size_t)(n * am_dtype_bytes(dtype[0]));
    if (is_same && memcmp(d->raw[0], d->raw[1], bytes) == 0) {
        return 0;
    }
    am_dtype_to_f64(dtype[0], d->raw[0], n, d->real[0]);
    am_dtype_to_f64(dtype[1], d->raw[1], n, d->real[1]);
    compare_real(d, i, n, !is_same);
    if (is_same) {
        compare_raw(d, i, dtype[0], n);
    }
    return 0;
}

/* ---- set-up ---- */

static int prepare(diff *d)
{
    int rc = 0;
    const am_tensor_table *a = am_ckpt_tensors(d->ckpt[0]), *b = am_ckpt_tensors(d->ckpt[1]);
    for (int side = 0; side < 2; side++) {
        d->index[side] = am_new(a->n + 1, sizeof *d->index[side], "comparison");
        d->raw[side] = am_new(AM_SWEEP_ELEMENTS, 8, "comparison");
        d->real[side] = am_new(AM_SWEEP_ELEMENTS, sizeof *d->real[side], "comparison");
        bool have = d->index[side] && d->raw[side] && d->real[side];
        AM_KEEP(have ? 0 : AM_E_NOMEM);
        AM_KEEP(am_ckpt_source(d->ckpt[side], 0, &d->source[side]));
    }
    for (int64_t i = 0; rc == 0 && i < a->n; i++) {
        const am_tensor *t = &a->t[i];
        int64_t k = am_tensor_table_find(b, t->name);
        if (k >= 0 && same_shape(t, &b->t[k])) {
            d->index[0][d->common.n] = i;
            d->index[1][d->common.n] = k;
            rc = am_tensor_table_add(&d->common, t->name, t->dtype, t->ndim, t->shape);
        }
    }
    AM_KEEP(am_tensor_table_finish(&d->common)); /* in order already */
    d->largest = am_new(d->common.n + 1, sizeof *d->largest, "comparison");
    d->ulp = am_new(d->common.n + 1, sizeof *d->ulp, "comparison");
    d->count = am_new(d->common.n + 1, sizeof *d->count, "comparison");
    AM_KEEP(d->largest && d->ulp && d->count ? 0 : AM_E_NOMEM);
    return rc;
}

static void release(diff *d)
{
    for (int side = 0; side < 2; side++) {
        am_ckpt_close(&d->ckpt[side]);
        free(d->index[side]);
        free(d->raw[side]);
        free(d->real[side]);
    }
    am_tensor_table_free(&d->common);
    free(d->largest);
    free(d->ulp);
    free(d->count);
}

/* ---- output, rank 0 ---- */

/* A tensor of `side` that the other has not, or has in another shape: its fault, else NULL. */
static const char *structure_fault(const diff *d, int side, const am_tensor *t)
{
    const am_tensor_table *other = am_ckpt_tensors(d->ckpt[1 - side]);
    int64_t k = am_tensor_table_find(other, t->name);
    if (k < 0) {
        return side == 0 ? "only in A" : "only in B";
    }
    return side == 0 && !same_shape(t, &other->t[k]) ? "another shape" : NULL;
}

static int64_t count_structure(const diff *d)
{
    int64_t faults = 0;
    for (int side = 0; side < 2; side++) {
        const am_tensor_table *table = am_ckpt_tensors(d->ckpt[side]);
        for (int64_t i = 0; i < table->n; i++) {
            faults += structure_fault(d, side, &table->t[i]) != NULL;
        }
    }
    return faults;
}

static bool tensor_differs(const diff *d, int64_t i)
{
    return d->count[i] > 0 || dtype_of(d, 0, i) != dtype_of(d, 1, i);
}

static void write_structure(am_json *j, const diff *d)
{
    am_json_array(j, "structure");
    for (int side = 0; side < 2; side++) {
        const am_tensor_table *table = am_ckpt_tensors(d->ckpt[side]);
        for (int64_t i = 0; i < table->n; i++) {
            const char *fault = structure_fault(d, side, &table->t[i]);
            if (fault != NULL) {
                am_json_object(j, NULL);
                am_json_string(j, "name", table->t[i].name);
                am_json_string(j, "fault", fault);
                am_json_end_object(j);
            }
        }
    }
    am_json_end_array(j);
}

static int print_json(const diff *d, bool is_equal, int64_t elements, double largest)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_bool(&j, "equal", is_equal);
    am_json_int(&j, "compared_tensors", d->common.n);
    am_json_int(&j, "different_elements", elements);
    am_json_real(&j, "max_abs", largest);
    write_structure(&j, d);
    am_json_array(&j, "tensors");
    for (int64_t i = 0; i < d->common.n; i++) {
        if (!tensor_differs(d, i)) {
            continue;
        }
        am_dtype a = dtype_of(d, 0, i), b = dtype_of(d, 1, i);
        am_json_object(&j, NULL);
        am_json_string(&j, "name", d->common.t[i].name);
        am_json_string(&j, "dtype_a", am_dtype_name(a));
        am_json_string(&j, "dtype_b", am_dtype_name(b));
        am_json_int(&j, "different_elements", d->count[i]);
        am_json_real(&j, "max_abs", d->largest[i]);
        if (a == b && am_dtype_is_float(a)) {
            am_json_int(&j, "max_ulp", d->ulp[i]);
        }
        am_json_end_object(&j);
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static void print_structure(const diff *d)
{
    int64_t lines = 0;
    for (int side = 0; side < 2; side++) {
        const am_tensor_table *table = am_ckpt_tensors(d->ckpt[side]);
        for (int64_t i = 0; i < table->n && lines < LISTED; i++) {
            const char *fault = structure_fault(d, side, &table->t[i]);
            if (fault != NULL) {
                printf("  %s: %s\n", table->t[i].name, fault);
                lines++;
            }
        }
    }
}

static int print_text(const diff *d, bool is_equal, int64_t elements, double largest)
{
    int64_t lines = 0, different = 0;
    print_structure(d);
    for (int64_t i = 0; i < d->common.n; i++) {
        if (!tensor_differs(d, i)) {
            continue;
        }
        different++;
        if (lines++ >= LISTED) {
            continue;
        }
        const am_tensor *t = &d->common.t[i];
        am_dtype a = dtype_of(d, 0, i), b = dtype_of(d, 1, i);
        printf("  %s: %lld of %lld elements differ, max abs %.9g", t->name, (long long)d->count[i],
               (long long)t->numel, d->largest[i]);
        if (a != b) {
            printf(", %s and %s", am_dtype_name(a), am_dtype_name(b));
        } else if (am_dtype_is_float(a)) {
            printf(", max ulp %lld", (long long)d->ulp[i]);
        }
        putchar('\n');
    }
    if (is_equal) {
        printf("equal: %lld tensors\n", (long long)d->common.n);
    } else {
        printf("different: %lld of %lld common tensors, %lld elements, max abs %.9g%s\n",
               (long long)different, (long long)d->common.n, (long long)elements, largest,
               count_structure(d) > 0 ? "; names or shapes differ" : "");
    }
    return fflush(stdout) == 0 ? 0
                               : am_fail_errno(AM_E_IO, errno, "cannot write to standard output");
}

static int report(const diff *d, bool json, bool *is_equal)
{
    int64_t elements = 0;
    double largest = 0.0;
    *is_equal = count_structure(d) == 0;
    for (int64_t i = 0; i < d->common.n; i++) {
        elements += d->count[i];
        largest = fmax(largest, d->largest[i]);
        *is_equal = *is_equal && !tensor_differs(d, i);
    }
    if (am_world_rank() != 0) {
        return 0;
    }
    return json ? print_json(d, *is_equal, elements, largest)
                : print_text(d, *is_equal, elements, largest);
}

static int run_all(const am_args *args, int *exit_status)
{
    int rc = 0;
    bool is_equal = false;
    MPI_Comm comm = am_world();
    const diff_options *o = args->options;
    diff d = {0};
    AM_TRY(am_ckpt_open_all(comm, args->positional[0], &d.ckpt[0]));
    AM_TRY(am_ckpt_open_all(comm, args->positional[1], &d.ckpt[1]));
    rc = prepare(&d);
    AM_AGREE(comm);
    am_sweep sweep = {.tensors = &d.common,
                      .n_sources = 2,
                      .source = {&d.source[0], &d.source[1]},
                      .index = {d.index[0], d.index[1]},
                      .visit = visit,
                      .self = &d,
                      .title = "diff"};
    AM_TRY(am_sweep_all(comm, &sweep));
    AM_TRY(am_max_f64_all(comm, d.largest, d.common.n));
    AM_TRY(am_max_i64_all(comm, d.ulp, d.common.n));
    AM_TRY(am_sum_i64_all(comm, d.count, d.common.n));
    rc = report(&d, o->json, &is_equal);
    AM_AGREE(comm);
    *exit_status = is_equal ? 0 : 1;
cleanup:
    release(&d);
    return rc;
}

const am_command am_command_diff = {
    .name = "diff",
    .synopsis = "A B [--json]",
    .summary = "Compare two checkpoints of any formats; exit 0 if equal, 1 if not.",
    .help = "Values are equal if their bits are. Metadata is not compared.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(diff_options),
    .run_all = run_all,
};
