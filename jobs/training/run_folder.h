/* The folder of a run: RUN/recipe.yml, RUN/job.json, RUN/events.jsonl, RUN/result.json,
 * checkpoints. job.json is what the run is (io/commit/identity.h): its recipe and inputs. A folder
 * of another run is refused, saying in what it differs; a finished run is recognised; an unfinished
 * one goes on: a step whose checkpoint is there (they appear by rename) and holds what its manifest
 * says is not done again. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_RUN_FOLDER_H
#define AM_JOBS_TRAINING_RUN_FOLDER_H

#include <mpi.h>
#include <stdbool.h>

enum { AM_RUN_PATH = 4096 };

typedef struct am_run_folder {
    char path[AM_RUN_PATH];
    bool is_finished; /* result.json is there: nothing to do */
    int lock;         /* rank 0: file descriptor of RUN/.lock, else -1 */
} am_run_folder;

/** Where a run may have files of its own, "." the folder itself; NULL-terminated. What starts over
 * removes, and what counts on the disk counts, all of them: a job's new sub folder belongs here. */
extern const char *const am_run_folder_subs[];

/** Make or enter the folder, lock it, write recipe.yml and job.json, open events.jsonl.
 *
 * Collective [comm]; arguments [same]. job: the command; recipe: JSON; inputs: NULL-terminated
 * paths of all that is read; none may be a file that a run in this folder would remove. overwrite:
 * an existing run of any recipe is started over. Errors: AM_E_CREATE (an input lies in it, models
 * without job.json, parent missing, not writable, another recipe or changed input, another job is
 * running in it); AM_E_NOINPUT, AM_E_IO of an input. */
int am_run_folder_open_all(MPI_Comm comm, const char *path, const char *job, const char *recipe,
                           const char *const *inputs, bool overwrite, am_run_folder *out);
void am_run_folder_close(am_run_folder *folder);

/** Print the line for programs of a finished run again (result.json, on stdout). Collective [comm].
 */
int am_run_folder_result_all(MPI_Comm comm, const am_run_folder *folder);

/** "RUN/<name>" into `out` [AM_RUN_PATH]. Errors: AM_E_CREATE too long. Local. */
int am_run_folder_file(const am_run_folder *folder, char *out, const char *name, ...)
    __attribute__((format(printf, 3, 4)));
/** Is there a file RUN/<name>? The same answer on every rank. Collective [comm]. */
int am_run_folder_has_all(MPI_Comm comm, const am_run_folder *folder, const char *name, bool *has);
/** Is there a checkpoint RUN/<name> that holds what its manifest says? A damaged one is named in a
 * warning: it is made again. Collective [comm]. */
int am_run_folder_has_sound_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                                bool *has);
/** Make the subfolder RUN/<name>. Collective [comm]. */
int am_run_folder_sub_all(MPI_Comm comm, const am_run_folder *folder, const char *name);
/** Remove the checkpoints in RUN/<name>, and the folder if nothing else is in it. Collective
 * [comm].
 */
int am_run_folder_remove_all(MPI_Comm comm, const am_run_folder *folder, const char *name);
/** Write a small text file by temporary name, fsync and rename. Collective [comm]; rank 0 writes.
 */
int am_run_folder_text_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                           const char *text);

#endif
