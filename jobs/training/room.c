/* Room for a run: see room.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/room.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include "jobs/stats/sums.h"
#include "jobs/training/iterate/model_stats.h"
#include "mpi/agree.h"
#include "mpi/param.h"

enum { FILE_BYTES = 16384 }; /* of a checkpoint beside its tensors, with its manifest */

static int64_t model_bytes(const am_iterate *it)
{
    return it->suite.trunk.n * am_suite_real_bytes(&it->suite) + FILE_BYTES;
}

static int64_t heads_bytes(const am_iterate *it)
{
    int64_t n = 0;
    for (int i = 0; i < it->suite.n; i++) {
        n += it->suite.head[i].n;
    }
    return n * am_suite_real_bytes(&it->suite) + FILE_BYTES;
}

/* A saved state: the model, and the arrays of its optimiser. */
static int64_t state_bytes(const am_iterate *it, const am_train_section *section)
{
    return model_bytes(it) * (1 + it->suite.ops->state_arrays(&section->optim));
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Statistics of the models of every one-shot merge and of a round, and sums of those that are made.
 */
static int stats_bytes(const am_iterate *it, int64_t *bytes)
{
    const int64_t files = it->suite.n * (it->recipe->one_shot.n_epochs + 1);
    const int64_t sums = AM_SUMS_TURNS * (int64_t)it->suite.n_groups;
    const int rc = am_model_stats_bytes(it, bytes);
    *bytes = *bytes > 0 ? (files + sums) * (*bytes + FILE_BYTES) : 0;
    return rc;
}

int am_room_of_iterate(const am_iterate *it, int64_t *bytes)
{
    const am_train_recipe *r = it->recipe;
    const int64_t joint = am_train_recipe_joint_epochs(r);
    /* Of each alpha the newest, the best that each of them names, and the one that is written. */
    const int64_t kept = 2 * r->keep + 1;
    int64_t models = 3; /* base, one-shot, final */
    models += (int64_t)it->suite.n * r->one_shot.n_epochs;
    models += r->plane.is_given ? (int64_t)r->one_shot.n_methods * r->one_shot.n_epochs : 0;
    for (int m = 0; m < r->iterate.n_methods; m++) {
        const int64_t alphas = am_comparison_alphas(&r->iterate, &r->iterate.method[m]);
        for (int e = 0; e < r->iterate.n_epochs; e++) {
            const int64_t rounds = am_train_recipe_rounds(r, r->iterate.epochs[e]);
            models += alphas * (r->keep == 0 || kept > rounds ? rounds : kept);
        }
    }
    models += r->run_joint ? joint + 1 : 0;
    const int64_t tasks = 2 * it->suite.n * state_bytes(it, &r->finetune);
    const int64_t work = larger(tasks, 3 * larger(state_bytes(it, &r->base),
                                                  r->run_joint ? state_bytes(it, &r->joint) : 0));
    const int rc = stats_bytes(it, bytes);
    *bytes += models * model_bytes(it) + heads_bytes(it) + work;
    return rc;
}

int64_t am_room_of_twin(const am_iterate *it, int64_t made)
{
    const int64_t files = it->suite.n + 1; /* twins, router */
    return 2 * model_bytes(it) + heads_bytes(it) + made + files * FILE_BYTES;
}

int64_t am_room_of_regmean(const am_iterate *it)
{
    const int64_t layers = it->suite.net.n; /* a file each, together a model */
    return 3 * model_bytes(it) + heads_bytes(it) + layers * FILE_BYTES;
}

int64_t am_room_of_train(const am_iterate *it, const am_train_section *section)
{
    const int64_t states = it->recipe->divergence.rollbacks > 0 ? 4 : 3; /* one is written */
    return 2 * model_bytes(it) + heads_bytes(it) +
           larger(states * state_bytes(it, section), 3 * state_bytes(it, &it->recipe->base));
}

/* What the checkpoints in RUN/<sub> take on the disk. */
static int64_t bytes_there(const am_run_folder *folder, const char *sub)
{
    char path[AM_RUN_PATH];
    int64_t bytes = 0;
    DIR *open_folder = am_run_folder_file(folder, path, "%s", sub) == AM_OK ? opendir(path) : NULL;
    if (open_folder == NULL) {
        return 0;
    }
    for (struct dirent *entry = readdir(open_folder); entry != NULL; entry = readdir(open_folder)) {
        struct stat st;
        if (fnmatch("*.h5*", entry->d_name, 0) == 0 &&
            fstatat(dirfd(open_folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += (int64_t)st.st_blocks * 512;
        }
    }
    closedir(open_folder);
    return bytes;
}

static int check(const am_run_folder *folder, int64_t bytes)
{
    struct statvfs fs;
    for (const char *const *sub = am_run_folder_subs; *sub != NULL; sub++) {
        bytes -= bytes_there(folder, *sub);
    }
    if (statvfs(folder->path, &fs) != 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot look at the file system of %s", folder->path);
    }
    const double room = (double)fs.f_bavail * (double)fs.f_frsize;
    if (room >= (double)bytes) {
        return AM_OK;
    }
    char free_text[32];
    snprintf(free_text, sizeof free_text, "%s", am_format_bytes((int64_t)room));
    return am_fail(AM_E_IO,
                   "no space for the run in %s: it needs %" PRId64
                   " bytes (%s) and %s are free: make room, choose another output, or keep fewer "
                   "rounds",
                   folder->path, bytes, am_format_bytes(bytes), free_text);
}

int am_room_check_all(MPI_Comm comm, const am_run_folder *folder, int64_t bytes)
{
    int rank;
    MPI_Comm_rank(comm, &rank);
    return am_agree_all(comm, rank == 0 ? check(folder, bytes) : AM_OK);
}
