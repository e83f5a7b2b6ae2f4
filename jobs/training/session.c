/* Saved training runs: see session.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/view.h"
#include "jobs/training/report.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "mpi/partition.h"

static const double look_seconds = 0.5; /* between two looks at the clock, about */
static const double log_seconds = 30;   /* between two events of a long epoch, about */
static const char epoch_key[] = "allmerge.epoch", saves_key[] = "allmerge.saves",
                  rollbacks_key[] = "allmerge.rollbacks";

/* Two by turns, and the beginning of the epoch. */
enum { TURNS = 2, EPOCH = TURNS, SLOTS };
static const char *const slot_name[SLOTS] = {"state/a.h5", "state/b.h5", "state/epoch.h5"};

/* ---- tables ---- */

static int make_tables(am_session *s)
{
    const am_tensor_table *trunk = &s->suite->trunk.tensors;
    const am_tensor_table *state = am_train_state_tensors(s->state);
    char name[AM_MAX_NAME];
    int rc = AM_OK;
    for (int64_t i = 0; rc == AM_OK && i < trunk->n; i++) {
        const am_tensor *t = &trunk->t[i];
        const int n = snprintf(name, sizeof name, "%s::value", t->name);
        rc = n < (int)sizeof name ? AM_OK : am_fail(AM_E_DATA, "the name %s is too long", t->name);
        AM_KEEP(am_tensor_table_add(&s->values, name, t->dtype, t->ndim, t->shape));
        AM_KEEP(am_tensor_table_add(&s->all, name, t->dtype, t->ndim, t->shape));
    }
    for (int64_t i = 0; rc == AM_OK && i < state->n; i++) {
        const am_tensor *t = &state->t[i];
        rc = am_tensor_table_add(&s->all, t->name, t->dtype, t->ndim, t->shape);
    }
    AM_KEEP(am_tensor_table_finish(&s->values));
    AM_KEEP(am_tensor_table_finish(&s->all));
    s->offset = am_new(s->values.n + 1, sizeof *s->offset, "a saved run");
    AM_KEEP(s->offset == NULL ? AM_E_NOMEM : AM_OK);
    for (int64_t i = 0; rc == AM_OK && i < trunk->n; i++) {
        snprintf(name, sizeof name, "%s::value", trunk->t[i].name);
        s->offset[am_tensor_table_find(&s->values, name)] = s->suite->trunk.offset[i];
    }
    return rc;
}

/* ---- saving ---- */

static int store_trunk(const am_session *s, const am_sink *sink, int ranks, int rank)
{
    const int64_t bytes = am_suite_real_bytes(s->suite);
    am_slice slice = {0};
    int rc = am_slice_make(&s->values, AM_CHUNK, ranks, rank, &slice);
    for (int64_t i = 0; rc == AM_OK && i < slice.n; i++) {
        const am_span *span = &slice.spans[i];
        const char *from = (const char *)s->trunk + (s->offset[span->tensor] + span->lo) * bytes;
        rc = sink->store_raw(sink->self,
                             am_tensor_table_find(&s->all, s->values.t[span->tensor].name),
                             span->lo, span->hi - span->lo, from);
    }
    am_slice_free(&slice);
    return rc;
}

static int store_all(const am_session *s, const am_sink *sink)
{
    const am_tensor_table *state = am_train_state_tensors(s->state);
    am_sink part = {0};
    int rc = AM_OK, rank, size;
    MPI_Comm_rank(s->suite->comm, &rank);
    MPI_Comm_size(s->suite->comm, &size);
    am_view_place *place = am_new(state->n + 1, sizeof *place, "a saved run");
    rc = place == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(store_trunk(s, sink, size, rank));
    AM_AGREE(s->suite->comm);
    for (int64_t i = 0; i < state->n; i++) {
        place[i] = (am_view_place){.tensor = am_tensor_table_find(&s->all, state->t[i].name)};
    }
    const am_sink_view view = {.sink = sink, .place = place};
    am_sink_view_make(&view, state, &part);
    rc = am_train_state_store_all(s->state, &part);
cleanup:
    free(place);
    return rc;
}

static int set_number(am_meta *meta, const char *key, int64_t value)
{
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, value);
    return am_meta_set(meta, key, number);
}

static int save_all(am_session *s, int slot)
{
    const double start = am_seconds();
    char path[AM_RUN_PATH];
    am_meta meta = {0};
    am_ckpt_writer *writer = NULL;
    am_sink sink = {0};
    int rc = am_run_folder_file(s->folder, path, "%s", slot_name[slot]);
    AM_KEEP(set_number(&meta, epoch_key, s->epoch));
    AM_KEEP(set_number(&meta, saves_key, s->saves + 1));
    AM_KEEP(set_number(&meta, rollbacks_key, s->rollbacks));
    AM_AGREE(s->suite->comm);
    const am_ckpt_options options = {.overwrite = true, .meta = &meta};
    AM_TRY(am_ckpt_create_all(s->suite->comm, path, &s->all, &options, &writer));
    rc = am_agree_all(s->suite->comm, am_ckpt_sink(writer, &sink));
    if (rc == AM_OK) {
        rc = store_all(s, &sink);
    }
    rc = am_ckpt_publish_all(&writer, rc);
    if (rc == AM_OK) {
        s->saves++;
        am_pace_saved(&s->pace, start);
    }
cleanup:
    am_meta_free(&meta);
    return rc;
}

/* ---- going on ---- */

static int64_t number_of(const am_meta *meta, const char *key)
{
    const char *text = am_meta_get(meta, key);
    return text != NULL ? strtoll(text, NULL, 10) : 0;
}

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
        *saves = number_of(am_ckpt_meta(ckpt), saves_key);
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

static int load_all(am_session *s, int slot)
{
    char path[AM_RUN_PATH];
    am_ckpt *ckpt = NULL;
    am_source source = {0};
    int rc = AM_OK;
    AM_TRY(am_run_folder_file(s->folder, path, "%s", slot_name[slot])); /* the same on all ranks */
    AM_TRY(am_ckpt_load_all(s->suite->comm, path, &s->values, s->offset, s->trunk));
    AM_TRY(am_ckpt_open_all(s->suite->comm, path, &ckpt));
    rc = am_ckpt_source(ckpt, 0, &source);
    AM_KEEP(am_train_state_load(s->state, &source));
    AM_AGREE(s->suite->comm);
    s->saves = number_of(am_ckpt_meta(ckpt), saves_key);
    s->epoch = number_of(am_ckpt_meta(ckpt), epoch_key);
    s->rollbacks = number_of(am_ckpt_meta(ckpt), rollbacks_key);
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
    rc = make_tables(out);
    AM_KEEP(am_train_log_make(suite->trunk.tensors.n, 1, &out->log));
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
    am_train_state_free(&session->state);
    am_tensor_table_free(&session->values);
    am_tensor_table_free(&session->all);
    free(session->offset);
    am_train_log_free(&session->log);
    *session = (am_session){0};
}

/* ---- training ---- */

/* Rank 0 decides for all, by its clock: the next chunk, and whether to save before it. */
static int decide_all(am_session *s, double seconds, bool *is_due, bool *is_log_due)
{
    int64_t decision[3] = {s->chunk, am_pace_is_due(&s->pace),
                           am_seconds() - s->logged >= log_seconds};
    if (seconds < look_seconds / 2) {
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
