/* See spectra.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/analysis/spectra.h"

#include <math.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "solver/analysis/matrices.h"
#include "solver/linalg/blas.h"
#include "solver/linalg/svd.h"

const double am_spectrum_quantile[] = {0, 0.25, 0.5, 0.75, 1};
const double am_spectrum_energy[] = {0.90, 0.95, 0.99};

enum { SCALARS = sizeof(am_spectrum) / sizeof(double) };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- room ---- */

/* Doubles of one tensor's result: what am_spectra points to, end to end, and interference. */
static int64_t record(int models, const am_spectra_rule *rule)
{
    return models * (SCALARS + rule->leading) + 2 * (int64_t)models * models + 1;
}

/* am_spectra [n] | records [owned tensors] */
am_spectra *am_spectra_new(int64_t n, const int *owner, int models, const am_spectra_rule *rule)
{
    const int64_t each = record(models, rule), head = (n + 1) * (int64_t)sizeof(am_spectra);
    int64_t wanted = 0;
    for (int64_t i = 0; i < n; i++) {
        wanted += owner[i] >= 0;
    }
    char *block = am_new(head + wanted * each * (int64_t)sizeof(double), 1, "spectra");
    am_spectra *out = (am_spectra *)block;
    double *at = (double *)(block + head);
    for (int64_t i = 0; block != NULL && i < n; i++) {
        if (owner[i] >= 0) {
            out[i].task = (am_spectrum *)at;
            out[i].leading = at + (int64_t)models * SCALARS;
            out[i].left = out[i].leading + models * rule->leading;
            out[i].right = out[i].left + (int64_t)models * models;
            at += each;
        }
    }
    return out;
}

static int64_t directions(int64_t m, int64_t n, int models, const am_spectra_rule *rule)
{
    const int64_t k = least(m, n);
    return rule->directions > 0 ? least(rule->directions, k) : most(k / models, 1);
}

/* The matrix and its decomposition; all leading vectors, and three squares of products. */
static int64_t bytes_of(int64_t m, int64_t n, int models, const am_spectra_rule *rule)
{
    const int64_t k = least(m, n), one = directions(m, n, models, rule), all = one * models;
    return am_matrix_bytes(m, n) + am_matrix_bytes(1, k) + am_svd_bytes_on(NULL, m, n, one) +
           am_matrix_bytes(m, all) + am_matrix_bytes(all, n) + am_matrix_bytes(1, all) +
           3 * am_matrix_bytes(all, all);
}

static int64_t arena_bytes(const am_tensor_table *tensors, const int *owner, int rank, int models,
                           const am_spectra_rule *rule)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        if (owner[i] == rank) {
            bytes = most(bytes, bytes_of(am_matrix_rows(t), am_matrix_cols(t), models, rule));
        }
    }
    return bytes;
}

int64_t am_spectra_bytes(const am_tensor_table *tensors, const int *owner, int rank, int models,
                         const am_spectra_rule *rule)
{
    int64_t longest = 0, results = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        results += owner[i] >= 0 ? record(models, rule) * (int64_t)sizeof(double) : 0;
        if (owner[i] == rank) {
            const int64_t all =
                models * directions(am_matrix_rows(t), am_matrix_cols(t), models, rule);
            longest = most(longest, most(all, most(am_matrix_rows(t), am_matrix_cols(t))));
        }
    }
    return arena_bytes(tensors, owner, rank, models, rule) + results +
           (longest > 0 ? am_blas_bytes(longest) : 0);
}

/* ---- one spectrum ---- */

/* s [k] falling. */
static double quantile(const double *s, int64_t k, double q)
{
    const double at = (1 - q) * (double)(k - 1); /* from the largest on */
    const int64_t i = (int64_t)floor(at);
    return i + 1 < k ? s[i] + (at - (double)i) * (s[i + 1] - s[i]) : s[k - 1];
}

static am_spectrum describe(int64_t m, int64_t n, const double *s)
{
    const int64_t k = least(m, n);
    am_spectrum out = {0};
    double sum = 0, squares = 0, entropy = 0;
    for (int q = 0; q < AM_SPECTRUM_QUANTILES; q++) {
        out.quantile[q] = quantile(s, k, am_spectrum_quantile[q]);
    }
    if (s[0] == 0) {
        return out;
    }
    for (int64_t i = k - 1; i >= 0; i--) {
        sum += s[i] / s[0];
        squares += (s[i] / s[0]) * (s[i] / s[0]);
    }
    double energy = 0;
    for (int64_t i = 0; i < k; i++) {
        const double p = s[i] / s[0] / sum;
        entropy -= p > 0 ? p * log(p) : 0;
        for (int e = 0; e < AM_SPECTRUM_ENERGIES; e++) {
            out.rank_at[e] += energy < am_spectrum_energy[e] * squares;
        }
        energy += (s[i] / s[0]) * (s[i] / s[0]);
    }
    out.effective_rank = exp(entropy);
    out.stable_rank = squares;
    out.rank = (double)am_svd_rank(m, n, s);
    return out;
}

/* ---- one tensor ---- */

typedef struct am_bench {
    const am_tensor_table *tensors;
    const am_merge_input *base, *models;
    int n_models;
    const am_spectra_rule *rule;
    am_spectra *out;
    am_arena arena;
} am_bench;

/* Leading vectors of all tasks side by side; those of task t are [first[t], first[t + 1]). */
typedef struct am_stack {
    am_matrix left, right; /* [m, all], [all, n] */
    double *value;         /* [all] */
    int64_t first[AM_MAX_MODELS + 1];
} am_stack;

static int add_task(am_bench *b, int64_t tensor, int t, am_stack *stack)
{
    const int64_t m = stack->left.rows, n = stack->right.cols, k = least(m, n);
    const int64_t wanted = directions(m, n, b->n_models, b->rule), at = stack->first[t];
    am_spectra *out = &b->out[tensor];
    const size_t mark = am_arena_mark(&b->arena);
    const am_matrix delta = am_matrix_take(&b->arena, m, n);
    double *s = am_matrix_take(&b->arena, 1, k).at;
    int rc = am_matrix_load(b->base, &b->models[t], tensor, delta);
    AM_KEEP(am_svd(&b->arena, delta, am_matrix_part(stack->left, 0, at, m, wanted), s,
                   am_matrix_part(stack->right, at, 0, wanted, n)));
    if (rc == 0) {
        const int64_t r = least(wanted, am_svd_rank(m, n, s));
        out->task[t] = describe(m, n, s);
        for (int64_t i = 0; i < b->rule->leading; i++) {
            out->leading[t * b->rule->leading + i] = i < k ? s[i] : 0;
        }
        memcpy(stack->value + at, s, (size_t)r * sizeof *s);
        stack->first[t + 1] = at + r;
    }
    am_arena_release(&b->arena, mark);
    return rc;
}

/* |block (a, b) of gram|_F^2 / min(r_a, r_b) */
static double overlap(const am_stack *stack, am_matrix gram, int a, int b)
{
    const int64_t r_a = stack->first[a + 1] - stack->first[a];
    const int64_t r_b = stack->first[b + 1] - stack->first[b];
    double sum = 0;
    for (int64_t i = stack->first[a]; i < stack->first[a + 1]; i++) {
        for (int64_t j = stack->first[b]; j < stack->first[b + 1]; j++) {
            sum += gram.at[i * gram.step + j] * gram.at[i * gram.step + j];
        }
    }
    return r_a > 0 && r_b > 0 ? sum / (double)least(r_a, r_b) : (double)NAN;
}

static void compare(am_bench *b, int64_t tensor, const am_stack *stack)
{
    am_spectra *out = &b->out[tensor];
    const int64_t all = stack->first[b->n_models], m = stack->left.rows, n = stack->right.cols;
    const am_matrix left = am_matrix_part(stack->left, 0, 0, m, all);
    const am_matrix right = am_matrix_part(stack->right, 0, 0, all, n);
    const am_matrix gram_u = am_matrix_take(&b->arena, all, all);
    const am_matrix gram_v = am_matrix_take(&b->arena, all, all);
    const am_matrix product = am_matrix_take(&b->arena, all, all);
    am_multiply(1, left, AM_TRANSPOSED, left, AM_AS_IS, 0, gram_u);
    am_multiply(1, right, AM_AS_IS, right, AM_TRANSPOSED, 0, gram_v);
    for (int i = 0; i < b->n_models; i++) {
        for (int j = 0; j <= i; j++) {
            const int64_t at = (int64_t)i * b->n_models + j, other = (int64_t)j * b->n_models + i;
            out->left[at] = out->left[other] = overlap(stack, gram_u, i, j);
            out->right[at] = out->right[other] = overlap(stack, gram_v, i, j);
        }
    }
    for (int64_t i = 0; i < all; i++) {
        gram_u.at[i * all + i] -= 1;
        gram_v.at[i * all + i] -= 1;
    }
    am_matrix_scale_rows(gram_v, stack->value);
    am_multiply(1, gram_u, AM_AS_IS, gram_v, AM_AS_IS, 0, product);
    for (int64_t i = 0; i < all * all; i++) {
        out->interference += fabs(product.at[i]);
    }
}

static int describe_tensor(void *self, int64_t tensor)
{
    am_bench *b = self;
    const am_tensor *t = &b->tensors->t[tensor];
    const int64_t m = am_matrix_rows(t), n = am_matrix_cols(t);
    const int64_t all = directions(m, n, b->n_models, b->rule) * b->n_models;
    int rc = 0;
    am_arena_release(&b->arena, 0);
    am_stack stack = {.left = am_matrix_take(&b->arena, m, all),
                      .right = am_matrix_take(&b->arena, all, n),
                      .value = am_matrix_take(&b->arena, 1, all).at};
    for (int i = 0; rc == 0 && i < b->n_models; i++) {
        rc = add_task(b, tensor, i, &stack);
    }
    if (rc == 0) {
        compare(b, tensor, &stack);
    }
    return rc;
}

/* ---- all ---- */

/* What owners found, on all ranks: nothing is below 0, and others have zeros. */
static int share_all(MPI_Comm comm, const am_bench *b, const int *owner)
{
    const int64_t n = record(b->n_models, b->rule) - 1;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < b->tensors->n; i++) {
        if (owner[i] >= 0) { /* the same on every rank; errors are agreed */
            rc = am_max_f64_all(comm, (double *)b->out[i].task, n);
            rc = rc != 0 ? rc : am_max_f64_all(comm, &b->out[i].interference, 1);
        }
    }
    return rc;
}

int am_spectra_all(MPI_Comm comm, const am_tensor_table *tensors, const am_merge_input *base,
                   const am_merge_input *models, int n_models, const am_spectra_rule *rule,
                   const int *owner, am_spectra *out)
{
    am_bench b = {.tensors = tensors,
                  .base = base,
                  .models = models,
                  .n_models = n_models,
                  .rule = rule,
                  .out = out};
    int rank = 0;
    AM_ASSERT(n_models >= 1 && n_models <= AM_MAX_MODELS);
    MPI_Comm_rank(comm, &rank);
    const int64_t bytes = arena_bytes(tensors, owner, rank, n_models, rule);
    int rc = bytes > 0 ? am_arena_create(&b.arena, (size_t)bytes, "spectra") : 0;
    AM_AGREE(comm);
    AM_TRY(am_matrices_each_all(comm, tensors->n, owner, describe_tensor, &b));
    AM_TRY(share_all(comm, &b, owner));
cleanup:
    am_arena_destroy(&b.arena);
    return rc;
}
