/* Forward and backward on one micro-batch. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_pass.h"

#include "mpi/error.h"

/* A head block holds bias [K], then weight [K,C]: name order (net.c). */
static int64_t am_head_weight(int64_t classes)
{
    return classes;
}

static int am_pass_shape(am_pass *pass, const am_net_spec *spec)
{
    am_param_layout layout;
    const int rc = am_net_trunk_layout(spec, AM_REAL_DTYPE, &layout);
    if (rc != 0) {
        return rc;
    }
    pass->L = spec->n_widths;
    pass->width[0] = spec->inputs;
    pass->activation = spec->activation == AM_RELU ? &AM_R(am_layer_relu) : &AM_R(am_layer_tanh);
    for (int l = 0; l < pass->L; l++) { /* in name order: bias, weight, layer by layer */
        pass->width[l + 1] = spec->widths[l];
        pass->bias[l] = layout.offset[2 * l];
        pass->weight[l] = layout.offset[2 * l + 1];
    }
    am_param_layout_free(&layout);
    return 0;
}

/* Reserve `count` elements of `size` bytes in `*need`, or with an arena, take them. */
static void *am_pass_take(am_arena *arena, size_t *need, int64_t count, size_t size)
{
    const size_t bytes = (size_t)count * size;
    *need += am_arena_need(bytes);
    return arena == NULL ? NULL : am_arena_take(arena, bytes);
}

/* Lay the arrays out; called once without an arena to size it and once to carve it. */
static size_t am_pass_carve(am_pass *pass, am_arena *arena, int64_t classes, bool with_gradient)
{
    size_t need = 0;
    const int64_t B = pass->rows;
    int64_t widest = 0;
    pass->index = am_pass_take(arena, &need, B, sizeof *pass->index);
    pass->label = am_pass_take(arena, &need, B, sizeof *pass->label);
    pass->loss = am_pass_take(arena, &need, B, sizeof *pass->loss);
    for (int l = 0; l <= pass->L; l++) {
        pass->x[l] = am_pass_take(arena, &need, B * pass->width[l], sizeof(real));
        widest = l > 0 && pass->width[l] > widest ? pass->width[l] : widest;
    }
#if AM_REAL == 32
    pass->gathered = pass->x[0];
#else
    pass->gathered = am_pass_take(arena, &need, B * pass->width[0], sizeof(float));
#endif
    pass->z = am_pass_take(arena, &need, B * classes, sizeof(real));
    for (int i = 0; i < 2 && with_gradient; i++) {
        pass->d[i] = am_pass_take(arena, &need, B * widest, sizeof(real));
    }
    return need;
}

int AM_R(am_pass_make)(const am_net_spec *spec, int64_t rows, int64_t classes, bool with_gradient,
                       am_pass *out)
{
    *out = (am_pass){.rows = rows};
    int rc = am_pass_shape(out, spec);
    if (rc != 0) {
        return rc;
    }
    int64_t per_row = classes + out->width[0];
    for (int l = 0; l <= out->L; l++) {
        per_row += 3 * out->width[l];
    }
    if (rows > INT64_MAX / 16 / per_row) {
        return am_fail(AM_E_NOMEM,
                       "training: %lld samples in one micro-batch do not fit: use more "
                       "micro_batches",
                       (long long)rows);
    }
    const size_t need = am_pass_carve(out, NULL, classes, with_gradient);
    AM_KEEP(am_arena_create(&out->arena, need, "activations"));
    if (rc == 0) {
        am_pass_carve(out, &out->arena, classes, with_gradient);
    }
    return rc;
}

void AM_R(am_pass_free)(am_pass *pass)
{
    am_arena_destroy(&pass->arena);
    *pass = (am_pass){0};
}

int AM_R(am_pass_load)(am_pass *pass, const am_samples *samples, int64_t B, int64_t classes)
{
    const int rc = samples->gather(samples->self, pass->index, B, pass->gathered, pass->label);
    if (rc != 0) {
        return rc;
    }
    for (int64_t b = 0; b < B; b++) {
        if (pass->label[b] < 0 || pass->label[b] >= classes) {
            return am_fail(AM_E_DATA, "%s: label %d of sample %lld is not in [0, %lld)",
                           samples->label, (int)pass->label[b], (long long)pass->index[b],
                           (long long)classes);
        }
    }
#if AM_REAL == 64
    for (int64_t i = 0; i < B * pass->width[0]; i++) {
        pass->x[0][i] = pass->gathered[i];
    }
#endif
    return 0;
}

int64_t AM_R(am_pass_forward)(am_pass *pass, const real *trunk, const real *head, int64_t B,
                              int64_t classes)
{
    for (int l = 0; l < pass->L; l++) {
        am_layer_args a = {.B = B, .C = pass->width[l], .K = pass->width[l + 1]};
        a.x = pass->x[l];
        a.y = pass->x[l + 1];
        a.param = trunk + pass->weight[l];
        AM_R(am_layer_linear).forward(&a);
        a.param = trunk + pass->bias[l];
        pass->activation->forward(&a);
    }
    int64_t correct = 0;
    am_layer_args a = {.B = B, .C = pass->width[pass->L], .K = classes, .label = pass->label};
    a.x = pass->x[pass->L];
    a.y = pass->z;
    a.loss = pass->loss;
    a.correct = &correct;
    a.param = head + am_head_weight(classes);
    AM_R(am_layer_linear).forward(&a);
    a.param = head;
    AM_R(am_layer_softmax_xent).forward(&a);
    return correct;
}

void AM_R(am_pass_backward)(am_pass *pass, const real *trunk, const real *head, int64_t B,
                            int64_t classes, double scale, real *d_trunk, real *d_head)
{
    am_layer_args a = {.B = B, .C = pass->width[pass->L], .K = classes, .label = pass->label};
    a.scale = scale;
    a.y = pass->z;
    a.dy = pass->z; /* probabilities become their own gradient */
    a.dparam = d_head;
    AM_R(am_layer_softmax_xent).backward(&a);
    a.param = head + am_head_weight(classes);
    a.x = pass->x[pass->L];
    a.dx = d_trunk == NULL ? NULL : pass->d[0];
    a.dparam = d_head == NULL ? NULL : d_head + am_head_weight(classes);
    AM_R(am_layer_linear).backward(&a);

    real *dy = pass->d[0], *dx = pass->d[1];
    for (int l = pass->L - 1; d_trunk != NULL && l >= 0; l--) {
        a = (am_layer_args){.B = B, .C = pass->width[l], .K = pass->width[l + 1], .dy = dy};
        a.y = pass->x[l + 1];
        a.dparam = d_trunk + pass->bias[l];
        pass->activation->backward(&a);
        a.param = trunk + pass->weight[l];
        a.x = pass->x[l];
        a.dx = l == 0 ? NULL : dx; /* nobody asks for the gradient of the samples */
        a.dparam = d_trunk + pass->weight[l];
        AM_R(am_layer_linear).backward(&a);
        real *const swap = dy;
        dy = dx;
        dx = swap;
    }
}
