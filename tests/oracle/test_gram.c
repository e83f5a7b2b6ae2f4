/* Gram matrices, norms and cosines of random checkpoints with mixed scales against sums in long
 * double, and the same bits for any number of ranks: every run is compared with one rank alone.
 * AM_GRAM_ELEMENTS sets the size. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/error.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/analysis/gram.h"
#include "solver/merge/memory.h"
#include "tests/am_test.h"

enum { MODELS = 3, TENSORS = 7 };

/* Base and models in f32, all of them or the elements of one slice. */
typedef struct scene {
    am_tensor_table tensors;
    am_slice slice;
    int64_t offset[TENSORS], index[TENSORS];
    float *reals[MODELS + 1];
    am_memory memory[MODELS + 1];
    am_source source[MODELS + 1];
    am_merge_input input[MODELS + 1];
    double per_tensor[TENSORS * MODELS * MODELS], global[MODELS * MODELS];
} scene;

static int64_t wanted_elements(void)
{
    const char *text = getenv("AM_GRAM_ELEMENTS");
    return text != NULL ? strtoll(text, NULL, 10) : 1000000;
}

/* Sizes from one element to half of all; none a multiple of a chunk. */
static void make_table(am_tensor_table *tensors)
{
    const int64_t n = wanted_elements();
    const int64_t numel[TENSORS] = {1, n / 2, 65537, 0, n / 4 + 3, 777, n / 5};
    for (int i = 0; i < TENSORS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "tensor.%d", i);
        AM_CHECK_OK(am_tensor_table_add(tensors, name, AM_DTYPE_F32, 1, &numel[i]));
    }
    AM_CHECK_OK(am_tensor_table_finish(tensors));
}

/* Cheap mixed-scale values that depend on (model, tensor, element) only: 21 powers of ten. The last
 * model is the first one again. */
static float element(int k, int64_t tensor, int64_t i)
{
    const am_rng rng = {.key = {(uint32_t)k, (uint32_t)am_test_seed()},
                        .stream = {(uint32_t)tensor, 77}};
    const uint32_t bits = am_rng_u32(&rng, i);
    static const double scale[8] = {1e-10, 1e-6, 1e-3, 1e-1, 1, 10, 1e4, 1e10};
    return (float)(((double)(bits >> 3) / (1 << 28) - 1) * scale[bits & 7]);
}

static void open_scene(scene *s, int parts, int part)
{
    memset(s, 0, sizeof *s);
    make_table(&s->tensors);
    AM_CHECK_OK(am_slice_make(&s->tensors, AM_CHUNK, parts, part, &s->slice));
    am_memory_slice_offsets(&s->slice, &s->tensors, s->offset);
    am_memory_identity(s->index, TENSORS);
    for (int k = 0; k <= MODELS; k++) {
        s->reals[k] = malloc((size_t)(s->slice.elements + 1) * sizeof(float));
        AM_CHECK(s->reals[k] != NULL);
        s->memory[k] = (am_memory){.label = "m",
                                   .tensors = &s->tensors,
                                   .dtype = AM_DTYPE_F32,
                                   .offset = s->offset,
                                   .reals = s->reals[k],
                                   .n = s->slice.elements};
        s->source[k] = am_memory_source(&s->memory[k]);
        s->input[k] = (am_merge_input){.source = &s->source[k], .tensor = s->index};
    }
    for (int64_t p = 0; p < s->slice.n; p++) {
        const am_span *span = &s->slice.spans[p];
        for (int64_t i = span->lo; i < span->hi; i++) {
            const int64_t at = s->offset[span->tensor] + i;
            for (int k = 0; k < MODELS; k++) {
                s->reals[k][at] = element(k, span->tensor, i);
            }
            s->reals[MODELS][at] = s->reals[1][at];
        }
    }
}

static void close_scene(scene *s)
{
    for (int k = 0; k <= MODELS; k++) {
        free(s->reals[k]);
    }
    am_slice_free(&s->slice);
    am_tensor_table_free(&s->tensors);
}

static int gram_all(MPI_Comm comm, scene *s)
{
    return am_gram_all(comm, &s->tensors, &s->input[0], &s->input[1], MODELS, &s->slice,
                       s->per_tensor, s->global);
}

/* sum (x_a - base)(x_b - base) in long double, plainly. */
static long double direct(const scene *s, int64_t tensor, int a, int b)
{
    const int64_t lo = s->offset[tensor], n = s->tensors.t[tensor].numel;
    long double sum = 0;
    for (int64_t i = lo; i < lo + n; i++) {
        const long double base = s->reals[0][i];
        sum += ((long double)s->reals[a + 1][i] - base) * ((long double)s->reals[b + 1][i] - base);
    }
    return sum;
}

/* Relative to the product of the norms, which is what a cosine divides by. */
static void check_against(const double *gram, const long double *exact)
{
    for (int a = 0; a < MODELS; a++) {
        for (int b = 0; b < MODELS; b++) {
            const double size = (double)sqrtl(exact[a * MODELS + a] * exact[b * MODELS + b]);
            const double error =
                (double)fabsl((long double)gram[a * MODELS + b] - exact[a * MODELS + b]);
            AM_CHECK_NEAR(error, 0, 1e-14 * size);
        }
    }
}

static void check_oracle(const scene *s)
{
    long double total[MODELS * MODELS] = {0}, one[MODELS * MODELS];
    for (int64_t i = 0; i < TENSORS; i++) {
        for (int a = 0; a < MODELS; a++) {
            for (int b = 0; b <= a; b++) {
                one[a * MODELS + b] = one[b * MODELS + a] = direct(s, i, a, b);
            }
        }
        for (int k = 0; k < MODELS * MODELS; k++) {
            total[k] += one[k];
        }
        check_against(s->per_tensor + i * MODELS * MODELS, one);
    }
    check_against(s->global, total);
    double norms[MODELS], cosines[MODELS * MODELS];
    am_gram_cosines(s->global, MODELS, norms, cosines);
    for (int a = 0; a < MODELS; a++) {
        const double norm = (double)sqrtl(total[a * MODELS + a]);
        AM_CHECK_NEAR(norms[a], norm, 1e-14 * norm);
        for (int b = 0; b < MODELS; b++) {
            const long double cosine =
                total[a * MODELS + b] / sqrtl(total[a * MODELS + a]) / sqrtl(total[b * MODELS + b]);
            AM_CHECK_NEAR(cosines[a * MODELS + b], (double)cosine, 1e-14);
        }
        AM_CHECK_SAME_F64(cosines[a * MODELS + a], 1);
    }
    AM_CHECK_SAME_F64(cosines[0 * MODELS + 2], 1); /* models 0 and 2 are equal */
}

static void random_checkpoints_all(void)
{
    scene s, alone;
    open_scene(&s, am_world_size(), am_world_rank());
    AM_CHECK_OK(gram_all(am_world(), &s));
    if (am_world_rank() == 0) { /* the same on one rank */
        open_scene(&alone, 1, 0);
        AM_CHECK_OK(gram_all(MPI_COMM_SELF, &alone));
        AM_CHECK(memcmp(s.global, alone.global, sizeof s.global) == 0);
        AM_CHECK(memcmp(s.per_tensor, alone.per_tensor, sizeof s.per_tensor) == 0);
        check_oracle(&alone);
        close_scene(&alone);
    }
    double without[MODELS * MODELS]; /* per_tensor is optional and changes no bit */
    AM_CHECK_OK(am_gram_all(am_world(), &s.tensors, &s.input[0], &s.input[1], MODELS, &s.slice,
                            NULL, without));
    AM_CHECK(memcmp(s.global, without, sizeof without) == 0);
    close_scene(&s);
}

static void cosines_at_the_edges(void)
{
    double norms[2], cosines[4];
    am_gram_cosines((const double[]){0, 0, 0, 4}, 2, norms, cosines);
    AM_CHECK(isnan(cosines[0]) && isnan(cosines[1]) && isnan(cosines[2]) && cosines[3] == 1);
    AM_CHECK_SAME_F64(norms[1], 2);
    static const double sizes[] = {3, 0.1, 1e300, 1e-300, 5e-324, 2e-310, 1.7e308};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const double g = sizes[i];
        am_gram_cosines((const double[]){g, g, g, g}, 2, norms, cosines);
        AM_CHECK_SAME_F64(cosines[1], 1);
        am_gram_cosines((const double[]){g, -g, -g, g}, 2, norms, cosines);
        AM_CHECK_SAME_F64(cosines[1], -1);
    }
    am_gram_cosines((const double[]){0.1, 0.2, 0.2, 0.4}, 2, norms, cosines); /* x and 2x */
    AM_CHECK_SAME_F64(cosines[1], 1);
    am_gram_cosines((const double[]){1, nextafter(1, 2), nextafter(1, 2), 1}, 2, norms, cosines);
    AM_CHECK_SAME_F64(cosines[1], 1); /* clamped */
}

static void not_finite_is_an_error_all(void)
{
    scene s;
    open_scene(&s, am_world_size(), am_world_rank());
    if (s.slice.elements > 0 && am_world_rank() == am_world_size() - 1) {
        s.reals[2][0] = NAN;
    }
    AM_CHECK_CODE(gram_all(am_world(), &s), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "is NaN");
    am_error_clear();
    close_scene(&s);
}

static const am_test tests[] = {AM_TEST(random_checkpoints_all), AM_TEST(cosines_at_the_edges),
                                AM_TEST(not_finite_is_an_error_all)};
AM_TEST_MAIN("gram", tests)
