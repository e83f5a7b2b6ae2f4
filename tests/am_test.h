/* Tests of rank programs: cmocka runs them, but a check only counts (cmocka's own assertions jump
 * out of the test on one rank while the others wait). After each test one allreduce makes the count
 * the same everywhere, so that a failure on any rank fails the test on all and nothing hangs.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_AM_TEST_H
#define AM_TESTS_AM_TEST_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_test {
    const char *name;
    void (*body)(void); /* collective [am_world()] */
} am_test;

#define AM_TEST(function)                                                                          \
    {                                                                                              \
#function, function                                                                        \
    }

/** Start MPI, run tests[0..n) and stop MPI: the whole of a test's main. Collective.
 * argv[1]  a cmocka filter ("*exact*"), optional.
 * AM_SEED in the environment replaces the seed. Returns the process exit code. */
int am_test_main_all(int argc, char **argv, const char *group, const am_test *tests, int64_t n);

#define AM_TEST_MAIN(group, tests)                                                                 \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return am_test_main_all(argc, argv, group, tests,                                          \
                                (int64_t)(sizeof tests / sizeof tests[0]));                        \
    }

/* Checks: local, never leave the test; the first few failures of a test are printed with the rank.
 * Each is an expression with the value "it held". */
#define AM_CHECK(condition) am_check((condition), __FILE__, __LINE__, #condition)
#define AM_CHECK_I64(got, expected)                                                                \
    am_check_i64((int64_t)(got), (int64_t)(expected), __FILE__, __LINE__, #got)
#define AM_CHECK_TEXT(got, expected) am_check_text((got), (expected), __FILE__, __LINE__, #got)
#define AM_CHECK_CONTAINS(got, part) am_check_contains((got), (part), __FILE__, __LINE__, #got)
/* Same bits (so -0 is not 0, and NaN equals itself). */
#define AM_CHECK_SAME_F64(got, expected)                                                           \
    am_check_same_f64((got), (expected), __FILE__, __LINE__, #got)
/* |got - expected| <= tolerance */
#define AM_CHECK_NEAR(got, expected, tolerance)                                                    \
    am_check_near((got), (expected), (tolerance), __FILE__, __LINE__, #got)
/* The call returns 0; otherwise its message is printed. The slot is cleared. */
#define AM_CHECK_OK(call) am_check_code((call), 0, __FILE__, __LINE__, #call)
/* The call returns `code`; the slot keeps the message: check it, then am_error_clear(). */
#define AM_CHECK_CODE(call, code) am_check_code((call), (code), __FILE__, __LINE__, #call)

bool am_check(bool held, const char *file, int line, const char *text);
bool am_check_i64(int64_t got, int64_t expected, const char *file, int line, const char *text);
bool am_check_text(const char *got, const char *expected, const char *file, int line,
                   const char *text);
bool am_check_contains(const char *got, const char *part, const char *file, int line,
                       const char *text);
bool am_check_same_f64(double got, double expected, const char *file, int line, const char *text);
bool am_check_near(double got, double expected, double tolerance, const char *file, int line,
                   const char *text);
bool am_check_code(int got, int expected, const char *file, int line, const char *text);

/** Seed of generated inputs, the same on all ranks; printed when a test fails. */
uint64_t am_test_seed(void);

/** Path NAME in the folder of this test run (made empty at the start, shared by all ranks), in a
 * static buffer (4 in rotation). */
const char *am_test_path(const char *name);

#endif
