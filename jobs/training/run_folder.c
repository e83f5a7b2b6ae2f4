/* The folder of a run: see run_folder.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "io/checkpoint/checkpoint.h"
#include "io/commit/identity.h"
#include "io/commit/publish.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"
#include "mpi/stop.h"

enum { LOCK_STEP_MS = 100, LOCK_STEPS = 30 };
static const int64_t most_text = (int64_t)64 << 20;

const char *const am_run_folder_subs[] = {".",     "rounds", "tuned", "joint", "plane",
                                          "state", "work",   "units", "stats", "round-stats",
                                          "twins", "layers", NULL};

int am_run_folder_file(const am_run_folder *folder, char *out, const char *name, ...)
{
    int at = snprintf(out, AM_RUN_PATH, "%s/", folder->path);
    if (at >= 0 && at < AM_RUN_PATH) {
        va_list arguments;
        va_start(arguments, name);
        int length = vsnprintf(out + at, (size_t)(AM_RUN_PATH - at), name, arguments);
        va_end(arguments);
        if (length >= 0 && length < AM_RUN_PATH - at) {
            return AM_OK;
        }
    }
    return am_fail(AM_E_CREATE, "the path of the run folder is too long: %.200s...", folder->path);
}

/* ---- local steps of rank 0 ---- */

static int make_folder(const char *path)
{
    if (mkdir(path, 0777) == 0) {
        return am_file_sync_folder(path); /* its name is to outlive a power loss, too */
    }
    int error = errno;
    struct stat status;
    if (error == EEXIST && stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode)) {
            return AM_OK;
        }
        return am_fail(AM_E_CREATE, "%s exists and is not a folder", path);
    }
    return am_fail_errno(AM_E_CREATE, error,
                         error == ENOENT ? "cannot make the run folder %s: make its parent first"
                                         : "cannot make the run folder %s",
                         path);
}

static int take_lock(am_run_folder *folder)
{
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(folder, path, ".lock");
    if (rc != AM_OK) {
        return rc;
    }
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (folder->lock < 0) {
        return am_fail_errno(AM_E_CREATE, errno, "cannot write in the run folder %s", folder->path);
    }
    /* Ranks outlive a killed launcher for about a second. */
    for (int step = 0; flock(folder->lock, LOCK_EX | LOCK_NB) != 0; step++) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return am_fail_errno(AM_E_CREATE, errno, "cannot lock %s", path);
        }
        if (step == LOCK_STEPS) {
            return am_fail(AM_E_CREATE,
                           "another job is running in %s: wait for it, or use another -o",
                           folder->path);
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_STEP_MS * 1000000L}, NULL);
    }
    return AM_OK;
}

/* Whole small file as a string; NULL (no error) if it does not exist. */
static int read_text(const char *path, char **out)
{
    int64_t bytes = 0;
    *out = NULL;
    const int rc = am_file_slurp(path, most_text, out, &bytes);
    if (rc == AM_E_NOINPUT) {
        am_error_clear();
        return AM_OK;
    }
    return rc;
}

static int write_text(const am_run_folder *folder, const char *name, const char *text)
{
    char path[AM_RUN_PATH], partial[AM_RUN_PATH];
    int rc = am_run_folder_file(folder, path, "%s", name);
    AM_KEEP(am_run_folder_file(folder, partial, "%s.partial", name));
    if (rc == AM_OK && unlink(partial) != 0 && errno != ENOENT) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", partial);
    }
    if (rc != AM_OK) {
        return rc;
    }
    rc = am_file_dump(partial, text, (int64_t)strlen(text));
    if (rc == AM_OK && rename(partial, path) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot write %s", path);
    }
    if (rc != AM_OK) {
        unlink(partial);
        return rc;
    }
    return am_file_sync_folder(path);
}

/* A name that a training job writes: the patterns of its checkpoints and their temporaries. */
static bool is_ours(const char *name)
{
    static const char *const pattern[] = {"*.h5",         "*.h5.*",    "result.json", "table.txt",
                                          "events.jsonl", "*.partial", "*.unit"};
    for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
        if (fnmatch(pattern[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

/* Models that no job.json explains are somebody's. */
static int refuse_unknown(const am_run_folder *folder)
{
    char path[AM_RUN_PATH];
    int rc = AM_OK;
    for (const char *const *sub = am_run_folder_subs; rc == AM_OK && *sub != NULL; sub++) {
        rc = am_run_folder_file(folder, path, "%s", *sub);
        DIR *open_folder = rc == AM_OK ? opendir(path) : NULL;
        for (struct dirent *entry = open_folder != NULL ? readdir(open_folder) : NULL;
             rc == AM_OK && entry != NULL; entry = readdir(open_folder)) {
            if (fnmatch("*.h5", entry->d_name, 0) == 0) {
                rc = am_fail(AM_E_CREATE,
                             "%s holds models (%s/%s) but no job.json, which says of what: use "
                             "another -o, or --overwrite to remove them and start over",
                             folder->path, *sub, entry->d_name);
            }
        }
        if (open_folder != NULL) {
            closedir(open_folder);
        }
    }
    return rc;
}

/* Does the file `input` lie in the folder `status` is of, under a name that a run would remove? */
static int refuse_input_in(const am_run_folder *folder, const struct stat *status,
                           const char *input, const char *path)
{
    struct stat parent;
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    char *above = slash == NULL   ? am_text("%s", ".")
                  : slash == path ? am_text("%s", "/")
                                  : am_text("%.*s", (int)(slash - path), path);
    int rc = above == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK && is_ours(name) && stat(above, &parent) == 0 &&
        parent.st_dev == status->st_dev && parent.st_ino == status->st_ino) {
        rc = am_fail(AM_E_CREATE,
                     "the input %s lies in the run folder %s, whose models are removed when a run "
                     "begins: use another -o",
                     input, folder->path);
    }
    free(above);
    return rc;
}

/* A run begins by removing what looks like one of its files (start_over): none of them may be what
 * it reads, neither by its name nor by what a link leads to. */
static int refuse_inputs(const am_run_folder *folder, const char *const *inputs)
{
    char sub_path[AM_RUN_PATH];
    struct stat status;
    int rc = AM_OK;
    for (const char *const *sub = am_run_folder_subs; rc == AM_OK && *sub != NULL; sub++) {
        rc = am_run_folder_file(folder, sub_path, "%s", *sub);
        if (rc != AM_OK || stat(sub_path, &status) != 0) {
            continue; /* there is none yet */
        }
        for (int i = 0; rc == AM_OK && inputs != NULL && inputs[i] != NULL; i++) {
            char *path = am_clean_path(inputs[i]), *end = realpath(inputs[i], NULL);
            rc = path == NULL ? AM_E_NOMEM : refuse_input_in(folder, &status, inputs[i], path);
            AM_KEEP(end == NULL ? AM_OK : refuse_input_in(folder, &status, inputs[i], end));
            free(path);
            free(end);
        }
    }
    return rc;
}

/* Is there a run of this job (*is_there), and is it finished? */
static int recognise(am_run_folder *folder, const char *identity, bool *is_there)
{
    char path[AM_RUN_PATH], what[1024], *there = NULL;
    int rc = am_run_folder_file(folder, path, "job.json");
    AM_KEEP(read_text(path, &there));
    *is_there = rc == AM_OK && there != NULL;
    if (rc == AM_OK && there == NULL) {
        rc = refuse_unknown(folder);
    }
    if (*is_there) {
        const int differences = am_identity_compare(there, identity, what, sizeof what);
        if (differences < 0) { /* damaged: nothing here can be trusted */
            am_warn("%s is damaged: starting over", path);
            am_error_clear();
            *is_there = false;
        } else if (differences > 0) {
            rc = am_fail(AM_E_CREATE,
                         "%s holds a run of another recipe or of other inputs: %s; use another -o, "
                         "or --overwrite to start over",
                         folder->path, what);
        }
    }
    AM_KEEP(am_run_folder_file(folder, path, "result.json"));
    folder->is_finished = rc == AM_OK && *is_there && access(path, F_OK) == 0;
    free(there);
    return rc;
}

/* The lock of the last model of a folder goes after the last sync of the folder: a power loss may
 * bring it back, and a finished run looks at no model again that would take it along. */
static void tidy_locks(const am_run_folder *folder)
{
    static const char suffix[] = ".lock";
    char path[AM_RUN_PATH];
    for (const char *const *sub = am_run_folder_subs; *sub != NULL; sub++) {
        DIR *open_folder =
            am_run_folder_file(folder, path, "%s", *sub) == AM_OK ? opendir(path) : NULL;
        for (struct dirent *entry = open_folder != NULL ? readdir(open_folder) : NULL;
             entry != NULL; entry = readdir(open_folder)) {
            const int model = (int)(strlen(entry->d_name) - strlen(suffix));
            if (fnmatch("*.h5.lock", entry->d_name, 0) == 0 &&
                am_run_folder_file(folder, path, "%s/%.*s", *sub, model, entry->d_name) == AM_OK) {
                am_publish_tidy(path, false);
            }
        }
        if (open_folder != NULL) {
            closedir(open_folder);
        }
    }
    am_error_clear();
}

static int remove_ours(const am_run_folder *folder, const char *sub)
{
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(folder, path, "%s", sub);
    DIR *open_folder = rc == AM_OK ? opendir(path) : NULL;
    if (open_folder == NULL) {
        return rc != AM_OK || errno == ENOENT
                   ? rc
                   : am_fail_errno(AM_E_CREATE, errno, "cannot look into %s", path);
    }
    for (struct dirent *entry = readdir(open_folder); rc == AM_OK && entry != NULL;
         entry = readdir(open_folder)) {
        if (is_ours(entry->d_name) && unlinkat(dirfd(open_folder), entry->d_name, 0) != 0) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s/%s", path, entry->d_name);
        }
    }
    closedir(open_folder);
    return rc;
}

/* Begin again. job.json goes first and comes last: whatever is found without it is not trusted. */
static int start_over(const am_run_folder *folder, const char *recipe, const char *identity)
{
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(folder, path, "job.json");
    if (rc == AM_OK && unlink(path) != 0 && errno != ENOENT) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", path);
    }
    AM_KEEP(am_file_sync_folder(path));
    for (const char *const *sub = am_run_folder_subs; *sub != NULL; sub++) {
        AM_KEEP(remove_ours(folder, *sub));
    }
    AM_KEEP(write_text(folder, "recipe.yml", recipe));
    AM_KEEP(write_text(folder, "job.json", identity));
    return rc;
}

static int open_here(am_run_folder *folder, const char *recipe, const char *identity,
                     const char *const *inputs, bool overwrite)
{
    bool is_there = false;
    char events[AM_RUN_PATH];
    int rc = refuse_inputs(folder, inputs);
    AM_KEEP(make_folder(folder->path));
    AM_KEEP(take_lock(folder));
    if (!overwrite) {
        AM_KEEP(recognise(folder, identity, &is_there));
    }
    if (rc == AM_OK && !is_there) {
        rc = start_over(folder, recipe, identity);
    }
    if (rc == AM_OK && folder->is_finished) {
        tidy_locks(folder);
    } else if (rc == AM_OK) {
        if (is_there) {
            am_info("%s: going on from the models that are there", folder->path);
        }
        AM_KEEP(am_run_folder_file(folder, events, "events.jsonl"));
        AM_KEEP(am_events_open(events));
    }
    return rc;
}

/* The file RUN/halt asks the job to stop. */
static int watch_halt(const am_run_folder *folder)
{
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(folder, path, "halt");
    AM_KEEP(am_stop_on_file(path));
    return rc;
}

/* ---- collective ---- */

int am_run_folder_open_all(MPI_Comm comm, const char *path, const char *job, const char *recipe,
                           const char *const *inputs, bool overwrite, am_run_folder *out)
{
    int rc = AM_OK, rank;
    char *identity = NULL;
    MPI_Comm_rank(comm, &rank);
    *out = (am_run_folder){.lock = -1};
    int length = snprintf(out->path, sizeof out->path, "%s", path);
    while (length > 1 && length < AM_RUN_PATH && out->path[length - 1] == '/') {
        out->path[--length] = '\0';
    }
    if (length < 1 || length >= AM_RUN_PATH) {
        rc = am_fail(AM_E_CREATE, "the run folder needs a name shorter than %d bytes", AM_RUN_PATH);
    }
    if (rank == 0) {
        AM_KEEP(am_identity_make(job, recipe, true, inputs, &identity));
        AM_KEEP(open_here(out, recipe, identity, inputs, overwrite));
    }
    free(identity);
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, &out->is_finished, sizeof out->is_finished));
    if (!out->is_finished) {
        rc = watch_halt(out);
        AM_AGREE(comm);
    }
    return AM_OK;
cleanup:
    am_run_folder_close(out);
    return rc;
}

void am_run_folder_close(am_run_folder *folder)
{
    am_events_close();
    if (folder->lock >= 0) {
        close(folder->lock); /* drops the lock; nothing was written through it */
    }
    folder->lock = -1;
}

int am_run_folder_result_all(MPI_Comm comm, const am_run_folder *folder)
{
    int rank, rc = AM_OK;
    char path[AM_RUN_PATH], *text = NULL, *table = NULL;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        rc = am_run_folder_file(folder, path, "table.txt");
        AM_KEEP(read_text(path, &table));
        AM_KEEP(am_run_folder_file(folder, path, "result.json"));
        AM_KEEP(read_text(path, &text));
        if (table != NULL) {
            am_info("\n%s", table);
        }
        if (text != NULL) {
            am_result(&(am_json){.text = text, .length = strlen(text)});
        }
    }
    free(text);
    free(table);
    return am_agree_all(comm, rc);
}

int am_run_folder_has_all(MPI_Comm comm, const am_run_folder *folder, const char *name, bool *has)
{
    char path[AM_RUN_PATH];
    int rank, rc = am_run_folder_file(folder, path, "%s", name);
    MPI_Comm_rank(comm, &rank);
    *has = rc == AM_OK && rank == 0 && access(path, F_OK) == 0;
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, has, sizeof *has));
cleanup:
    return rc;
}

int am_run_folder_has_sound_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                                bool *has)
{
    char path[AM_RUN_PATH];
    bool is_there = false;
    int rc = AM_OK;
    *has = false;
    AM_TRY(am_run_folder_has_all(comm, folder, name, &is_there));
    if (is_there) {
        AM_TRY(am_run_folder_file(folder, path, "%s", name)); /* the same on all ranks */
        AM_TRY(am_ckpt_check_all(comm, path, has));
        int rank;
        MPI_Comm_rank(comm, &rank);
        if (!*has) {
            am_warn("%s is damaged: it is not used", path);
        } else if (rank == 0) {
            am_publish_tidy(path, false);
        }
    }
cleanup:
    return rc;
}

int am_run_folder_sub_all(MPI_Comm comm, const am_run_folder *folder, const char *name)
{
    char path[AM_RUN_PATH];
    int rank, rc = am_run_folder_file(folder, path, "%s", name);
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        AM_KEEP(make_folder(path));
    }
    return am_agree_all(comm, rc);
}

int am_run_folder_remove_all(MPI_Comm comm, const am_run_folder *folder, const char *name)
{
    char path[AM_RUN_PATH];
    int rank, rc = am_run_folder_file(folder, path, "%s", name);
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        AM_KEEP(remove_ours(folder, name));
        if (rc == AM_OK && rmdir(path) != 0 && errno != ENOENT && errno != ENOTEMPTY) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", path);
        }
    }
    return am_agree_all(comm, rc);
}

int am_run_folder_text_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                           const char *text)
{
    int rank, rc = AM_OK;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        rc = write_text(folder, name, text);
    }
    return am_agree_all(comm, rc);
}
