/* Help and version texts. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "io/versions.h"
#include "jobs/help.h"
#include "mpi/runtime.h"
#include "mpi/tensor.h"
#include "solver/linalg/blas_info.h"

enum { AM_HELP_TEXT_AT = 26 }; /* column at which the meaning of an option starts */

/* Bytes of UTF-8 that take a column: all but continuation bytes. */
static int columns_of(const char *text, size_t bytes)
{
    int columns = 0;
    for (size_t i = 0; i < bytes; i++) {
        columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return columns;
}

void am_help_wrap(FILE *out, int at, int indent, const char *text)
{
    int column = at;
    bool is_start = true; /* of a line: no blank before the next word */
    while (*text != '\0') {
        size_t blanks = strspn(text, " ");
        size_t bytes = strcspn(text + blanks, " \n");
        int width = columns_of(text + blanks, bytes);
        int gap = is_start ? 0 : (int)blanks;
        if (bytes > 0) {
            if (!is_start && column + gap + width > AM_HELP_COLUMNS) {
                fprintf(out, "\n%*s", indent, "");
                column = indent;
                gap = 0;
            }
            fprintf(out, "%*s%.*s", gap, "", (int)bytes, text + blanks);
            column += gap + width;
            is_start = false;
        }
        text += blanks + bytes;
        if (*text == '\n') {
            text++;
            fputc('\n', out);
            if (*text != '\0' && *text != '\n') {
                fprintf(out, "%*s", indent, "");
            }
            column = indent;
            is_start = true;
        }
    }
    fputc('\n', out);
}

/* "  --key VALUE" then its meaning in the right-hand column. */
static void print_entry(FILE *out, const char *left, const char *meaning)
{
    fprintf(out, "  %s", left);
    int column = 2 + columns_of(left, strlen(left));
    if (column + 2 > AM_HELP_TEXT_AT) {
        fprintf(out, "\n%*s", AM_HELP_TEXT_AT, "");
    } else {
        fprintf(out, "%*s", AM_HELP_TEXT_AT - column, "");
    }
    am_help_wrap(out, AM_HELP_TEXT_AT, AM_HELP_TEXT_AT, meaning);
}

static void print_common(FILE *out)
{
    fputs("\nCommon options:\n", out);
    print_entry(out, "-h, --help", "this text; `allmerge COMMAND --help` for a command");
    print_entry(out, "--version", "versions of allmerge and its libraries");
    print_entry(out, "--quiet", "errors only");
    print_entry(out, "--verbose", "more lines on stderr");
    print_entry(out, "--time-left DURATION",
                "stop at a safe point before this time is over (30m, 12:00:00), save, exit 75; "
                "default: the end of the Slurm job, where SLURM_JOB_END_TIME tells it");
}

static const char *value_word(am_param_type type)
{
    switch (type) {
    case AM_PARAM_INT:
        return " N";
    case AM_PARAM_REAL:
        return " X";
    case AM_PARAM_BYTES:
        return " SIZE";
    case AM_PARAM_DTYPE:
        return " DTYPE";
    case AM_PARAM_STRING:
        return " TEXT";
    case AM_PARAM_CHOICE:
    case AM_PARAM_BOOL:
        return "";
    }
    return "";
}

static void print_option(FILE *out, const am_param *p)
{
    char left[160], meaning[1024];
    char key[96];
    snprintf(key, sizeof key, "%s", p->key);
    for (char *c = key; *c != '\0'; c++) {
        *c = *c == '_' ? '-' : *c;
    }
    const char *alias = strcmp(p->key, "output") == 0 ? "-o, " : "";
    const char *negation = p->type == AM_PARAM_BOOL ? "[no-]" : "";
    if (p->type == AM_PARAM_CHOICE) {
        snprintf(left, sizeof left, "%s--%s %s", alias, key, p->choices);
    } else {
        snprintf(left, sizeof left, "%s--%s%s%s", alias, negation, key, value_word(p->type));
    }
    int n = snprintf(meaning, sizeof meaning, "%s", p->help != NULL ? p->help : "");
    size_t used = n < 0 ? 0 : (size_t)n < sizeof meaning ? (size_t)n : sizeof meaning - 1;
    if (p->fallback == NULL) {
        snprintf(meaning + used, sizeof meaning - used, " (required)");
    } else if (p->fallback[0] != '\0' && p->type != AM_PARAM_BOOL) {
        snprintf(meaning + used, sizeof meaning - used, " (default %s)", p->fallback);
    } else if (p->type == AM_PARAM_BOOL && strcmp(p->fallback, "true") == 0) {
        snprintf(meaning + used, sizeof meaning - used, " (default on)");
    }
    print_entry(out, left, meaning);
}

void am_help_general(FILE *out, const am_command *const *commands)
{
    fputs("Usage: allmerge COMMAND [OPTION]... [ARGUMENT]...\n"
          "       mpirun -n RANKS allmerge COMMAND ...\n\n",
          out);
    am_help_wrap(out, 0, 0,
                 "Merges and trains models in parallel. The result does not depend on the number "
                 "of ranks.");
    fputs("\nCommands:\n", out);
    for (int i = 0; commands[i] != NULL; i++) {
        print_entry(out, commands[i]->name, commands[i]->summary);
    }
    print_entry(out, "help [COMMAND]", "this text, or the help of a command");
    print_common(out);
    fputc('\n', out);
    am_help_wrap(out, 0, 0,
                 "Exit status: 0 done, 2 usage or recipe, 65 bad data, 66 input missing, 70 "
                 "internal error, 71 memory, 73 cannot create the output, 74 input/output error, "
                 "75 stopped at a safe point (run it again), 76 numerical failure, 124 stalled.");
}

void am_help_command(FILE *out, const am_command *command)
{
    int column = fprintf(out, "Usage: allmerge %s ", command->name);
    am_help_wrap(out, column, column, command->synopsis);
    fputc('\n', out);
    am_help_wrap(out, 0, 0, command->summary);
    if (command->help != NULL) {
        fputc('\n', out);
        am_help_wrap(out, 0, 0, command->help);
    }
    if (command->options != NULL || command->takes_set) {
        fputs("\nOptions:\n", out);
    }
    for (const am_param *p = command->options; p != NULL && p->key != NULL; p++) {
        print_option(out, p);
    }
    if (command->takes_set) {
        print_entry(out, "--set KEY=VALUE", "change a key of the recipe (a.b.c=VALUE); repeatable");
    }
    print_common(out);
}

void am_help_version(FILE *out)
{
    fprintf(out, "allmerge %s\n%s\n%s\n%s\n", AM_VERSION, am_mpi_version(), am_hdf5_version(),
            am_blas_version());
}
