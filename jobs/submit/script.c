/* The script of a chain of jobs. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/submit/script.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mpi/arena.h"
#include "mpi/error.h"

/* A job that depends on one that never came would wait for ever: all or none. */
static const char head[] = "#!/usr/bin/env bash\n"
                           "set -euo pipefail\n"
                           "jobs=()\n"
                           "trap 'if [ ${#jobs[@]} -gt 0 ]; then scancel \"${jobs[@]}\"; fi' ERR\n";

int am_script_open(am_script *script)
{
    *script = (am_script){0};
    script->out = open_memstream(&script->text, &script->bytes);
    if (script->out == NULL || fputs(head, script->out) < 0) {
        return am_fail(AM_E_NOMEM, "out of memory for the script of the jobs");
    }
    return 0;
}

int am_script_close(am_script *script)
{
    bool is_good = script->out != NULL && !ferror(script->out);
    if (script->out != NULL) {
        is_good = fclose(script->out) == 0 && is_good;
        script->out = NULL;
    }
    return is_good ? 0 : am_fail(AM_E_NOMEM, "out of memory for the script of the jobs");
}

void am_script_free(am_script *script)
{
    if (script->out != NULL) {
        (void)fclose(script->out);
    }
    free(script->text);
    *script = (am_script){0};
}

/* Quoted for the shell, if it needs to be. */
static void quote(FILE *out, const char *word)
{
    const char *plain = "%+,-./:=@_";
    bool is_plain = word[0] != '\0';
    for (const char *c = word; *c != '\0'; c++) {
        is_plain = is_plain && (isalnum((unsigned char)*c) || strchr(plain, *c) != NULL);
    }
    if (is_plain) {
        (void)fputs(word, out);
        return;
    }
    (void)fputc('\'', out);
    for (const char *c = word; *c != '\0'; c++) {
        (void)(*c == '\'' ? fputs("'\\''", out) : fputc(*c, out));
    }
    (void)fputc('\'', out);
}

void am_script_word(am_script *script, const char *word)
{
    (void)fputc(' ', script->out);
    quote(script->out, word);
}

void am_script_file(am_script *script, const char *path, const char *text)
{
    (void)fputs("cat >", script->out);
    quote(script->out, path);
    fprintf(script->out, " <<'END_OF_FILE'\n%s%sEND_OF_FILE\n", text,
            text[0] != '\0' && text[strlen(text) - 1] == '\n' ? "" : "\n");
}

/* ---- jobs ---- */

static void option(am_script *script, const char *key, const char *value)
{
    if (value != NULL) {
        fprintf(script->out, " --%s=", key);
        quote(script->out, value);
    }
}

static void number(am_script *script, const char *key, int64_t value, const char *unit)
{
    fprintf(script->out, " --%s=%" PRId64 "%s", key, value, unit);
}

static bool is_number(const char *text)
{
    return text[0] != '\0' && strspn(text, "0123456789_") == strlen(text);
}

/* Slurm fills in job and element. */
static void write_log(am_script *script, const am_job_request *job, const char *key,
                      const char *suffix)
{
    fprintf(script->out, " --%s=", key);
    if (job->logs[0] != '\0') {
        quote(script->out, job->logs);
        (void)fputc('/', script->out);
    }
    fprintf(script->out, "%s-%s.%s", job->name, job->cases != NULL ? "%A_%a" : "%j", suffix);
}

static void write_place(am_script *script, const am_site *site)
{
    option(script, "partition", site->partition);
    option(script, "account", site->account);
    option(script, "qos", site->qos);
    option(script, "constraint", site->constraint);
    if (site->ranks_per_node > 0) {
        number(script, "ntasks-per-node", site->ranks_per_node, "");
    }
    if (site->sbatch_options != NULL) { /* several words, as they are written */
        fprintf(script->out, " %s", site->sbatch_options);
    }
}

void am_script_job(am_script *script, const am_site *site, const am_job_request *job)
{
    const int64_t mib = 1 << 20, cpus = site->cpus_per_rank;
    fprintf(script->out, "%s=$(sbatch --parsable --job-name=%s", job->name, job->name);
    if (job->after != NULL) {
        fprintf(script->out, " --dependency=afterok:%s%s --kill-on-invalid-dep=yes",
                is_number(job->after) ? "" : "$", job->after);
    }
    if (job->cases != NULL) {
        fprintf(script->out, " --array=0-%" PRId64, job->n_cases - 1);
    }
    number(script, "ntasks", job->ranks, "");
    number(script, "cpus-per-task", cpus, "");
    number(script, "mem-per-cpu", (job->memory + cpus * mib - 1) / (cpus * mib), "M");
    option(script, "time", job->time != NULL ? job->time : site->time);
    fprintf(script->out, " --signal=B:USR1@%" PRId64, site->signal_seconds);
    write_place(script, site);
    write_log(script, job, "output", job->has_result ? "json" : "log");
    if (job->has_result) {
        write_log(script, job, "error", "log");
    }
    (void)fputs(" \\\n   ", script->out);
    am_script_word(script, site->script);
    if (site->file[0] != '\0') {
        (void)fputs(" --site", script->out);
        am_script_word(script, site->file);
    }
    (void)fputs(" --program", script->out);
    am_script_word(script, site->program);
    if (job->cases != NULL) {
        (void)fputs(" --cases", script->out);
        am_script_word(script, job->cases);
    }
}

void am_script_job_end(am_script *script, const char *name)
{
    fprintf(script->out, ")\n%s=${%s%%%%;*}\njobs+=(\"$%s\")\n", name, name, name);
}

/* ---- running it ---- */

/* The environment that the process was started in: MPI_Init adds to it, and sbatch would hand that
 * on to the ranks of the job. NULL-terminated, owned with *text. */
static char **first_environment(char **text)
{
    FILE *file = fopen("/proc/self/environ", "rb");
    size_t bytes = 0, room = 0, got = 0;
    int64_t n = 0;
    *text = NULL;
    do {
        room += 1 << 16;
        char *larger = realloc(*text, room + 1);
        if (larger == NULL || file == NULL) {
            break;
        }
        *text = larger;
        got = fread(*text + bytes, 1, room - bytes, file);
        bytes += got;
    } while (got > 0 && bytes == room);
    if (file != NULL) {
        (void)fclose(file);
    }
    for (size_t i = 0; i < bytes; i++) {
        n += (*text)[i] == '\0';
    }
    char **out = *text != NULL ? am_new(n + 1, sizeof *out, "the environment") : NULL;
    for (size_t at = 0, k = 0; out != NULL && k < (size_t)n; k++) {
        out[k] = *text + at;
        at += strlen(out[k]) + 1;
    }
    return out;
}

static int wait_for(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return am_fail_errno(AM_E_IO, errno, "cannot wait for the script of the jobs");
        }
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        return am_fail(AM_E_NOINPUT, "no sbatch here: submit from a login node of the cluster, or "
                                     "take the script of --dry-run there");
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? 0
               : am_fail(AM_E_IO, "the jobs were not submitted: see the message above");
}

int am_script_run(const am_script *script)
{
    char *text = NULL, **environment = first_environment(&text);
    char *const words[] = {"bash", "-c", script->text, NULL};
    posix_spawnattr_t attributes;
    sigset_t defaults;
    pid_t child = 0;
    int rc = 0;
    if (environment == NULL) {
        free(text);
        return am_fail(AM_E_NOMEM, "cannot read the environment");
    }
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE);
    (void)sigaddset(&defaults, SIGXFSZ);
    int error = posix_spawnattr_init(&attributes);
    if (error == 0) {
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
        (void)posix_spawnattr_setsigdefault(&attributes, &defaults);
        error = posix_spawnp(&child, "bash", NULL, &attributes, words, environment);
        (void)posix_spawnattr_destroy(&attributes);
    }
    rc = error == 0 ? wait_for(child) : am_fail_errno(AM_E_IO, error, "cannot start bash");
    free(environment);
    free(text);
    return rc;
}
