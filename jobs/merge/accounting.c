/* What rounding to the output's dtype did to a merge. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/accounting.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/dtype.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/reduce.h"

enum { AM_ACCOUNT_ELEMENTS = 4096, AM_ACCOUNT_COUNTS = 4 };

static void count_specials(const double *x, int64_t n, am_account *account)
{
    for (int64_t i = 0; i < n; i++) {
        account->nan += isnan(x[i]) != 0;
        account->infinite += isinf(x[i]) != 0;
    }
}

/* x [n] before rounding, against base [n]. */
static void count_updates(am_accounting *a, am_dtype dtype, const double *x, int64_t n,
                          am_account *account)
{
    const size_t bytes = (size_t)am_dtype_bytes(dtype);
    am_dtype_from_f64(dtype, x, n, a->rounded[0]);
    am_dtype_from_f64(dtype, a->base, n, a->rounded[1]);
    for (int64_t i = 0; i < n; i++) {
        const double update = fabs(x[i] - a->base[i]);
        const size_t at = (size_t)i * bytes;
        if (!(update > 0)) {
            continue;
        }
        account->updated++;
        account->lost += memcmp(a->rounded[0] + at, a->rounded[1] + at, bytes) == 0;
        account->largest =
            isfinite(update) && update > account->largest ? update : account->largest;
    }
}

static int look(am_accounting *a, int64_t piece, int64_t lo, int64_t n, const double *src)
{
    const am_merge_plan *plan = a->plan;
    const am_merge_input *base = plan->job.base;
    const am_dtype dtype = plan->match.pieces.t[piece].dtype;
    am_account *account = &a->account[plan->match.at[piece].tensor];
    int rc = 0;
    count_specials(src, n, account);
    for (int64_t at = 0; rc == 0 && base != NULL && at < n; at += AM_ACCOUNT_ELEMENTS) {
        const int64_t step = n - at < AM_ACCOUNT_ELEMENTS ? n - at : AM_ACCOUNT_ELEMENTS;
        rc = base->source->load(base->source->self, base->tensor[piece], lo + at, step, a->base);
        if (rc == 0) {
            count_updates(a, dtype, src + at, step, account);
        }
    }
    return rc;
}

/* ---- the sink ---- */

static int sink_store(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src)
{
    am_accounting *a = self;
    int rc = look(a, tensor, lo, n, src);
    AM_KEEP(a->sink->store(a->sink->self, tensor, lo, n, src));
    return rc;
}

static int sink_store_raw(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src)
{
    const am_accounting *a = self;
    return a->sink->store_raw(a->sink->self, tensor, lo, n, src);
}

static int sink_flush(void *self)
{
    const am_accounting *a = self;
    return a->sink->flush != NULL ? a->sink->flush(a->sink->self) : 0;
}

int am_accounting_start(const am_merge_plan *plan, const am_sink *sink, am_accounting *a,
                        am_sink *out)
{
    *a = (am_accounting){.plan = plan, .sink = sink};
    a->account = am_new(plan->match.output.n + 1, sizeof *a->account, "accounting");
    a->base = am_new(AM_ACCOUNT_ELEMENTS, sizeof *a->base, "accounting");
    for (int i = 0; i < 2; i++) {
        a->rounded[i] = am_new(AM_ACCOUNT_ELEMENTS, sizeof(double), "accounting");
    }
    *out = (am_sink){.self = a,
                     .label = sink->label,
                     .tensors = sink->tensors,
                     .store = sink_store,
                     .store_raw = sink_store_raw,
                     .flush = sink_flush};
    return a->account != NULL && a->base != NULL && a->rounded[0] != NULL && a->rounded[1] != NULL
               ? 0
               : AM_E_NOMEM;
}

/* ---- the result ---- */

int am_accounting_sum_all(MPI_Comm comm, am_accounting *a)
{
    const int64_t n = a->plan->match.output.n;
    int rc = 0;
    int64_t *count = am_new(n * AM_ACCOUNT_COUNTS + 1, sizeof *count, "accounting");
    double *largest = am_new(n + 1, sizeof *largest, "accounting");
    AM_KEEP(count != NULL && largest != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    for (int64_t i = 0; i < n; i++) {
        const am_account *t = &a->account[i];
        const int64_t counts[] = {t->updated, t->lost, t->nan, t->infinite};
        memcpy(count + i * AM_ACCOUNT_COUNTS, counts, sizeof counts);
        largest[i] = t->largest;
    }
    AM_TRY(am_sum_i64_all(comm, count, n * AM_ACCOUNT_COUNTS));
    AM_TRY(am_max_f64_all(comm, largest, n));
    for (int64_t i = 0; i < n; i++) {
        const int64_t *c = count + i * AM_ACCOUNT_COUNTS;
        a->account[i] = (am_account){c[0], c[1], c[2], c[3], largest[i]};
    }
cleanup:
    free(count);
    free(largest);
    return rc;
}

static void write_account(const am_accounting *a, const am_account *t, am_json *j)
{
    const double none = NAN; /* written as null */
    const bool has_base = a->plan->job.base != NULL;
    if (has_base) {
        am_json_int(j, "updated", t->updated);
        am_json_int(j, "lost", t->lost);
    } else {
        am_json_real(j, "updated", none);
        am_json_real(j, "lost", none);
    }
    am_json_real(j, "largest_update", has_base ? t->largest : none);
    am_json_int(j, "nan", t->nan);
    am_json_int(j, "infinite", t->infinite);
}

void am_accounting_totals(const am_accounting *a, am_json *j)
{
    am_account total = {0};
    for (int64_t i = 0; i < a->plan->match.output.n; i++) {
        const am_account *t = &a->account[i];
        total.updated += t->updated;
        total.lost += t->lost;
        total.nan += t->nan;
        total.infinite += t->infinite;
        total.largest = t->largest > total.largest ? t->largest : total.largest;
    }
    write_account(a, &total, j);
}

int am_accounting_save(const am_accounting *a, const char *path)
{
    const am_tensor_table *tensors = &a->plan->match.output;
    am_json j = {0};
    am_json_object(&j, NULL);
    for (int64_t i = 0; i < tensors->n; i++) {
        if (am_dtype_is_float(tensors->t[i].dtype)) {
            am_json_object(&j, tensors->t[i].name);
            am_json_string(&j, "dtype", am_dtype_name(tensors->t[i].dtype));
            am_json_int(&j, "elements", tensors->t[i].numel);
            write_account(a, &a->account[i], &j);
            am_json_end_object(&j);
        }
    }
    am_json_end_object(&j);
    am_json_newline(&j);
    char *partial = am_text("%s.partial", path);
    int rc = partial != NULL ? am_json_finish(&j) : AM_E_NOMEM;
    if (rc == 0 && unlink(partial) != 0 && errno != ENOENT) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot replace %s", partial);
    }
    AM_KEEP(am_file_dump(partial, j.text, (int64_t)j.length));
    if (rc == 0 && rename(partial, path) != 0) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot rename %s to %s", partial, path);
        (void)unlink(partial);
    }
    am_json_free(&j);
    free(partial);
    return rc;
}

void am_accounting_free(am_accounting *a)
{
    free(a->account);
    free(a->base);
    free(a->rounded[0]);
    free(a->rounded[1]);
    *a = (am_accounting){0};
}
