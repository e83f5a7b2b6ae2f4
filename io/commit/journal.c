/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"

typedef struct am_journal_record {
    int64_t unit;
    uint64_t digest, check;
} am_journal_record;

/* plan file: this, the identity, the blob */
typedef struct plan_head {
    char magic[16];
    int64_t identity_bytes, blob_bytes;
    uint64_t digest; /* of the head with digest 0, the identity and the blob */
} plan_head;

static const char magic[16] = "allmerge plan 1";
static const char record_names[] = "[0-9]*-[0-9]*";
static const int64_t largest_plan = 1LL << 32;
enum { READ_RECORDS = 4096 };

static uint64_t check_of(uint64_t plan, const am_journal_record *r)
{
    return XXH3_64bits_withSeed(r, offsetof(am_journal_record, check), plan);
}

/* ---- the plan ---- */

static int digest_plan(const plan_head *head, const char *identity, const char *blob, uint64_t *out)
{
    plan_head h = *head;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for a checksum");
    }
    h.digest = 0;
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, &h, sizeof h);
    XXH3_64bits_update(state, identity, (size_t)h.identity_bytes);
    XXH3_64bits_update(state, blob, (size_t)h.blob_bytes);
    *out = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return 0;
}

/* Take the text of a plan file apart. Returns AM_E_NOINPUT without a message if it is damaged. */
static int parse_plan(const char *text, int64_t n, am_journal_plan *out)
{
    plan_head head;
    uint64_t digest = 0;
    if (n < (int64_t)sizeof head) {
        return AM_E_NOINPUT;
    }
    memcpy(&head, text, sizeof head);
    const int64_t left = n - (int64_t)sizeof head;
    if (memcmp(head.magic, magic, sizeof magic) != 0 || head.identity_bytes < 0 ||
        head.blob_bytes < 0 || head.identity_bytes > left ||
        head.blob_bytes != left - head.identity_bytes) {
        return AM_E_NOINPUT;
    }
    const char *identity = text + sizeof head, *blob = identity + head.identity_bytes;
    int rc = digest_plan(&head, identity, blob, &digest);
    if (rc != 0 || digest != head.digest) {
        return rc != 0 ? rc : AM_E_NOINPUT;
    }
    out->identity = am_text("%.*s", (int)head.identity_bytes, identity);
    out->blob = am_new(head.blob_bytes + 1, 1, "a journal");
    if (out->identity == NULL || out->blob == NULL) {
        return AM_E_NOMEM;
    }
    memcpy(out->blob, blob, (size_t)head.blob_bytes);
    out->blob_bytes = head.blob_bytes;
    out->digest = digest;
    return 0;
}

int am_journal_read_plan(const char *folder, am_journal_plan *out)
{
    int rc = 0;
    char *text = NULL;
    int64_t n = 0;
    struct stat st;
    *out = (am_journal_plan){0};
    char *path = am_text("%s/plan", folder);
    if (path == NULL) {
        return AM_E_NOMEM;
    }
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > largest_plan) {
        rc = AM_E_NOINPUT; /* ordinary: no message */
        goto cleanup;
    }
    AM_TRY(am_file_slurp(path, largest_plan, &text, &n));
    AM_TRY(parse_plan(text, n, out));
cleanup:
    if (rc != 0) {
        am_journal_plan_free(out);
    }
    free(text);
    free(path);
    return rc;
}

static int write_new(const char *path, const plan_head *head, const am_journal_plan *plan)
{
    const int fd = am_file_create(path);
    if (fd < 0) {
        return fd;
    }
    const int64_t at = (int64_t)sizeof *head;
    int rc = am_file_write(fd, path, head, at, 0);
    AM_KEEP(am_file_write(fd, path, plan->identity, head->identity_bytes, at));
    AM_KEEP(am_file_write(fd, path, plan->blob, plan->blob_bytes, at + head->identity_bytes));
    const int closed = am_file_sync_close(fd, path);
    return rc != 0 ? rc : closed;
}

/* Give a new file its name, for good. */
static int put_in_place(const char *from, const char *to)
{
    if (rename(from, to) != 0) {
        const int rc = am_fail_errno(AM_E_IO, errno, "cannot rename %s to %s", from, to);
        unlink(from);
        return rc;
    }
    return am_file_sync_folder(to);
}

int am_journal_write_plan(const char *folder, am_journal_plan *plan)
{
    int rc = 0;
    plan_head head = {.identity_bytes = (int64_t)strlen(plan->identity),
                      .blob_bytes = plan->blob_bytes};
    memcpy(head.magic, magic, sizeof magic);
    char *path = am_text("%s/plan", folder), *partial = am_text("%s/plan.partial", folder);
    rc = path == NULL || partial == NULL ? AM_E_NOMEM : 0;
    AM_KEEP(digest_plan(&head, plan->identity, plan->blob, &head.digest));
    plan->digest = head.digest;
    if (rc == 0 && mkdir(folder, 0777) != 0 && errno != EEXIST) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot make %s", folder);
    }
    AM_KEEP(am_file_sync_folder(folder));
    if (rc == 0) {
        rc = write_new(partial, &head, plan);
        AM_KEEP(put_in_place(partial, path));
        if (rc != 0) {
            unlink(partial);
        }
    }
    free(path);
    free(partial);
    return rc;
}

void am_journal_plan_free(am_journal_plan *plan)
{
    free(plan->identity);
    free(plan->blob);
    *plan = (am_journal_plan){0};
}

/* ---- records of all ranks ---- */

/* A unit with two different digests is not done: known -1. */
static void take_record(const am_journal_record *r, uint64_t plan, int64_t units, int64_t *value,
                        int64_t *known)
{
    if (r->check != check_of(plan, r) || r->unit < 0 || r->unit >= units) {
        return;
    }
    if (known[r->unit] == 0) {
        known[r->unit] = 1;
        value[r->unit] = (int64_t)r->digest;
    } else if (value[r->unit] != (int64_t)r->digest) {
        known[r->unit] = -1;
    }
}

static int read_records(const char *path, uint64_t plan, int64_t units, int64_t *value,
                        int64_t *known, am_journal_record *room)
{
    int64_t bytes = 0;
    const int64_t one = (int64_t)sizeof *room;
    const int fd = am_file_open(path, &bytes);
    int rc = 0;
    if (fd < 0) {
        return fd;
    }
    for (int64_t left = bytes / one, at = 0; rc == 0 && left > 0;) {
        const int64_t n = left < READ_RECORDS ? left : READ_RECORDS;
        rc = am_file_read(fd, path, room, n * one, at);
        for (int64_t i = 0; rc == 0 && i < n; i++) {
            take_record(&room[i], plan, units, value, known);
        }
        left -= n;
        at += n * one;
    }
    close(fd);
    return rc;
}

/* Visit the record files of a journal: unite them, or (room NULL) remove all but `keep`. */
static int visit_files(const char *folder, uint64_t plan, int64_t units, int64_t *value,
                       int64_t *known, int64_t *attempt, am_journal_record *room, const char *keep)
{
    int rc = 0;
    DIR *list = opendir(folder);
    if (list == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot look into %s", folder);
    }
    for (struct dirent *e = readdir(list); rc == 0 && e != NULL; e = readdir(list)) {
        if (fnmatch(record_names, e->d_name, 0) != 0) {
            continue;
        }
        char *path = am_text("%s/%s", folder, e->d_name);
        rc = path == NULL ? AM_E_NOMEM : 0;
        if (rc == 0 && room != NULL) {
            const int64_t number = strtoll(e->d_name, NULL, 10);
            *attempt = number >= *attempt ? number + 1 : *attempt;
            rc = read_records(path, plan, units, value, known, room);
        } else if (rc == 0 && strcmp(e->d_name, keep) != 0 && unlink(path) != 0) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", path);
        }
        free(path);
    }
    closedir(list);
    return rc;
}

int am_journal_unite(const char *folder, uint64_t plan, int64_t units, int64_t *value,
                     int64_t *known, int64_t *attempt)
{
    am_journal_record *room = am_new(READ_RECORDS, sizeof *room, "a journal");
    int rc = room == NULL ? AM_E_NOMEM : 0;
    *attempt = 1;
    AM_KEEP(visit_files(folder, plan, units, value, known, attempt, room, ""));
    for (int64_t u = 0; u < units; u++) {
        if (known[u] < 0) {
            known[u] = value[u] = 0;
        }
    }
    free(room);
    return rc;
}

int am_journal_compact(const char *folder, uint64_t plan, int64_t units, const int64_t *value,
                       const int64_t *known, int64_t attempt)
{
    int rc = 0;
    char name[64];
    am_journal united = {.fd = -1};
    snprintf(name, sizeof name, "%06" PRId64 "-%06d", attempt, 0);
    AM_TRY(am_journal_open(folder, plan, attempt, 0, 0, &united));
    for (int64_t u = 0; rc == 0 && u < units; u++) {
        rc = known[u] != 0 ? am_journal_add(&united, u, (uint64_t)value[u]) : 0;
    }
    AM_TRY(rc);
    AM_TRY(am_journal_save(&united));
    AM_TRY(visit_files(folder, 0, 0, NULL, NULL, NULL, NULL, name));
cleanup:
    am_journal_close(&united);
    return rc;
}

/* Only names that a journal has. The folder of another kind is left alone. */
int am_journal_remove(const char *folder)
{
    static const char *const names[] = {"plan", "plan.partial"};
    int rc = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = am_text("%s/%s", folder, names[i]);
        AM_KEEP(path == NULL ? AM_E_NOMEM : 0);
        if (rc == 0 && unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", path);
        }
        free(path);
    }
    if (rc == 0 && access(folder, F_OK) == 0) {
        rc = visit_files(folder, 0, 0, NULL, NULL, NULL, NULL, "");
        if (rc == 0 && rmdir(folder) != 0 && errno != ENOENT) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", folder);
        }
    }
    return rc;
}

/* ---- records of this rank ---- */

int am_journal_open(const char *folder, uint64_t plan, int64_t attempt, int rank, double every,
                    am_journal *out)
{
    *out = (am_journal){.plan = plan, .attempt = attempt, .rank = rank, .fd = -1};
    am_pace_start(&out->pace, every);
    out->folder = am_text("%s", folder);
    return out->folder != NULL ? 0 : AM_E_NOMEM;
}

int am_journal_add(am_journal *journal, int64_t unit, uint64_t digest)
{
    if (journal->n == journal->capacity) {
        const int64_t capacity = journal->capacity > 0 ? 2 * journal->capacity : 64;
        am_journal_record *grown =
            realloc(journal->waiting, (size_t)capacity * sizeof *journal->waiting);
        if (grown == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for a journal");
        }
        journal->waiting = grown;
        journal->capacity = capacity;
    }
    am_journal_record r = {.unit = unit, .digest = digest};
    r.check = check_of(journal->plan, &r);
    journal->waiting[journal->n++] = r;
    return 0;
}

int am_journal_save(am_journal *journal)
{
    int rc = 0;
    if (journal->n == 0) {
        return 0;
    }
    char *path =
        am_text("%s/%06" PRId64 "-%06" PRId64, journal->folder, journal->attempt, journal->rank);
    rc = path == NULL ? AM_E_NOMEM : 0;
    const bool is_new = journal->fd < 0;
    if (rc == 0 && is_new) {
        journal->fd = am_file_create(path);
        rc = journal->fd < 0 ? journal->fd : 0;
    }
    const int64_t bytes = journal->n * (int64_t)sizeof *journal->waiting;
    AM_KEEP(am_file_write(journal->fd, path, journal->waiting, bytes, journal->at));
    if (rc == 0 && fdatasync(journal->fd) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot sync %s", path);
    }
    if (rc == 0 && is_new) {
        rc = am_file_sync_folder(path);
    }
    if (rc == 0) {
        journal->at += bytes;
        journal->saved += journal->n;
        journal->n = 0;
    }
    free(path);
    return rc;
}

void am_journal_close(am_journal *journal)
{
    if (journal->fd >= 0) {
        close(journal->fd);
    }
    free(journal->waiting);
    free(journal->folder);
    *journal = (am_journal){.fd = -1};
}
