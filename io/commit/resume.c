/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/resume.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "io/file.h"
#include "io/commit/identity.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "mpi/partition.h"

enum { FRAME_ROOM = 1 << 18 };

/* ---- the frame ---- */

/* Bytes [lo, hi) of file `file` that belong to a tensor. */
typedef struct taken {
    int64_t file, lo, hi;
} taken;

static int by_place(const void *a, const void *b)
{
    const taken *x = a, *y = b;
    return x->file != y->file ? (x->file > y->file) - (x->file < y->file)
                              : (x->lo > y->lo) - (x->lo < y->lo);
}

static int feed_range(int fd, const char *path, int64_t lo, int64_t hi, unsigned char *room,
                      XXH3_state_t *state)
{
    int rc = 0;
    for (int64_t at = lo; rc == 0 && at < hi; at += FRAME_ROOM) {
        const int64_t n = hi - at < FRAME_ROOM ? hi - at : FRAME_ROOM;
        rc = am_file_read(fd, path, room, n, at);
        if (rc == 0) {
            XXH3_64bits_update(state, room, (size_t)n);
        }
    }
    return rc;
}

/* One file: its size, and what lies between the tensors in[0..n). */
static int feed_file(const am_layout *layout, const char *root, int64_t file, const taken *in,
                     int64_t n, unsigned char *room, XXH3_state_t *state)
{
    int rc = 0;
    int64_t bytes = 0, at = 0;
    char *path = am_layout_path(layout, root, file);
    const int fd = path != NULL ? am_file_open(path, &bytes) : AM_E_NOMEM;
    rc = fd < 0 ? fd : 0;
    if (rc == 0) {
        XXH3_64bits_update(state, &bytes, sizeof bytes);
    }
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        rc = in[i].hi > bytes ? am_fail(AM_E_DATA, "%s is too short", path)
                              : feed_range(fd, path, at, in[i].lo, room, state);
        at = in[i].hi > at ? in[i].hi : at;
    }
    AM_KEEP(feed_range(fd, path, at, bytes, room, state));
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    return rc;
}

static int frame_digest(const am_layout *layout, const char *root, uint64_t *out)
{
    int rc = 0;
    const int64_t n = layout->tensors.n;
    XXH3_state_t *state = XXH3_createState();
    unsigned char *room = am_new(FRAME_ROOM, 1, root);
    taken *in = am_new(n + 1, sizeof *in, root);
    if (state == NULL || room == NULL || in == NULL) {
        rc = am_fail(AM_E_NOMEM, "out of memory for a checksum");
        goto cleanup;
    }
    XXH3_64bits_reset(state);
    for (int64_t i = 0; i < n; i++) {
        const am_extent *e = &layout->extent[i];
        in[i] = (taken){e->file, e->offset, e->offset + am_tensor_bytes(&layout->tensors.t[i])};
    }
    qsort(in, (size_t)n, sizeof *in, by_place);
    for (int64_t f = 0, first = 0; f < layout->n_files; f++) {
        int64_t end = first;
        while (end < n && in[end].file == f) {
            end++;
        }
        AM_TRY(feed_file(layout, root, f, in + first, end - first, room, state));
        first = end;
    }
    *out = XXH3_64bits_digest(state);
cleanup:
    XXH3_freeState(state);
    free(room);
    free(in);
    return rc;
}

/* ---- what is there ---- */

/* Take away what an interrupted commit put beside the tensors of a folder. */
static int remove_others(const char *partial, const am_layout *layout)
{
    struct stat st;
    if (lstat(partial, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return 0;
    }
    DIR *list = opendir(partial);
    if (list == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot look into %s", partial);
    }
    int rc = 0;
    for (struct dirent *e = readdir(list); rc == 0 && e != NULL; e = readdir(list)) {
        bool is_known = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        for (int64_t f = 0; f < layout->n_files && !is_known; f++) {
            is_known = strcmp(e->d_name, layout->files[f].name) == 0;
        }
        if (!is_known && unlinkat(dirfd(list), e->d_name, 0) != 0) {
            rc = am_fail_errno(AM_E_IO, errno, "cannot remove %s/%s", partial, e->d_name);
        }
    }
    closedir(list);
    return rc;
}

/* The layout in the plan's blob, if the files are as they were laid out. */
static int check_frame(const char *partial, const am_journal_plan *plan, am_layout *layout)
{
    uint64_t wanted = 0, found = 0;
    const int64_t n = plan->blob_bytes - (int64_t)sizeof wanted;
    if (n < 0) {
        return am_fail(AM_E_DATA, "the plan has no layout");
    }
    memcpy(&wanted, plan->blob, sizeof wanted);
    int rc = am_layout_unpack(plan->blob + sizeof wanted, n, layout);
    AM_KEEP(frame_digest(layout, partial, &found));
    if (rc == 0 && found != wanted) {
        rc = am_fail(AM_E_DATA, "%s is not as it was laid out", partial);
    }
    AM_KEEP(remove_others(partial, layout));
    return rc;
}

/* Whether any block is done: else there is nothing to lose. */
static int has_records(const char *journal, const am_journal_plan *plan, const am_layout *layout,
                       bool *has)
{
    int64_t units = 0, attempt = 0;
    *has = false;
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        units += am_part_units(layout->tensors.t[i].numel, AM_BLOCK);
    }
    int64_t *value = am_new(units + 1, sizeof *value, journal);
    int64_t *known = am_new(units + 1, sizeof *known, journal);
    int rc = value == NULL || known == NULL ? AM_E_NOMEM : 0;
    AM_KEEP(am_journal_unite(journal, plan->digest, units, value, known, &attempt));
    for (int64_t u = 0; rc == 0 && u < units; u++) {
        *has = *has || known[u] != 0;
    }
    free(value);
    free(known);
    return rc;
}

static int refuse_other(const char *partial, const char *what)
{
    return am_fail(AM_E_CREATE,
                   "%s is what an interrupted job left, and this job is another one: %s; run that "
                   "job again, or add --fresh to start over",
                   partial, what);
}

int am_resume_find(const char *partial, const char *journal, const char *identity, bool fresh,
                   am_resume_state *state, am_layout *layout)
{
    int rc = 0;
    bool has = false;
    char what[1024];
    am_journal_plan plan = {0};
    *state = (am_resume_state){.attempt = 1, .has_journal = true};
    if (fresh) {
        return 0;
    }
    rc = am_journal_read_plan(journal, &plan);
    if (rc == AM_E_NOINPUT) {
        return 0;
    }
    AM_TRY(rc);
    rc = check_frame(partial, &plan, layout);
    if (rc == AM_E_DATA || rc == AM_E_NOINPUT) {
        am_warn("cannot go on with %s: %s; starting over", partial, am_error_message());
        am_error_clear();
        am_layout_free(layout);
        rc = 0;
        goto cleanup;
    }
    AM_TRY(rc);
    const int differences = am_identity_compare(plan.identity, identity, what, sizeof what);
    AM_TRY(differences < 0 ? differences : 0);
    AM_TRY(has_records(journal, &plan, layout, &has));
    if (has && differences > 0) {
        rc = refuse_other(partial, what);
        goto cleanup;
    }
    state->is_resumed = has;
    state->plan = plan.digest;
    if (!has) {
        am_layout_free(layout);
    }
cleanup:
    am_journal_plan_free(&plan);
    if (rc != 0) {
        am_layout_free(layout);
    }
    return rc;
}

int am_resume_begin(const char *partial, const char *journal, const char *identity,
                    const am_layout *layout, am_resume_state *state)
{
    int rc = 0;
    char *packed = NULL;
    int64_t n = 0;
    uint64_t frame = 0;
    am_journal_plan plan = {0};
    AM_TRY(frame_digest(layout, partial, &frame));
    AM_TRY(am_layout_pack(layout, &packed, &n));
    plan.blob_bytes = n + (int64_t)sizeof frame;
    plan.blob = am_new(plan.blob_bytes, 1, "a journal");
    plan.identity = am_text("%s", identity);
    if (plan.blob == NULL || plan.identity == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    memcpy(plan.blob, &frame, sizeof frame);
    memcpy(plan.blob + sizeof frame, packed, (size_t)n);
    AM_TRY(am_journal_write_plan(journal, &plan));
    state->plan = plan.digest;
cleanup:
    free(packed);
    am_journal_plan_free(&plan);
    return rc;
}
