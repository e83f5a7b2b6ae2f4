/* Counting checks under cmocka and MPI. SPDX-License-Identifier: BSD-3-Clause */
#include "tests/am_test.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum { MOST_TESTS = 256, MOST_PRINTED = 8 };

static int64_t failures = 0;
static uint64_t seed = 20240229;
static char folder[3072];

/* ---- checks ---- */

__attribute__((format(printf, 3, 4))) static bool failed(const char *file, int line,
                                                         const char *format, ...)
{
    failures++;
    if (failures <= MOST_PRINTED) {
        char text[2048];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        dprintf(STDERR_FILENO, "%s:%d: rank %d of %d: %s\n", file, line, am_world_rank(),
                am_world_size(), text);
    }
    return false;
}

bool am_check(bool held, const char *file, int line, const char *text)
{
    return held || failed(file, line, "%s does not hold", text);
}

bool am_check_i64(int64_t got, int64_t expected, const char *file, int line, const char *text)
{
    return got == expected ||
           failed(file, line, "%s is %" PRId64 ", not %" PRId64, text, got, expected);
}

bool am_check_text(const char *got, const char *expected, const char *file, int line,
                   const char *text)
{
    return (got != NULL && expected != NULL && strcmp(got, expected) == 0) || got == expected ||
           failed(file, line, "%s is \"%s\", not \"%s\"", text, got != NULL ? got : "NULL",
                  expected != NULL ? expected : "NULL");
}

bool am_check_contains(const char *got, const char *part, const char *file, int line,
                       const char *text)
{
    return (got != NULL && strstr(got, part) != NULL) ||
           failed(file, line, "%s is \"%s\", without \"%s\"", text, got != NULL ? got : "NULL",
                  part);
}

bool am_check_same_f64(double got, double expected, const char *file, int line, const char *text)
{
    return memcmp(&got, &expected, sizeof got) == 0 || (isnan(got) && isnan(expected)) ||
           failed(file, line, "%s is %.17g (%a), not %.17g (%a)", text, got, got, expected,
                  expected);
}

bool am_check_near(double got, double expected, double tolerance, const char *file, int line,
                   const char *text)
{
    return fabs(got - expected) <= tolerance ||
           failed(file, line, "%s is %.17g, off %.17g by %.3g, over %.3g", text, got, expected,
                  fabs(got - expected), tolerance);
}

bool am_check_code(int got, int expected, const char *file, int line, const char *text)
{
    bool held = got == expected || failed(file, line, "%s returned %d (%s: %s), not %d", text, got,
                                          am_error_text(got), am_error_message(), expected);
    if (!held || got == 0) {
        am_error_clear();
    }
    return held;
}

uint64_t am_test_seed(void)
{
    return seed;
}

/* ---- files ---- */

const char *am_test_path(const char *name)
{
    static char paths[4][4096];
    static unsigned turn = 0;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* mkdir -p */
static int make_folder(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int code = mkdir(path, 0777) != 0 && errno != EEXIST;
        *slash = '/';
        if (code) {
            return am_fail_errno(AM_E_CREATE, errno, "cannot make a folder on the way to %s", path);
        }
    }
    return mkdir(path, 0777) == 0 ? 0 : am_fail_errno(AM_E_CREATE, errno, "cannot make %s", path);
}

static int prepare_folder_all(void)
{
    int rc = 0;
    const char *given = getenv("AM_TMP");
    (void)snprintf(folder, sizeof folder, "%s", given != NULL ? given : "am_test_tmp");
    if (am_world_rank() == 0) {
        (void)nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        rc = make_folder(folder);
    }
    return am_agree_all(am_world(), rc);
}

/* ---- running ---- */

static int real_stderr = -1, null_output = -1;

/* cmocka reports on every rank; only rank 0's report is kept. Inside a test all ranks may speak. */
static void mute(bool is_muted)
{
    if (am_world_rank() > 0) {
        (void)fflush(NULL);
        (void)dup2(is_muted ? null_output : real_stderr, STDERR_FILENO);
    }
}

static void run_one_all(void **state)
{
    const am_test *test = *state;
    int64_t total = 0;
    failures = 0;
    mute(false);
    am_alive(test->name);
    am_error_clear();
    test->body();
    am_error_clear();
    total = failures;
    if (am_sum_i64_all(am_world(), &total, 1) != 0) {
        total = INT64_MAX;
    }
    if (total > 0 && am_world_rank() == 0) {
        dprintf(STDERR_FILENO,
                "%s: %" PRId64 " checks failed over all ranks, AM_SEED=%" PRIu64 "\n", test->name,
                total, seed);
    }
    mute(true);
    assert_int_equal(total, 0);
}

int am_test_main_all(int argc, char **argv, const char *group, const am_test *tests, int64_t n)
{
    struct CMUnitTest table[MOST_TESTS];
    int rc = 0, bad = 1;
    AM_TRY(am_start_all(&argc, &argv));
    AM_ASSERT(n <= MOST_TESTS);
    if (getenv("AM_SEED") != NULL) {
        seed = strtoull(getenv("AM_SEED"), NULL, 0);
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    for (int64_t i = 0; i < n; i++) {
        table[i] = (struct CMUnitTest){.name = tests[i].name,
                                       .test_func = run_one_all,
                                       .initial_state = (void *)(uintptr_t)&tests[i]};
    }
    AM_TRY(prepare_folder_all());
    real_stderr = dup(STDERR_FILENO);
    null_output = open("/dev/null", O_WRONLY);
    AM_ASSERT(real_stderr >= 0 && null_output >= 0);
    if (am_world_rank() > 0) {
        (void)dup2(null_output, STDOUT_FILENO);
    }
    mute(true);
    bad = _cmocka_run_group_tests(group, table, (size_t)n, NULL, NULL);
    mute(false);
cleanup:
    return am_stop_all(rc) != 0 || bad != 0;
}
