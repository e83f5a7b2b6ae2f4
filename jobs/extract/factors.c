/* See factors.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/extract/factors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/dtype.h"
#include "jobs/merge/budget.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/progress.h"
#include "mpi/runtime.h"
#include "solver/analysis/matrices.h"
#include "solver/linalg/blas.h"

am_low_rank_rule am_rank_rule(const am_rank_options *options)
{
    static const am_low_rank_way ways[] = {AM_LOW_RANK_AUTO, AM_LOW_RANK_EXACT, AM_LOW_RANK_RANDOM};
    return (am_low_rank_rule){.most = options->most,
                              .fraction = options->fraction,
                              .energy = options->energy,
                              .smallest = options->smallest,
                              .way = ways[options->way]};
}

static const am_tensor_table *tensors_of(const am_factors *f)
{
    return f->inputs->source[0].tensors;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int am_factors_create(am_factors *factors)
{
    factors->of = am_new(tensors_of(factors)->n + 1, sizeof *factors->of, "factors");
    factors->owner = am_new(tensors_of(factors)->n + 1, sizeof *factors->owner, "factors");
    return factors->of != NULL && factors->owner != NULL ? 0 : AM_E_NOMEM;
}

void am_factors_free(am_factors *factors)
{
    for (int64_t i = 0; factors->of != NULL && i < tensors_of(factors)->n; i++) {
        free(factors->of[i].left);
        free(factors->of[i].right);
        free(factors->of[i].s);
    }
    free(factors->of);
    free(factors->owner);
    factors->of = NULL;
    factors->owner = NULL;
}

/* ---- memory ---- */

/* The matrix, the kept part of it, and what finds that; the right factor with singular values, and
 * a row on its way. */
static int64_t work_bytes(const am_factors *f, const am_tensor *t)
{
    const int64_t m = am_matrix_rows(t), n = am_matrix_cols(t);
    return 2 * am_matrix_bytes(m, n) + am_low_rank_bytes(m, n, &f->rule) +
           am_matrix_bytes(am_low_rank_most(m, n, &f->rule), n) + am_matrix_bytes(1, most(m, n));
}

/* Of the factors that wait for the file, at most. */
static int64_t kept_bytes(const am_factors *f, const am_tensor *t)
{
    const int64_t m = am_matrix_rows(t), n = am_matrix_cols(t);
    return am_low_rank_most(m, n, &f->rule) * ((m + n) * am_dtype_bytes(f->dtype) + 8);
}

/* Of one rank. */
static int64_t rank_bytes(const am_factors *f, int rank, int64_t *arena)
{
    const am_tensor_table *tensors = tensors_of(f);
    int64_t work = 0, kept = 0, longest = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        if (f->owner[i] == rank) {
            work = most(work, work_bytes(f, t));
            kept += kept_bytes(f, t);
            longest = most(longest, most(am_matrix_rows(t), am_matrix_cols(t)));
        }
    }
    *arena = work;
    return work + kept + (longest > 0 ? am_blas_bytes(longest) : 0);
}

static int64_t largest_bytes(const am_factors *f, int size)
{
    int64_t largest = 0, arena = 0;
    for (int r = 0; r < size; r++) {
        largest = most(largest, rank_bytes(f, r, &arena));
    }
    return largest;
}

/* ---- one matrix ---- */

/* What a rank works with. */
typedef struct bench {
    am_arena arena;
    const am_factors *f;
    int64_t tensor;
    am_matrix whole, kept, scaled; /* [m,n], [m,n], [rank,n] */
    am_low_rank found;
    double *row; /* [max(m,n)] */
    am_progress progress;
} bench;

/* Columns of a, or with `by_rows` rows, times factor^power. */
static void scale(am_matrix a, const double *factor, bool by_rows, double power)
{
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            const double x = factor[by_rows ? i : j];
            a.at[i * a.step + j] *= power == 1 ? x : sqrt(x);
        }
    }
}

/* a, by rows or by columns, to dtype in dst; a becomes what was rounded. */
static int round_to(const bench *b, am_matrix a, bool by_columns, char *dst)
{
    const am_dtype dtype = b->f->dtype;
    const int64_t lines = by_columns ? a.cols : a.rows, n = by_columns ? a.rows : a.cols;
    const int64_t line = by_columns ? 1 : a.step, next = by_columns ? a.step : 1;
    for (int64_t i = 0; i < lines; i++) {
        char *to = dst + i * n * am_dtype_bytes(dtype);
        for (int64_t j = 0; j < n; j++) {
            b->row[j] = a.at[i * line + j * next];
        }
        am_dtype_from_f64(dtype, b->row, n, to);
        am_dtype_to_f64(dtype, to, n, b->row);
        for (int64_t j = 0; j < n; j++) {
            a.at[i * line + j * next] = b->row[j];
            if (!isfinite(b->row[j])) {
                return am_fail(AM_E_NUMERIC,
                               "tensor '%s': a factor is too large for %s; choose a wider --dtype",
                               tensors_of(b->f)->t[b->tensor].name, am_dtype_name(dtype));
            }
        }
    }
    return 0;
}

/* u and vt as they are stored, and what of it. */
static int store_factors(const bench *b, am_factor *out)
{
    const am_low_rank *r = &b->found;
    const int64_t bytes = am_dtype_bytes(b->f->dtype);
    out->rank = r->rank;
    out->is_random = r->is_random;
    out->left = am_new(r->rank * r->u.rows + 1, (size_t)bytes, "factors");
    out->right = am_new(r->rank * r->vt.cols + 1, (size_t)bytes, "factors");
    out->s = am_new(r->rank + 1, sizeof *out->s, "factors");
    if (out->left == NULL || out->right == NULL || out->s == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < r->rank; i++) {
        out->s[i] = r->s[i];
    }
    if (b->f->scale != AM_FACTOR_APART) {
        scale(r->u, r->s, false, b->f->scale == AM_FACTOR_EVEN ? 0.5 : 1);
    }
    if (b->f->scale == AM_FACTOR_EVEN) {
        scale(r->vt, r->s, true, 0.5);
    }
    int rc = round_to(b, r->u, out->is_transposed, out->left);
    AM_KEEP(round_to(b, r->vt, out->is_transposed, out->right));
    return rc;
}

/* out = u diag(s) vt, or u vt if the factors hold s already. */
static void multiply(const bench *b, bool has_s, double factor, double beta, am_matrix out)
{
    am_matrix_copy(b->found.vt, b->scaled);
    if (!has_s) {
        scale(b->scaled, b->found.s, true, 1);
    }
    am_multiply(factor, b->found.u, AM_AS_IS, b->scaled, AM_AS_IS, beta, out);
}

static void tally_matrix(const bench *b, am_tally *tally)
{
    const int64_t numel = b->whole.rows * b->whole.cols;
    for (int64_t lo = 0; lo < numel; lo += AM_CHUNK) {
        const int64_t n = numel - lo < AM_CHUNK ? numel - lo : AM_CHUNK;
        am_tally_add(tally, b->kept.at + lo, b->whole.at + lo, n);
    }
}

static void sum_squares(const bench *b, am_exact *sum)
{
    const int64_t numel = b->whole.rows * b->whole.cols;
    for (int64_t lo = 0; lo < numel; lo += AM_CHUNK) {
        const double *x = b->whole.at + lo;
        am_dot_chunk(x, x, numel - lo < AM_CHUNK ? numel - lo : AM_CHUNK, sum);
    }
}

static int factorise(void *self, int64_t tensor)
{
    bench *b = self;
    am_factor *out = &b->f->of[tensor];
    const am_tensor *t = &tensors_of(b->f)->t[tensor];
    const int64_t m = am_matrix_rows(t), n = am_matrix_cols(t);
    const am_rng rng = am_rng_make(0, "directions", 0, 0, t->name);
    const am_merge_input *input = b->f->inputs->input;
    am_tally tally = {.largest = 0};
    am_arena_release(&b->arena, 0);
    b->tensor = tensor;
    b->whole = am_matrix_take(&b->arena, m, n);
    b->kept = am_matrix_take(&b->arena, m, n);
    b->row = am_matrix_take(&b->arena, 1, most(m, n)).at;
    int rc = am_matrix_load(&input[0], &input[1], tensor, b->whole);
    if (rc != 0) {
        return rc;
    }
    sum_squares(b, &tally.all);
    am_matrix_copy(b->whole, b->kept);
    rc = am_low_rank_find(&b->arena, b->kept, &b->f->rule, &rng, &b->found);
    if (rc == 0) {
        b->scaled = am_matrix_take(&b->arena, b->found.rank, n);
        multiply(b, false, 1, 0, b->kept);
        rc = store_factors(b, out);
    }
    if (rc == 0) { /* `whole` becomes the error of what is kept */
        am_matrix_copy(b->kept, b->whole);
        multiply(b, b->f->scale != AM_FACTOR_APART, -1, 1, b->whole);
        tally_matrix(b, &tally);
        out->loss = am_tally_round(&tally);
    }
    am_progress_add(&b->progress, 1);
    return rc;
}

/* ---- all of them ---- */

static int deal(am_factors *f, int size)
{
    const am_tensor_table *tensors = tensors_of(f);
    bool *is_wanted = am_new(tensors->n + 1, sizeof *is_wanted, "factors");
    int rc = is_wanted != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        is_wanted[i] = f->of[i].is_wanted;
        AM_KEEP(is_wanted[i] ? am_matrix_check(&tensors->t[i], "it cannot be factorised") : 0);
    }
    AM_KEEP(am_matrices_deal(tensors, is_wanted, size, f->owner));
    free(is_wanted);
    return rc;
}

static int factorise_all(MPI_Comm comm, am_factors *f, int rank)
{
    bench b = {.f = f};
    int64_t bytes = 0, own = 0;
    (void)rank_bytes(f, rank, &bytes);
    for (int64_t i = 0; i < tensors_of(f)->n; i++) {
        own += f->owner[i] == rank;
    }
    int rc = bytes > 0 ? am_arena_create(&b.arena, (size_t)bytes, "matrices") : 0;
    AM_AGREE(comm);
    am_progress_start(&b.progress, "singular directions", own, "matrices");
    rc = am_matrices_each_all(comm, tensors_of(f)->n, f->owner, factorise, &b);
    am_progress_end(&b.progress);
cleanup:
    am_arena_destroy(&b.arena);
    return rc;
}

/* What the owners found, on all ranks. */
static int share_all(MPI_Comm comm, am_factors *f, int rank)
{
    enum { WHOLE = 2, REAL = 4 };
    const int64_t n = tensors_of(f)->n;
    int rc = 0;
    int64_t *whole = am_new(WHOLE * n + 1, sizeof *whole, "factors");
    double *real = am_new(REAL * n + 1, sizeof *real, "factors");
    AM_KEEP(whole != NULL && real != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    for (int64_t i = 0; i < n; i++) {
        const am_factor *g = &f->of[i];
        if (f->owner[i] == rank) {
            whole[WHOLE * i] = g->rank;
            whole[WHOLE * i + 1] = g->is_random;
            real[REAL * i] = g->loss.all;
            real[REAL * i + 1] = g->loss.kept;
            real[REAL * i + 2] = g->loss.error;
            real[REAL * i + 3] = g->loss.largest;
        }
    }
    AM_TRY(am_max_i64_all(comm, whole, WHOLE * n));
    AM_TRY(am_max_f64_all(comm, real, REAL * n));
    for (int64_t i = 0; i < n; i++) {
        am_factor *g = &f->of[i];
        g->rank = whole[WHOLE * i];
        g->is_random = whole[WHOLE * i + 1] != 0;
        g->loss = (am_loss){.all = real[REAL * i],
                            .kept = real[REAL * i + 1],
                            .error = real[REAL * i + 2],
                            .largest = real[REAL * i + 3]};
    }
cleanup:
    free(whole);
    free(real);
    return rc;
}

int am_factors_find_all(MPI_Comm comm, am_factors *factors)
{
    int rank = 0, size = 0, rc = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    rc = deal(factors, size);
    AM_AGREE(comm);
    AM_TRY(am_budget_check_all(comm, factors->inputs, largest_bytes(factors, size), factors->memory,
                               "more ranks or fewer directions"));
    AM_TRY(factorise_all(comm, factors, rank));
    AM_TRY(share_all(comm, factors, rank));
cleanup:
    return rc;
}
