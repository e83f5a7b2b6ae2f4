/* Checkpoints that must match: opening, indexing, comparing. SPDX-License-Identifier: BSD-3-Clause
 */
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/complaints.h"
#include "jobs/merge/plan.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum { AM_COMPARE_BYTES = 1 << 20 };

static bool has_same_shape(const am_tensor *a, const am_tensor *b)
{
    if (a->ndim != b->ndim) {
        return false;
    }
    for (int d = 0; d < a->ndim; d++) {
        if (a->shape[d] != b->shape[d]) {
            return false;
        }
    }
    return true;
}

/* Floats of any width merge with each other; other tensors must be of the same type. */
static bool has_same_kind(am_dtype a, am_dtype b)
{
    return am_dtype_is_float(a) ? am_dtype_is_float(b) : a == b;
}

/* Index input k by the reference's tensors, and list everything that does not match. */
static void index_input(am_inputs *in, int k, am_complaints *c)
{
    const am_tensor_table *ours = am_model_tensors(in->model[0]);
    const am_tensor_table *theirs = am_model_tensors(in->model[k]);
    int64_t *index = (int64_t *)in->input[k].tensor;
    for (int64_t i = 0; i < ours->n; i++) {
        const am_tensor *a = &ours->t[i];
        index[i] = k == 0 ? i : am_tensor_table_find(theirs, a->name);
        const am_tensor *b = index[i] >= 0 ? &theirs->t[index[i]] : NULL;
        if (b == NULL) {
            am_complain(c, "%s: tensor '%s' is missing (%s has it)", in->path[k], a->name,
                        in->path[0]);
        } else if (!has_same_shape(a, b) || !has_same_kind(a->dtype, b->dtype)) {
            am_complain(c, "%s: tensor '%s' is %s, but %s in %s", in->path[k], a->name,
                        am_tensor_describe(b), am_tensor_describe(a), in->path[0]);
        }
    }
    for (int64_t i = 0; i < theirs->n; i++) {
        if (am_tensor_table_find(ours, theirs->t[i].name) < 0) {
            am_complain(c, "%s: tensor '%s' is not in %s", in->path[k], theirs->t[i].name,
                        in->path[0]);
        }
    }
}

static int allocate_inputs(am_inputs *in, char *const *path, int n)
{
    int rc = 0;
    in->path = am_new(n + 1, sizeof *in->path, "input paths");
    in->model = am_new(n + 1, sizeof *in->model, "inputs");
    in->source = am_new(n + 1, sizeof *in->source, "inputs");
    in->input = am_new(n + 1, sizeof *in->input, "inputs");
    if (in->path == NULL || in->model == NULL || in->source == NULL || in->input == NULL) {
        return AM_E_NOMEM;
    }
    in->n = n;
    for (int k = 0; rc == 0 && k < n; k++) {
        in->path[k] = strdup(path[k]);
        rc = in->path[k] != NULL ? 0 : am_fail(AM_E_NOMEM, "no memory for a path");
    }
    return rc;
}

static void bind_sources(am_inputs *in)
{
    for (int k = 0; k < in->n; k++) {
        in->source[k] = *am_model_source(in->model[k]);
        in->input[k].source = &in->source[k];
    }
}

/* All must have the tensors of the first. */
static int index_inputs(am_inputs *in)
{
    const int64_t n_tensors = am_model_tensors(in->model[0])->n;
    am_complaints c = {.n = 0};
    int rc = 0;
    for (int k = 0; rc == 0 && k < in->n; k++) {
        in->input[k].tensor = am_new(n_tensors + 1, sizeof *in->input[k].tensor, "tensor index");
        rc = in->input[k].tensor != NULL ? 0 : AM_E_NOMEM;
        if (rc == 0) {
            index_input(in, k, &c);
        }
    }
    AM_KEEP(am_complaints_fail(&c, "the inputs do not match"));
    return rc;
}

/* Every file that is read. */
static int list_files(am_inputs *in)
{
    int64_t n = 0;
    for (int k = 0; k < in->n; k++) {
        for (const char *const *file = am_model_files(in->model[k]); *file != NULL; file++) {
            n++;
        }
    }
    in->files = am_new(n + 1, sizeof *in->files, "input paths");
    if (in->files == NULL) {
        return AM_E_NOMEM;
    }
    n = 0;
    for (int k = 0; k < in->n; k++) {
        for (const char *const *file = am_model_files(in->model[k]); *file != NULL; file++) {
            in->files[n++] = *file;
        }
    }
    return 0;
}

int am_inputs_open_files_all(MPI_Comm comm, char *const *path, int n, bool has_base,
                             int64_t buffer_bytes, am_inputs *out)
{
    *out = (am_inputs){0};
    int rc = allocate_inputs(out, path, n);
    AM_AGREE(comm);
    for (int k = 0; k < n; k++) {
        AM_TRY(am_model_open_all(comm, out->path[k], has_base && k > 0 ? out->model[0] : NULL,
                                 buffer_bytes, &out->model[k]));
    }
    bind_sources(out);
    rc = list_files(out);
    AM_AGREE(comm);
cleanup:
    return rc;
}

int am_inputs_open_all(MPI_Comm comm, char *const *path, int n, bool has_base, int64_t buffer_bytes,
                       am_inputs *out)
{
    int rc = 0;
    AM_TRY(am_inputs_open_files_all(comm, path, n, has_base, buffer_bytes, out));
    rc = index_inputs(out);
    AM_AGREE(comm);
cleanup:
    return rc;
}

void am_inputs_close(am_inputs *inputs)
{
    for (int k = 0; k < inputs->n; k++) {
        am_model_close(&inputs->model[k]);
        free(inputs->path[k]);
        free((void *)inputs->input[k].tensor);
    }
    free(inputs->path);
    free(inputs->model);
    free(inputs->files);
    free(inputs->source);
    free(inputs->input);
    *inputs = (am_inputs){0};
}

/* ---- tensors that are not floats ---- */

/* What is compared: pieces of `tensors`, each against the first input that has it. */
typedef struct am_comparison {
    const am_tensor_table *tensors;
    const am_merge_input *input; /* [n] */
    int n;
    int64_t *differs; /* [tensors, n] */
} am_comparison;

/* Lowest input that has the tensor, n: none. */
static int first_input(const am_comparison *c, int64_t tensor)
{
    int first = 0;
    while (first < c->n && c->input[first].tensor[tensor] < 0) {
        first++;
    }
    return first;
}

static int load_piece(const am_merge_input *input, const am_span *piece, char *dst)
{
    return input->source->load_raw(input->source->self, input->tensor[piece->tensor], piece->lo,
                                   piece->hi - piece->lo, dst);
}

/* Bytes of one piece of every input against the first one's. */
static int compare_piece(const am_comparison *c, const am_span *piece, int64_t bytes, char *ours,
                         char *theirs)
{
    const int first = first_input(c, piece->tensor);
    int rc = first < c->n ? load_piece(&c->input[first], piece, ours) : 0;
    for (int k = first + 1; rc == 0 && k < c->n; k++) {
        if (c->input[k].tensor[piece->tensor] < 0) {
            continue;
        }
        rc = load_piece(&c->input[k], piece, theirs);
        if (rc == 0 && memcmp(ours, theirs, (size_t)((piece->hi - piece->lo) * bytes)) != 0) {
            c->differs[piece->tensor * c->n + k] = 1;
        }
    }
    return rc;
}

/* This rank's share of all such tensors. */
static int compare_slice(const am_comparison *c, const am_slice *slice)
{
    char *buffer = am_new(2, AM_COMPARE_BYTES, "comparing buffers");
    int rc = buffer != NULL ? 0 : AM_E_NOMEM;
    for (int64_t s = 0; rc == 0 && s < slice->n; s++) {
        const am_span *span = &slice->spans[s];
        const am_dtype dtype = c->tensors->t[span->tensor].dtype;
        const int64_t bytes = am_dtype_bytes(dtype), step = AM_COMPARE_BYTES / bytes;
        for (int64_t lo = span->lo; rc == 0 && lo < span->hi && !am_dtype_is_float(dtype);
             lo += step) {
            const int64_t hi = span->hi - lo < step ? span->hi : lo + step;
            am_alive("compare");
            rc = compare_piece(c, &(am_span){.tensor = span->tensor, .lo = lo, .hi = hi}, bytes,
                               buffer, buffer + AM_COMPARE_BYTES);
        }
    }
    free(buffer);
    return rc;
}

static int list_differing(const am_comparison *c)
{
    am_complaints list = {.n = 0};
    for (int64_t i = 0; i < c->tensors->n; i++) {
        for (int k = 1; k < c->n; k++) {
            if (c->differs[i * c->n + k] != 0) {
                am_complain(&list, "%s: tensor '%s' (%s) differs from %s",
                            c->input[k].source->label, c->tensors->t[i].name,
                            am_tensor_describe(&c->tensors->t[i]),
                            c->input[first_input(c, i)].source->label);
            }
        }
    }
    return am_complaints_fail(&list, "tensors that are not floats are copied, so they must be "
                                     "equal, or the recipe says 'buffers: base'");
}

int am_inputs_compare_all(MPI_Comm comm, const am_tensor_table *tensors,
                          const am_merge_input *input, int n)
{
    am_comparison c = {.tensors = tensors, .input = input, .n = n};
    am_slice slice = {0};
    int rank = 0, size = 0, rc = 0;
    AM_KEEP(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    AM_KEEP(am_mpi_code(MPI_Comm_size(comm, &size), "MPI_Comm_size"));
    c.differs = am_new(tensors->n * n + 1, sizeof *c.differs, "comparison");
    AM_KEEP(c.differs != NULL ? 0 : AM_E_NOMEM);
    AM_KEEP(am_slice_make(tensors, AM_BLOCK, size, rank, &slice));
    AM_KEEP(compare_slice(&c, &slice));
    AM_AGREE(comm);
    AM_TRY(am_max_i64_all(comm, c.differs, tensors->n * n));
    rc = list_differing(&c);
    AM_AGREE(comm);
cleanup:
    am_slice_free(&slice);
    free(c.differs);
    return rc;
}
