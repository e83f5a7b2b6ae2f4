/* Checkpoints through the C interface: what is stored is loaded, on any cut, in any format; what is
 * refused leaves nothing behind. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/checkpoint/checkpoint.h"
#include "io/dtype.h"
#include "mpi/agree.h"
#include "mpi/partition.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

static const char *const endings[] = {"x.h5", "x.safetensors", "x"};
enum { FORMATS = 3 };

/* A value that every dtype here holds exactly. */
static double value_at(int64_t tensor, int64_t i)
{
    return (double)((tensor * 31 + i) % 120);
}

static void make_table(am_tensor_table *t, int64_t large)
{
    *t = (am_tensor_table){0};
    int rc = 0;
    rc |= am_tensor_table_add(t, "a/b%2F.weight", AM_DTYPE_F32, 2, (int64_t[]){large, 1});
    rc |= am_tensor_table_add(t, "half", AM_DTYPE_F16, 2, (int64_t[]){33, 7});
    rc |= am_tensor_table_add(t, "brain", AM_DTYPE_BF16, 1, (int64_t[]){101});
    rc |= am_tensor_table_add(t, "real", AM_DTYPE_F64, 3, (int64_t[]){2, 3, 5});
    rc |= am_tensor_table_add(t, "scalar", AM_DTYPE_F32, 0, NULL);
    rc |= am_tensor_table_add(t, "empty", AM_DTYPE_F32, 2, (int64_t[]){0, 4});
    rc |= am_tensor_table_add(t, "ids", AM_DTYPE_I64, 1, (int64_t[]){9});
    rc |= am_tensor_table_add(t, "flags", AM_DTYPE_BOOL, 1, (int64_t[]){5});
    rc |= am_tensor_table_add(t, "bytes", AM_DTYPE_U8, 1, (int64_t[]){3});
    rc |= am_tensor_table_add(t, ".", AM_DTYPE_F32, 1, (int64_t[]){2});
    rc |= am_tensor_table_finish(t);
    AM_CHECK_I64(rc, 0);
}

static double expected(const am_tensor *t, int64_t tensor, int64_t i)
{
    double x = value_at(tensor, i);
    return t->dtype == AM_DTYPE_BOOL ? x != 0 : x;
}

/* Store this rank's slice in pieces of `piece` elements. */
static int store_slice(const am_sink *sink, const am_slice *slice, int64_t piece)
{
    int rc = 0;
    double *x = malloc((size_t)piece * sizeof *x);
    for (int64_t s = 0; s < slice->n && rc == 0; s++) {
        const am_span *span = &slice->spans[s];
        for (int64_t lo = span->lo; lo < span->hi && rc == 0; lo += piece) {
            int64_t n = span->hi - lo < piece ? span->hi - lo : piece;
            for (int64_t i = 0; i < n; i++) {
                x[i] = value_at(span->tensor, lo + i);
            }
            rc = sink->store(sink->self, span->tensor, lo, n, x);
        }
        if (rc == 0 && s % 2 == 1) {
            rc = sink->flush(sink->self);
        }
    }
    free(x);
    return rc;
}

static int write_all(const char *path, const am_tensor_table *t, int64_t unit, int64_t piece,
                     const am_ckpt_options *options)
{
    am_ckpt_writer *w = NULL;
    am_sink sink;
    am_slice slice = {0};
    int rc = am_ckpt_create_all(am_world(), path, t, options, &w);
    if (rc != 0) {
        return rc;
    }
    am_ckpt_sink(w, &sink);
    rc = am_slice_make(t, unit, am_world_size(), am_world_rank(), &slice);
    if (rc == 0) {
        rc = store_slice(&sink, &slice, piece);
    }
    am_slice_free(&slice);
    return am_ckpt_publish_all(&w, rc);
}

static int64_t count_wrong(const am_source *s, int64_t tensor, int64_t lo, int64_t n)
{
    double *x = malloc((size_t)(n + 1) * sizeof *x);
    const am_tensor *t = &s->tensors->t[tensor];
    int64_t wrong = s->load(s->self, tensor, lo, n, x) != 0;
    for (int64_t i = 0; i < n && wrong == 0; i++) {
        wrong += x[i] != expected(t, tensor, lo + i);
    }
    free(x);
    return wrong;
}

/* Whole tensors, directly, then in staged batches that are larger and smaller than the buffer. */
static void check_values(am_ckpt *ckpt)
{
    am_source s;
    const am_tensor_table *t = am_ckpt_tensors(ckpt);
    AM_CHECK_OK(am_ckpt_source(ckpt, 0, &s));
    for (int64_t i = 0; i < t->n; i++) {
        AM_CHECK_I64(count_wrong(&s, i, 0, t->t[i].numel), 0);
    }
    for (int64_t buffer = 1 << 10; buffer <= 1 << 24; buffer <<= 7) {
        am_span spans[3][16];
        AM_CHECK_OK(am_ckpt_source(ckpt, buffer, &s));
        for (int64_t batch = 0; batch < 4; batch++) { /* batch b is loaded after b + 1 is staged */
            for (int64_t i = 0; batch < 3 && i < t->n; i++) {
                int64_t numel = t->t[i].numel;
                spans[batch][i] = (am_span){i, numel * batch / 3, numel * (batch + 1) / 3};
            }
            if (batch < 3) {
                AM_CHECK_OK(s.stage(s.self, spans[batch], t->n));
            }
            for (int64_t i = 0; batch > 0 && i < t->n; i++) {
                const am_span *p = &spans[batch - 1][i];
                int64_t middle = p->lo + (p->hi - p->lo) / 2;
                AM_CHECK_I64(count_wrong(&s, i, p->lo, middle - p->lo), 0);
                AM_CHECK_I64(count_wrong(&s, i, middle, p->hi - middle), 0);
            }
        }
    }
}

static void round_trip(void)
{
    am_tensor_table t;
    am_meta meta = {0};
    make_table(&t, 2 * AM_BLOCK + 12345);
    AM_CHECK_OK(am_meta_set(&meta, "format", "pt"));
    AM_CHECK_OK(am_meta_set(&meta, "%odd", "line\nbreak \xc3\xa9"));
    AM_CHECK_OK(am_meta_set(&meta, "none", ""));
    am_ckpt_options options = {.meta = &meta, .shard_bytes = 1 << 20, .recipe = "x: 1"};
    for (int f = 0; f < FORMATS; f++) {
        am_ckpt *ckpt = NULL;
        const char *path = am_test_path(endings[f]);
        AM_CHECK_OK(write_all(path, &t, f == 1 ? AM_BLOCK : AM_CHUNK, 1 << 18, &options));
        if (AM_CHECK_OK(am_ckpt_open_all(am_world(), path, &ckpt))) {
            AM_CHECK_I64(am_ckpt_tensors(ckpt)->n, t.n);
            for (int64_t i = 0; i < t.n; i++) {
                AM_CHECK_TEXT(am_ckpt_tensors(ckpt)->t[i].name, t.t[i].name);
                AM_CHECK_TEXT(am_tensor_describe(&am_ckpt_tensors(ckpt)->t[i]),
                              am_tensor_describe(&t.t[i]));
            }
            AM_CHECK_I64(am_ckpt_meta(ckpt)->n, 3);
            for (int64_t i = 0; i < meta.n; i++) {
                const char *got = am_meta_get(am_ckpt_meta(ckpt), meta.key[i]);
                AM_CHECK_TEXT(got != NULL ? got : "(missing)", meta.value[i]);
            }
            check_values(ckpt);
        }
        am_ckpt_close(&ckpt);
    }
    am_meta_free(&meta);
    am_tensor_table_free(&t);
}

/* Rank 0's view of a file, as text in a static buffer. */
static char *slurp(const char *path)
{
    static char text[2][1 << 16];
    static int turn;
    char *to = text[turn ^= 1];
    FILE *f = fopen(path, "rb");
    size_t n = f != NULL ? fread(to, 1, sizeof text[0] - 1, f) : 0;
    to[n] = '\0';
    if (f != NULL) {
        fclose(f);
    }
    return to;
}

/* Digests do not depend on how the tensors were cut: whole blocks (made while writing), chunks and
 * odd pieces (made by reading back). */
static void digests_of_any_cut(void)
{
    static const int64_t piece[] = {AM_BLOCK, 1 << 18, 77777};
    static const int64_t unit[] = {AM_BLOCK, AM_CHUNK, AM_CHUNK};
    am_tensor_table t;
    make_table(&t, 2 * AM_BLOCK + 12345);
    for (int k = 0; k < 3; k++) {
        char name[32];
        snprintf(name, sizeof name, "cut%d.h5", k);
        AM_CHECK_OK(write_all(am_test_path(name), &t, unit[k], piece[k], NULL));
    }
    if (am_world_rank() == 0) {
        char *whole = slurp(am_test_path("cut0.h5.manifest.json"));
        AM_CHECK_CONTAINS(whole, "content_xxh3");
        AM_CHECK_TEXT(slurp(am_test_path("cut1.h5.manifest.json")), whole);
        AM_CHECK_TEXT(slurp(am_test_path("cut2.h5.manifest.json")), whole);
    }
    am_tensor_table_free(&t);
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void check_nothing_left(const char *name)
{
    char text[64];
    if (am_world_rank() != 0) {
        return;
    }
    AM_CHECK(!exists(am_test_path(name)));
    for (int i = 0; i < 3; i++) {
        static const char *const suffix[] = {".partial", ".lock", ".manifest.json"};
        snprintf(text, sizeof text, "%s%s", name, suffix[i]);
        AM_CHECK(!exists(am_test_path(text)));
    }
}

static void refusals(void)
{
    am_tensor_table t;
    am_ckpt_writer *w = NULL, *second = NULL;
    char path[4096]; /* am_test_path's buffers are reused */
    make_table(&t, 100);
    for (int f = 0; f < FORMATS; f++) {
        snprintf(path, sizeof path, "%s", am_test_path(endings[f]));
        /* an error of one rank: nothing appears */
        char name[32];
        snprintf(name, sizeof name, "never_%s", endings[f]);
        AM_CHECK_OK(am_ckpt_create_all(am_world(), am_test_path(name), &t, NULL, &w));
        int mine = am_world_rank() == am_world_size() - 1 ? am_fail(AM_E_NUMERIC, "it broke") : 0;
        AM_CHECK_CODE(am_ckpt_publish_all(&w, mine), AM_E_NUMERIC);
        AM_CHECK_TEXT(am_error_message(), "it broke");
        am_error_clear();
        check_nothing_left(name);
        /* not everything stored */
        AM_CHECK_OK(am_ckpt_create_all(am_world(), am_test_path(name), &t, NULL, &w));
        AM_CHECK_CODE(am_ckpt_publish_all(&w, 0), AM_E_BUG);
        am_error_clear();
        check_nothing_left(name);
        /* exists, is an input, replaced when asked */
        const char *const inputs[] = {path, NULL};
        am_ckpt_options replace = {.overwrite = true}, self = {.overwrite = true, .inputs = inputs};
        AM_CHECK_OK(write_all(path, &t, AM_BLOCK, 64, &replace));
        AM_CHECK_CODE(am_ckpt_create_all(am_world(), path, &t, NULL, &w), AM_E_CREATE);
        AM_CHECK_CONTAINS(am_error_message(), "--overwrite");
        am_error_clear();
        AM_CHECK_CODE(am_ckpt_create_all(am_world(), path, &t, &self, &w), AM_E_CREATE);
        AM_CHECK_CONTAINS(am_error_message(), "is also an input");
        am_error_clear();
        AM_CHECK_OK(write_all(path, &t, AM_BLOCK, 64, &replace));
    }
    /* a second writer is refused, with the first one's name */
    snprintf(path, sizeof path, "%s", am_test_path("held.h5"));
    AM_CHECK_OK(am_ckpt_create_all(am_world(), path, &t, NULL, &w));
    AM_CHECK_CODE(am_ckpt_create_all(am_world(), path, &t, NULL, &second), AM_E_CREATE);
    AM_CHECK_CONTAINS(am_error_message(), "is being written by process");
    am_error_clear();
    AM_CHECK(am_world_rank() != 0 || exists(am_test_path("held.h5.partial")));
    AM_CHECK_CODE(am_ckpt_publish_all(&w, am_fail(AM_E_STOPPED, "stop")), AM_E_STOPPED);
    am_error_clear();
    check_nothing_left("held.h5");
    /* a folder with other things in it is not replaced */
    if (am_world_rank() == 0) {
        char other[4096];
        snprintf(other, sizeof other, "%s/config.json", am_test_path("x"));
        FILE *f = fopen(other, "w");
        AM_CHECK(f != NULL && fclose(f) == 0);
    }
    MPI_Barrier(am_world());
    am_ckpt_options replace = {.overwrite = true};
    AM_CHECK_CODE(am_ckpt_create_all(am_world(), am_test_path("x"), &t, &replace, &w), AM_E_CREATE);
    AM_CHECK_CONTAINS(am_error_message(), "config.json");
    am_error_clear();
    AM_CHECK_CODE(am_ckpt_create_all(am_world(), am_test_path("no/x.h5"), &t, NULL, &w),
                  AM_E_CREATE);
    am_error_clear();
    am_tensor_table_free(&t);
}

/* What a killed job leaves is cleared by the next one. */
static void stale_partial(void)
{
    am_tensor_table t;
    make_table(&t, 100);
    if (am_world_rank() == 0) {
        FILE *f = fopen(am_test_path("stale.h5.partial"), "w");
        AM_CHECK(f != NULL && fputs("half", f) >= 0 && fclose(f) == 0);
        f = fopen(am_test_path("stale.h5.lock"), "w");
        AM_CHECK(f != NULL && fputs("process 1 on nowhere", f) >= 0 && fclose(f) == 0);
    }
    MPI_Barrier(am_world());
    AM_CHECK_OK(write_all(am_test_path("stale.h5"), &t, AM_BLOCK, 64, NULL));
    AM_CHECK(exists(am_test_path("stale.h5")));
    AM_CHECK(!exists(am_test_path("stale.h5.partial")) && !exists(am_test_path("stale.h5.lock")));
    am_tensor_table_free(&t);
}

static void save_and_load(void)
{
    am_tensor_table t = {0}, other = {0};
    enum { A = 70001, B = 12 };
    static float params[A + B], back[A + B];
    static double wide[A + B];
    const int64_t offset[2] = {B, 0}; /* not the order of the names */
    AM_CHECK_OK(am_tensor_table_add(&t, "a", AM_DTYPE_F32, 1, (int64_t[]){A}));
    AM_CHECK_OK(am_tensor_table_add(&t, "b", AM_DTYPE_F32, 2, (int64_t[]){3, 4}));
    AM_CHECK_OK(am_tensor_table_finish(&t));
    for (int i = 0; i < A + B; i++) {
        params[i] = (float)i / 7.0f;
    }
    const char *path = am_test_path("params.h5");
    AM_CHECK_OK(am_ckpt_save_all(am_world(), path, &t, offset, params, NULL));
    AM_CHECK_OK(am_ckpt_load_all(am_world(), path, &t, offset, back));
    AM_CHECK(memcmp(params, back, sizeof params) == 0);
    AM_CHECK_OK(am_tensor_table_copy(&t, &other));
    other.t[0].dtype = other.t[1].dtype = AM_DTYPE_F64;
    AM_CHECK_OK(am_ckpt_load_all(am_world(), path, &other, offset, wide));
    int64_t wrong = 0;
    for (int i = 0; i < A + B; i++) {
        wrong += wide[i] != (double)params[i];
    }
    AM_CHECK_I64(wrong, 0);
    am_tensor_table_free(&other);
    /* every mismatch is named at once */
    AM_CHECK_OK(am_tensor_table_add(&other, "a", AM_DTYPE_F32, 1, (int64_t[]){A - 1}));
    AM_CHECK_OK(am_tensor_table_add(&other, "c", AM_DTYPE_F32, 1, (int64_t[]){2}));
    AM_CHECK_OK(am_tensor_table_finish(&other));
    AM_CHECK_CODE(am_ckpt_load_all(am_world(), path, &other, offset, back), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "a: another shape");
    AM_CHECK_CONTAINS(am_error_message(), "c: missing");
    am_error_clear();
    am_tensor_table_free(&other);
    am_tensor_table_free(&t);
}

static const am_test tests[] = {AM_TEST(round_trip), AM_TEST(digests_of_any_cut), AM_TEST(refusals),
                                AM_TEST(stale_partial), AM_TEST(save_and_load)};
AM_TEST_MAIN("ckpt", tests)
