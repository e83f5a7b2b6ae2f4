/* Elementary functions that compilers vectorise: no branch, no call, no table in f32, so the same
 * bits in every clone (mpi/clones.h); f64 calls the C library. Errors of the f32 functions over all
 * of their range, found by tests/oracle/test_real_math.c: exp 2 ulp, tanh 3 ulp, erf 3 ulp.
 * Polynomials are Chebyshev interpolants made for these intervals. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_MATH_H
#define AM_SOLVER_TRAINING_REAL_MATH_H

#include <math.h>
#include <stdint.h>
#include "solver/training/real.h"

#if AM_REAL == 32

typedef union am_real_bits {
    float value;
    int32_t bits;
} am_real_bits;

/* exp x = 2^n exp r, |r| <= ln 2 / 2. Ends at exp(-87) and exp(88); NaN stays NaN. */
static inline real am_real_exp(real x)
{
    x = x < -87.0F ? -87.0F : x;
    x = x > 88.0F ? 88.0F : x;
    const am_real_bits t = {.value = x * 1.44269504F + 12582912.0F}; /* n in the low bits */
    const float n = t.value - 12582912.0F;
    const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
    const float p =
        0.5F + r * (0.16666577F + r * (0.041666465F + r * (0.0083631815F + r * 0.0013933652F)));
    const am_real_bits scale = {.bits = (int32_t)((uint32_t)t.bits << 23) + 0x3F800000};
    return (1.0F + (r + r * r * p)) * scale.value;
}

/* tanh x = x + x^3 p(x^2) below 0.7, else 1 - 2 / (exp 2|x| + 1) with the sign of x. */
static inline real am_real_tanh(real x)
{
    const float a = fabsf(x), s = x * x;
    const float p =
        -0.33333333F +
        s * (0.13333245F +
             s * (-0.053947134F + s * (0.021682391F + s * (-0.0080946625F + s * 0.0020432576F))));
    const float small = a + a * s * p;
    const float large = 1.0F - 2.0F / (am_real_exp(2.0F * a) + 1.0F);
    return copysignf(a < 0.7F ? small : large, x);
}

/* erf x = x p(x^2) below 1, else 1 - exp q(|x|) with the sign of x. */
static inline real am_real_erf(real x)
{
    const float s = x * x;
    float a = fabsf(x);
    const float p =
        1.1283792F + s * (-0.37612627F +
                          s * (0.11283597F + s * (-0.026854329F +
                                                  s * (0.0051893119F +
                                                       s * (-8.0188550e-4F + s * 7.8824971e-5F)))));
    const float small = a * p;
    a = a > 4.2F ? 4.2F : a;
    const float q =
        4.2998234e-4F +
        a * (-1.1307393F +
             a * (-0.63082334F +
                  a * (-0.11120332F +
                       a * (0.027205212F +
                            a * (-0.0051136632F +
                                 a * (7.0037667e-4F +
                                      a * (-6.5011585e-5F +
                                           a * (3.6093514e-6F + a * -8.9050264e-8F))))))));
    const float large = 1.0F - am_real_exp(q);
    return copysignf(fabsf(x) < 1.0F ? small : large, x);
}

static inline real am_real_sqrt(real x)
{
    return sqrtf(x);
}

#else

static inline real am_real_exp(real x)
{
    return exp(x);
}

static inline real am_real_tanh(real x)
{
    return tanh(x);
}

static inline real am_real_erf(real x)
{
    return erf(x);
}

static inline real am_real_sqrt(real x)
{
    return sqrt(x);
}

#endif

#endif
