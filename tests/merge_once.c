/* One merge of small tensors in memory through the real engine. SPDX-License-Identifier:
 * BSD-3-Clause
 */
#include <stdlib.h>
#include <string.h>
#include "mpi/reduce.h"
#include "solver/merge/dense.h"
#include "solver/merge/memory.h"
#include "tests/am_test.h"
#include "tests/merge_once.h"

enum { INPUTS = 2 * AM_ONCE_MODELS + 2 }; /* base, models, second inputs, output */

static int count_params(const am_method *method)
{
    int n = 0;
    while (method->params[n].key != NULL) {
        n++;
    }
    return n;
}

void am_merge_once_defaults(am_merge_once *m)
{
    for (int p = 0; m->method->params[p].key != NULL; p++) {
        m->param[p] = m->method->params[p].fallback;
        for (int t = 0; t < AM_ONCE_MODELS; t++) {
            m->model_param[t][p] = m->method->params[p].fallback;
        }
    }
}

void am_merge_once_set(am_merge_once *m, const char *key, int model, double value)
{
    int p = 0;
    while (m->method->params[p].key != NULL && strcmp(m->method->params[p].key, key) != 0) {
        p++;
    }
    if (!AM_CHECK(m->method->params[p].key != NULL)) {
        return;
    }
    m->param[p] = model < 0 ? value : m->param[p];
    for (int t = 0; t < AM_ONCE_MODELS; t++) {
        m->model_param[t][p] = model < 0 || t == model ? value : m->model_param[t][p];
    }
}

/* The engine's view of m: everything borrowed from it, tables owned. */
typedef struct stage {
    int64_t *offset, *index, total;
    double *param, *model_param;
    am_memory memory[INPUTS];
    am_source source[INPUTS];
    am_merge_input input[INPUTS];
    am_sink sink;
    int n;
} stage;

static am_merge_input *add_input(stage *s, const am_merge_once *m, const double *reals,
                                 const char *label)
{
    const int k = s->n++;
    s->memory[k] = (am_memory){.label = label,
                               .tensors = m->tensors,
                               .dtype = AM_DTYPE_F64,
                               .offset = s->offset,
                               .reals = (double *)reals,
                               .n = s->total};
    s->source[k] = am_memory_source(&s->memory[k]);
    s->input[k] = (am_merge_input){.source = &s->source[k], .tensor = s->index};
    return &s->input[k];
}

static void lay_out(stage *s, const am_merge_once *m)
{
    const int64_t n = m->tensors->n, n_params = count_params(m->method);
    const size_t one = sizeof(double);
    s->offset = calloc((size_t)n + 1, sizeof *s->offset);
    s->index = calloc((size_t)n + 1, sizeof *s->index);
    s->param = calloc((size_t)(n * n_params) + 1, one);
    s->model_param = calloc((size_t)(n * n_params * m->models) + 1, one);
    if (!AM_CHECK(s->offset && s->index && s->param && s->model_param)) {
        return;
    }
    am_memory_identity(s->index, n);
    for (int64_t i = 0; i < n; i++) {
        s->offset[i] = s->total;
        s->total += m->tensors->t[i].numel;
        memcpy(s->param + i * n_params, m->param, (size_t)n_params * one);
        for (int t = 0; t < m->models; t++) {
            memcpy(s->model_param + (i * m->models + t) * n_params, m->model_param[t],
                   (size_t)n_params * one);
        }
    }
}

static int run_all(MPI_Comm comm, stage *s, const am_merge_once *m, const am_merge_job *job,
                   double *out)
{
    am_slice slice = {0};
    am_merge_result result;
    int size = 1, rank = 0;
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &rank);
    memset(out, 0, (size_t)s->total * sizeof *out);
    AM_CHECK_OK(am_merge_slice_make(job, m->tensors, m->unit > 0 ? m->unit : AM_BLOCK, NULL, size,
                                    rank, &slice));
    const int rc = am_merge_run_all(comm, job, &slice, &result);
    am_slice_free(&slice);
    if (rc == 0) {
        /* each element has one writer: the sum of bit patterns is the pattern */
        AM_CHECK_OK(am_sum_i64_all(comm, (int64_t *)(void *)out, s->total));
    }
    return rc;
}

int am_merge_once_all(MPI_Comm comm, const am_merge_once *m, double *out)
{
    stage s = {0};
    const am_merge_input *base = NULL, *models = NULL, *aux = NULL;
    lay_out(&s, m);
    if (m->base != NULL) {
        base = add_input(&s, m, m->base, "base");
    }
    for (int t = 0; t < m->models; t++) {
        const am_merge_input *input = add_input(&s, m, m->x[t], "model");
        models = t == 0 ? input : models;
    }
    for (int t = 0; t < m->models && m->aux[0] != NULL; t++) {
        const am_merge_input *input = add_input(&s, m, m->aux[t], "second input");
        aux = t == 0 ? input : aux;
    }
    add_input(&s, m, out, "output");
    s.sink = am_memory_sink(&s.memory[s.n - 1]);
    bool *copy = calloc((size_t)m->tensors->n + 1, sizeof *copy);
    AM_CHECK(copy != NULL);
    const am_method *method = m->method;
    const am_scope scope = method->default_scope != 0 ? method->default_scope : AM_SCOPE_TENSOR;
    const am_semantics semantics =
        method->semantics == AM_SEMANTICS_PAPER ? AM_SEMANTICS_PAPER : AM_SEMANTICS_MERGEKIT;
    const am_merge_job job = {.method = method,
                              .base = base,
                              .n_models = m->models,
                              .models = models,
                              .aux = aux,
                              .sink = &s.sink,
                              .param = s.param,
                              .model_param = s.model_param,
                              .scope = m->scope != 0 ? m->scope : scope,
                              .semantics = m->semantics != 0 ? m->semantics : semantics,
                              .seed = m->seed,
                              .copy = copy,
                              .block = m->block > 0 ? m->block : 1 << 20};
    const int rc = run_all(comm, &s, m, &job, out);
    free(s.offset);
    free(s.index);
    free(s.param);
    free(s.model_param);
    free(copy);
    return rc;
}
