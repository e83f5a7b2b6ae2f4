/* The rounds of a run at one alpha. A round's model is saved with the best round so far, so
 * that a later run goes on from the newest sound one, and older ones need not be kept.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/commit/manifest.h"
#include "jobs/training/iterate/model_stats.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/measured.h"
#include "jobs/training/suite/train.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"

static const char best_round_key[] = "allmerge.best_round",
                  best_validation_key[] = "allmerge.best_validation",
                  best_loss_key[] = "allmerge.best_validation_loss";

/* Statistics of the models of a round, while they are merged. */
static const char round_stats[] = "round-stats";

/* A run at one alpha. */
typedef struct line {
    am_iterate *it;
    const am_run *run;
    double alpha;
    void *current; /* borrowed trunk: the model of `round` */
    int64_t round; /* the last that is done */
    int64_t best;  /* round with the best validation, 0: none */
    am_table_choice best_how;
    int64_t *named;  /* [rounds + 1] owned: the best up to each round, 0: not known */
    am_point *point; /* [rounds + 1] borrowed */
} line;

enum { NAME = 192 };

void am_run_round_name(const am_run *run, double alpha, int64_t round, char *out, size_t size)
{
    snprintf(out, size, "rounds/%salpha-%g-round-%03" PRId64 ".h5", run->file, alpha, round);
}

static void round_name(const line *r, int64_t round, char *out)
{
    am_run_round_name(r->run, r->alpha, round, out, NAME);
}

static void points_name(const line *r, char *out)
{
    snprintf(out, NAME, "rounds-%salpha-%g", r->run->file, r->alpha);
}

/* ---- what stays on disk ---- */

static int remove_round(const line *r, int64_t round)
{
    char name[NAME], path[AM_RUN_PATH];
    round_name(r, round, name);
    int rc = am_run_folder_file(r->it->folder, path, "%s", name);
    char *manifest = rc == AM_OK ? am_manifest_path(path, false) : NULL;
    rc = rc == AM_OK && manifest == NULL ? AM_E_NOMEM : rc;
    const char *const file[] = {path, manifest};
    for (int i = 0; i < 2; i++) {
        if (rc == AM_OK && unlink(file[i]) != 0 && errno != ENOENT) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", file[i]);
        }
    }
    free(manifest);
    return rc;
}

static bool is_newest(const line *r, int64_t round)
{
    const int64_t keep = r->it->recipe->keep;
    return keep == 0 || round > r->round - keep;
}

/* The newest rounds stay, and the best ones that they name: each can be gone on from. */
static bool is_needed(const line *r, int64_t round)
{
    bool is = is_newest(r, round);
    for (int64_t i = r->round; i > 0 && is_newest(r, i) && !is; i--) {
        is = r->named[i] == round;
    }
    return is;
}

/* Remove the models of rounds [from, to] that are not needed. */
static int prune_all(const line *r, int64_t from, int64_t to)
{
    int rc = AM_OK, rank;
    MPI_Comm_rank(r->it->suite.comm, &rank);
    for (int64_t i = from > 0 ? from : 1; rank == 0 && i <= to; i++) {
        AM_KEEP(is_needed(r, i) ? AM_OK : remove_round(r, i));
    }
    return am_agree_all(r->it->suite.comm, rc);
}

/* ---- save and read ---- */

static int save_round_all(const line *r)
{
    const am_iterate *it = r->it;
    char name[NAME], path[AM_RUN_PATH], round[32], validation[32], loss[32];
    am_meta meta = {0};
    round_name(r, r->round, name);
    snprintf(round, sizeof round, "%" PRId64, r->best);
    snprintf(validation, sizeof validation, "%.17g", r->best_how.validation);
    snprintf(loss, sizeof loss, "%.17g", r->best_how.validation_loss);
    int rc = am_run_folder_file(it->folder, path, "%s", name);
    AM_KEEP(am_meta_set(&meta, best_round_key, round));
    AM_KEEP(am_meta_set(&meta, best_validation_key, validation));
    AM_KEEP(am_meta_set(&meta, best_loss_key, loss));
    AM_AGREE(it->suite.comm);
    const am_ckpt_options options = {.overwrite = true, .recipe = it->recipe->text, .meta = &meta};
    AM_TRY(am_suite_save_trunk_all(&it->suite, path, r->current, &options));
cleanup:
    am_meta_free(&meta);
    return rc;
}

static am_table_choice how_of(const line *r, int64_t round)
{
    return (am_table_choice){.phase = "iterative",
                             .method = r->run->merge->name,
                             .alpha = r->alpha,
                             .epochs = round * r->run->epochs,
                             .round = round,
                             .round_epochs = r->run->epochs};
}

/* The best round that a sound model names, 0: none, and how it was chosen. */
static int read_best_all(const line *r, const char *name, int64_t *round, am_table_choice *how)
{
    char path[AM_RUN_PATH];
    am_ckpt *ckpt = NULL;
    int rc = AM_OK;
    AM_TRY(am_run_folder_file(r->it->folder, path, "%s", name)); /* the same on all ranks */
    AM_TRY(am_ckpt_open_all(r->it->suite.comm, path, &ckpt));
    const char *best = am_meta_get(am_ckpt_meta(ckpt), best_round_key);
    const char *validation = am_meta_get(am_ckpt_meta(ckpt), best_validation_key);
    const char *loss = am_meta_get(am_ckpt_meta(ckpt), best_loss_key);
    if (best != NULL && validation != NULL && loss != NULL) {
        *round = strtoll(best, NULL, 10);
        *how = how_of(r, *round);
        how->validation = strtod(validation, NULL);
        how->validation_loss = strtod(loss, NULL);
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

/* Go on after `round` if its model and the best one that it names are sound. */
static int try_round_all(line *r, int64_t round, am_choice *best, bool *is_found)
{
    char name[NAME];
    bool is_sound = false;
    int rc = AM_OK;
    *is_found = false;
    r->best = 0;
    round_name(r, round, name);
    AM_TRY(am_iterate_read_all(r->it, name, r->current, &is_sound));
    if (is_sound) {
        AM_TRY(read_best_all(r, name, &r->best, &r->best_how));
    }
    if (r->best < 1 || r->best > round) {
        goto cleanup; /* ordinary */
    }
    if (r->best < round) {
        round_name(r, r->best, name);
        AM_TRY(am_iterate_read_all(r->it, name, r->it->merged, &is_sound));
    }
    if (is_sound) {
        const void *trunk = r->best < round ? r->it->merged : r->current;
        am_choice_offer(r->it, best, trunk, r->best_how);
        r->round = round;
        r->named[round] = r->best;
        *is_found = true;
    }
cleanup:
    return rc;
}

/* Nothing unsound stays among the newest models, which are not made again. */
static int tidy_all(line *r)
{
    const am_suite *suite = &r->it->suite;
    int rc = AM_OK, rank;
    MPI_Comm_rank(suite->comm, &rank);
    for (int64_t i = r->round - 1; i > 0 && is_newest(r, i); i--) {
        char name[NAME];
        am_table_choice how;
        bool is_sound = false;
        round_name(r, i, name);
        AM_TRY(am_run_folder_has_sound_all(suite->comm, r->it->folder, name, &is_sound));
        if (is_sound) {
            AM_TRY(read_best_all(r, name, &r->named[i], &how));
            continue;
        }
        rc = rank == 0 ? remove_round(r, i) : AM_OK;
        AM_AGREE(suite->comm);
    }
    AM_TRY(prune_all(r, 1, r->round));
cleanup:
    return rc;
}

/* Begin after the newest round that is there, or at the start. */
static int begin_all(line *r, am_choice *best)
{
    const am_iterate *it = r->it;
    char name[NAME];
    int64_t measured = 0;
    bool is_found = false;
    int rc = AM_OK;
    points_name(r, name);
    AM_TRY(am_measured_read_some_all(it->suite.comm, it->folder, name, (double *)(r->point + 1),
                                     r->run->rounds * AM_POINT_REALS, &measured));
    for (int64_t round = measured / AM_POINT_REALS; round > 0 && !is_found; round--) {
        AM_TRY(try_round_all(r, round, best, &is_found));
    }
    if (is_found) {
        am_info("iterative%s%s, alpha %g: going on after round %" PRId64,
                r->run->label[0] != '\0' ? " " : "", r->run->label, r->alpha, r->round);
        AM_TRY(tidy_all(r));
        goto cleanup;
    }
    r->round = r->best = 0;
    am_iterate_copy(it, r->current, it->base);
    if (it->recipe->start == AM_START_ONE_SHOT) {
        AM_TRY(am_iterate_read_all(it, "one-shot.h5", r->current, &is_found));
        AM_ASSERT(is_found); /* the phase before wrote it */
    }
cleanup:
    return rc;
}

/* ---- rounds ---- */

/* Far from the optimum the task vectors share a direction, and their sum overshoots. */
static double alpha_of_round(const am_train_recipe *recipe, double alpha, int64_t round)
{
    return round < recipe->warmup ? alpha * (double)round / (double)recipe->warmup : alpha;
}

/* One round: finetune every task from `current`, merge into `current`, measure what is noise. */
static int round_all(const line *r, int64_t round, am_point *point)
{
    am_iterate *it = r->it;
    const am_train_recipe *recipe = it->recipe;
    const am_run *run = r->run;
    const double alpha = alpha_of_round(recipe, r->alpha, round);
    double energy = 0;
    am_train_options options =
        am_train_section_options(&recipe->finetune, recipe->seed, "iterate", round,
                                 (round - 1) * run->epochs, run->rounds * run->epochs);
    options.epochs = run->epochs;
    int rc = AM_OK;
    am_iterate_start_tasks(it, r->current);
    AM_TRY(am_suite_finetune_all(&it->suite, it->trunk, &options));
    AM_TRY(am_model_pool_fill_all(it->pool, r->current, it->trunk));
    AM_TRY(am_iterate_vectors_all(it, "iterate", r->alpha, round, &energy));
    AM_TRY(am_iterate_stats_all(it, run->merge, 1, round_stats, "round"));
    AM_TRY(am_iterate_merge_all(it, run->merge, alpha, round, r->current));
    if (it->stats != NULL) { /* the same on all ranks */
        am_iterate_stats_free(it);
        AM_TRY(am_run_folder_remove_all(it->suite.comm, it->folder, round_stats));
    }
    AM_TRY(am_iterate_noise_all(it, run->merge, alpha, round, energy, r->current, point));
cleanup:
    return rc;
}

/* The round that `how` is of: done and measured. */
static int measure_all(line *r, am_table_choice *how)
{
    const am_iterate *it = r->it;
    am_point point = {NAN, NAN, NAN, NAN, NAN, NAN};
    int rc = AM_OK;
    AM_TRY(round_all(r, how->round, &point));
    AM_TRY(am_iterate_validate_all(it, "iterate", r->current, how));
    point.validation = how->validation;
    point.validation_loss = how->validation_loss;
    if (it->recipe->curve) {
        AM_TRY(am_iterate_test_point_all(it, r->current, &point));
    }
    r->point[how->round] = point;
cleanup:
    return rc;
}

/* The next round: done, measured, saved; its model comes last. */
static int next_round_all(line *r, am_choice *best)
{
    am_table_choice how = how_of(r, r->round + 1);
    char text[AM_CHOICE_TEXT], name[NAME];
    int rc = AM_OK;
    am_saver_step(&r->it->saver, true, "%salpha %g, round %" PRId64, r->run->file, r->alpha,
                  how.round);
    AM_TRY(measure_all(r, &how));
    am_choice_offer(r->it, best, r->current, how);
    r->round++;
    if (r->best == 0 || am_choice_score(r->it, &how) > am_choice_score(r->it, &r->best_how)) {
        r->best_how = how;
        r->best = r->round;
    }
    am_debug("%salpha %g, round %" PRId64 ": validation %s", r->run->file, r->alpha, r->round,
             am_choice_text(r->it, &how, text));
    r->named[r->round] = r->best;
    points_name(r, name);
    AM_TRY(am_measured_write_all(r->it->suite.comm, r->it->folder, name,
                                 (const double *)(r->point + 1), r->round * AM_POINT_REALS));
    AM_TRY(save_round_all(r));
    AM_TRY(am_saver_done_all(&r->it->saver, r->it->suite.comm));
    const int64_t left = r->round - r->it->recipe->keep; /* is no longer among the newest */
    if (left > 0 && left < r->round) {
        AM_TRY(prune_all(r, left, left));
        AM_TRY(prune_all(r, r->named[left], r->named[left]));
    }
cleanup:
    return am_iterate_stopped_all(r->it, rc);
}

/* Until the last round, or until validation has not improved for `patience` rounds. */
int am_iterate_rounds_all(am_iterate *it, const am_run *run, double alpha, void *current,
                          am_choice *best, am_progress *progress, am_point *point, int64_t *n)
{
    const am_train_recipe *recipe = it->recipe;
    line r = {.it = it, .run = run, .alpha = alpha, .current = current, .point = point};
    char text[AM_CHOICE_TEXT];
    *n = 0;
    r.named = am_new(run->rounds + 1, sizeof *r.named, "rounds");
    int rc = r.named == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(it->suite.comm);
    AM_TRY(begin_all(&r, best));
    am_progress_add(progress, r.round);
    while (r.round < run->rounds &&
           (recipe->patience == 0 || r.round - r.best < recipe->patience)) {
        AM_TRY(next_round_all(&r, best));
        am_progress_add(progress, 1);
    }
    *n = r.round;
    am_info("iterative%s%s, alpha %g: validation %s in round %" PRId64,
            run->label[0] != '\0' ? " " : "", run->label, alpha,
            am_choice_text(it, &r.best_how, text), r.best);
cleanup:
    free(r.named);
    if (rc == AM_E_NUMERIC) { /* this alpha is too large; the others may do */
        am_warn("iterative%s%s, alpha %g: abandoned after round %" PRId64 ": %s",
                run->label[0] != '\0' ? " " : "", run->label, alpha, r.round, am_error_message());
        am_error_clear();
        *n = r.round; /* the rounds before it count */
        rc = AM_OK;
    }
    return rc;
}
