/* Saved training runs: see session.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/view.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "mpi/partition.h"

static const double look_seconds = 0.5; /* between two looks at the clock, about */
static const char epoch_key[] = "allmerge.epoch", saves_key[] = "allmerge.saves";

static const char *slot_name(int64_t save)
{
    return save % 2 == 0 ? "state/a.h5" : "state/b.h5";
}

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

static int save_all(am_session *s)
{
    const double start = am_seconds();
    char path[AM_RUN_PATH], number[32];
    am_meta meta = {0};
    am_ckpt_writer *writer = NULL;
    am_sink sink = {0};
    int rc = am_run_folder_file(s->folder, path, "%s", slot_name(s->saves));
    snprintf(number, sizeof number, "%" PRId64, s->epoch);
    AM_KEEP(am_meta_set(&meta, epoch_key, number));
    snprintf(number, sizeof number, "%" PRId64, s->saves + 1);
    AM_KEEP(am_meta_set(&meta, saves_key, number));
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
    AM_TRY(am_run_folder_has_sound_all(s->suite->comm, s->folder, slot_name(slot), &is_sound));
    if (is_sound) {
        AM_TRY(am_run_folder_file(s->folder, path, "%s", slot_name(slot)));
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
    AM_TRY(am_run_folder_file(s->folder, path, "%s", slot_name(slot))); /* the same on all ranks */
    AM_TRY(am_ckpt_load_all(s->suite->comm, path, &s->values, s->offset, s->trunk));
    AM_TRY(am_ckpt_open_all(s->suite->comm, path, &ckpt));
    rc = am_ckpt_source(ckpt, 0, &source);
    AM_KEEP(am_train_state_load(s->state, &source));
    AM_AGREE(s->suite->comm);
    s->saves = number_of(am_ckpt_meta(ckpt), saves_key);
    s->epoch = number_of(am_ckpt_meta(ckpt), epoch_key);
    am_info("going on in epoch %" PRId64 " from %s", s->epoch, path);
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

int am_session_open_all(am_suite *suite, const am_run_folder *folder, void *trunk,
                        const am_train_options *options, double save_every, am_session *out)
{
    int64_t saves[2] = {0, 0};
    int rc = AM_OK;
    *out = (am_session){.suite = suite, .folder = folder, .trunk = trunk, .epoch = 1, .chunk = 1};
    am_pace_start(&out->pace, save_every);
    AM_TRY(am_suite_state_all(suite, options, &out->state));
    rc = make_tables(out);
    AM_AGREE(suite->comm);
    AM_TRY(am_run_folder_sub_all(suite->comm, folder, "state"));
    for (int slot = 0; slot < 2; slot++) {
        AM_TRY(look_all(out, slot, &saves[slot]));
    }
    if (saves[0] > 0 || saves[1] > 0) {
        AM_TRY(load_all(out, saves[1] > saves[0]));
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
    *session = (am_session){0};
}

/* ---- training ---- */

/* Rank 0 decides for all, by its clock: the next chunk, and whether to save before it. */
static int decide_all(am_session *s, double seconds, bool *is_due)
{
    int64_t decision[2] = {s->chunk, am_pace_is_due(&s->pace)};
    if (seconds < look_seconds / 2) {
        decision[0] = 2 * s->chunk;
    } else if (seconds > 2 * look_seconds && s->chunk > 1) {
        decision[0] = s->chunk / 2;
    }
    const int rc = am_bcast_all(s->suite->comm, 0, decision, (int64_t)sizeof decision);
    s->chunk = decision[0];
    *is_due = decision[1] != 0;
    return rc;
}

int am_session_epoch_all(am_session *s, const am_train_options *options)
{
    am_train_options part = *options;
    int rc = AM_OK;
    bool is_due = false;
    part.state = s->state;
    do {
        const double start = am_seconds();
        part.most_steps = s->chunk;
        rc = am_suite_joint_all(s->suite, s->trunk, &part);
        if (rc == AM_E_STOPPED) { /* trunk and state are as after the last whole step */
            const int saved = save_all(s);
            rc = saved != AM_OK ? saved : rc;
        }
        AM_TRY(rc);
        AM_TRY(decide_all(s, am_seconds() - start, &is_due));
        const bool is_finished = s->state->epoch == 0 && s->state->step == 0;
        s->epoch += is_finished;
        if (is_due) {
            AM_TRY(save_all(s));
        }
        if (is_finished) {
            break;
        }
    } while (true);
cleanup:
    return rc;
}
