/* The command line: options from tables, negations, errors that name the nearest.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/cli.h"
#include "jobs/help.h"
#include "mpi/error.h"
#include "tests/am_test.h"

typedef struct sample {
    char *output;
    bool deep_copy, quick;
    int64_t count;
} sample;

static const am_param sample_table[] = {
    {"output", AM_PARAM_STRING, offsetof(sample, output), NULL, 0, 0, NULL, "where"},
    {"deep_copy", AM_PARAM_BOOL, offsetof(sample, deep_copy), "true", 0, 0, NULL, "copy deeply"},
    {"quick", AM_PARAM_BOOL, offsetof(sample, quick), "false", 0, 0, NULL, "quickly"},
    {"count", AM_PARAM_INT, offsetof(sample, count), "1", -9, 9, NULL, "how many"},
    {0}};

static int run_nothing_all(const am_args *args, int *exit_status)
{
    (void)args;
    (void)exit_status;
    return 0;
}

static const am_command sample_command = {.name = "sample",
                                          .synopsis = "IN -o OUT",
                                          .summary = "A sample.",
                                          .min_positional = 1,
                                          .max_positional = 2,
                                          .options = sample_table,
                                          .options_bytes = sizeof(sample),
                                          .takes_set = true,
                                          .run_all = run_nothing_all};
static const am_command plain_command = {.name = "plain",
                                         .synopsis = "",
                                         .summary = "Plain.",
                                         .max_positional = -1,
                                         .run_all = run_nothing_all};
static const am_command *const commands[] = {&plain_command, &sample_command, NULL};

/* Parse a command line written with blanks. */
static int parse(const char *line, char *copy, char **argv, am_cli *cli)
{
    int argc = 0;
    strcpy(copy, line);
    argv[argc++] = "allmerge";
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    return am_cli_parse(argc, argv, commands, cli);
}

static void time_left_is_read(void)
{
    static const struct {
        const char *line;
        double seconds; /* 0: refused */
    } cases[] = {{"--time-left 90 plain", 90},
                 {"plain --time-left=1.5h", 5400},
                 {"plain --time-left 30m", 1800},
                 {"plain --time-left 12:00:00", 43200},
                 {"plain --time-left 1-02:03:04", 93784},
                 {"plain --time-left 05:30", 330},
                 {"plain --time-left 2d", 172800},
                 {"plain --time-left 0", 0},
                 {"plain --time-left -1", 0},
                 {"plain --time-left 1:60", 0},
                 {"plain --time-left 1-02:03", 0},
                 {"plain --time-left 1:2:3:4", 0},
                 {"plain --time-left 3x", 0},
                 {"plain --time-left inf", 0},
                 {"plain --time-left", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char copy[256], *argv[32];
        am_cli cli;
        const int rc = parse(cases[i].line, copy, argv, &cli);
        AM_CHECK_I64(rc, cases[i].seconds > 0 ? 0 : AM_E_USAGE);
        if (rc == 0) {
            AM_CHECK(cli.time_left == cases[i].seconds);
        }
        am_error_clear();
        am_cli_free(&cli);
    }
}

static void options_are_read(void)
{
    static const struct {
        const char *line, *output;
        int count, positional, set;
        bool deep, quick;
    } good[] = {
        {"sample in -o out", "out", 1, 1, 0, true, false},
        {"sample --output=out in --quick --no-deep-copy", "out", 1, 1, 0, false, true},
        {"sample --deep_copy=no --output out --count -3 in", "out", -3, 1, 0, false, false},
        {"--quiet sample -o o a b --set x=1 --set=y=2", "o", 1, 2, 2, true, false},
        {"sample -o o -- --quick -", "o", 1, 2, 0, true, false},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char copy[256], *argv[32];
        am_cli cli;
        if (AM_CHECK_OK(parse(good[i].line, copy, argv, &cli))) {
            const sample *o = cli.args.options;
            AM_CHECK(cli.command == &sample_command);
            AM_CHECK_TEXT(o->output, good[i].output);
            AM_CHECK_I64(o->count, good[i].count);
            AM_CHECK_I64(cli.args.n_positional, good[i].positional);
            AM_CHECK_I64(cli.args.n_set, good[i].set);
            AM_CHECK(o->deep_copy == good[i].deep && o->quick == good[i].quick);
        }
        am_cli_free(&cli);
    }
}

static void errors_name_the_nearest(void)
{
    static const struct {
        const char *line, *message;
        int code;
    } bad[] = {
        {"", "no command given", AM_E_USAGE},
        {"smaple in", "unknown command 'smaple'; did you mean 'sample'?", AM_E_USAGE},
        {"--nope sample", "unknown option '--nope' before the command", AM_E_USAGE},
        {"sample in", "option -o/--output is required", AM_E_USAGE},
        {"sample -o out", "missing argument; usage: allmerge sample IN -o OUT", AM_E_USAGE},
        {"sample a b c -o out", "unexpected argument 'c'", AM_E_USAGE},
        {"sample in -o", "option '-o' needs a value", AM_E_USAGE},
        {"sample in --outptu=x", "unknown option '--outptu'; did you mean '--output'?", AM_E_USAGE},
        {"sample in --no-quik", "unknown option '--no-quik'; did you mean '--no-quick'?",
         AM_E_USAGE},
        {"sample in --no-count", "unknown option '--no-count'", AM_E_USAGE},
        {"sample in -x", "unknown option '-x'", AM_E_USAGE},
        {"sample in --set x", "--set x: write it as KEY=VALUE", AM_E_USAGE},
        {"sample in -o o --count ten", "count", AM_E_RECIPE},
        {"sample in -o o --count 10", "count", AM_E_RECIPE},
        {"plain --set a=1", "unknown option '--set'", AM_E_USAGE},
        {"plain -o x", "unknown option '-o'", AM_E_USAGE},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char copy[256], *argv[32];
        am_cli cli;
        AM_CHECK_CODE(parse(bad[i].line, copy, argv, &cli), bad[i].code);
        AM_CHECK_CONTAINS(am_error_message(), bad[i].message);
        am_error_clear();
        am_cli_free(&cli);
    }
}

static void help_needs_nothing_else(void)
{
    static const char *const lines[] = {"help sample", "sample --help", "--help sample",
                                        "sample -h in", "sample --version"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char copy[256], *argv[32];
        am_cli cli;
        AM_CHECK_OK(parse(lines[i], copy, argv, &cli));
        AM_CHECK(cli.command == &sample_command && (cli.help || cli.version));
        am_cli_free(&cli);
    }
}

/* Every command's help keeps to 80 columns and ends its lines without blanks. */
static void help_is_80_columns(void)
{
    for (int i = 0; am_command_table[i] != NULL; i++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        if (!AM_CHECK(out != NULL)) {
            continue;
        }
        am_help_general(out, am_command_table);
        am_help_command(out, am_command_table[i]);
        AM_CHECK(fclose(out) == 0);
        for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            if (!AM_CHECK(strlen(line) <= AM_HELP_COLUMNS && line[strlen(line) - 1] != ' ')) {
                fprintf(stderr, "%s: %s\n", am_command_table[i]->name, line);
            }
        }
        free(text);
    }
}

static const am_test tests[] = {AM_TEST(options_are_read), AM_TEST(time_left_is_read),
                                AM_TEST(errors_name_the_nearest), AM_TEST(help_needs_nothing_else),
                                AM_TEST(help_is_80_columns)};
AM_TEST_MAIN("cli", tests)
