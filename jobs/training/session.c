/* Saved training runs: see session.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/session.h"

#include <inttypes.h>
#include "jobs/training/suite/adapt.h"
#include "jobs/training/suite/report.h"
#include "jobs/training/suite/train.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"

static const double look_seconds = 0.5; /* between two looks at the clock, about */
static const double log_seconds = 30;   /* between two events of a long epoch, about */
static const int64_t most_steps = (int64_t)1 << 30;
static const char epoch_key[] = "allmerge.epoch", saves_key[] = "allmerge.saves",
                  rollbacks_key[] = "allmerge.rollbacks";

/* Two by turns, and the beginning of the epoch. */
enum { TURNS = 2, EPOCH = TURNS, SLOTS };
static const char *const slot_name[SLOTS] = {"state/a.h5", "state/b.h5", "state/epoch.h5"};

/* ---- saving ---- */

static int save_all(am_session *s, int slot)
{
    const double start = am_seconds();
    char path[AM_RUN_PATH];
    am_meta meta = {0};
    int rc = am_run_folder_file(s->folder, path, "%s", slot_name[slot]);
    AM_KEEP(am_snapshot_set(&meta, epoch_key, s->epoch));
    AM_KEEP(am_snapshot_set(&meta, saves_key, s->saves + 1));
    AM_KEEP(am_snapshot_set(&meta, rollbacks_key, s->rollbacks));
    AM_AGREE(s->suite->comm);
    AM_TRY(am_snapshot_save_all(&s->snapshot, path, &meta));
    s->saves++;
    am_pace_saved(&s->pace, start);
cleanup:
    am_meta_free(&meta);
    return rc;
}

/* ---- going on ---- */

/* Its number of saves if slot `slot` holds a sound state, else 0. */
static int look_all(const am_session *s, int slot, int64_t *saves)
{
    char path[AM_RUN_PATH];
    am_ckpt *ckpt = NULL;
    bool is_sound = false;
    int rc = AM_OK;
    *saves = 0;
    AM_TRY(am_run_folder_has_sound_all(s->suite->comm, s->folder, slot_name[slot], &is_sound));
    if (is_sound) {
        AM_TRY(am_run_folder_file(s->folder, path, "%s", slot_name[slot]));
        AM_TRY(am_ckpt_open_all(s->suite->comm, path, &ckpt));
        *saves = am_snapshot_get(am_ckpt_meta(ckpt), saves_key);
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

static int load_all(am_session *s, int slot)
{
    char path[AM_RUN_PATH];
    am_ckpt *ckpt = NULL;
    int rc = AM_OK;
    AM_TRY(am_run_folder_file(s->folder, path, "%s", slot_name[slot])); /* the same on all ranks */
    AM_TRY(am_snapshot_load_all(&s->snapshot, path));
    AM_TRY(am_ckpt_open_all(s->suite->comm, path, &ckpt));
    s->saves = am_snapshot_get(am_ckpt_meta(ckpt), saves_key);
    s->epoch = am_snapshot_get(am_ckpt_meta(ckpt), epoch_key);
    s->rollbacks = am_snapshot_get(am_ckpt_meta(ckpt), rollbacks_key);
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

int am_session_open_all(am_suite *suite, const am_run_folder *folder, void *trunk,
                        const am_train_options *options, double save_every, am_session *out)
{
    int64_t saves[SLOTS] = {0};
    int rc = AM_OK, newest = 0;
    *out = (am_session){.suite = suite, .folder = folder, .trunk = trunk, .epoch = 1, .chunk = 1};
    am_pace_start(&out->pace, save_every);
    AM_TRY(am_suite_state_all(suite, options, &out->state));
    rc = am_snapshot_make(
        suite->comm, out->state, 1,
        &(am_snapshot_part){.name = "trunk", .layout = &suite->moved, .params = trunk},
        &out->snapshot);
    am_pace_expect(&out->pace, am_tensor_table_bytes(&out->snapshot.all));
    AM_KEEP(am_train_log_make(am_adapt_net(suite)->trunk.tensors.n, 1, &out->log));
    out->logged = am_seconds();
    AM_AGREE(suite->comm);
    AM_TRY(am_run_folder_sub_all(suite->comm, folder, "state"));
    for (int slot = 0; slot < SLOTS; slot++) {
        AM_TRY(look_all(out, slot, &saves[slot]));
        newest = saves[slot] > saves[newest] ? slot : newest;
    }
    if (saves[newest] > 0) {
        AM_TRY(load_all(out, newest));
        am_info("going on in epoch %" PRId64 " from %s/%s", out->epoch, folder->path,
                slot_name[newest]);
    }
cleanup:
    return rc;
}

void am_session_close(am_session *session)
{
    am_pace_tell(&session->pace, "training");
    am_train_state_free(&session->state);
    am_snapshot_free(&session->snapshot);
    am_train_log_free(&session->log);
    *session = (am_session){0};
}

/* ---- training ---- */

/* Rank 0 decides for all, by its clock: the next chunk, and whether to save before it. */
static int decide_all(am_session *s, double seconds, bool *is_due, bool *is_log_due)
{
    int64_t decision[3] = {s->chunk, am_pace_is_due(&s->pace),
                           am_seconds() - s->logged >= log_seconds};
    if (seconds < look_seconds / 2 && s->chunk < most_steps) {
        decision[0] = 2 * s->chunk;
    } else if (seconds > 2 * look_seconds && s->chunk > 1) {
        decision[0] = s->chunk / 2;
    }
    const int rc = am_bcast_all(s->suite->comm, 0, decision, (int64_t)sizeof decision);
    s->chunk = decision[0];
    *is_due = decision[1] != 0;
    *is_log_due = decision[2] != 0;
    return rc;
}

static bool is_at_start(const am_session *s)
{
    return s->state->epoch == 0 && s->state->step == 0;
}

/* Training diverged: back to the beginning of the epoch. Leaves the error if that cannot be. */
static int roll_back_all(am_session *s, const am_train_options *options)
{
    const int64_t saves = s->saves, rollbacks = s->rollbacks + 1;
    int64_t found = 0;
    int rc = AM_OK;
    if (rollbacks > s->suite->divergence.rollbacks) {
        return AM_E_NUMERIC; /* equal on all ranks */
    }
    AM_TRY(look_all(s, EPOCH, &found));
    if (found == 0) {
        return AM_E_NUMERIC;
    }
    am_error_clear();
    AM_TRY(load_all(s, EPOCH));
    s->saves = saves; /* newer than all that is on disk */
    s->rollbacks = rollbacks;
    am_train_log_clear(&s->log);
    am_rollback_report(options->purpose, NULL, rollbacks,
                       am_rollback_lr(options->optim.lr, rollbacks));
cleanup:
    return rc;
}

/* Some steps, or a rollback. */
static int steps_all(am_session *s, const am_train_options *options)
{
    am_train_options part = *options;
    part.state = s->state;
    part.most_steps = s->chunk;
    part.log = &s->log;
    part.optim.lr = am_rollback_lr(options->optim.lr, s->rollbacks);
    int rc = am_suite_joint_all(s->suite, s->trunk, &part);
    if (rc == AM_E_NUMERIC) {
        rc = roll_back_all(s, options);
    } else if (rc == AM_E_STOPPED) { /* trunk and state are as after the last whole step */
        const int saved = save_all(s, (int)(s->saves % TURNS));
        rc = saved != AM_OK ? saved : rc;
    } else if (rc == AM_OK) {
        s->epoch += is_at_start(s);
    }
    return rc;
}

int am_session_epoch_all(am_session *s, const am_train_options *options)
{
    const int64_t epoch = s->epoch;
    int rc = AM_OK;
    bool is_due = false, is_log_due = false;
    if (s->suite->divergence.rollbacks > 0 && is_at_start(s)) {
        AM_TRY(save_all(s, EPOCH));
    }
    while (s->epoch == epoch) {
        const double start = am_seconds();
        AM_TRY(steps_all(s, options));
        AM_TRY(decide_all(s, am_seconds() - start, &is_due, &is_log_due));
        if (s->epoch != epoch || is_log_due) {
            am_report_epochs(s->suite, options, NULL, &s->log);
            am_train_log_clear(&s->log);
            s->logged = am_seconds();
        }
        if (is_due) {
            AM_TRY(save_all(s, (int)(s->saves % TURNS)));
        }
    }
cleanup:
    return rc;
}
