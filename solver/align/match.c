/* Matching: see match.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/align/match.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/progress.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/watchdog.h"
#include "solver/align/attention.h"
#include "solver/align/similarity.h"
#include "solver/linalg/assignment.h"
#include "solver/linalg/blas.h"

static const double AM_ALIGN_LEAST = 1e-12; /* gain, of the product of the norms */

typedef struct matching {
    am_align *align;
    const double *base;
    double *model;
    const am_align_options *options;
    double least;                    /* gain that is taken */
    double *weight;                  /* [fields] of activations; 0 by weights */
    double *S[AM_ALIGN_FIELDS];      /* [n,n] of the largest such field */
    int64_t *match[AM_ALIGN_FIELDS]; /* [n] */
    int64_t *back;                   /* [n] the inverse of one */
    bool *is_known;                  /* [fields] */
    bool *is_used;                   /* [uses of the field that has most] */
    bool *is_touched;                /* [tensors] by the group at hand */
} matching;

/* ---- sums ---- */

/* Inner product of x and y over the tensors that count, of those in `only` (NULL: all). */
static double dot(const am_align *a, const bool *only, const double *x, const double *y)
{
    am_exact sum = {0};
    for (int t = 0; t < a->n_tensors; t++) {
        const am_align_tensor *tensor = &a->tensor[t];
        for (int64_t lo = 0; tensor->counts && (only == NULL || only[t]) && lo < tensor->numel;
             lo += AM_CHUNK) {
            const int64_t n = tensor->numel - lo < AM_CHUNK ? tensor->numel - lo : AM_CHUNK;
            am_dot_chunk(x + tensor->offset + lo, y + tensor->offset + lo, n, &sum);
        }
    }
    return am_exact_round(&sum);
}

static double sum_of(const double *x, int64_t n)
{
    am_exact sum = {0};
    for (int64_t i = 0; i < n; i++) {
        am_exact_add(&sum, x[i]);
    }
    return am_exact_round(&sum);
}

/* Products of activations of matched units: unit i with unit order[match[i]]; NULL: order[i]. */
static double active(const matching *m, int f, const int64_t *match)
{
    const am_align_field *field = &m->align->field[f];
    am_exact sum = {0};
    for (int64_t i = 0; m->options->cross != NULL && i < field->n; i++) {
        const int64_t at = field->order[match != NULL ? match[i] : i];
        am_exact_add(&sum, m->options->cross[f][i * field->n + at]);
    }
    return am_exact_round(&sum);
}

static double all_active(const matching *m)
{
    double sum = 0;
    for (int f = 0; f < m->align->n_fields; f++) {
        sum += active(m, f, NULL);
    }
    return sum;
}

/* What is made larger. */
static double objective(const matching *m)
{
    if (m->options->by == AM_BY_ACTIVATIONS) {
        return all_active(m);
    }
    double sum = dot(m->align, NULL, m->base, m->model);
    for (int f = 0; f < m->align->n_fields; f++) {
        sum += m->weight[f] > 0 ? m->weight[f] * active(m, f, NULL) : 0;
    }
    return sum;
}

static void find_touched(matching *m, const am_align_group *group)
{
    memset(m->is_touched, 0, (size_t)m->align->n_tensors * sizeof *m->is_touched);
    for (int k = 0; k < group->n_fields; k++) {
        const am_align_field *field = &m->align->field[group->field[k]];
        for (int i = 0; i < field->n_uses; i++) {
            m->is_touched[field->use[i].tensor] = true;
        }
    }
}

/* Activations of a group have the norms of the weights that touch it, in equal shares of its
 * fields. */
static void weigh_activations(matching *m)
{
    const am_align *a = m->align;
    for (int g = 0; g < a->n_groups; g++) {
        const am_align_group *group = &a->group[g];
        find_touched(m, group);
        const double x = dot(a, m->is_touched, m->base, m->base);
        const double y = dot(a, m->is_touched, m->model, m->model);
        for (int k = 0; k < group->n_fields; k++) {
            const int f = group->field[k];
            const int64_t n = a->field[f].n;
            const double *own = m->options->own[f];
            const double norms = sqrt(sum_of(own, n)) * sqrt(sum_of(own + n, n));
            m->weight[f] = norms > 0 ? sqrt(x) * sqrt(y) / (norms * group->n_fields) : 0;
        }
    }
}

/* ---- one group ---- */

/* S[k] += weight of the products of activations, in the order that there is. */
static void add_active(matching *m, int k, int f, double weight)
{
    const am_align_field *field = &m->align->field[f];
    for (int64_t i = 0; weight > 0 && i < field->n; i++) {
        for (int64_t j = 0; j < field->n; j++) {
            m->S[k][i * field->n + j] +=
                weight * m->options->cross[f][i * field->n + field->order[j]];
        }
    }
}

/* The match of a group with the largest sum of S. */
static int assign(matching *m, const am_align_group *group)
{
    const int64_t n = m->align->field[group->field[0]].n;
    return group->is_attention ? am_align_attention(&group->heads, m->S, m->match)
                               : am_assignment(n, m->S[0], n, m->match[0], NULL, NULL);
}

/* The best match of a group's fields, by the uses that are known or by all. */
static int solve_all(MPI_Comm comm, matching *m, const am_align_group *group, bool known_only)
{
    int rc = 0;
    for (int k = 0; k < group->n_fields; k++) {
        const am_align_field *field = &m->align->field[group->field[k]];
        for (int i = 0; i < field->n_uses; i++) {
            const am_align_use *use = &field->use[i];
            m->is_used[i] = true;
            for (int f = 0; known_only && f < m->align->n_fields; f++) {
                const am_align_field *other = &m->align->field[f];
                for (int j = 0; !m->is_known[f] && j < other->n_uses; j++) {
                    if (other->use[j].tensor == use->tensor && other->use[j].dim != use->dim) {
                        m->is_used[i] = false;
                    }
                }
            }
        }
        AM_TRY(
            am_align_similarity_all(comm, m->align, field, m->is_used, m->base, m->model, m->S[k]));
        add_active(m, k, group->field[k], m->weight[group->field[k]]);
    }
    rc = assign(m, group);
    am_alive("align");
    rc = am_agree_step_all(comm, rc);
cleanup:
    return rc;
}

/* Put the model into the order matched, or back. */
static int permute(matching *m, const am_align_group *group, bool back)
{
    int rc = 0;
    for (int k = 0; rc == 0 && k < group->n_fields; k++) {
        const am_align_field *field = &m->align->field[group->field[k]];
        for (int64_t i = 0; back && i < field->n; i++) {
            m->back[m->match[k][i]] = i;
        }
        rc = am_align_permute(m->align, field, back ? m->back : m->match[k], m->model);
    }
    return rc;
}

static void note_order(matching *m, const am_align_group *group)
{
    for (int k = 0; k < group->n_fields; k++) {
        am_align_field *field = &m->align->field[group->field[k]];
        for (int64_t i = 0; i < field->n; i++) {
            m->back[i] = field->order[m->match[k][i]];
        }
        memcpy(field->order, m->back, (size_t)field->n * sizeof *m->back);
    }
}

/* Match a group given all others; *gain is what it gave, 0 when the order stays. */
static int improve_all(MPI_Comm comm, matching *m, const am_align_group *group, double *gain)
{
    int rc = 0;
    *gain = 0;
    find_touched(m, group);
    AM_TRY(solve_all(comm, m, group, false));
    const double before = dot(m->align, m->is_touched, m->base, m->model);
    rc = permute(m, group, false);
    AM_AGREE(comm);
    *gain = dot(m->align, m->is_touched, m->base, m->model) - before;
    for (int k = 0; k < group->n_fields; k++) {
        const int f = group->field[k];
        *gain +=
            m->weight[f] > 0 ? m->weight[f] * (active(m, f, m->match[k]) - active(m, f, NULL)) : 0;
    }
    if (*gain > m->least) {
        note_order(m, group);
    } else {
        *gain = 0;
        rc = permute(m, group, true);
        AM_AGREE(comm);
    }
cleanup:
    return rc;
}

/* ---- the start ---- */

/* Weights of a unit whose place is known along all their other axes. */
static int64_t known_weights(const matching *m, const am_align_group *group)
{
    const am_align *a = m->align;
    int64_t sum = 0;
    for (int k = 0; k < group->n_fields; k++) {
        const am_align_field *field = &a->field[group->field[k]];
        for (int i = 0; i < field->n_uses; i++) {
            const am_align_use *use = &field->use[i];
            bool is_known = a->tensor[use->tensor].counts;
            for (int f = 0; is_known && f < a->n_fields; f++) {
                for (int j = 0; !m->is_known[f] && j < a->field[f].n_uses; j++) {
                    const am_align_use *other = &a->field[f].use[j];
                    is_known = is_known && (other->tensor != use->tensor || other->dim == use->dim);
                }
            }
            sum += is_known ? a->tensor[use->tensor].numel / a->tensor[use->tensor].shape[use->dim]
                            : 0;
        }
    }
    return sum;
}

/* Group after group, that one first of which most is known. */
static int begin_all(MPI_Comm comm, matching *m)
{
    const am_align *a = m->align;
    int rc = 0;
    for (int done = 0; done < a->n_groups; done++) {
        const am_align_group *best = NULL;
        int64_t most = -1;
        for (int g = 0; g < a->n_groups; g++) {
            const int64_t known =
                m->is_known[a->group[g].field[0]] ? -1 : known_weights(m, &a->group[g]);
            best = known > most ? &a->group[g] : best;
            most = known > most ? known : most;
        }
        AM_TRY(solve_all(comm, m, best, true));
        rc = permute(m, best, false);
        AM_AGREE(comm);
        note_order(m, best);
        for (int k = 0; k < best->n_fields; k++) {
            m->is_known[best->field[k]] = true;
        }
    }
cleanup:
    return rc;
}

/* Back to the order of the beginning. */
static int undo(matching *m)
{
    int rc = 0;
    for (int f = 0; rc == 0 && f < m->align->n_fields; f++) {
        am_align_field *field = &m->align->field[f];
        for (int64_t i = 0; i < field->n; i++) {
            m->back[field->order[i]] = i;
        }
        rc = am_align_permute(m->align, field, m->back, m->model);
        for (int64_t i = 0; i < field->n; i++) {
            field->order[i] = i;
        }
    }
    return rc;
}

/* Every group by its activations, which know nothing of the other groups. */
static int by_activations_all(MPI_Comm comm, matching *m)
{
    int rc = 0;
    for (int g = 0; g < m->align->n_groups; g++) {
        const am_align_group *group = &m->align->group[g];
        for (int k = 0; k < group->n_fields; k++) {
            const int64_t n = m->align->field[group->field[k]].n;
            memset(m->S[k], 0, (size_t)(n * n) * sizeof *m->S[k]);
            add_active(m, k, group->field[k], 1);
        }
        rc = assign(m, group);
        AM_KEEP(rc != 0 ? rc : permute(m, group, false));
        am_alive("align");
        AM_TRY(am_agree_step_all(comm, rc));
        note_order(m, group);
    }
cleanup:
    return rc;
}

/* ---- all ---- */

/* The largest field of each kind, all units and uses of a field. */
static void measure(const am_align *a, int64_t most[AM_ALIGN_FIELDS], int64_t *all, int *uses)
{
    *all = *uses = 1;
    for (int g = 0; g < a->n_groups; g++) {
        for (int k = 0; k < a->group[g].n_fields; k++) {
            const am_align_field *field = &a->field[a->group[g].field[k]];
            most[k] = field->n > most[k] ? field->n : most[k];
            *all = field->n > *all ? field->n : *all;
            *uses = field->n_uses > *uses ? field->n_uses : *uses;
        }
    }
}

int64_t am_align_match_bytes(const am_align *align)
{
    int64_t most[AM_ALIGN_FIELDS] = {0}, all, bytes = 0;
    int uses;
    measure(align, most, &all, &uses);
    for (int k = 0; k < AM_ALIGN_FIELDS; k++) {
        bytes += most[k] * (most[k] + 1) * (int64_t)sizeof(double);
    }
    return bytes + 64 * all + am_align_similarity_bytes(all); /* 41 of a row of an assignment */
}

static int matching_make(matching *m)
{
    const am_align *a = m->align;
    int64_t most[AM_ALIGN_FIELDS] = {0}, all;
    int uses, rc = 0;
    measure(a, most, &all, &uses);
    for (int k = 0; k < AM_ALIGN_FIELDS; k++) {
        m->S[k] = am_new(most[k] * most[k] + 1, sizeof *m->S[k], "similarities of units");
        m->match[k] = am_new(most[k] + 1, sizeof *m->match[k], "an order of units");
        rc = rc != 0 || m->S[k] == NULL || m->match[k] == NULL ? AM_E_NOMEM : 0;
    }
    m->back = am_new(all, sizeof *m->back, "an order of units");
    m->is_known = am_new(a->n_fields + 1, sizeof *m->is_known, "alignment");
    m->is_used = am_new(uses, sizeof *m->is_used, "alignment");
    m->is_touched = am_new(a->n_tensors + 1, sizeof *m->is_touched, "alignment");
    m->weight = am_new(a->n_fields + 1, sizeof *m->weight, "alignment");
    return rc != 0 || !m->weight || !m->back || !m->is_known || !m->is_used || !m->is_touched
               ? AM_E_NOMEM
               : 0;
}

static void matching_free(matching *m)
{
    for (int k = 0; k < AM_ALIGN_FIELDS; k++) {
        free(m->S[k]);
        free(m->match[k]);
    }
    free(m->back);
    free(m->is_known);
    free(m->is_used);
    free(m->is_touched);
    free(m->weight);
}

static int sweep_all(MPI_Comm comm, matching *m, const am_align_options *o, int64_t sweep,
                     double *gain)
{
    const am_align *a = m->align;
    const am_rng rng = am_rng_make((uint64_t)o->seed, "align", sweep, 0, "");
    int rc = 0;
    *gain = 0;
    for (int g = 0; g < a->n_groups; g++) {
        double one = 0;
        AM_TRY(improve_all(comm, m, &a->group[am_rng_permute(&rng, a->n_groups, g)], &one));
        *gain += one;
    }
cleanup:
    return rc;
}

/* Sums before the work. */
static void note_before(const matching *m, am_align_result *out)
{
    const am_align *a = m->align;
    double x = 0, y = 0;
    out->before = dot(a, NULL, m->base, m->model);
    out->base2 = dot(a, NULL, m->base, m->base);
    out->model2 = dot(a, NULL, m->model, m->model);
    out->active_before = all_active(m);
    for (int f = 0; m->options->own != NULL && f < a->n_fields; f++) {
        x += sum_of(m->options->own[f], a->field[f].n);
        y += sum_of(m->options->own[f] + a->field[f].n, a->field[f].n);
    }
    out->active2 = sqrt(x) * sqrt(y);
}

/* From the start, or from the order that there is, until nothing gains. */
static int descend_all(MPI_Comm comm, matching *m, am_align_result *out)
{
    const am_align_options *options = m->options;
    const double before = objective(m);
    double gain = 0;
    int rc = 0;
    m->least = AM_ALIGN_LEAST * sqrt(out->base2) * sqrt(out->model2);
    if (!options->is_rough) {
        AM_TRY(begin_all(comm, m));
        rc = objective(m) < before ? undo(m) : 0;
        AM_AGREE(comm);
    }
    while (!out->is_converged && out->sweeps < options->sweeps) {
        AM_TRY(sweep_all(comm, m, options, out->sweeps++, &gain));
        am_info("align: sweep %lld: cosine %.6f", (long long)out->sweeps,
                dot(m->align, NULL, m->base, m->model) / sqrt(out->base2) / sqrt(out->model2));
        out->is_converged = gain <= 0;
    }
cleanup:
    return rc;
}

int am_align_match_all(MPI_Comm comm, am_align *align, const double *base, double *model,
                       const am_align_options *options, am_align_result *out)
{
    matching m = {.align = align, .base = base, .model = model, .options = options};
    *out = (am_align_result){0};
    am_blas_single_thread();
    int rc = matching_make(&m);
    AM_AGREE(comm);
    note_before(&m, out);
    if (options->by == AM_BY_BOTH) {
        weigh_activations(&m);
    }
    out->objective_before = objective(&m);
    if (options->by == AM_BY_ACTIVATIONS) {
        AM_TRY(by_activations_all(comm, &m));
        out->sweeps = 1;
        out->is_converged = true;
    } else {
        AM_TRY(descend_all(comm, &m, out));
    }
    out->after = dot(align, NULL, base, model);
    out->active_after = all_active(&m);
    out->objective_after = objective(&m);
cleanup:
    matching_free(&m);
    return rc;
}
