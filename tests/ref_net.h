/* Generated samples for networks of any kind: normal reals or token ids, one label a row of the
 * output, every fourth position not counted. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_REF_NET_H
#define AM_TESTS_REF_NET_H

#include "mpi/rng.h"
#include "solver/training/net.h"
#include "tests/am_test.h"

typedef struct ref_source {
    const am_net *net; /* shaped */
    int64_t tokens;    /* ids are below it */
    int64_t classes;
} ref_source;

static inline int ref_source_gather(void *self, const int64_t *index, int64_t count, float *x,
                                    int32_t *y)
{
    const ref_source *s = self;
    const int64_t F = s->net->features, labels = am_net_labels(s->net);
    const am_rng rng = am_rng_make(am_test_seed(), "samples", 0, 0, "");
    for (int64_t i = 0; i < count; i++) {
        for (int64_t f = 0; f < F; f++) {
            const int64_t at = index[i] * F + f;
            const uint32_t id = am_rng_u32(&rng, at) % (uint32_t)s->tokens;
            x[i * F + f] = s->net->takes_ids ? (float)id : (float)am_rng_normal(&rng, at);
        }
        for (int64_t t = 0; t < labels; t++) {
            const uint32_t draw = am_rng_u32(&rng, 1000000 + index[i] * labels + t);
            const int32_t label = (int32_t)(draw % (uint32_t)s->classes);
            y[i * labels + t] = labels > 1 && t % 4 == 3 ? -1 : label;
        }
    }
    return 0;
}

static inline am_samples ref_source_samples(ref_source *s, int64_t n)
{
    return (am_samples){.self = s,
                        .label = "generated",
                        .n = n,
                        .features = s->net->features,
                        .classes = s->classes,
                        .labels = am_net_labels(s->net),
                        .gather = ref_source_gather};
}

#endif
