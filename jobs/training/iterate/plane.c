/* The plane of a run: see plane.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate/plane.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/merge/plan.h"
#include "jobs/training/measured.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/suite/scores.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"
#include "mpi/progress.h"
#include "solver/analysis/gram.h"
#include "solver/analysis/plane.h"

enum { ORIGIN, AXIS_X, AXIS_Y, VECTORS = AM_PLANE_VECTORS };
enum { READ_AHEAD = 1 << 20 }; /* bytes a model */

int64_t am_plane_models(const am_train_recipe *r)
{
    const am_comparison *one_shot = &r->one_shot, *iterate = &r->iterate;
    int64_t n = 1 + (int64_t)one_shot->n_epochs * (one_shot->n_methods + r->n_tasks);
    n += r->run_joint ? am_train_recipe_joint_epochs(r) : 0;
    for (int e = 0; e < iterate->n_epochs; e++) {
        const int64_t rounds = am_train_recipe_rounds(r, iterate->epochs[e]);
        const int64_t kept = 2 * r->keep + 1;
        n += iterate->n_methods * (r->keep == 0 || kept > rounds ? rounds : kept);
    }
    return n;
}

int64_t am_plane_gram_bytes(const am_train_recipe *r, int64_t real)
{
    const int64_t models = am_plane_models(r), read = AM_CHUNK * real;
    const int64_t n = models < AM_MAX_MODELS ? models : AM_MAX_MODELS; /* more are refused */
    return am_gram_bytes((int)n) + n * read + 2 * n * n * (int64_t)sizeof(double);
}

int am_plane_keep_all(const am_iterate *it, const char *key, const void *trunk,
                      const am_table_choice *how)
{
    char name[AM_TABLE_NAME + 16];
    int rc = AM_OK;
    /* The best of all of them is one of them. */
    if (!it->recipe->plane.is_given || how->phase == NULL || strcmp(how->phase, "one_shot") != 0 ||
        strcmp(key, "one_shot") == 0) {
        return AM_OK;
    }
    snprintf(name, sizeof name, "plane/%s.h5", key);
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "plane"));
    AM_TRY(am_iterate_save_all(it, name, trunk));
cleanup:
    return rc;
}

/* ---- which models ---- */

static am_plane_point *add(am_plane *plane, const char *phase, const char *name)
{
    am_plane_point *point = &plane->point[plane->n++];
    *point = (am_plane_point){.how = {.phase = phase, .alpha = NAN, .epochs = -1, .round = -1},
                              .task = -1};
    snprintf(point->name, sizeof point->name, "%s", name);
    return point;
}

static void add_one_shots(const am_iterate *it, am_plane *plane)
{
    for (int r = 0; r < it->table.n; r++) {
        const am_table_row *row = &it->table.row[r];
        const char *phase = row->choice.phase;
        if (phase != NULL && strcmp(phase, "one_shot") == 0 && strcmp(row->key, "one_shot") != 0) {
            am_plane_point *point = add(plane, "one_shot", row->key);
            point->how = row->choice;
            snprintf(point->file, sizeof point->file, "plane/%s.h5", row->key);
        }
    }
}

static void add_individuals(const am_iterate *it, am_plane *plane)
{
    const am_comparison *one_shot = &it->recipe->one_shot;
    for (int e = 0; e < one_shot->n_epochs; e++) {
        for (int i = 0; i < it->suite.n; i++) {
            char name[2 * AM_TABLE_NAME];
            const long long epochs = one_shot->epochs[e];
            snprintf(name, sizeof name, "%.40s_%lld", am_suite_task(&it->suite, i), epochs);
            am_plane_point *point = add(plane, "individual", name);
            point->task = i;
            point->how.epochs = epochs;
            snprintf(point->file, sizeof point->file, "tuned/%s-epochs-%03lld.h5",
                     am_suite_task(&it->suite, i), epochs);
        }
    }
}

static void add_rounds(const am_iterate *it, am_plane *plane)
{
    for (int i = 0; i < it->n_runs; i++) {
        const am_run *run = &it->run[i];
        for (int64_t round = 1; round < run->n_points + 1; round++) {
            char name[2 * AM_TABLE_NAME];
            snprintf(name, sizeof name, "iterative%s%.48s_%lld", it->n_runs > 1 ? "_" : "",
                     run->label, (long long)round);
            am_plane_point *point = add(plane, "iterative", name);
            point->how.method = run->merge->name;
            point->how.alpha = run->how.alpha;
            point->how.round = round;
            point->how.epochs = round * run->epochs;
            am_run_round_name(run, run->how.alpha, round, point->file, sizeof point->file);
        }
    }
}

static void add_joint(const am_iterate *it, am_plane *plane)
{
    const int64_t epochs = it->recipe->run_joint ? am_train_recipe_joint_epochs(it->recipe) : 0;
    for (int64_t epoch = 1; epoch <= epochs; epoch++) {
        char name[2 * AM_TABLE_NAME];
        snprintf(name, sizeof name, "joint_%lld", (long long)epoch);
        am_plane_point *point = add(plane, "joint", name);
        point->how.epochs = epoch;
        snprintf(point->file, sizeof point->file, "joint/epoch-%03lld.h5", (long long)epoch);
    }
}

static int64_t most_points(const am_iterate *it)
{
    int64_t n = 1 + it->table.n + (int64_t)it->recipe->one_shot.n_epochs * it->suite.n;
    n += am_train_recipe_joint_epochs(it->recipe);
    for (int i = 0; i < it->n_runs; i++) {
        n += it->run[i].n_points;
    }
    return n;
}

/* Everything that a plane holds; the points, the base first, as they should be on disk. */
static int make(am_iterate *it)
{
    am_plane *plane = am_new(1, sizeof *plane, "a plane");
    it->plane = plane;
    if (plane == NULL) {
        return AM_E_NOMEM;
    }
    plane->grid = it->recipe->plane.grid;
    plane->point = am_new(most_points(it), sizeof *plane->point, "a plane");
    plane->x = am_new(plane->grid, sizeof *plane->x, "a plane");
    plane->y = am_new(plane->grid, sizeof *plane->y, "a plane");
    plane->loss = am_new(plane->grid * plane->grid, sizeof *plane->loss, "a plane");
    if (plane->point == NULL || plane->x == NULL || plane->y == NULL || plane->loss == NULL) {
        return AM_E_NOMEM;
    }
    am_plane_point *base = add(plane, "base", "base");
    snprintf(base->file, sizeof base->file, "base.h5");
    add_one_shots(it, plane);
    add_individuals(it, plane);
    add_rounds(it, plane);
    add_joint(it, plane);
    return AM_OK;
}

void am_plane_free(am_iterate *it)
{
    if (it->plane != NULL) {
        free(it->plane->point);
        free(it->plane->x);
        free(it->plane->y);
        free(it->plane->loss);
        free(it->plane);
    }
    it->plane = NULL;
}

/* Rounds that were not kept are left out; all else must be there. */
static int find_all(am_iterate *it)
{
    am_plane *plane = it->plane;
    int n = 0, rc = AM_OK;
    for (int i = 0; i < plane->n; i++) {
        bool is_there = false;
        AM_TRY(am_run_folder_has_sound_all(it->suite.comm, it->folder, plane->point[i].file,
                                           &is_there));
        if (is_there) {
            plane->point[n++] = plane->point[i];
        } else if (strcmp(plane->point[i].how.phase, "iterative") != 0) {
            rc = am_fail(AM_E_DATA,
                         "plane: %s/%s is missing or damaged: remove it and run the same again",
                         it->folder->path, plane->point[i].file);
            goto cleanup; /* the same on all ranks */
        }
    }
    plane->n = n;
    AM_ASSERT(n <= AM_MAX_MODELS); /* the recipe was checked */
cleanup:
    return rc;
}

/* ---- the plane ---- */

/* gram [n,n] of the points, from the base: its row is 0. */
static int gram_all(const am_iterate *it, double *gram)
{
    const int n = it->plane->n;
    am_inputs inputs = {0};
    am_slice slice = {0};
    char **path = am_new(n, sizeof *path, "a plane");
    double *rest = am_new((int64_t)n * n, sizeof *rest, "a plane");
    int rank, size, rc = path == NULL || rest == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; i < n && rc == AM_OK; i++) {
        path[i] = am_text("%s/%s", it->folder->path, it->plane->point[i].file);
        rc = path[i] == NULL ? AM_E_NOMEM : AM_OK;
    }
    AM_AGREE(it->suite.comm);
    MPI_Comm_rank(it->suite.comm, &rank);
    MPI_Comm_size(it->suite.comm, &size);
    AM_TRY(am_inputs_open_all(it->suite.comm, path, n, true, READ_AHEAD, &inputs));
    const am_tensor_table *tensors = am_model_tensors(inputs.model[0]);
    rc = am_slice_make(tensors, AM_CHUNK, size, rank, &slice);
    AM_AGREE(it->suite.comm);
    if (n > 1) {
        AM_TRY(am_gram_all(it->suite.comm, tensors, &inputs.input[0], inputs.input + 1, n - 1,
                           &slice, NULL, rest));
    }
    for (int i = 1; i < n; i++) {
        memcpy(gram + (int64_t)i * n + 1, rest + (int64_t)(i - 1) * (n - 1),
               (size_t)(n - 1) * sizeof *gram);
    }
cleanup:
    for (int i = 0; i < n && path != NULL; i++) {
        free(path[i]);
    }
    free(path);
    free(rest);
    am_slice_free(&slice);
    am_inputs_close(&inputs);
    return rc;
}

/* What makes the plane of the points: factors of each in its origin and axes. */
typedef struct frame {
    double *room;     /* owned: all below, and what they are made of */
    double *gram;     /* [n,n] */
    double *middle;   /* [n] */
    double *weight;   /* [n,2] */
    double *place;    /* [n,2] */
    double *distance; /* [n] */
} frame;

static int frame_make(int64_t n, frame *f)
{
    f->room = am_new(n * n + 6 * n, sizeof *f->room, "a plane");
    if (f->room == NULL) {
        return AM_E_NOMEM;
    }
    f->gram = f->room;
    f->middle = f->gram + n * n;
    f->weight = f->middle + n;
    f->place = f->weight + 2 * n;
    f->distance = f->place + 2 * n;
    return AM_OK;
}

/* One rank computes, so that processors that differ do not disagree. */
static int frame_all(const am_iterate *it, frame *f)
{
    am_plane *plane = it->plane;
    const int64_t n = plane->n;
    int rank, rc = AM_OK;
    MPI_Comm_rank(it->suite.comm, &rank);
    AM_TRY(gram_all(it, f->gram));
    rc = rank == 0 ? am_plane_make(n, f->gram, f->middle, f->weight, f->place, f->distance,
                                   plane->explained)
                   : AM_OK;
    AM_AGREE(it->suite.comm);
    AM_TRY(am_bcast_all(it->suite.comm, 0, f->middle, 6 * n * (int64_t)sizeof *f->middle));
    AM_TRY(am_bcast_all(it->suite.comm, 0, plane->explained, sizeof plane->explained));
    for (int i = 0; i < n; i++) {
        plane->point[i].x = f->place[2 * i];
        plane->point[i].y = f->place[2 * i + 1];
        plane->point[i].distance = f->distance[i];
    }
cleanup:
    return rc;
}

static int read_point_all(const am_iterate *it, int i, void *trunk)
{
    bool is_there = false;
    const int rc = am_iterate_read_all(it, it->plane->point[i].file, trunk, &is_there);
    return rc != AM_OK || is_there
               ? rc
               : am_fail(AM_E_DATA,
                         "%s/%s is damaged or gone: the same command again makes it anew",
                         it->folder->path, it->plane->point[i].file);
}

/* Origin and axes [VECTORS][P] as sums of the points, one after the other. */
static int vectors_all(const am_iterate *it, const frame *f, double *vector)
{
    const int64_t P = it->suite.trunk.n;
    const bool is_f64 = it->suite.ops->dtype == AM_DTYPE_F64;
    int rc = AM_OK;
    for (int i = 0; i < it->plane->n; i++) {
        const double factor[VECTORS] = {f->middle[i], f->weight[2 * i], f->weight[2 * i + 1]};
        if (factor[ORIGIN] == 0) {
            continue; /* equal to another one */
        }
        AM_TRY(read_point_all(it, i, it->merged));
        const double *d = it->merged, *d0 = it->base;
        const float *s = it->merged, *s0 = it->base;
        for (int v = 0; v < VECTORS; v++) {
            double *to = vector + v * P;
            for (int64_t k = 0; k < P; k++) {
                to[k] += factor[v] * (is_f64 ? d[k] - d0[k] : (double)s[k] - s0[k]);
            }
        }
    }
cleanup:
    return rc;
}

/* ---- losses ---- */

static int loss_all(const am_iterate *it, const void *trunk, double *loss)
{
    am_scores scores = {0};
    const int rc = am_suite_eval_all(&it->suite, trunk, AM_VALIDATION, &scores);
    *loss = rc == AM_OK ? scores.loss : NAN;
    am_scores_free(&scores);
    return rc;
}

/* Of the model at (x, y). */
static int place_loss_all(const am_iterate *it, const double *vector, double x, double y,
                          double *loss)
{
    const int64_t P = it->suite.trunk.n;
    double *d = it->merged;
    float *s = it->merged;
    const double *d0 = it->base;
    const float *s0 = it->base;
    const bool is_f64 = it->suite.ops->dtype == AM_DTYPE_F64;
    for (int64_t k = 0; k < P; k++) {
        const double at = (is_f64 ? d0[k] : s0[k]) + vector[ORIGIN * P + k] +
                          x * vector[AXIS_X * P + k] + y * vector[AXIS_Y * P + k];
        if (is_f64) {
            d[k] = at;
        } else {
            s[k] = (float)at;
        }
    }
    return loss_all(it, it->merged, loss);
}

/* Of every model, its own and at its place in the plane: pairs. */
static int point_losses_all(const am_iterate *it, const double *vector)
{
    am_plane *plane = it->plane;
    const int n = plane->n;
    bool is_done = false;
    double *pair = am_new(2 * (int64_t)n, sizeof *pair, "a plane");
    int rc = pair == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(it->suite.comm);
    AM_TRY(am_measured_read_all(it->suite.comm, it->folder, "plane-points", pair, 2 * n, &is_done));
    for (int i = 0; i < n && !is_done; i++) {
        AM_TRY(read_point_all(it, i, it->merged));
        AM_TRY(loss_all(it, it->merged, &pair[2 * i]));
        AM_TRY(place_loss_all(it, vector, plane->point[i].x, plane->point[i].y, &pair[2 * i + 1]));
    }
    if (!is_done) {
        AM_TRY(am_measured_write_all(it->suite.comm, it->folder, "plane-points", pair, 2 * n));
    }
    for (int i = 0; i < n; i++) {
        plane->point[i].loss = pair[2 * i];
        plane->point[i].plane_loss = pair[2 * i + 1];
    }
cleanup:
    free(pair);
    return rc;
}

/* The extent of the models with a margin, in equal steps. */
static void axis(const am_plane *plane, double margin, bool is_y, double *out)
{
    double low = 0, high = 0;
    for (int i = 0; i < plane->n; i++) {
        const double at = is_y ? plane->point[i].y : plane->point[i].x;
        low = i == 0 ? at : fmin(low, at);
        high = i == 0 ? at : fmax(high, at);
    }
    const double extent = high - low, from = low - margin * extent;
    const double step = (1 + 2 * margin) * extent / (double)(plane->grid - 1);
    for (int64_t i = 0; i < plane->grid; i++) {
        out[i] = from + step * (double)i;
    }
}

static int grid_all(const am_iterate *it, const double *vector)
{
    am_plane *plane = it->plane;
    am_progress progress = {0};
    int rc = AM_OK;
    am_progress_start(&progress, "plane", plane->grid, "rows");
    for (int64_t r = 0; r < plane->grid; r++) {
        double *row = plane->loss + r * plane->grid;
        char name[32];
        bool is_done = false;
        snprintf(name, sizeof name, "plane-row-%03lld", (long long)r + 1);
        AM_TRY(am_measured_read_all(it->suite.comm, it->folder, name, row, plane->grid, &is_done));
        for (int64_t c = 0; c < plane->grid && !is_done; c++) {
            AM_TRY(place_loss_all(it, vector, plane->x[c], plane->y[r], &row[c]));
        }
        if (!is_done) {
            AM_TRY(am_measured_write_all(it->suite.comm, it->folder, name, row, plane->grid));
        }
        am_progress_add(&progress, 1);
    }
cleanup:
    am_progress_end(&progress);
    return rc;
}

int am_iterate_plane_all(am_iterate *it)
{
    const MPI_Comm comm = it->suite.comm;
    double *vector = NULL;
    frame f = {0};
    int rc = AM_OK;
    if (!it->recipe->plane.is_given) {
        return AM_OK;
    }
    rc = make(it);
    vector = am_new(VECTORS * it->suite.trunk.n, sizeof *vector, "a plane");
    AM_KEEP(vector == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(comm);
    AM_TRY(find_all(it)); /* the same on all ranks */
    rc = frame_make(it->plane->n, &f);
    AM_AGREE(comm);
    AM_TRY(frame_all(it, &f));
    am_info("plane of %d models: %.3f and %.3f of their variance", it->plane->n,
            it->plane->explained[0], it->plane->explained[1]);
    AM_TRY(vectors_all(it, &f, vector));
    axis(it->plane, it->recipe->plane.margin, false, it->plane->x);
    axis(it->plane, it->recipe->plane.margin, true, it->plane->y);
    AM_TRY(am_run_folder_sub_all(comm, it->folder, "units"));
    AM_TRY(point_losses_all(it, vector));
    AM_TRY(grid_all(it, vector));
cleanup:
    free(vector);
    free(f.room);
    return rc;
}

/* ---- the report ---- */

static void json_reals(am_json *json, const char *key, const double *value, int64_t n)
{
    am_json_array(json, key);
    for (int64_t i = 0; i < n; i++) {
        am_json_real(json, NULL, value[i]);
    }
    am_json_end_array(json);
}

static void json_count(am_json *json, const char *key, int64_t value)
{
    if (value >= 0) {
        am_json_int(json, key, value);
    } else {
        am_json_real(json, key, NAN); /* null */
    }
}

static void json_point(const am_iterate *it, const am_plane_point *point, am_json *json)
{
    const char *task = point->task >= 0 ? am_suite_task(&it->suite, point->task) : NULL;
    am_json_object(json, NULL);
    am_json_string(json, "name", point->name);
    am_json_string(json, "kind", point->how.phase);
    am_json_string(json, "method", point->how.method);
    am_json_string(json, "task", task);
    am_json_real(json, "alpha", point->how.alpha);
    json_count(json, "epochs", point->how.epochs);
    json_count(json, "round", point->how.round);
    am_json_real(json, "x", point->x);
    am_json_real(json, "y", point->y);
    am_json_real(json, "distance", point->distance);
    am_json_real(json, "loss_nats", point->loss);
    am_json_real(json, "plane_loss_nats", point->plane_loss);
    am_json_end_object(json);
}

void am_plane_json(const am_iterate *it, am_json *json)
{
    const am_plane *plane = it->plane;
    if (plane == NULL) {
        return;
    }
    am_json_object(json, "plane");
    json_reals(json, "explained", plane->explained, 2);
    am_json_array(json, "points");
    for (int i = 0; i < plane->n; i++) {
        json_point(it, &plane->point[i], json);
    }
    am_json_end_array(json);
    json_reals(json, "x", plane->x, plane->grid);
    json_reals(json, "y", plane->y, plane->grid);
    am_json_array(json, "loss_nats");
    for (int64_t r = 0; r < plane->grid; r++) {
        json_reals(json, NULL, plane->loss + r * plane->grid, plane->grid);
    }
    am_json_end_array(json);
    am_json_end_object(json);
}

void am_plane_write(const am_iterate *it, FILE *out)
{
    const am_plane *plane = it->plane;
    if (plane == NULL) {
        return;
    }
    fprintf(out,
            "\nplane of %d models, %.4f and %.4f of their variance: place, distance from it, "
            "validation loss (nats), and that of the place\n%-32s %10s %10s %10s %9s %9s\n",
            plane->n, plane->explained[0], plane->explained[1], "model", "x", "y", "distance",
            "nats", "in plane");
    for (int i = 0; i < plane->n; i++) {
        const am_plane_point *p = &plane->point[i];
        fprintf(out, "%-32.32s %10.5f %10.5f %10.5f %9.5f %9.5f\n", p->name, p->x, p->y,
                p->distance, p->loss, p->plane_loss);
    }
}
