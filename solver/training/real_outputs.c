/* What a network makes of samples: inputs of its heads, probabilities.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_pass.h"
#include "solver/training/real_train.h"

typedef struct am_outputs {
    const am_net *net;
    const real *trunk, *head; /* head NULL: its inputs are wanted */
    int64_t classes;
    const am_samples *samples;
    int64_t width;      /* values a sample */
    unsigned char *out; /* [n, width] f32 or f64 */
    int64_t at;         /* first sample of the group */
} am_outputs;

static int64_t am_output_bytes(const am_outputs *o)
{
    return o->width * (int64_t)(o->head == NULL ? sizeof(float) : sizeof(double));
}

/* Means over the rows of each sample. */
static void am_outputs_see(void *self, int node, const am_layer_args *a)
{
    const am_outputs *o = self;
    const int64_t C = o->width, R = am_shape_rows(&o->net->out);
    float *out = (float *)(void *)(o->out + o->at * am_output_bytes(o));
    if (node != o->net->n) {
        return;
    }
    for (int64_t b = 0; b < a->B; b++) {
        for (int64_t c = 0; c < C; c++) {
            double sum = 0;
            for (int64_t r = 0; r < R; r++) {
                sum += (double)a->x[0][(b * R + r) * C + c];
            }
            out[b * C + c] = (float)(sum / (double)R);
        }
    }
}

static int am_outputs_group(am_outputs *o, am_net_pass *pass, int64_t lo, int64_t hi)
{
    for (int64_t i = lo; i < hi; i++) {
        pass->index[i - lo] = i;
    }
    const int rc = AM_R(am_pass_load)(pass, o->samples, hi - lo, o->classes);
    if (rc != 0) {
        return rc;
    }
    o->at = lo;
    AM_R(am_pass_forward)(pass, o->trunk, o->head, hi - lo, o->classes);
    if (o->head != NULL) {
        const real *p = AM_R(am_pass_probabilities)(pass);
        double *out = (double *)(void *)(o->out + lo * am_output_bytes(o));
        for (int64_t i = 0; i < (hi - lo) * o->width; i++) {
            out[i] = (double)p[i];
        }
    }
    return 0;
}

/* Every rank's groups to all ranks. */
static int am_outputs_share_all(MPI_Comm comm, const am_outputs *o)
{
    int size, rc = 0;
    MPI_Comm_size(comm, &size);
    const int64_t n = o->samples->n, units = am_part_units(n, AM_EVAL_GROUP);
    int64_t *bytes = am_new(size, sizeof *bytes, "outputs");
    int64_t *at = am_new(size, sizeof *at, "outputs");
    rc = bytes == NULL || at == NULL ? AM_E_NOMEM : 0;
    AM_AGREE(comm);
    for (int r = 0; r < size; r++) {
        int64_t lo, hi;
        am_part_range(units, size, r, &lo, &hi);
        lo = lo * AM_EVAL_GROUP < n ? lo * AM_EVAL_GROUP : n;
        hi = hi * AM_EVAL_GROUP < n ? hi * AM_EVAL_GROUP : n;
        at[r] = lo * am_output_bytes(o);
        bytes[r] = (hi - lo) * am_output_bytes(o);
    }
    AM_TRY(am_gather_all(comm, o->out, bytes, at));
cleanup:
    free(bytes);
    free(at);
    return rc;
}

static int am_outputs_all(MPI_Comm comm, am_outputs *o)
{
    am_net_pass pass = {0};
    int rank, size, rc;
    int64_t lo, hi;
    const int64_t n = o->samples->n;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    am_blas_single_thread();
    rc = AM_R(am_train_check)(o->net, o->samples, o->classes);
    AM_KEEP(AM_R(am_pass_make)(o->net, n < AM_EVAL_GROUP ? n : AM_EVAL_GROUP, o->classes, false,
                               &pass));
    if (o->head == NULL) {
        pass.see = am_outputs_see;
        pass.see_self = o;
        pass.end = o->net->n;
    }
    am_part_range(am_part_units(n, AM_EVAL_GROUP), size, rank, &lo, &hi);
    for (int64_t group = lo; rc == 0 && group < hi; group++) {
        const int64_t from = group * AM_EVAL_GROUP;
        rc = am_outputs_group(o, &pass, from, n - from < AM_EVAL_GROUP ? n : from + AM_EVAL_GROUP);
        am_alive("outputs");
    }
    AM_AGREE(comm);
    AM_TRY(am_outputs_share_all(comm, o));
cleanup:
    AM_R(am_pass_free)(&pass);
    return rc;
}

int AM_R(am_train_features_all)(MPI_Comm comm, const am_net *net, const void *trunk,
                                int64_t classes, const am_samples *samples, float *out)
{
    am_outputs o = {.net = net,
                    .trunk = trunk,
                    .classes = classes,
                    .samples = samples,
                    .width = am_shape_features(&net->out),
                    .out = (unsigned char *)out};
    return am_outputs_all(comm, &o);
}

int AM_R(am_train_probabilities_all)(MPI_Comm comm, const am_net *net, const void *trunk,
                                     const void *head, int64_t classes, const am_samples *samples,
                                     double *out)
{
    AM_ASSERT(am_net_labels(net) == 1);
    am_outputs o = {.net = net,
                    .trunk = trunk,
                    .head = head,
                    .classes = classes,
                    .samples = samples,
                    .width = classes,
                    .out = (unsigned char *)out};
    return am_outputs_all(comm, &o);
}
