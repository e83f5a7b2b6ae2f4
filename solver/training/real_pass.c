/* Taking the steps of a program on one micro-batch. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_pass.h"

#include <stdio.h>
#include <string.h>
#include "mpi/error.h"

/* A head block holds bias [K], then weight [K,C]: name order (net_layout.c). */
static int64_t am_head_weight(int64_t classes)
{
    return classes;
}

/* ---- memory ---- */

/* Reserve `count` elements of `size` bytes in `*need`, or with an arena, take them. */
static void *am_pass_take(am_arena *arena, size_t *need, int64_t count, size_t size)
{
    const size_t bytes = (size_t)count * size;
    *need += am_arena_need(bytes);
    return arena == NULL ? NULL : am_arena_take(arena, bytes);
}

/* Lay the arrays out; called once without an arena to size it and once to carve it. */
static size_t am_pass_carve(am_net_pass *pass, am_arena *arena)
{
    size_t need = 0;
    const int64_t B = pass->rows, F = pass->net->features;
    pass->index = am_pass_take(arena, &need, B, sizeof *pass->index);
    pass->label = am_pass_take(arena, &need, B * pass->labels, sizeof *pass->label);
    pass->loss = am_pass_take(arena, &need, B, sizeof *pass->loss);
    pass->hit = am_pass_take(arena, &need, B * pass->labels, sizeof *pass->hit);
    pass->gathered = am_pass_take(arena, &need, B * F, sizeof *pass->gathered);
    if (pass->net->takes_ids) {
        pass->ids = am_pass_take(arena, &need, B * F, sizeof *pass->ids);
    } else {
#if AM_REAL == 32
        pass->x0 = pass->gathered;
#else
        pass->x0 = am_pass_take(arena, &need, B * F, sizeof(real));
#endif
    }
    pass->base = am_pass_take(arena, &need, pass->program.bytes, 1);
    if (pass->net->anchor != NULL || pass->is_curved) {
        pass->dot = am_pass_take(arena, &need, pass->net->trunk.n, sizeof(real));
    }
    if (pass->is_curved) {
        const int64_t C = am_shape_features(&pass->net->out);
        pass->head_dot = am_pass_take(arena, &need, pass->classes * (C + 1), sizeof(real));
    }
    return need;
}

/* Reals a sample of everything that might be alive at once: a bound for the check below. */
static int64_t am_pass_bound(const am_net *net, int64_t classes)
{
    double bound = (double)(net->features + am_net_labels(net) * (classes + 1));
    for (int i = 0; i < net->n; i++) {
        bound += 4 * (double)am_shape_numel(&net->node[i].site.out);
    }
    return bound < 1e15 ? (int64_t)bound : INT64_MAX / 64;
}

static int am_pass_plan(const am_net *net, int64_t rows, int64_t classes, am_program_mode mode,
                        am_net_pass *out)
{
    *out = (am_net_pass){.net = net,
                         .rows = rows,
                         .classes = classes,
                         .is_curved = mode == AM_PROGRAM_HESSIAN,
                         .end = net->n + 1};
    if (net->features < 1) {
        return am_fail(AM_E_BUG, "network: shapes are not known yet");
    }
    if (rows > INT64_MAX / 64 / am_pass_bound(net, classes)) {
        return am_fail(AM_E_NOMEM,
                       "training: %lld samples in one micro-batch do not fit: use more "
                       "micro_batches",
                       (long long)rows);
    }
    out->labels = am_net_labels(net);
    return AM_R(am_program_make)(net, rows, classes, mode, net->anchor != NULL, &out->program);
}

static am_program_mode am_pass_mode(bool with_gradient)
{
    return with_gradient ? AM_PROGRAM_GRADIENT : AM_PROGRAM_EVAL;
}

static int am_pass_open(const am_net *net, int64_t rows, int64_t classes, am_program_mode mode,
                        am_net_pass *out)
{
    int rc = am_pass_plan(net, rows, classes, mode, out);
    if (rc != 0) {
        return rc;
    }
    rc = am_arena_create(&out->arena, am_pass_carve(out, NULL), "activations");
    if (rc == 0) {
        am_pass_carve(out, &out->arena);
    }
    return rc;
}

int AM_R(am_pass_make)(const am_net *net, int64_t rows, int64_t classes, bool with_gradient,
                       am_net_pass *out)
{
    return am_pass_open(net, rows, classes, am_pass_mode(with_gradient), out);
}

int AM_R(am_pass_make_curved)(const am_net *net, int64_t rows, int64_t classes, am_net_pass *out)
{
    *out = (am_net_pass){0};
    return net->anchor == NULL
               ? am_pass_open(net, rows, classes, AM_PROGRAM_HESSIAN, out)
               : am_fail(AM_E_RECIPE,
                         "training: products with the Hessian are not made of a linearised "
                         "network: leave out `linearised`");
}

static int am_pass_measure(const am_net *net, int64_t rows, int64_t classes, am_program_mode mode,
                           int64_t *bytes)
{
    am_net_pass pass;
    const int rc = am_pass_plan(net, rows, classes, mode, &pass);
    *bytes = rc == 0 ? (int64_t)am_pass_carve(&pass, NULL) : 0;
    AM_R(am_program_free)(&pass.program);
    return rc;
}

int AM_R(am_pass_bytes)(const am_net *net, int64_t rows, int64_t classes, bool with_gradient,
                        int64_t *bytes)
{
    return am_pass_measure(net, rows, classes, am_pass_mode(with_gradient), bytes);
}

int AM_R(am_pass_curved_bytes)(const am_net *net, int64_t rows, int64_t classes, int64_t *bytes)
{
    return am_pass_measure(net, rows, classes, AM_PROGRAM_HESSIAN, bytes);
}

void AM_R(am_pass_free)(am_net_pass *pass)
{
    AM_R(am_program_free)(&pass->program);
    am_arena_destroy(&pass->arena);
    *pass = (am_net_pass){0};
}

/* ---- samples ---- */

static int am_pass_check_labels(const am_net_pass *pass, const am_samples *samples, int64_t B,
                                int64_t classes)
{
    for (int64_t b = 0; b < B * pass->labels; b++) {
        if (pass->label[b] < -1 || pass->label[b] >= classes) {
            return am_fail(AM_E_DATA, "%s: label %d of sample %lld is not in [0, %lld)",
                           samples->label, (int)pass->label[b],
                           (long long)pass->index[b / pass->labels], (long long)classes);
        }
    }
    return 0;
}

static int am_pass_read_ids(am_net_pass *pass, const am_samples *samples, int64_t B)
{
    const int64_t F = pass->net->features;
    for (int64_t i = 0; i < B * F; i++) {
        const float id = pass->gathered[i];
        if (!(id >= 0 && id < (float)pass->net->vocabulary) || id != (float)(int32_t)id) {
            return am_fail(AM_E_DATA, "%s: token %g of sample %lld is not in [0, %lld)",
                           samples->label, (double)id, (long long)pass->index[i / F],
                           (long long)pass->net->vocabulary);
        }
        pass->ids[i] = (int32_t)id;
    }
    return 0;
}

int AM_R(am_pass_load)(am_net_pass *pass, const am_samples *samples, int64_t B, int64_t classes)
{
    int rc = samples->gather(samples->self, pass->index, B, pass->gathered, pass->label);
    AM_KEEP(am_pass_check_labels(pass, samples, B, classes));
    if (rc != 0) {
        return rc;
    }
    pass->task = samples->label;
    if (pass->net->takes_ids) {
        return am_pass_read_ids(pass, samples, B);
    }
#if AM_REAL == 64
    for (int64_t i = 0; i < B * pass->net->features; i++) {
        pass->x0[i] = pass->gathered[i];
    }
#endif
    return 0;
}

/* ---- steps ---- */

static void *am_pass_at(const am_net_pass *pass, int buffer)
{
    if (buffer == AM_BUFFER_SAMPLES) {
        return pass->x0;
    }
    return buffer < 0 ? NULL : pass->base + pass->program.buffer[buffer].at;
}

/* The arrays of a step, but parameters. */
static am_layer_args am_pass_args(const am_net_pass *pass, const am_step *s, int64_t B)
{
    am_layer_args a = {.site = &pass->net->node[s->node].site,
                       .B = B,
                       .ids = pass->ids,
                       .y = am_pass_at(pass, s->y),
                       .keep = am_pass_at(pass, s->keep),
                       .scratch = am_pass_at(pass, s->scratch),
                       .dy = am_pass_at(pass, s->dy),
                       .y_dot = am_pass_at(pass, s->y_dot),
                       .keep_dot = am_pass_at(pass, s->keep_dot),
                       .dy_dot = am_pass_at(pass, s->dy_dot),
                       .is_training = pass->is_training,
                       .sample = pass->index};
    for (int k = 0; k < AM_LAYER_INPUTS; k++) {
        a.x[k] = am_pass_at(pass, s->x[k]);
        a.dx[k] = am_pass_at(pass, s->dx[k]);
        a.x_dot[k] = am_pass_at(pass, s->x_dot[k]);
        a.dx_dot[k] = am_pass_at(pass, s->dx_dot[k]);
        a.add[k] = s->add[k];
    }
    return a;
}

static void am_pass_key(const am_net_pass *pass, am_layer_args *a)
{
    char name[AM_NET_NAME + 256];
    if (pass->is_training) {
        snprintf(name, sizeof name, "%s %s %s", a->site->name, pass->draw.purpose, pass->task);
        a->rng = am_rng_make(pass->draw.seed, "layer", pass->draw.round, pass->draw.step, name);
    }
}

/* Arguments of a trunk node with its parameters and, for backward and curve, their gradients and
 * the tangents of these. */
static am_layer_args am_pass_node(const am_net_pass *pass, const am_step *s, int64_t B,
                                  const real *trunk, real *d_trunk, real *h_trunk)
{
    const am_net_node *node = &pass->net->node[s->node];
    am_layer_args a = am_pass_args(pass, s, B);
    a.is_training = pass->is_training && !node->has_fixed_statistics;
    am_pass_key(pass, &a);
    for (int k = 0; k < node->n_params; k++) {
        a.param[k] = trunk + node->offset[k];
        a.param_dot[k] = pass->dot != NULL ? pass->dot + node->offset[k] : NULL;
        if (d_trunk != NULL && node->gradient[k] >= 0) {
            a.dparam[k] = d_trunk + node->gradient[k];
        }
        if (h_trunk != NULL && node->gradient[k] >= 0) {
            a.dparam_dot[k] = h_trunk + node->gradient[k];
        }
    }
    return a;
}

/* The head on rows of the last value: z = x W^T, then softmax with the bias. */
static am_layer_site am_pass_head_site(const am_net_pass *pass, int64_t classes)
{
    am_layer_site site = {.name = "head", .in = {pass->net->out}, .out = pass->net->out};
    site.out.n = site.out.n > 0 ? site.out.n : 1;
    site.out.d[site.out.n - 1] = classes;
    return site;
}

static int64_t am_pass_head(am_net_pass *pass, const am_step *s, int64_t B, const real *head,
                            int64_t classes)
{
    const am_layer_site site = am_pass_head_site(pass, classes);
    const int64_t R = B * pass->labels, C = am_shape_features(&pass->net->out);
    int64_t correct = 0;
    am_layer_args a = am_pass_args(pass, s, B);
    a.site = &site;
    if (pass->net->anchor != NULL && a.x_dot[0] != NULL) {
        /* f + J (trunk - anchor); am_pass_head_back finds it there */
        real *sum = am_pass_at(pass, s->x_dot[0]);
        AM_R(am_layer_sum)(R * C, a.x[0], sum);
        a.x[0] = sum;
    }
    if (pass->see != NULL) {
        pass->see(pass->see_self, pass->net->n, &a);
    }
    if (pass->end == pass->net->n) {
        return 0;
    }
    AM_R(am_gemm)(false, true, R, classes, C, a.x[0], head + am_head_weight(classes), a.y);
    a.param[0] = head;
    a.label = pass->label;
    a.smoothing = pass->net->smoothing;
    a.loss = pass->loss;
    a.correct = &correct;
    a.hit = pass->hit;
    a.counted = &pass->counted;
    AM_R(am_layer_softmax_xent).forward(&a);
    return correct;
}

static am_layer_args am_pass_head_args(const am_net_pass *pass, const am_step *s, int64_t B,
                                       const am_layer_site *site, double scale)
{
    am_layer_args a = am_pass_args(pass, s, B);
    a.site = site;
    a.label = pass->label;
    a.smoothing = pass->net->smoothing;
    a.scale = scale;
    return a;
}

static void am_pass_head_back(am_net_pass *pass, const am_step *s, int64_t B, const real *head,
                              int64_t classes, double scale, bool with_trunk, real *d_head)
{
    const am_layer_site site = am_pass_head_site(pass, classes);
    const int64_t R = B * pass->labels, C = am_shape_features(&pass->net->out);
    am_layer_args a = am_pass_head_args(pass, s, B, &site, scale);
    a.x[0] = pass->net->anchor != NULL && a.x_dot[0] != NULL ? a.x_dot[0] : a.x[0];
    a.dparam[0] = d_head;
    AM_R(am_layer_softmax_xent).backward(&a);
    if (d_head != NULL) {
        AM_R(am_gemm)(true, false, classes, C, R, a.dy, a.x[0], d_head + am_head_weight(classes));
    }
    if (with_trunk && a.dx[0] != NULL) {
        AM_R(am_gemm)(false, false, R, C, classes, a.dy, head + am_head_weight(classes), a.dx[0]);
    }
}

/* Tangent of the logits and, while these are still probabilities, of their gradient:
 * z_dot = x_dot W^T + x W_dot^T, with the bias in the layer's curve. */
static void am_pass_head_curve(am_net_pass *pass, const am_step *s, int64_t B, const real *head,
                               int64_t classes, double scale, real *h_head)
{
    const am_layer_site site = am_pass_head_site(pass, classes);
    const int64_t R = B * pass->labels, C = am_shape_features(&pass->net->out);
    am_layer_args a = am_pass_head_args(pass, s, B, &site, scale);
    a.param_dot[0] = pass->head_dot;
    a.dparam_dot[0] = h_head;
    AM_R(am_gemm)
    (false, true, R, classes, C, a.x[0], pass->head_dot + am_head_weight(classes), a.y_dot);
    if (a.x_dot[0] != NULL) {
        AM_R(am_gemm_to)
        (false, true, R, classes, C, a.x_dot[0], head + am_head_weight(classes), true, a.y_dot);
    }
    AM_R(am_layer_softmax_xent).curve(&a);
}

/* With the gradient of the logits dz:  dW_dot = dz_dot^T x + dz^T x_dot;  dx_dot = dz_dot W +
 * dz W_dot */
static void am_pass_head_bend(am_net_pass *pass, const am_step *s, int64_t B, const real *head,
                              int64_t classes, real *h_head)
{
    const int64_t R = B * pass->labels, C = am_shape_features(&pass->net->out);
    const int64_t weight = am_head_weight(classes);
    const am_layer_args a = am_pass_args(pass, s, B);
    if (h_head != NULL) {
        AM_R(am_gemm)(true, false, classes, C, R, a.dy_dot, a.x[0], h_head + weight);
    }
    if (h_head != NULL && a.x_dot[0] != NULL) {
        AM_R(am_gemm_to)(true, false, classes, C, R, a.dy, a.x_dot[0], true, h_head + weight);
    }
    if (a.dx_dot[0] != NULL) {
        AM_R(am_gemm)(false, false, R, C, classes, a.dy_dot, head + weight, a.dx_dot[0]);
        AM_R(am_gemm_to)
        (false, false, R, C, classes, a.dy, pass->head_dot + weight, true, a.dx_dot[0]);
    }
}

/* Where the layers are computed: at the trunk, or for a linearised network at its anchor. */
static const real *am_pass_anchor(am_net_pass *pass, const real *trunk)
{
    const real *anchor = pass->net->anchor;
    for (int64_t i = 0; anchor != NULL && i < pass->net->trunk.n; i++) {
        pass->dot[i] = trunk[i] - anchor[i];
    }
    return anchor != NULL ? anchor : trunk;
}

int64_t AM_R(am_pass_forward)(am_net_pass *pass, const real *trunk, const real *head, int64_t B,
                              int64_t classes)
{
    const am_program *g = &pass->program;
    trunk = am_pass_anchor(pass, trunk);
    for (int i = 0; i < g->head; i++) {
        const am_step *s = &g->step[i];
        const am_layer_args a = am_pass_node(pass, s, B, trunk, NULL, NULL);
        const am_layer *layer = AM_R(am_layer_table)[pass->net->node[s->node].index];
        if (s->kind == AM_STEP_TANGENT) {
            layer->tangent(&a);
        } else {
            if (pass->see != NULL) {
                pass->see(pass->see_self, s->node, &a);
            }
            if (s->node >= pass->end) {
                return 0;
            }
            layer->forward(&a);
        }
    }
    return am_pass_head(pass, &g->step[g->head], B, head, classes);
}

static void am_pass_step_back(am_net_pass *pass, const am_step *s, int64_t B, const real *trunk,
                              double scale, real *d_trunk, real *h_trunk)
{
    am_layer_args a = am_pass_node(pass, s, B, trunk, s->kind == AM_STEP_BACKWARD ? d_trunk : NULL,
                                   s->kind == AM_STEP_CURVE ? h_trunk : NULL);
    const am_layer *layer = AM_R(am_layer_table)[pass->net->node[s->node].index];
    a.scale = scale;
    switch (s->kind) {
    case AM_STEP_BACKWARD:
        layer->backward(&a);
        break;
    case AM_STEP_CURVE:
        layer->curve(&a);
        break;
    case AM_STEP_FORWARD:
        layer->forward(&a);
        break;
    case AM_STEP_TANGENT:
        layer->tangent(&a);
        break;
    case AM_STEP_ADD:
        AM_R(am_layer_sum)(B * s->n, a.dy, a.dx[0]);
        break;
    case AM_STEP_COPY:
        memcpy(a.dx[0], a.dy, (size_t)(B * s->n) * sizeof(real));
        break;
    case AM_STEP_HEAD:
    case AM_STEP_HEAD_BACK:
        AM_ASSERT(!"no step of the trunk's backward");
    }
}

void AM_R(am_pass_backward)(am_net_pass *pass, const real *trunk, const real *head, int64_t B,
                            int64_t classes, double scale, real *d_trunk, real *d_head)
{
    const am_program *g = &pass->program;
    const am_step *s = &g->step[g->head + 1];
    AM_ASSERT(g->n_steps > g->head + 1 && s->kind == AM_STEP_HEAD_BACK);
    am_pass_head_back(pass, s, B, head, classes, scale, d_trunk != NULL, d_head);
    if (d_trunk == NULL) {
        return;
    }
    trunk = pass->net->anchor != NULL ? pass->net->anchor : trunk;
    for (int i = g->head + 2; i < g->n_steps; i++) {
        am_pass_step_back(pass, &g->step[i], B, trunk, scale, d_trunk, NULL);
    }
}

/* ---- products with the Hessian ---- */

void AM_R(am_pass_aim)(am_net_pass *pass, const real *trunk_dot, const real *head_dot,
                       int64_t classes)
{
    const am_param_layout *layout = &pass->net->trunk;
    const size_t n = (size_t)(classes * (am_shape_features(&pass->net->out) + 1));
    memset(pass->dot, 0, (size_t)layout->n * sizeof(real));
    for (int64_t k = 0; trunk_dot != NULL && k < layout->tensors.n; k++) {
        if (am_param_is_trained(layout, k)) {
            memcpy(pass->dot + layout->offset[k], trunk_dot + layout->offset[k],
                   (size_t)layout->tensors.t[k].numel * sizeof(real));
        }
    }
    if (head_dot != NULL) {
        memcpy(pass->head_dot, head_dot, n * sizeof(real));
    } else {
        memset(pass->head_dot, 0, n * sizeof(real));
    }
}

void AM_R(am_pass_curve)(am_net_pass *pass, const real *trunk, const real *head, int64_t B,
                         int64_t classes, double scale, real *d_trunk, real *d_head, real *h_trunk,
                         real *h_head)
{
    const am_program *g = &pass->program;
    const am_step *s = &g->step[g->head + 1];
    const bool with_trunk = d_trunk != NULL || h_trunk != NULL;
    AM_ASSERT(pass->is_curved && s->kind == AM_STEP_HEAD_BACK);
    am_pass_head_curve(pass, s, B, head, classes, scale, h_head);
    am_pass_head_back(pass, s, B, head, classes, scale, with_trunk, d_head);
    am_pass_head_bend(pass, s, B, head, classes, h_head);
    for (int i = g->head + 2; with_trunk && i < g->n_steps; i++) {
        am_pass_step_back(pass, &g->step[i], B, trunk, scale, d_trunk, h_trunk);
    }
}

const real *AM_R(am_pass_probabilities)(const am_net_pass *pass)
{
    return am_pass_at(pass, pass->program.step[pass->program.head].y);
}
