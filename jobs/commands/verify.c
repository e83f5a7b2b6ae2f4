/* allmerge verify CKPT: read everything again and compare it with the manifest.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "io/commit/digest.h"
#include "io/dtype.h"
#include "io/commit/manifest.h"
#include "jobs/command.h"
#include "jobs/sweep.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum { LISTED = 20 };

typedef struct verify {
    am_source source;
    am_digests digests;
    am_digest_stream stream;
    unsigned char *raw;  /* [AM_SWEEP_ELEMENTS * 8] */
    double *real;        /* [AM_SWEEP_ELEMENTS] */
    int64_t *non_finite; /* [tensors] */
} verify;

static int visit(void *self, int64_t tensor, int64_t lo, int64_t n)
{
    verify *v = self;
    const am_tensor *t = &v->source.tensors->t[tensor];
    int rc = v->source.load_raw(v->source.self, tensor, lo, n, v->raw);
    if (rc != 0) {
        return rc;
    }
    am_digest_stream_feed(&v->stream, &v->digests, tensor, t, lo, n, v->raw);
    if (am_dtype_is_float(t->dtype)) {
        am_dtype_to_f64(t->dtype, v->raw, n, v->real);
        for (int64_t i = 0; i < n; i++) {
            v->non_finite[tensor] += !isfinite(v->real[i]);
        }
    }
    return 0;
}

static int prepare(verify *v, am_ckpt *ckpt)
{
    int rc = 0;
    const am_tensor_table *table = am_ckpt_tensors(ckpt);
    v->raw = am_new(AM_SWEEP_ELEMENTS, 8, "verification");
    v->real = am_new(AM_SWEEP_ELEMENTS, sizeof *v->real, "verification");
    v->non_finite = am_new(table->n + 1, sizeof *v->non_finite, "verification");
    AM_KEEP(v->raw && v->real && v->non_finite ? 0 : AM_E_NOMEM);
    AM_KEEP(am_ckpt_source(ckpt, 0, &v->source));
    AM_KEEP(am_digests_create(table, &v->digests));
    AM_KEEP(am_digest_stream_create(&v->stream));
    return rc;
}

static void release(verify *v)
{
    free(v->raw);
    free(v->real);
    free(v->non_finite);
    am_digests_free(&v->digests);
    am_digest_stream_free(&v->stream);
}

/* ---- rank 0: the verdict ---- */

typedef struct judgement {
    int64_t faults;
    bool has_manifest;
    char text[AM_MESSAGE_BYTES / 2];
    size_t length;
} judgement;

static void fault(judgement *v, const char *name, const char *what)
{
    if (v->faults++ < LISTED && v->length < sizeof v->text) {
        v->length += (size_t)snprintf(v->text + v->length, sizeof v->text - v->length,
                                      "%s%.120s: %s", v->faults > 1 ? "; " : "", name, what);
    }
}

static bool same_kind(const am_tensor *a, const am_tensor *b)
{
    return a->dtype == b->dtype && a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

static int compare(const verify *v, const am_ckpt *ckpt, const am_manifest *m, judgement *out)
{
    const am_tensor_table *table = am_ckpt_tensors(ckpt);
    uint64_t meta;
    int rc = am_digest_meta(am_ckpt_meta(ckpt), &meta);
    for (int64_t i = 0; i < table->n; i++) {
        const am_tensor *t = &table->t[i];
        int64_t k = am_tensor_table_find(&m->tensors, t->name);
        if (k < 0) {
            fault(out, t->name, "not in the manifest");
        } else if (!same_kind(t, &m->tensors.t[k])) {
            fault(out, t->name, "another dtype or shape than in the manifest");
        } else if (am_digests_tensor(&v->digests, i) != m->digest[k]) {
            fault(out, t->name, "its values differ from the manifest");
        }
    }
    for (int64_t k = 0; k < m->tensors.n; k++) {
        if (am_tensor_table_find(table, m->tensors.t[k].name) < 0) {
            fault(out, m->tensors.t[k].name, "in the manifest, but missing here");
        }
    }
    for (int64_t k = 0; rc == 0 && k < m->files.n; k++) {
        uint64_t digest = 0;
        if (am_companion_digest(&m->files.item[k], am_ckpt_path(ckpt), &digest) != 0 ||
            digest != m->files.item[k].digest) {
            am_error_clear(); /* the list says it */
            fault(out, m->files.item[k].name, "differs from the manifest");
        }
    }
    if (rc == 0 && meta != m->meta) {
        fault(out, "metadata", "differs from the manifest");
    }
    return rc;
}

static int judge(const verify *v, const am_ckpt *ckpt, judgement *out)
{
    const am_tensor_table *table = am_ckpt_tensors(ckpt);
    am_manifest manifest = {0};
    bool is_folder = strcmp(am_ckpt_format(ckpt), "hf") == 0;
    int rc = am_manifest_read(am_ckpt_path(ckpt), is_folder, &manifest);
    out->has_manifest = rc == 0;
    if (rc == 0) {
        rc = compare(v, ckpt, &manifest, out);
        am_manifest_free(&manifest);
        return rc;
    }
    if (rc != AM_E_NOINPUT) {
        return rc;
    }
    for (int64_t i = 0; i < table->n; i++) {
        if (v->non_finite[i] > 0) {
            fault(out, table->t[i].name, "holds NaN or infinity");
        }
    }
    return 0;
}

static int report(const am_ckpt *ckpt, const verify *v, const judgement *verdict)
{
    int64_t non_finite = 0, n = am_ckpt_tensors(ckpt)->n;
    for (int64_t i = 0; i < n; i++) {
        non_finite += v->non_finite[i];
    }
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "path", am_ckpt_path(ckpt));
    am_json_bool(&j, "sound", verdict->faults == 0);
    am_json_bool(&j, "checksums", verdict->has_manifest);
    am_json_int(&j, "tensors", n);
    am_json_int(&j, "data_bytes", am_tensor_table_bytes(am_ckpt_tensors(ckpt)));
    am_json_int(&j, "non_finite_values", non_finite);
    am_json_int(&j, "faults", verdict->faults);
    am_json_end_object(&j);
    int rc = am_result_end(&j);
    if (rc == 0 && verdict->faults > 0) {
        rc = am_fail(AM_E_DATA, "%s is bad: %s%s", am_ckpt_path(ckpt), verdict->text,
                     verdict->faults > LISTED ? "; and more" : "");
    }
    if (rc == 0 && !verdict->has_manifest) {
        am_info("%s: no checksums (no manifest beside it); structure is sound, values are finite",
                am_ckpt_path(ckpt));
    } else if (rc == 0) {
        am_info("%s: %lld tensors equal the manifest%s", am_ckpt_path(ckpt), (long long)n,
                non_finite > 0 ? "; some values are NaN or infinite" : "");
    }
    return rc;
}

static int run_all(const am_args *args, int *exit_status)
{
    (void)exit_status;
    int rc = 0;
    MPI_Comm comm = am_world();
    am_ckpt *ckpt = NULL;
    verify v = {0};
    judgement verdict = {0};
    AM_TRY(am_ckpt_open_all(comm, args->positional[0], &ckpt));
    rc = prepare(&v, ckpt);
    AM_AGREE(comm);
    am_sweep sweep = {.tensors = am_ckpt_tensors(ckpt),
                      .n_sources = 1,
                      .source = {&v.source},
                      .visit = visit,
                      .self = &v,
                      .title = "verify"};
    AM_TRY(am_sweep_all(comm, &sweep));
    AM_TRY(am_digests_share_all(comm, &v.digests));
    AM_TRY(am_sum_i64_all(comm, v.non_finite, am_ckpt_tensors(ckpt)->n));
    if (am_world_rank() == 0) {
        rc = judge(&v, ckpt, &verdict);
        AM_KEEP(report(ckpt, &v, &verdict));
    }
    AM_AGREE(comm);
cleanup:
    release(&v);
    am_ckpt_close(&ckpt);
    return rc;
}

const am_command am_command_verify = {
    .name = "verify",
    .synopsis = "CKPT",
    .summary = "Read a checkpoint again and compare it with its manifest.",
    .help = "Without a manifest beside it, structure and finite values are checked. Bad: exit 65.",
    .min_positional = 1,
    .max_positional = 1,
    .run_all = run_all,
};
