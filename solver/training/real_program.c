/* Planning steps and memory. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_program.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

typedef struct am_planner {
    am_program *program;
    const am_net *net;
    int64_t rows, classes;
    bool with_tangent, with_curve;
    /* By value number, [net->n + 1] each: buffers of the value, its gradient and its tangent, and
     * whether anything trained lies before it. */
    int *value, *gradient, *dot;
    bool *is_wanted;
    int *keep; /* [net->n] */
    int *keep_dot;
    int *segment; /* [net->n] of each node */
    int n_segments;
} am_planner;

/* ---- steps and buffers ---- */

/* Room for one more in an array of `size` bytes an item. */
static int am_program_grow(void **items, int n, int *capacity, size_t size)
{
    if (n < *capacity) {
        return 0;
    }
    const int more = *capacity == 0 ? 64 : 2 * *capacity;
    void *grown = am_new(more, size, "plan of the network");
    if (grown == NULL) {
        return AM_E_NOMEM;
    }
    if (n > 0) {
        memcpy(grown, *items, (size_t)n * size);
    }
    free(*items);
    *items = grown;
    *capacity = more;
    return 0;
}

static int am_plan_buffer(am_planner *p, int64_t bytes)
{
    am_program *g = p->program;
    if (g->error == 0) {
        g->error = am_program_grow((void **)&g->buffer, g->n_buffers, &g->buffers_capacity,
                                   sizeof *g->buffer);
    }
    if (g->error != 0) {
        return AM_BUFFER_NONE;
    }
    g->buffer[g->n_buffers] =
        (am_buffer){.bytes = bytes, .first = -1, .last = -1, .twin = AM_BUFFER_NONE};
    return g->n_buffers++;
}

static int am_plan_reals(am_planner *p, const am_shape *shape)
{
    return am_plan_buffer(p, p->rows * am_shape_numel(shape) * (int64_t)sizeof(real));
}

/* For a gradient: with a twin where the mode has tangents of gradients. */
static int am_plan_gradient(am_planner *p, const am_shape *shape)
{
    const int b = am_plan_reals(p, shape);
    if (p->with_curve && b >= 0) {
        const int twin = am_plan_reals(p, shape); /* may move the buffers */
        p->program->buffer[b].twin = twin;
    }
    return b;
}

static int am_plan_twin(const am_planner *p, int buffer)
{
    return buffer >= 0 ? p->program->buffer[buffer].twin : AM_BUFFER_NONE;
}

static void am_plan_touch(am_program *g, int buffer)
{
    if (buffer >= 0) {
        am_buffer *b = &g->buffer[buffer];
        b->first = b->first < 0 ? g->n_steps : b->first;
        b->last = g->n_steps;
    }
}

/* Append a step; every buffer that it names is alive at it. */
static void am_plan_step(am_planner *p, const am_step *step)
{
    am_program *g = p->program;
    if (g->error == 0) {
        g->error =
            am_program_grow((void **)&g->step, g->n_steps, &g->steps_capacity, sizeof *g->step);
    }
    if (g->error != 0) {
        return;
    }
    for (int i = 0; i < AM_LAYER_INPUTS; i++) {
        am_plan_touch(g, step->x[i]);
        am_plan_touch(g, step->dx[i]);
        am_plan_touch(g, step->x_dot[i]);
        am_plan_touch(g, step->dx_dot[i]);
    }
    am_plan_touch(g, step->y);
    am_plan_touch(g, step->keep);
    am_plan_touch(g, step->scratch);
    am_plan_touch(g, step->dy);
    am_plan_touch(g, step->y_dot);
    am_plan_touch(g, step->keep_dot);
    am_plan_touch(g, step->dy_dot);
    g->step[g->n_steps++] = *step;
}

static am_step am_step_of(am_step_kind kind, int node)
{
    return (am_step){.kind = kind,
                     .node = node,
                     .x = {AM_BUFFER_NONE, AM_BUFFER_NONE},
                     .y = AM_BUFFER_NONE,
                     .keep = AM_BUFFER_NONE,
                     .scratch = AM_BUFFER_NONE,
                     .dy = AM_BUFFER_NONE,
                     .dx = {AM_BUFFER_NONE, AM_BUFFER_NONE},
                     .x_dot = {AM_BUFFER_NONE, AM_BUFFER_NONE},
                     .y_dot = AM_BUFFER_NONE,
                     .keep_dot = AM_BUFFER_NONE,
                     .dy_dot = AM_BUFFER_NONE,
                     .dx_dot = {AM_BUFFER_NONE, AM_BUFFER_NONE}};
}

/* A buffer of so many bytes for a node, or none. bytes_of: a function of its layer, or NULL. */
static int am_plan_bytes(am_planner *p, const am_net_node *node,
                         int64_t (*bytes_of)(const am_layer_site *site, int64_t B))
{
    const int64_t bytes = bytes_of != NULL ? bytes_of(&node->site, p->rows) : 0;
    return bytes > 0 ? am_plan_buffer(p, bytes) : AM_BUFFER_NONE;
}

static int am_plan_scratch(am_planner *p, const am_net_node *node)
{
    return am_plan_bytes(p, node, AM_R(am_layer_table)[node->index]->scratch);
}

/* ---- forward ---- */

static void am_plan_tangent(am_planner *p, int i, const am_step *forward)
{
    const am_net_node *node = &p->net->node[i];
    bool is_zero = node->n_params == 0;
    for (int k = 0; k < node->layer->inputs; k++) {
        is_zero = is_zero && p->dot[node->in[k]] == AM_BUFFER_NONE;
    }
    if (is_zero) {
        return;
    }
    am_step s = *forward;
    s.kind = AM_STEP_TANGENT;
    s.scratch = am_plan_scratch(p, node);
    for (int k = 0; k < node->layer->inputs; k++) {
        s.x_dot[k] = p->dot[node->in[k]];
    }
    if (p->dot[i + 1] == AM_BUFFER_NONE) {
        p->dot[i + 1] = am_plan_reals(p, &node->site.out);
    }
    if (p->with_curve) {
        p->keep_dot[i] = am_plan_bytes(p, node, AM_R(am_layer_table)[node->index]->kept_dot);
    }
    s.y_dot = p->dot[i + 1];
    s.keep_dot = p->keep_dot[i];
    am_plan_step(p, &s);
}

/* is_again: a step of checkpointing; a value that is still there is written once more, alike. */
static void am_plan_forward(am_planner *p, int i, bool is_again)
{
    const am_net_node *node = &p->net->node[i];
    const am_layer *layer = AM_R(am_layer_table)[node->index];
    if (layer->is_view) {
        p->value[i + 1] = p->value[node->in[0]];
        p->dot[i + 1] = p->dot[node->in[0]];
        return;
    }
    am_step s = am_step_of(AM_STEP_FORWARD, i);
    for (int k = 0; k < layer->inputs; k++) {
        s.x[k] = p->value[node->in[k]];
    }
    if (p->value[i + 1] == AM_BUFFER_NONE) {
        p->value[i + 1] = am_plan_reals(p, &node->site.out);
    }
    p->keep[i] = am_plan_bytes(p, node, layer->kept);
    s.y = p->value[i + 1];
    s.keep = p->keep[i];
    s.scratch = am_plan_scratch(p, node);
    am_plan_step(p, &s);
    if (p->with_tangent && (!is_again || p->with_curve)) {
        am_plan_tangent(p, i, &s);
    }
}

/* ---- backward ---- */

/* Is the gradient buffer of value v that of another value too, one whose node is still to come? */
static bool am_plan_is_shared(const am_planner *p, int v)
{
    for (int u = 1; u < v; u++) {
        if (p->gradient[u] == p->gradient[v]) {
            return true;
        }
    }
    return false;
}

/* The same sum or copy of the twins. */
static void am_plan_twins_too(am_planner *p, const am_step *s)
{
    am_step twins = *s;
    twins.dy = am_plan_twin(p, s->dy);
    twins.dx[0] = am_plan_twin(p, s->dx[0]);
    if (twins.dy != AM_BUFFER_NONE) {
        am_plan_step(p, &twins);
    }
}

/* gradient[v] += from, or := a copy. */
static void am_plan_pass_on(am_planner *p, int v, int from)
{
    am_step s = am_step_of(p->gradient[v] == AM_BUFFER_NONE ? AM_STEP_COPY : AM_STEP_ADD, v - 1);
    const am_shape *shape = &p->net->node[v - 1].site.out;
    if (p->gradient[v] == AM_BUFFER_NONE) {
        p->gradient[v] = am_plan_gradient(p, shape);
    }
    s.dy = from;
    s.dx[0] = p->gradient[v];
    s.n = am_shape_numel(shape);
    am_plan_step(p, &s);
    am_plan_twins_too(p, &s);
}

/* May value v take over the buffer of its sum's gradient although the other summand has it too?
 * Only if its node comes next and neither writes there nor hands it on. */
static bool am_plan_may_borrow(const am_planner *p, int sum, int v)
{
    const am_net_node *node = &p->net->node[v - 1];
    const am_layer *layer = AM_R(am_layer_table)[node->index];
    const unsigned uses = layer->uses != NULL ? layer->uses(&node->site) : 0;
    return v == sum && !layer->is_view && !layer->is_sum && !layer->is_elementwise &&
           (uses & AM_LAYER_SPOILS_DY) == 0;
}

static void am_plan_backward_sum(am_planner *p, int i)
{
    const am_net_node *node = &p->net->node[i];
    const int dy = p->gradient[i + 1];
    for (int k = 0; k < 2; k++) {
        const int v = node->in[k];
        if (v == AM_NET_SAMPLES || !p->is_wanted[v]) {
            continue;
        }
        const bool is_free = k == 0 || am_plan_may_borrow(p, i, v);
        if (p->gradient[v] == AM_BUFFER_NONE && is_free) {
            p->gradient[v] = dy;
        } else {
            am_plan_pass_on(p, v, dy);
        }
    }
}

/* Buffer for the gradient of input k of step s; adds steps after it are returned in *later. */
static int am_plan_input_gradient(am_planner *p, am_step *s, int k)
{
    const am_net_node *node = &p->net->node[s->node];
    const am_layer *layer = AM_R(am_layer_table)[node->index];
    const int v = node->in[k];
    if (p->gradient[v] != AM_BUFFER_NONE) {
        s->add[k] = layer->adds_dx;
        return layer->adds_dx ? p->gradient[v] : am_plan_gradient(p, &node->site.in[k]);
    }
    if (layer->is_elementwise && !am_plan_is_shared(p, s->node + 1)) {
        p->gradient[v] = s->dy;
    } else {
        p->gradient[v] = am_plan_gradient(p, &node->site.in[k]);
    }
    return p->gradient[v];
}

static bool am_plan_has_trained(const am_net *net, const am_net_node *node)
{
    bool has = false;
    for (int k = 0; k < node->n_params; k++) {
        has = has || !net->trunk.is_frozen[node->tensor[k]];
    }
    return has;
}

/* The tangent of a backward step, before it. */
static void am_plan_curve(am_planner *p, const am_step *backward)
{
    const am_net_node *node = &p->net->node[backward->node];
    am_step s = *backward;
    s.kind = AM_STEP_CURVE;
    s.scratch = am_plan_bytes(p, node, AM_R(am_layer_table)[node->index]->curve_scratch);
    s.y = p->value[s.node + 1];
    s.y_dot = p->dot[s.node + 1];
    s.keep_dot = p->keep_dot[s.node];
    s.dy_dot = am_plan_twin(p, s.dy);
    for (int k = 0; k < node->layer->inputs; k++) {
        s.x[k] = p->value[node->in[k]];
        s.x_dot[k] = p->dot[node->in[k]];
        s.dx_dot[k] = am_plan_twin(p, s.dx[k]);
        s.dx[k] = AM_BUFFER_NONE;
    }
    am_plan_step(p, &s);
}

static void am_plan_backward(am_planner *p, int i)
{
    const am_net_node *node = &p->net->node[i];
    const am_layer *layer = AM_R(am_layer_table)[node->index];
    const int v = node->in[0];
    if (p->gradient[i + 1] == AM_BUFFER_NONE) {
        return;
    }
    if (layer->is_sum) {
        am_plan_backward_sum(p, i);
        return;
    }
    if (layer->is_view) {
        if (v != AM_NET_SAMPLES && p->is_wanted[v] && p->gradient[v] == AM_BUFFER_NONE) {
            p->gradient[v] = p->gradient[i + 1];
        } else if (v != AM_NET_SAMPLES && p->is_wanted[v]) {
            am_plan_pass_on(p, v, p->gradient[i + 1]);
        }
        return;
    }
    const unsigned uses = layer->uses != NULL ? layer->uses(&node->site) : 0;
    am_step s = am_step_of(AM_STEP_BACKWARD, i);
    s.dy = p->gradient[i + 1];
    s.y = (uses & AM_LAYER_READS_Y) != 0 ? p->value[i + 1] : AM_BUFFER_NONE;
    s.keep = p->keep[i];
    s.scratch = am_plan_scratch(p, node);
    bool is_needed = am_plan_has_trained(p->net, node);
    const bool reads_x =
        (uses & AM_LAYER_READS_X) != 0 && (is_needed || (uses & AM_LAYER_X_FOR_PARAMS) == 0);
    for (int k = 0; k < layer->inputs; k++) {
        s.x[k] = reads_x ? p->value[node->in[k]] : AM_BUFFER_NONE;
        if (node->in[k] != AM_NET_SAMPLES && p->is_wanted[node->in[k]]) {
            s.dx[k] = am_plan_input_gradient(p, &s, k);
            is_needed = true;
        }
    }
    if (!is_needed) {
        return;
    }
    if (p->with_curve) {
        am_plan_curve(p, &s);
    }
    am_plan_step(p, &s);
    for (int k = 0; k < layer->inputs; k++) {
        if (s.dx[k] != AM_BUFFER_NONE && s.dx[k] != p->gradient[node->in[k]]) {
            am_plan_pass_on(p, node->in[k], s.dx[k]);
        }
    }
}

/* ---- the whole ---- */

/* Segments of checkpointing: one a cut; without checkpointing one for all. */
static void am_plan_segments(am_planner *p)
{
    p->n_segments = 1;
    for (int i = 0; i < p->net->n; i++) {
        p->n_segments += p->net->recompute && p->net->node[i].is_cut && i > 0;
        p->segment[i] = p->n_segments - 1;
    }
}

/* Forget what only segment g itself uses: its values get new buffers when they are made again. */
static void am_plan_forget(am_planner *p, int g)
{
    const am_net *net = p->net;
    for (int i = 0; i < net->n - 1; i++) {
        bool is_inside = p->segment[i] == g && !net->node[i].layer->is_view;
        for (int j = i + 1; is_inside && j < net->n; j++) {
            for (int k = 0; k < net->node[j].layer->inputs; k++) {
                /* A view at the edge shows the value to the segment behind it. */
                const bool is_user = net->node[j].in[k] == i + 1;
                is_inside =
                    is_inside && !(is_user && (p->segment[j] != g || net->node[j].layer->is_view));
            }
        }
        if (is_inside) {
            p->value[i + 1] = AM_BUFFER_NONE;
            p->dot[i + 1] = AM_BUFFER_NONE;
        }
    }
}

static void am_plan_wanted(am_planner *p)
{
    for (int i = 0; i < p->net->n; i++) {
        const am_net_node *node = &p->net->node[i];
        bool is_wanted = am_plan_has_trained(p->net, node);
        for (int k = 0; k < node->layer->inputs; k++) {
            is_wanted = is_wanted || p->is_wanted[node->in[k]];
        }
        p->is_wanted[i + 1] = is_wanted;
    }
}

static void am_plan_head(am_planner *p, bool with_gradient)
{
    const int last = p->net->n;
    const int64_t n = p->rows * am_shape_rows(&p->net->out) * p->classes;
    am_step s = am_step_of(AM_STEP_HEAD, last - 1);
    s.x[0] = p->value[last];
    s.x_dot[0] = p->dot[last];
    s.y = am_plan_buffer(p, n * (int64_t)sizeof(real));
    p->program->head = p->program->n_steps;
    am_plan_step(p, &s);
    if (with_gradient) {
        s.kind = AM_STEP_HEAD_BACK;
        s.dy = s.y; /* probabilities become their own gradient */
        if (p->is_wanted[last]) {
            p->gradient[last] = am_plan_gradient(p, &p->net->out);
            s.dx[0] = p->gradient[last];
        }
        if (p->with_curve) { /* the tangent of the logits becomes that of their gradient */
            s.dy_dot = am_plan_buffer(p, n * (int64_t)sizeof(real));
            s.y_dot = s.dy_dot;
            s.dx_dot[0] = am_plan_twin(p, s.dx[0]);
        }
        am_plan_step(p, &s);
    }
}

static void am_plan_steps(am_planner *p, am_program_mode mode)
{
    const am_net *net = p->net;
    for (int i = 0; i < net->n; i++) {
        am_plan_forward(p, i, false);
    }
    am_plan_head(p, mode != AM_PROGRAM_EVAL);
    int end = net->n;
    for (int g = p->n_segments - 1; mode != AM_PROGRAM_EVAL && g >= 0; g--) {
        int start = end;
        while (start > 0 && p->segment[start - 1] == g) {
            start--;
        }
        if (g < p->n_segments - 1) {
            am_plan_forget(p, g);
            for (int i = start; i < end; i++) {
                am_plan_forward(p, i, true);
            }
        }
        for (int i = end - 1; i >= start; i--) {
            am_plan_backward(p, i);
        }
        end = start;
    }
}

static int am_buffer_larger(const void *a, const void *b)
{
    const am_buffer *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes) {
        return (*x)->bytes > (*y)->bytes ? -1 : 1;
    }
    return *x < *y ? -1 : *x > *y;
}

/* Lowest place for buffer k of order[] among those before it that live at the same time. */
static int64_t am_place_find(am_buffer *const *order, int k)
{
    const am_buffer *b = order[k];
    int64_t at = 0;
    for (bool is_moved = true; is_moved;) {
        is_moved = false;
        for (int i = 0; i < k; i++) {
            const am_buffer *o = order[i];
            const bool meets_in_time = o->last >= b->first && o->first <= b->last;
            if (meets_in_time && o->at < at + b->bytes && at < o->at + o->bytes) {
                at = o->at + o->bytes;
                is_moved = true;
            }
        }
    }
    return at;
}

/* Largest first, each at the lowest place that is free for all of its life. */
static int am_program_place(am_program *g)
{
    am_buffer **order = am_new(g->n_buffers, sizeof *order, "plan of the network");
    if (order == NULL) {
        return AM_E_NOMEM;
    }
    int n = 0;
    for (int i = 1; i < g->n_buffers; i++) { /* the samples lie elsewhere */
        if (g->buffer[i].first >= 0) {
            g->buffer[i].bytes = (int64_t)am_arena_need((size_t)g->buffer[i].bytes);
            order[n++] = &g->buffer[i];
        }
    }
    qsort(order, (size_t)n, sizeof(am_buffer *), am_buffer_larger);
    g->bytes = 0;
    for (int k = 0; k < n; k++) {
        order[k]->at = am_place_find(order, k);
        const int64_t end = order[k]->at + order[k]->bytes;
        g->bytes = end > g->bytes ? end : g->bytes;
    }
    free(order);
    return 0;
}

/* Does every layer have what the mode needs? */
static int am_program_check(const am_net *net, am_program_mode mode)
{
    for (int i = 0; mode == AM_PROGRAM_HESSIAN && i < net->n; i++) {
        const am_layer *layer = AM_R(am_layer_table)[net->node[i].index];
        if (layer->curve == NULL && !layer->is_view && !layer->is_sum) {
            return am_layer_fail(&net->node[i].site,
                                 "%s has no second derivatives: no product with the Hessian",
                                 layer->name);
        }
    }
    return 0;
}

int AM_R(am_program_make)(const am_net *net, int64_t rows, int64_t classes, am_program_mode mode,
                          bool with_tangent, am_program *out)
{
    *out = (am_program){.net = net};
    am_planner p = {.program = out, .net = net, .rows = rows, .classes = classes};
    p.with_curve = mode == AM_PROGRAM_HESSIAN;
    p.with_tangent = with_tangent || p.with_curve;
    const int64_t n = net->n + 1;
    int *lists = am_new(6 * n, sizeof *lists, "plan of the network");
    p.is_wanted = am_new(n, sizeof *p.is_wanted, "plan of the network");
    int rc = lists == NULL || p.is_wanted == NULL ? AM_E_NOMEM : 0;
    AM_KEEP(am_program_check(net, mode));
    if (rc == 0) {
        for (int64_t i = 0; i < 6 * n; i++) {
            lists[i] = AM_BUFFER_NONE;
        }
        p.value = lists;
        p.gradient = lists + n;
        p.dot = lists + 2 * n;
        p.keep = lists + 3 * n;
        p.segment = lists + 4 * n;
        p.keep_dot = lists + 5 * n;
        p.value[AM_NET_SAMPLES] = am_plan_buffer(&p, 0);
        am_plan_segments(&p);
        am_plan_wanted(&p);
        am_plan_steps(&p, mode);
        rc = out->error;
    }
    AM_KEEP(am_program_place(out));
    free(lists);
    free(p.is_wanted);
    if (rc != 0) {
        AM_R(am_program_free)(out);
    }
    return rc;
}

void AM_R(am_program_free)(am_program *program)
{
    free(program->step);
    free(program->buffer);
    *program = (am_program){0};
}
