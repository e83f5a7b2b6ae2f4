/* Memory of training: see memory.h. What counts is what is touched: room that a job takes but does
 * not write to yet is none of the process's.
 *
 * With adapters, every task that has been finetuned keeps a trunk with them, and so has the
 * training of all tasks; what moves are these.
 *
 *   phase      trunks beside the base                             and
 *
 *   pretrain                                                      the data set, a call of train_all
 *   probe                                                         a call
 *   train      the model                                          a call, its state
 *   finetune   merged, one or two a task, the chosen one, slices  a call in a group
 *   statistics the same                                           a leaf of stats in a group
 *   joint      and the final one                                  a call of all ranks
 *   gradients  and six in f64                                     a call in a group, a full batch
 *   plane      and three in f64                                   an evaluation; a Gram matrix
 *   descent    those of the sweep (solver/theory), Lanczos'       a gradient or a product of parts
 *   spectra    the end, Lanczos'                                  the same
 *   load       the model twice                                    none
 *   statistics                                                    a leaf of stats
 *   match      two in f64                                         sums of stats, similarities
 *   share      base, merged, shared, one a task, slices           a merge
 *   compress   the same, twins                                    a trunk, a factorisation
 *   route      the same                                           the router and its features
 *   average    base, merged, final, two a task, slices, one       a trunk in f64
 *   layers     the same                                           statistics, sums of Gram matrices
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory.h"

#include <stdlib.h>
#include "io/file.h"
#include "jobs/training/memory/planner.h"
#include "jobs/training/model_pool.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "solver/merge/dense.h"

static int read_shape_all(MPI_Comm comm, const am_train_recipe *r, const char *task,
                          const int64_t *limit, am_dataset_shape *out)
{
    char *path = am_text("%s/%s.h5", r->folder, task);
    int rc = path == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(comm);
    AM_TRY(am_dataset_shape_all(comm, path, limit, out));
cleanup:
    free(path);
    return rc;
}

static int largest_slice(const am_planner *p, const am_tensor_table *tensors, int64_t *out)
{
    const int64_t unit = am_model_pool_unit(tensors, am_train_recipe_on_wholes(p->recipe));
    am_slices slices = {0};
    const int rc = am_slices_make(tensors, unit, p->ranks, &slices);
    *out = 0;
    for (int r = 0; r < p->ranks && rc == AM_OK; r++) {
        int64_t elements = 0;
        for (int64_t i = slices.first[r]; i < slices.first[r + 1]; i++) {
            elements += slices.spans[i].hi - slices.spans[i].lo;
        }
        *out = am_plan_most(*out, elements);
    }
    am_slices_free(&slices);
    return rc;
}

/* The most that a method of a comparison takes for a matrix. */
static int64_t matrices_of(const am_planner *p, const am_comparison *comparison,
                           const am_tensor_table *tensors)
{
    int64_t bytes = 0;
    for (int i = 0; i < comparison->n_methods; i++) {
        const am_train_merge *merge = &comparison->method[i];
        for (int v = 0; v < am_train_merge_variants(merge); v++) {
            const am_train_merge one = am_train_merge_variant(merge, v);
            bytes = am_plan_most(
                bytes, am_method_matrix_bytes(one.method, tensors, p->recipe->n_tasks, one.param));
        }
    }
    return bytes;
}

static int measure(const am_planner *p, am_plan_net *s)
{
    static const char somewhere; /* any anchor: only whether there is one counts */
    am_param_layout trunk = {0}, moved = {0};
    int rc = am_net_trunk_layout(&s->net, p->ops->dtype, &trunk);
    AM_KEEP(am_param_layout_part(&trunk, &moved));
    AM_KEEP(largest_slice(p, &trunk.tensors, &s->slice));
    if (rc == AM_OK) {
        s->matrices = am_plan_most(matrices_of(p, &p->recipe->one_shot, &trunk.tensors),
                                   matrices_of(p, &p->recipe->iterate, &trunk.tensors));
        s->matrices = am_plan_most(
            s->matrices, am_method_matrix_bytes(p->recipe->merge.method, &trunk.tensors,
                                                p->recipe->n_tasks, p->recipe->merge.param));
    }
    s->trunk = trunk.n;
    s->moved = moved.n;
    s->net.anchor = p->recipe->model.linearised ? &somewhere : NULL;
    am_param_layout_free(&trunk);
    am_param_layout_free(&moved);
    return rc;
}

static int shape_nets(am_planner *p)
{
    int rc = am_net_copy(&p->recipe->model.net, &p->plain.net);
    AM_KEEP(am_net_shape(&p->plain.net, p->shape[0].features));
    if (rc == AM_OK && am_plan_has_adapters(p)) {
        rc = am_lora_adapt(&p->plain.net, &p->recipe->model.lora, &p->adapted.net);
        AM_KEEP(measure(p, &p->adapted));
    }
    AM_KEEP(measure(p, &p->plain));
    return rc;
}

int am_train_plan_all(MPI_Comm comm, const am_train_recipe *recipe, am_train_job job, int ranks,
                      const am_process *process, am_train_need *out, am_dataset_shape *sets)
{
    const int64_t no_limit[AM_SPLITS] = {0};
    am_planner p = {.recipe = recipe,
                    .ops = am_train_ops_of(recipe->dtype),
                    .ranks = ranks,
                    .real = am_dtype_bytes(recipe->dtype),
                    .process = process};
    *out = (am_train_need){0};
    p.shape = am_new(recipe->n_tasks, sizeof *p.shape, "a plan");
    int rc = p.shape == NULL ? AM_E_NOMEM : AM_OK;
    if (p.ops == NULL) {
        AM_KEEP(am_fail(AM_E_RECIPE, "cannot train in dtype %s: use float32 or float64",
                        am_dtype_name(recipe->dtype)));
    }
    AM_AGREE(comm);
    for (int i = 0; i < recipe->n_tasks; i++) {
        AM_TRY(read_shape_all(comm, recipe, recipe->task[i], recipe->limit, &p.shape[i]));
    }
    if (recipe->base_task != NULL) {
        AM_TRY(read_shape_all(comm, recipe, recipe->base_task, no_limit, &p.pretraining));
    }
    for (int i = 0; sets != NULL && i < recipe->n_tasks; i++) {
        sets[i] = p.shape[i];
    }
    if (sets != NULL && recipe->base_task != NULL) {
        sets[recipe->n_tasks] = p.pretraining;
    }
    rc = shape_nets(&p);
    const bool is_prepared =
        job == AM_JOB_EVAL || job == AM_JOB_STATS || job == AM_JOB_ALIGN || job == AM_JOB_EVAL_TWIN;
    AM_KEEP(is_prepared ? AM_OK : am_plan_prepare_phases(&p, out));
    AM_KEEP(job == AM_JOB_TRAIN       ? am_plan_train_phases(&p, out)
            : job == AM_JOB_ITERATE   ? am_plan_iterate_phases(&p, out)
            : job == AM_JOB_THEORY    ? am_plan_theory_phases(&p, out)
            : job == AM_JOB_STATS     ? am_plan_stats_phases(&p, out)
            : job == AM_JOB_ALIGN     ? am_plan_align_phases(&p, out)
            : job == AM_JOB_TWIN      ? am_plan_twin_phases(&p, out)
            : job == AM_JOB_EVAL_TWIN ? am_plan_eval_twin_phases(&p, out)
            : job == AM_JOB_REGMEAN   ? am_plan_regmean_phases(&p, out)
                                      : am_plan_offer_evaluation(&p, p.plain.trunk, 0, out));
    AM_AGREE(comm);
cleanup:
    am_net_free(&p.plain.net);
    am_net_free(&p.adapted.net);
    free(p.shape);
    return rc;
}

int am_train_report_memory_all(MPI_Comm comm)
{
    am_process process = {0};
    am_json json = {0};
    int rc = AM_OK;
    AM_TRY(am_memory_process_all(comm, &process));
    am_json_int(&json, "peak_bytes", process.peak);
    am_event("memory", &json);
cleanup:
    am_json_free(&json);
    return rc;
}
