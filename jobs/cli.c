/* The command line. SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/cli.h"
#include "jobs/help.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"

enum { AM_MAX_OPTION_NAME = 96 };

/* What is left to read. */
typedef struct am_cursor {
    char **argv;
    int argc, at;
    am_cli *cli;
} am_cursor;

static const am_command *find_command(const am_command *const *commands, const char *name)
{
    for (int i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static int fail_command(const am_command *const *commands, const char *name)
{
    const char *names[AM_MAX_OPTIONS + 2];
    int n = 0;
    for (int i = 0; commands[i] != NULL && n < AM_MAX_OPTIONS; i++) {
        names[n++] = commands[i]->name;
    }
    names[n++] = "help";
    names[n] = NULL;
    const char *nearest = am_nearest(names, name);
    return nearest != NULL
               ? am_fail(AM_E_USAGE, "unknown command '%s'; did you mean '%s'?", name, nearest)
               : am_fail(AM_E_USAGE, "unknown command '%s'; see `allmerge help`", name);
}

/* Keys and options are compared with `_` and `-` taken as equal; `bytes` of `option` count. */
static bool is_same_key(const char *key, const char *option, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        char a = key[i] == '_' ? '-' : key[i];
        char b = option[i] == '_' ? '-' : option[i];
        if (a != b || a == '\0') {
            return false;
        }
    }
    return key[bytes] == '\0';
}

static int find_option(const am_command *command, const char *option, size_t bytes)
{
    for (int i = 0; command->options != NULL && command->options[i].key != NULL; i++) {
        if (is_same_key(command->options[i].key, option, bytes)) {
            return i;
        }
    }
    return -1;
}

static int fail_option(const am_command *command, const char *argument, size_t bytes)
{
    char word[AM_MAX_OPTION_NAME];
    char text[AM_MAX_OPTIONS][AM_MAX_OPTION_NAME];
    const char *names[AM_MAX_OPTIONS + 7] = {"--help",    "--version",   "--quiet",
                                             "--verbose", "--time-left", "-o"};
    int n = 5;
    snprintf(word, sizeof word, "%.*s", (int)bytes, argument);
    if (command->takes_set) {
        names[n++] = "--set";
    }
    bool is_negated = strncmp(word, "--no-", 5) == 0;
    for (int i = 0; command->options != NULL && command->options[i].key != NULL; i++) {
        const am_param *p = &command->options[i];
        if (i < AM_MAX_OPTIONS && (!is_negated || p->type == AM_PARAM_BOOL)) {
            snprintf(text[i], sizeof text[i], "--%s%s", is_negated ? "no-" : "", p->key);
            for (char *c = text[i]; *c != '\0'; c++) {
                *c = *c == '_' ? '-' : *c;
            }
            names[n++] = text[i];
        }
    }
    names[n] = NULL;
    const char *nearest = am_nearest(names, word);
    return nearest != NULL
               ? am_fail(AM_E_USAGE, "%s: unknown option '%s'; did you mean '%s'?", command->name,
                         word, nearest)
               : am_fail(AM_E_USAGE, "%s: unknown option '%s'; see `allmerge %s --help`",
                         command->name, word, command->name);
}

/* The value of an option: behind its `=`, else the next argument. */
static int take_value(am_cursor *c, const char *argument, const char *equals, const char **value)
{
    if (equals != NULL) {
        *value = equals + 1;
        return 0;
    }
    if (c->at >= c->argc) {
        return am_fail(AM_E_USAGE, "option '%s' needs a value", argument);
    }
    *value = c->argv[c->at++];
    return 0;
}

/* --set KEY=VALUE is only collected here: the recipe knows its keys. */
static int take_set(am_cursor *c, const char *argument, const char *equals)
{
    const char *value = NULL;
    int rc = take_value(c, argument, equals, &value);
    if (rc == 0 && (strchr(value, '=') == NULL || value[0] == '=')) {
        rc = am_fail(AM_E_USAGE, "--set %s: write it as KEY=VALUE", value);
    }
    if (rc == 0) {
        c->cli->args.set[c->cli->args.n_set++] = (char *)value;
    }
    return rc;
}

static int take_time_left(am_cursor *c, const char *argument, const char *equals)
{
    const char *value = NULL;
    int rc = take_value(c, argument, equals, &value);
    AM_KEEP(am_parse_duration(value, &c->cli->time_left));
    if (rc == 0 && !(c->cli->time_left > 0)) {
        rc = am_fail(AM_E_USAGE, "--time-left %s: there is no time left", value);
    }
    return rc;
}

/* Common options need no command. Returns whether `argument` is one; *rc: whether it is sound. */
static bool take_common(am_cursor *c, const char *argument, int *rc)
{
    static const char time_left[] = "--time-left";
    am_cli *cli = c->cli;
    const char *equals = strchr(argument, '=');
    const size_t bytes = equals != NULL ? (size_t)(equals - argument) : strlen(argument);
    *rc = 0;
    if (bytes == sizeof time_left - 1 && strncmp(argument, time_left, bytes) == 0) {
        *rc = take_time_left(c, argument, equals);
        return true;
    }
    const struct {
        const char *name;
        bool *flag;
    } common[] = {{"--help", &cli->help},
                  {"-h", &cli->help},
                  {"--version", &cli->version},
                  {"--quiet", &cli->quiet},
                  {"--verbose", &cli->verbose}};
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) {
        if (strcmp(argument, common[i].name) == 0) {
            *common[i].flag = true;
            return true;
        }
    }
    return false;
}

static int take_option(am_cursor *c, const char *argument)
{
    const am_command *command = c->cli->command;
    bool is_output = strcmp(argument, "-o") == 0;
    const char *name = is_output ? "output" : argument + 2;
    const char *equals = is_output ? NULL : strchr(name, '=');
    size_t bytes = equals != NULL ? (size_t)(equals - name) : strlen(name);
    if (!is_output && argument[1] != '-') {
        return fail_option(command, argument, strlen(argument));
    }
    if (command->takes_set && bytes == 3 && strncmp(name, "set", 3) == 0) {
        return take_set(c, argument, equals);
    }
    const char *value = NULL;
    int i = find_option(command, name, bytes);
    if (i < 0 && bytes > 3 && equals == NULL && strncmp(name, "no-", 3) == 0) {
        i = find_option(command, name + 3, bytes - 3);
        value = "false";
        i = i >= 0 && command->options[i].type == AM_PARAM_BOOL ? i : -1;
    }
    if (i < 0 || i >= AM_MAX_OPTIONS) {
        return fail_option(command, argument, bytes + (is_output ? 0 : 2));
    }
    const am_param *p = &command->options[i];
    if (value == NULL && p->type == AM_PARAM_BOOL) {
        value = equals != NULL ? equals + 1 : "true";
    }
    int rc = value != NULL ? 0 : take_value(c, argument, equals, &value);
    if (rc == 0) {
        rc = am_param_set(command->options, c->cli->args.options, p->key, value, "command line");
        c->cli->args.is_set[i] = true;
    }
    return rc;
}

/* COMMON... COMMAND, or `help [COMMAND]`. */
static int take_command(am_cursor *c, const am_command *const *commands)
{
    am_cli *cli = c->cli;
    while (c->at < c->argc) {
        const char *word = c->argv[c->at++];
        int rc = 0;
        if (take_common(c, word, &rc)) {
            if (rc != 0) {
                return rc;
            }
            continue;
        }
        if (word[0] == '-') {
            return am_fail(AM_E_USAGE,
                           "unknown option '%s' before the command; "
                           "see `allmerge help`",
                           word);
        }
        if (!cli->help && strcmp(word, "help") == 0) {
            cli->help = true;
            continue;
        }
        cli->command = find_command(commands, word);
        return cli->command != NULL ? 0 : fail_command(commands, word);
    }
    return cli->help || cli->version ? 0
                                     : am_fail(AM_E_USAGE, "no command given; see `allmerge help`");
}

static int prepare_options(am_cli *cli, int argc)
{
    cli->args.positional = am_new(argc + 1, sizeof *cli->args.positional, "arguments");
    cli->args.set = am_new(argc + 1, sizeof *cli->args.set, "arguments");
    if (cli->args.positional == NULL || cli->args.set == NULL) {
        return AM_E_NOMEM;
    }
    if (cli->command->options == NULL) {
        return 0;
    }
    cli->args.options = am_new(1, cli->command->options_bytes, "options");
    return cli->args.options == NULL ? AM_E_NOMEM
                                     : am_param_defaults(cli->command->options, cli->args.options);
}

static int check_complete(const am_cursor *c)
{
    const am_command *command = c->cli->command;
    int n = c->cli->args.n_positional;
    if (n < command->min_positional) {
        return am_fail(AM_E_USAGE, "%s: missing argument; usage: allmerge %s %s", command->name,
                       command->name, command->synopsis);
    }
    if (command->max_positional >= 0 && n > command->max_positional) {
        return am_fail(AM_E_USAGE, "%s: unexpected argument '%s'; usage: allmerge %s %s",
                       command->name, c->cli->args.positional[command->max_positional],
                       command->name, command->synopsis);
    }
    for (int i = 0; command->options != NULL && command->options[i].key != NULL; i++) {
        if (command->options[i].fallback == NULL && !c->cli->args.is_set[i]) {
            bool is_output = strcmp(command->options[i].key, "output") == 0;
            return am_fail(AM_E_USAGE, "%s: option %s%s is required; usage: allmerge %s %s",
                           command->name, is_output ? "-o/--" : "--", command->options[i].key,
                           command->name, command->synopsis);
        }
    }
    return 0;
}

int am_args_refuse(const am_args *args, const am_param *options, const char *const *keys,
                   const char *why)
{
    char option[AM_MAX_OPTION_NAME];
    for (; *keys != NULL; keys++) {
        const int i = am_param_find(options, *keys);
        if (i >= 0 && args->is_set[i]) {
            snprintf(option, sizeof option, "--%s", *keys);
            for (char *c = option; *c != '\0'; c++) {
                *c = *c == '_' ? '-' : *c;
            }
            return am_fail(AM_E_USAGE, "%s %s", option, why);
        }
    }
    return 0;
}

int am_cli_parse(int argc, char **argv, const am_command *const *commands, am_cli *out)
{
    am_cursor c = {.argv = argv, .argc = argc, .at = 1, .cli = out};
    memset(out, 0, sizeof *out);
    int rc = take_command(&c, commands);
    if (rc != 0 || out->command == NULL) {
        return rc;
    }
    rc = prepare_options(out, argc);
    bool is_ended = false;
    while (rc == 0 && c.at < argc) {
        char *word = argv[c.at++];
        if (is_ended || word[0] != '-' || word[1] == '\0') {
            out->args.positional[out->args.n_positional++] = word;
        } else if (strcmp(word, "--") == 0) {
            is_ended = true;
        } else if (!take_common(&c, word, &rc)) {
            rc = take_option(&c, word);
        }
    }
    if (rc == 0 && !out->help && !out->version) {
        rc = check_complete(&c);
    }
    return rc;
}

void am_cli_free(am_cli *cli)
{
    if (cli->command != NULL && cli->args.options != NULL) {
        am_param_free(cli->command->options, cli->args.options);
    }
    free(cli->args.options);
    free(cli->args.positional);
    free(cli->args.set);
    memset(cli, 0, sizeof *cli);
}

static int print_texts(const am_cli *cli)
{
    if (cli->version) {
        am_help_version(stdout);
    } else if (cli->command != NULL) {
        am_help_command(stdout, cli->command);
    } else {
        am_help_general(stdout, am_command_table);
    }
    return fflush(stdout) == 0 && !ferror(stdout)
               ? 0
               : am_fail_errno(AM_E_IO, errno, "cannot write to standard output");
}

/* Ranks with different arguments would part ways in the first collective call. */
static int check_same_all(int argc, char **argv)
{
    uint64_t hash = 0;
    for (int i = 1; i < argc; i++) {
        hash = am_hash64(argv[i], (int64_t)strlen(argv[i]) + 1, hash);
    }
    int rc = am_same_all(am_world(), hash, "the command line");
    if (rc == AM_E_BUG) {
        am_error_clear();
        rc = am_fail(AM_E_USAGE, "the command line differs between ranks: start all of them with "
                                 "the same arguments");
    }
    return rc;
}

int am_cli_run_all(int argc, char **argv, int *exit_status)
{
    am_cli cli;
    int rc = check_same_all(argc, argv);
    if (rc != 0) {
        return rc;
    }
    rc = am_cli_parse(argc, argv, am_command_table, &cli);
    if (rc == 0 && (cli.help || cli.version)) {
        rc = am_world_rank() == 0 ? print_texts(&cli) : 0;
        rc = am_agree_all(am_world(), rc);
        am_cli_free(&cli);
        return rc;
    }
    if (rc == 0 && (cli.quiet || cli.verbose)) {
        am_log_set_level(cli.quiet ? AM_LOG_QUIET : AM_LOG_DEBUG);
    }
    AM_AGREE(am_world());
    if (cli.time_left > 0) {
        am_stop_after(cli.time_left);
    }
    rc = cli.command->run_all(&cli.args, exit_status);
cleanup:
    am_cli_free(&cli);
    return rc;
}
