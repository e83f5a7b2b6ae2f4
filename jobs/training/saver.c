/* Calls of training that survive: see saver.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/saver.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"

static const double look_seconds = 0.5; /* between two looks at the clock, about */
static const int64_t most_steps = (int64_t)1 << 30;
static const char step_key[] = "allmerge.step", saves_key[] = "allmerge.saves",
                  rollbacks_key[] = "allmerge.rollbacks", finished_key[] = "allmerge.finished";

/* Two files of a call by turns: while one is replaced the other is whole. */
enum { TURNS = 2 };

/* A finished call: one part, the trunk or a head. */
struct am_saver_finished {
    am_saver_finished *next;
    const char *name;      /* borrowed */
    am_snapshot_part part; /* name, layout and params: borrowed */
    int64_t saves;         /* of its files */
    bool is_saved;
};

/* A call that is being made. */
typedef struct attempt {
    am_saver *saver;
    const am_saver_call *call;
    am_train_state *state; /* owned */
    am_snapshot_part *part;
    int n; /* parts: trunk and heads, as far as they are trained */
    am_snapshot snapshot;
    char *start; /* owned: the parts as they were, one after the other; NULL: no rollback */
    int64_t saves, rollbacks;
    bool is_finished;
} attempt;

/* ---- steps ---- */

void am_saver_open(const am_run_folder *folder, double save_every, am_saver *out)
{
    *out = (am_saver){.folder = folder, .chunk = 1};
    am_pace_start(&out->pace, save_every);
}

static void forget(am_saver *saver)
{
    while (saver->finished != NULL) {
        am_saver_finished *next = saver->finished->next;
        free(saver->finished);
        saver->finished = next;
    }
}

void am_saver_free(am_saver *saver)
{
    forget(saver);
    *saver = (am_saver){0};
}

void am_saver_step(am_saver *saver, bool keeps_finished, const char *step, ...)
{
    va_list list;
    va_start(list, step);
    vsnprintf(saver->step, sizeof saver->step, step, list);
    va_end(list);
    saver->keeps_finished = keeps_finished;
    saver->has_trained = false;
    forget(saver);
}

int am_saver_done_all(am_saver *saver, MPI_Comm comm)
{
    int64_t trained = saver->has_trained;
    int rc = AM_OK;
    forget(saver);
    AM_TRY(am_sum_i64_all(comm, &trained, 1));
    if (trained > 0) {
        AM_TRY(am_run_folder_remove_all(comm, saver->folder, "work"));
    }
cleanup:
    return rc;
}

int am_saver_end_all(const am_saver *saver, MPI_Comm comm)
{
    am_pace_tell(&saver->pace, saver->folder->path);
    return am_run_folder_remove_all(comm, saver->folder, "work");
}

/* ---- saving ---- */

static int path_of(const am_saver *saver, const char *call, int64_t turn, char *out)
{
    return am_run_folder_file(saver->folder, out, "work/%s-%c.h5", call, turn == 0 ? 'a' : 'b');
}

static int save_file_all(const am_saver *saver, const char *name, const am_snapshot *snapshot,
                         int64_t rollbacks, int64_t *saves)
{
    char path[AM_RUN_PATH];
    am_meta meta = {0};
    int rc = path_of(saver, name, *saves % TURNS, path);
    AM_KEEP(am_meta_set(&meta, step_key, saver->step));
    AM_KEEP(am_snapshot_set(&meta, saves_key, *saves + 1));
    AM_KEEP(am_snapshot_set(&meta, rollbacks_key, rollbacks));
    AM_KEEP(am_snapshot_set(&meta, finished_key, snapshot->state == NULL));
    AM_AGREE(snapshot->comm);
    AM_TRY(am_snapshot_save_all(snapshot, path, &meta));
    ++*saves;
cleanup:
    am_meta_free(&meta);
    return rc;
}

static int save_finished_all(am_saver *saver, MPI_Comm comm)
{
    int rc = AM_OK;
    for (am_saver_finished *f = saver->finished; f != NULL && rc == AM_OK; f = f->next) {
        am_snapshot snapshot = {0};
        if (!f->is_saved) {
            rc = am_snapshot_make(comm, NULL, 1, &f->part, &snapshot);
            rc = am_agree_all(comm, rc);
            if (rc == AM_OK) {
                rc = save_file_all(saver, f->name, &snapshot, 0, &f->saves); /* agreed */
            }
            f->is_saved = true;
        }
        am_snapshot_free(&snapshot);
    }
    return rc;
}

/* All of the step that this call's ranks have and that is not saved. */
static int save_all(attempt *a)
{
    am_saver *saver = a->saver;
    const double start = am_seconds();
    int rc = AM_OK;
    AM_TRY(am_run_folder_sub_all(a->call->comm, saver->folder, "work"));
    AM_TRY(save_finished_all(saver, a->call->comm));
    if (!a->is_finished) {
        AM_TRY(save_file_all(saver, a->call->name, &a->snapshot, a->rollbacks, &a->saves));
    }
    am_pace_saved(&saver->pace, start);
cleanup:
    return rc;
}

int am_saver_stop_all(am_saver *saver, MPI_Comm comm)
{
    int rc = AM_OK;
    if (saver->finished != NULL) { /* the same on all ranks of the calls */
        AM_TRY(am_run_folder_sub_all(comm, saver->folder, "work"));
        AM_TRY(save_finished_all(saver, comm));
    }
cleanup:
    return rc;
}

/* ---- going on ---- */

/* What a file of this step says of itself; saves: 0 if there is no such file, or none that is
 * sound. */
static int look_all(const attempt *a, int turn, int64_t *saves, bool *is_finished)
{
    char path[AM_RUN_PATH];
    const char *name = path + strlen(a->saver->folder->path) + 1;
    am_ckpt *ckpt = NULL;
    bool is_sound = false;
    int rc = AM_OK;
    *saves = 0;
    AM_TRY(path_of(a->saver, a->call->name, turn, path)); /* the same on all ranks */
    AM_TRY(am_run_folder_has_sound_all(a->call->comm, a->saver->folder, name, &is_sound));
    if (is_sound) {
        AM_TRY(am_ckpt_open_all(a->call->comm, path, &ckpt));
        const char *step = am_meta_get(am_ckpt_meta(ckpt), step_key);
        if (step != NULL && strcmp(step, a->saver->step) == 0) {
            *saves = am_snapshot_get(am_ckpt_meta(ckpt), saves_key);
            *is_finished = am_snapshot_get(am_ckpt_meta(ckpt), finished_key) != 0;
        }
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

static int load_all(attempt *a, int turn, bool is_finished)
{
    char path[AM_RUN_PATH];
    am_ckpt *ckpt = NULL;
    am_snapshot ended = {0};
    int rc = AM_OK;
    AM_TRY(path_of(a->saver, a->call->name, turn, path)); /* the same on all ranks */
    if (is_finished) {
        rc = am_snapshot_make(a->call->comm, NULL, a->n, a->part, &ended);
        AM_AGREE(a->call->comm);
    }
    AM_TRY(am_snapshot_load_all(is_finished ? &ended : &a->snapshot, path));
    AM_TRY(am_ckpt_open_all(a->call->comm, path, &ckpt));
    a->rollbacks = am_snapshot_get(am_ckpt_meta(ckpt), rollbacks_key);
    a->is_finished = is_finished;
    if (is_finished) {
        am_info("%s: going on after %s", a->saver->step, a->call->name);
    } else {
        am_info("%s: going on in epoch %" PRId64 " of %s", a->saver->step, a->state->epoch + 1,
                a->call->name);
    }
cleanup:
    am_snapshot_free(&ended);
    am_ckpt_close(&ckpt);
    return rc;
}

static int go_on_all(attempt *a)
{
    int64_t saves[TURNS] = {0};
    bool is_finished[TURNS] = {false};
    int rc = AM_OK;
    for (int turn = 0; turn < TURNS; turn++) {
        AM_TRY(look_all(a, turn, &saves[turn], &is_finished[turn]));
    }
    const int newest = saves[1] > saves[0];
    a->saves = saves[newest];
    if (a->saves > 0) {
        AM_TRY(load_all(a, newest, is_finished[newest]));
    }
cleanup:
    return rc;
}

/* ---- parts ---- */

static void list_parts(attempt *a)
{
    const am_saver_call *call = a->call;
    if (call->options->train_trunk) {
        a->part[a->n++] =
            (am_snapshot_part){.name = "trunk", .layout = call->moved, .params = call->trunk};
    }
    for (int i = 0; i < call->n_tasks && call->options->train_head; i++) {
        a->part[a->n++] = (am_snapshot_part){
            .name = call->tasks[i].name, .layout = &call->heads[i], .params = call->tasks[i].head};
    }
}

static size_t part_bytes(const attempt *a, int part)
{
    return (size_t)(a->part[part].layout->n * am_dtype_bytes(a->call->ops->dtype));
}

/* Copy the parts to `start`, or back. */
static void copy_parts(const attempt *a, bool is_back)
{
    char *at = a->start;
    for (int i = 0; i < a->n; i++) {
        const am_param_layout *layout = a->part[i].layout;
        for (int64_t k = 0; k < layout->tensors.n; k++) {
            const am_tensor *t = &layout->tensors.t[k];
            const int64_t bytes = am_dtype_bytes(t->dtype);
            char *params = (char *)a->part[i].params + layout->home[k] * bytes;
            memcpy(is_back ? params : at, is_back ? at : params, (size_t)(t->numel * bytes));
            at += t->numel * bytes;
        }
    }
}

static int keep_start(attempt *a)
{
    size_t bytes = 1;
    for (int i = 0; i < a->n; i++) {
        bytes += part_bytes(a, i);
    }
    a->start = am_new((int64_t)bytes, 1, "a copy to roll back to");
    if (a->start == NULL) {
        return AM_E_NOMEM;
    }
    copy_parts(a, false);
    return AM_OK;
}

static int begin_all(attempt *a)
{
    const am_saver_call *call = a->call;
    am_train_options options = *call->options;
    a->part = am_new(call->n_tasks + 1, sizeof *a->part, "saved training");
    int rc = a->part == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK) {
        list_parts(a);
    }
    AM_KEEP(call->ops->state_make(call->comm, call->net, call->tasks, call->n_tasks, &options,
                                  &a->state));
    AM_KEEP(am_snapshot_make(call->comm, a->state, a->n, a->part, &a->snapshot));
    am_pace_expect(&a->saver->pace, am_tensor_table_bytes(&a->snapshot.all));
    if (rc == AM_OK && call->policy->rollbacks > 0) {
        rc = keep_start(a);
    }
    AM_AGREE(call->comm);
    AM_TRY(go_on_all(a));
cleanup:
    return rc;
}

/* ---- training ---- */

/* Some steps, or a rollback. */
static int steps_all(attempt *a, am_train_result *result)
{
    const am_saver_call *call = a->call;
    am_train_options part = *call->options;
    part.state = a->state;
    part.most_steps = a->saver->chunk;
    part.optim.lr = am_rollback_lr(call->options->optim.lr, a->rollbacks);
    const int rc = call->ops->train_all(call->comm, call->net, call->trunk, call->tasks,
                                        call->n_tasks, &part, result);
    if (rc == AM_E_STOPPED) { /* all is as after the last whole step */
        const int saved = save_all(a);
        return saved != AM_OK ? saved : rc;
    }
    result->diverged = am_rollback_is_due(call->policy, result);
    if (rc == AM_OK && result->diverged && a->rollbacks < call->policy->rollbacks) {
        copy_parts(a, true);
        if (part.log != NULL) {
            am_train_log_clear(part.log);
        }
        am_train_state_reset(a->state);
        a->rollbacks++;
    } else {
        a->is_finished = result->diverged || result->is_finished;
    }
    return rc;
}

/* Rank 0 decides for all, by its clock: the next chunk, and whether to save. */
static int decide_all(attempt *a, double seconds, bool *is_due)
{
    am_saver *saver = a->saver;
    int64_t decision[2] = {saver->chunk, am_pace_is_due(&saver->pace)};
    if (seconds < look_seconds / 2 && saver->chunk < most_steps) {
        decision[0] = 2 * saver->chunk;
    } else if (seconds > 2 * look_seconds && saver->chunk > 1) {
        decision[0] = saver->chunk / 2;
    }
    const int rc = am_bcast_all(a->call->comm, 0, decision, (int64_t)sizeof decision);
    saver->chunk = decision[0];
    *is_due = decision[1] != 0;
    return rc;
}

/* The call is finished: it may have to be saved, as long as its step is not published. */
static int note_finished(attempt *a, bool is_saved)
{
    am_saver_finished *f = am_new(1, sizeof *f, "a finished task");
    if (f == NULL) {
        return AM_E_NOMEM;
    }
    AM_ASSERT(a->n == 1);
    *f = (am_saver_finished){.next = a->saver->finished,
                             .name = a->call->name,
                             .part = a->part[0],
                             .saves = a->saves,
                             .is_saved = is_saved};
    a->saver->finished = f;
    return AM_OK;
}

static int train_all(attempt *a, am_train_result *result)
{
    const bool was_finished = a->is_finished;
    bool is_due = false;
    int rc = AM_OK;
    /* Ranks that were in different groups before have learned different ones. */
    AM_TRY(am_bcast_all(a->call->comm, 0, &a->saver->chunk, sizeof a->saver->chunk));
    while (!a->is_finished) {
        const double start = am_seconds();
        AM_TRY(steps_all(a, result));
        AM_TRY(decide_all(a, am_seconds() - start, &is_due));
        if (is_due && !a->is_finished) {
            AM_TRY(save_all(a));
        }
    }
    if (a->saver->keeps_finished && !result->diverged) {
        rc = note_finished(a, was_finished);
        AM_AGREE(a->call->comm);
        if (is_due) {
            AM_TRY(save_all(a));
        }
    }
cleanup:
    return rc;
}

int am_saver_train_all(am_saver *saver, const am_saver_call *call, am_train_result *result,
                       int64_t *rollbacks)
{
    attempt a = {.saver = saver, .call = call};
    int rc = AM_OK;
    *result = (am_train_result){0};
    saver->has_trained = true;
    AM_TRY(begin_all(&a));
    AM_TRY(train_all(&a, result));
cleanup:
    *rollbacks = a.rollbacks;
    am_snapshot_free(&a.snapshot);
    am_train_state_free(&a.state);
    free(a.part);
    free(a.start);
    return rc;
}
