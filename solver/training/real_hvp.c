/* Products with the Hessian, without MPI: pieces of samples through a pass with tangents, added in
 * order. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_pass.h"
#include "solver/training/real_train.h"

enum { AM_HVP_PIECE = 64 }; /* samples: fixes the shape of every product, so never a setting */

/* Gradient and product, trunk and head. */
enum { AM_HVP_D_TRUNK, AM_HVP_D_HEAD, AM_HVP_H_TRUNK, AM_HVP_H_HEAD, AM_HVP_SUMS };

typedef struct am_hvp {
    const am_net *net;
    const am_samples *samples;
    const real *trunk, *head;
    int64_t classes;
    double scale; /* 1 / samples */
    am_net_pass pass;
    am_exact loss;
    int64_t n[AM_HVP_SUMS];
    real *sum[AM_HVP_SUMS];   /* borrowed; NULL: not wanted */
    real *piece[AM_HVP_SUMS]; /* of one piece; NULL: not wanted, or there is only one */
    real *memory;             /* owned: the pieces */
} am_hvp;

/* Room for a second piece of what is wanted. */
static int am_hvp_open_pieces(am_hvp *h)
{
    int64_t n = 0;
    for (int i = 0; i < AM_HVP_SUMS; i++) {
        n += h->sum[i] != NULL ? h->n[i] : 0;
    }
    h->memory = am_new(n + 1, sizeof *h->memory, "products with the Hessian");
    real *at = h->memory;
    for (int i = 0; at != NULL && i < AM_HVP_SUMS; i++) {
        h->piece[i] = h->sum[i] != NULL ? at : NULL;
        at += h->sum[i] != NULL ? h->n[i] : 0;
    }
    return h->memory == NULL ? AM_E_NOMEM : 0;
}

/* Samples [lo, hi), at most a piece of them; the first piece makes the sums. */
static int am_hvp_piece(am_hvp *h, int64_t lo, int64_t hi, bool is_first)
{
    am_net_pass *pass = &h->pass;
    const int64_t B = hi - lo;
    real **out = is_first ? h->sum : h->piece;
    for (int64_t b = 0; b < B; b++) {
        pass->index[b] = lo + b;
    }
    const int rc = AM_R(am_pass_load)(pass, h->samples, B, h->classes);
    if (rc != 0) {
        return rc;
    }
    AM_R(am_pass_forward)(pass, h->trunk, h->head, B, h->classes);
    for (int64_t b = 0; b < B; b++) {
        am_exact_add(&h->loss, pass->loss[b]);
    }
    AM_R(am_pass_curve)
    (pass, h->trunk, h->head, B, h->classes, h->scale, out[AM_HVP_D_TRUNK], out[AM_HVP_D_HEAD],
     out[AM_HVP_H_TRUNK], out[AM_HVP_H_HEAD]);
    for (int i = 0; !is_first && i < AM_HVP_SUMS; i++) {
        if (out[i] != NULL) {
            AM_R(am_layer_sum)(h->n[i], out[i], h->sum[i]);
        }
    }
    am_alive("products with the Hessian");
    return 0;
}

int AM_R(am_train_hvp)(const am_net *net, const void *trunk, const void *head, int64_t classes,
                       const am_samples *samples, int64_t lo, int64_t hi, const void *trunk_dot,
                       const void *head_dot, double *loss, void *d_trunk, void *d_head,
                       void *h_trunk, void *h_head)
{
    const int64_t n_head = classes * (am_shape_features(&net->out) + 1), n = hi - lo;
    am_hvp h = {.net = net,
                .samples = samples,
                .trunk = trunk,
                .head = head,
                .classes = classes,
                .n = {net->gradient_n, n_head, net->gradient_n, n_head},
                .sum = {d_trunk, d_head, h_trunk, h_head}};
    int rc = AM_R(am_train_check)(net, samples, classes);
    if (rc == 0 && (lo < 0 || hi <= lo || hi > samples->n)) {
        rc = am_fail(AM_E_BUG, "product with the Hessian: [%lld, %lld) are not samples of %s",
                     (long long)lo, (long long)hi, samples->label);
    }
    h.scale = 1 / (double)n;
    am_exact_zero(&h.loss);
    am_blas_single_thread();
    AM_KEEP(AM_R(am_pass_make_curved)(net, n < AM_HVP_PIECE ? n : AM_HVP_PIECE, classes, &h.pass));
    if (rc == 0 && n > AM_HVP_PIECE) {
        rc = am_hvp_open_pieces(&h);
    }
    if (rc == 0) {
        AM_R(am_pass_aim)(&h.pass, trunk_dot, head_dot, classes);
    }
    for (int64_t at = lo; rc == 0 && at < hi; at += AM_HVP_PIECE) {
        rc = am_hvp_piece(&h, at, hi - at < AM_HVP_PIECE ? hi : at + AM_HVP_PIECE, at == lo);
    }
    if (rc == 0 && loss != NULL) {
        *loss = am_exact_round(&h.loss) / (double)n;
    }
    if (rc == 0 && d_trunk != NULL) {
        AM_R(am_gradient_spread)(&net->trunk, net->gradient_n, d_trunk);
    }
    if (rc == 0 && h_trunk != NULL) {
        AM_R(am_gradient_spread)(&net->trunk, net->gradient_n, h_trunk);
    }
    AM_R(am_pass_free)(&h.pass);
    free(h.memory);
    return rc;
}

int AM_R(am_train_hvp_bytes)(const am_net *net, int64_t rows, int64_t classes, int64_t *bytes)
{
    const bool is_cut = rows > AM_HVP_PIECE;
    const int rc = AM_R(am_pass_curved_bytes)(net, is_cut ? AM_HVP_PIECE : rows, classes, bytes);
    *bytes += is_cut ? (net->gradient_n + 1) * (int64_t)sizeof(real) : 0;
    return rc;
}
