/* Chains of fully connected layers: see chain.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/chain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "solver/theory/spectrum.h"

enum { ROWS = 256, NAME = 32 };

/* The function behind a fully connected layer, by its attribute `activation`. NULL: an unknown one.
 */
static const am_theory_function *function_of(const am_net_node *node)
{
    const am_param *attrs = node->layer->attrs;
    const int at = am_param_find(attrs, "activation");
    if (at < 0) {
        return NULL;
    }
    const char *name = attrs[at].choices;
    char text[NAME];
    int choice;
    memcpy(&choice, node->attrs + attrs[at].offset, sizeof choice);
    for (; choice > 0; choice--) {
        name = strchr(name, '|') + 1;
    }
    const size_t length = strcspn(name, "|");
    if (length >= sizeof text) {
        return NULL;
    }
    memcpy(text, name, length);
    text[length] = '\0';
    return am_theory_function_of(text);
}

/* Does descent move a tensor of the node? */
static bool is_trained(const am_net *net, const am_net_node *node)
{
    bool any = false;
    for (int i = 0; i < node->n_params; i++) {
        any = any || am_param_is_trained(&net->trunk, node->tensor[i]);
    }
    return any;
}

/* Layers of the trunk, and the head. */
static void read_layers(const am_net *net, am_theory_chain *out)
{
    out->n = 0;
    if (net->n + 1 > AM_THEORY_LAYERS || am_shape_rows(&net->out) != 1 || net->takes_ids) {
        return;
    }
    for (int i = 0; i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        const am_theory_function *function =
            strcmp(node->layer->name, "linear") == 0 ? function_of(node) : NULL;
        if (function == NULL || node->in[0] != i || am_shape_rows(&node->site.in[0]) != 1) {
            return;
        }
        out->layer[i] = (am_theory_layer){.outputs = am_shape_features(&node->site.out),
                                          .has_bias = node->n_params > 1,
                                          .is_trained = is_trained(net, node),
                                          .function = function};
    }
    out->layer[net->n] =
        (am_theory_layer){.has_bias = 1, .function = am_theory_function_of("none")};
    out->n = net->n + 1;
}

static int head_norms(const am_net *net, const am_task *task, double out[2])
{
    am_param_layout layout = {0};
    const double *head = task->head;
    int rc = am_net_head_layout(net, task->classes, AM_DTYPE_F64, &layout);
    if (rc == AM_OK) {
        const double *w =
            head + layout.offset[am_tensor_table_find(&layout.tensors, "head.weight")];
        const double *b = head + layout.offset[am_tensor_table_find(&layout.tensors, "head.bias")];
        const int64_t features = am_shape_features(&net->out);
        rc = am_theory_matrix_norm(task->classes, features, w, NULL, &out[0]);
        AM_KEEP(am_theory_matrix_norm(task->classes, features, w, b, &out[1]));
    }
    am_param_layout_free(&layout);
    return rc;
}

/* The largest norm of this rank's share of the samples. */
static int input_norm(const am_samples *samples, int rank, int size, double *out)
{
    const int64_t F = samples->features;
    int64_t lo, hi, index[ROWS];
    float *x = am_new(ROWS * F, sizeof *x, "samples");
    int32_t *y = am_new(ROWS * (samples->labels > 1 ? samples->labels : 1), sizeof *y, "samples");
    int rc = x == NULL || y == NULL ? AM_E_NOMEM : AM_OK;
    am_part_range(samples->n, size, rank, &lo, &hi);
    for (; rc == AM_OK && lo < hi; lo += ROWS) {
        const int64_t count = hi - lo < ROWS ? hi - lo : ROWS;
        for (int64_t i = 0; i < count; i++) {
            index[i] = lo + i;
        }
        rc = samples->gather(samples->self, index, count, x, y);
        for (int64_t i = 0; rc == AM_OK && i < count; i++) {
            double square = 0;
            for (int64_t f = 0; f < F; f++) {
                square += (double)x[i * F + f] * (double)x[i * F + f];
            }
            *out = fmax(*out, sqrt(square));
        }
    }
    free(x);
    free(y);
    return rc;
}

int am_theory_chain_make_all(MPI_Comm comm, const am_net *net, const am_task *task, int tasks,
                             am_theory_chain *out)
{
    int rc = AM_OK, rank, size;
    *out = (am_theory_chain){0};
    read_layers(net, out);
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    out->input = am_new(tasks, sizeof *out->input, "constants");
    out->head = am_new(tasks, sizeof *out->head, "constants");
    rc = out->input == NULL || out->head == NULL ? AM_E_NOMEM : AM_OK;
    for (int t = 0; t < tasks && out->n > 0; t++) {
        AM_KEEP(head_norms(net, &task[t], out->head[t]));
        AM_KEEP(input_norm(&task[t].train, rank, size, &out->input[t]));
    }
    AM_AGREE(comm);
    AM_TRY(am_max_f64_all(comm, out->input, tasks));
cleanup:
    if (rc != AM_OK) {
        am_theory_chain_free(out);
    }
    return rc;
}

void am_theory_chain_free(am_theory_chain *chain)
{
    free(chain->input);
    free(chain->head);
    *chain = (am_theory_chain){0};
}

int am_theory_chain_bounds(const am_theory_chain *chain, const am_net *net, int tasks,
                           const double *trunk, double *gradient, double *hessian)
{
    am_theory_layer layer[AM_THEORY_LAYERS];
    const int last = chain->n - 1;
    int rc = AM_OK;
    memcpy(layer, chain->layer, sizeof layer);
    for (int i = 0; i < last; i++) {
        const am_net_node *node = &net->node[i];
        const int64_t K = layer[i].outputs, C = am_shape_features(&node->site.in[0]);
        const double *w = trunk + node->offset[0];
        AM_KEEP(am_theory_matrix_norm(K, C, w, NULL, &layer[i].weight));
        layer[i].whole = layer[i].weight;
        if (layer[i].has_bias) {
            AM_KEEP(am_theory_matrix_norm(K, C, w, trunk + node->offset[1], &layer[i].whole));
        }
    }
    *gradient = *hessian = 0;
    for (int t = 0; rc == AM_OK && t < tasks; t++) {
        double g, h;
        layer[last].weight = chain->head[t][0];
        layer[last].whole = chain->head[t][1];
        am_theory_network_bounds(chain->n, layer, chain->input[t], am_theory_cross_entropy(), &g,
                                 &h);
        *gradient = !(g <= *gradient) ? g : *gradient;
        *hessian = !(h <= *hessian) ? h : *hessian;
    }
    return rc;
}
