/* hf_logits PRESET OPTIONS FEATURES CLASSES TRUNK HEADS < INPUTS: the logits of every sample, one a
 * line. INPUTS: features numbers a sample, as text. For test_hf.py.
 * SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 32
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "mpi/error.h"
#include "mpi/runtime.h"
#include "solver/training/preset.h"
#include "solver/training/real_pass.h"

enum { MOST = 1 << 16 };

static float input[MOST];
static int64_t labels, features;

static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    (void)self;
    for (int64_t i = 0; i < count; i++) {
        memcpy(x + i * features, input + index[i] * features, (size_t)features * sizeof *x);
        for (int64_t l = 0; l < labels; l++) {
            y[i * labels + l] = -1; /* does not count: the logits stay as they are */
        }
    }
    return 0;
}

static int load_all(const am_net *net, int64_t classes, char **argv, float *trunk, float *head)
{
    am_param_layout layout = {0};
    am_tensor_table named = {0};
    char name[AM_MAX_NAME];
    int rc = am_ckpt_load_all(am_world(), argv[5], &net->trunk.tensors, net->trunk.offset, trunk);
    AM_KEEP(am_net_head_layout(net, classes, AM_DTYPE_F32, &layout));
    for (int64_t k = 0; rc == 0 && k < layout.tensors.n; k++) {
        const am_tensor *t = &layout.tensors.t[k];
        snprintf(name, sizeof name, "t.%s", t->name);
        rc = am_tensor_table_add(&named, name, t->dtype, t->ndim, t->shape);
    }
    AM_KEEP(am_tensor_table_finish(&named));
    AM_KEEP(am_ckpt_load_all(am_world(), argv[6], &named, layout.offset, head));
    am_tensor_table_free(&named);
    am_param_layout_free(&layout);
    return rc;
}

static int run_all(char **argv)
{
    am_net net = {0};
    am_net_pass pass = {0};
    float *w = NULL;
    int64_t n = 0;
    const int64_t classes = strtoll(argv[4], NULL, 10);
    features = strtoll(argv[3], NULL, 10);
    while (n < MOST && scanf("%f", &input[n]) == 1) {
        n++;
    }
    const int64_t B = n / features;
    int rc = am_preset_make(argv[1], argv[2], NULL, &net);
    AM_KEEP(am_net_shape(&net, features));
    if (rc == 0) {
        labels = am_net_labels(&net);
        w = calloc((size_t)(net.trunk.n + classes * (am_shape_features(&net.out) + 1)), sizeof *w);
        rc = w != NULL ? 0 : AM_E_NOMEM;
    }
    AM_KEEP(load_all(&net, classes, argv, w, w + net.trunk.n));
    AM_KEEP(am_pass_make_f32(&net, B, classes, false, &pass));
    for (int64_t b = 0; rc == 0 && b < B; b++) {
        pass.index[b] = b;
    }
    const am_samples samples = {.label = "t",
                                .n = B,
                                .features = features,
                                .classes = classes,
                                .labels = labels,
                                .gather = gather};
    AM_KEEP(am_pass_load_f32(&pass, &samples, B, classes));
    if (rc == 0) {
        am_pass_forward_f32(&pass, w, w + net.trunk.n, B, classes);
        const float *bias = w + net.trunk.n; /* head.bias comes first; the loss adds it */
        const float *z = am_pass_probabilities_f32(&pass);
        for (int64_t i = 0; i < B * labels * classes; i++) {
            printf("%.9g\n", (double)(z[i] + bias[i % classes]));
        }
    }
    am_pass_free_f32(&pass);
    am_net_free(&net);
    free(w);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = am_start_all(&argc, &argv);
    if (rc == 0) {
        rc = argc == 7 ? run_all(argv) : am_fail(AM_E_USAGE, "6 arguments");
    }
    return am_stop_all(rc);
}
