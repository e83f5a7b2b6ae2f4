/* The vectorised elementary functions against the C library in f64, over all of their range.
 * SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 32
#include "solver/training/real_math.h"
#include "tests/am_test.h"

/* Units in the last place of y, as an f32, that got is away from it. */
static double ulps(float got, double y)
{
    const float near = (float)y;
    const double unit = (double)nextafterf(fabsf(near), INFINITY) - fabs((double)near);
    return fabs((double)got - y) / unit;
}

/* Worst error of f against exact over bit patterns from lo to hi, in steps; both signs. */
static double worst(float (*f)(float), double (*exact)(double), float lo, float hi)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = lo}, end = {.f = hi};
    double most = 0;
    for (; x.u <= end.u; x.u += 1009) {
        most = fmax(most, ulps(f(x.f), exact((double)x.f)));
        most = fmax(most, ulps(f(-x.f), exact((double)-x.f)));
    }
    return most;
}

static float exp32(float x)
{
    return am_real_exp(x);
}

static float tanh32(float x)
{
    return am_real_tanh(x);
}

static float erf32(float x)
{
    return am_real_erf(x);
}

static void errors(void)
{
    AM_CHECK(worst(exp32, exp, 1e-30F, 86.9F) <= 2);
    AM_CHECK(worst(tanh32, tanh, 1e-30F, 100.0F) <= 3);
    AM_CHECK(worst(erf32, erf, 1e-30F, 100.0F) <= 3);
}

static void edges(void)
{
    AM_CHECK(exp32(0) == 1 && tanh32(0) == 0 && erf32(0) == 0);
    AM_CHECK(exp32(-1000) < 1e-37F && exp32(1000) > 1e38F);
    AM_CHECK(tanh32(INFINITY) == 1 && tanh32(-INFINITY) == -1);
    AM_CHECK(erf32(INFINITY) == 1 && erf32(-INFINITY) == -1);
    AM_CHECK(isnan(exp32(NAN)) && isnan(tanh32(NAN)) && isnan(erf32(NAN)));
}

static const am_test tests[] = {
    AM_TEST(errors),
    AM_TEST(edges),
};

AM_TEST_MAIN("real_math", tests)
