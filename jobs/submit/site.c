/* The site file. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/submit/site.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "jobs/recipe/bind.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"

#define AM_TEXT(key, help)                                                                         \
    {                                                                                              \
#key, AM_PARAM_STRING, offsetof(am_site, key), "", 0, 0, NULL, help                        \
    }
static const am_param table[] = {
    AM_TEXT(partition, "sbatch --partition"),
    AM_TEXT(account, "sbatch --account"),
    AM_TEXT(qos, "sbatch --qos"),
    AM_TEXT(constraint, "sbatch --constraint"),
    AM_TEXT(sbatch_options, "further options of sbatch"),
    AM_TEXT(modules, "loaded before the program starts"),
    AM_TEXT(setup, "one line of shell that runs before the program"),
    AM_TEXT(srun_options, "further options of srun"),
    AM_TEXT(mpirun_options, "further options of mpirun"),
    {"mpi", AM_PARAM_STRING, offsetof(am_site, mpi), "pmix", 0, 0, NULL, "srun --mpi"},
    {"launcher", AM_PARAM_CHOICE, offsetof(am_site, launcher), "auto", 0, 0, "auto|srun|mpirun",
     "what starts the ranks"},
    {"time", AM_PARAM_STRING, offsetof(am_site, time), "01:00:00", 0, 0, NULL, "sbatch --time"},
    {"signal_seconds", AM_PARAM_INT, offsetof(am_site, signal_seconds), "120", 1, 65535, NULL,
     "seconds before the limit at which the ranks are asked to stop"},
    {"max_requeues", AM_PARAM_INT, offsetof(am_site, max_requeues), "100", 0, 1e6, NULL,
     "a job is requeued so often at most"},
    {"cpus_per_rank", AM_PARAM_INT, offsetof(am_site, cpus_per_rank), "1", 1, 4096, NULL,
     "sbatch --cpus-per-task"},
    {"ranks_per_node", AM_PARAM_INT, offsetof(am_site, ranks_per_node), "0", 0, 4096, NULL,
     "sbatch --ntasks-per-node, 0: not given"},
    {"max_ranks", AM_PARAM_INT, offsetof(am_site, max_ranks), "64", 1, 1 << 20, NULL,
     "no more ranks are chosen"},
    {"bytes_per_rank", AM_PARAM_BYTES, offsetof(am_site, bytes_per_rank), "1GiB", 1 << 16, 0x1p60,
     NULL, "ranks of a merge are chosen so that none reads more"},
    {"memory", AM_PARAM_BYTES, offsetof(am_site, memory), "2GiB", 1 << 20, 0x1p60, NULL,
     "what a rank may take"},
    {0}};
#undef AM_TEXT

int am_site_check_time(const char *time, const char *what)
{
    const size_t digits = strspn(time, "0123456789");
    if (digits == 0 || strspn(time, "0123456789:-") != strlen(time)) {
        return am_fail(AM_E_RECIPE,
                       "%s '%s' is no time limit: write minutes, hours:minutes:seconds or "
                       "days-hours:minutes:seconds",
                       what, time);
    }
    return 0;
}

/* Folder of `path` + name into out [AM_SITE_PATH]. */
static int beside(const char *path, const char *name, char *out)
{
    const char *slash = strrchr(path, '/');
    int n = snprintf(out, AM_SITE_PATH, "%.*s/%s", slash != NULL ? (int)(slash - path) : 1,
                     slash != NULL ? path : ".", name);
    return n > 0 && n < AM_SITE_PATH ? 0 : am_fail(AM_E_NOINPUT, "the path %s is too long", path);
}

/* ---- local steps of rank 0 ---- */

/* The script lies in slurm/ beside build/, or where an installation puts it. */
static int find_script(am_site *site)
{
    static const char *const places[] = {"../slurm/allmerge.sbatch",
                                         "../share/allmerge/slurm/allmerge.sbatch"};
    ssize_t n = readlink("/proc/self/exe", site->program, sizeof site->program - 1);
    if (n < 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot read /proc/self/exe");
    }
    site->program[n] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char path[AM_SITE_PATH], real[AM_SITE_PATH];
        int rc = beside(site->program, places[i], path);
        if (rc != 0) {
            return rc;
        }
        if (realpath(path, real) != NULL) {
            memcpy(site->script, real, sizeof real);
            return 0;
        }
    }
    return am_fail(AM_E_NOINPUT, "no slurm/allmerge.sbatch beside the folder of %s", site->program);
}

/* An absolute path: the job reads the file from wherever it runs. */
static int find_file(const char *given, am_site *site)
{
    char path[AM_SITE_PATH], real[AM_SITE_PATH];
    const char *named = given != NULL ? given : getenv("ALLMERGE_SITE");
    int rc = beside(site->script, "site.yml", path);
    if (rc == 0 && realpath(named != NULL ? named : path, real) != NULL) {
        memcpy(site->file, real, sizeof real);
    } else if (rc == 0 && named != NULL) {
        rc = am_fail_errno(AM_E_NOINPUT, errno, "cannot open the site file %s", named);
    }
    return rc;
}

static int read_map(const am_node *root, am_site *out)
{
    int rc = am_recipe_bind(am_node_is_null(root) ? NULL : root, table, NULL, "", out);
    AM_KEEP(rc == 0 ? am_site_check_time(out->time, "time") : 0);
    return rc;
}

int am_site_read_all(MPI_Comm comm, const char *file, am_site *out)
{
    am_yaml *yaml = NULL;
    int rank = 0, rc = 0;
    *out = (am_site){0};
    rc = am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
    if (rc == 0 && rank == 0) {
        rc = find_script(out);
        AM_KEEP(rc == 0 ? find_file(file, out) : 0);
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, out->program, sizeof out->program));
    AM_TRY(am_bcast_all(comm, 0, out->script, sizeof out->script));
    AM_TRY(am_bcast_all(comm, 0, out->file, sizeof out->file));
    if (out->file[0] != '\0') {
        AM_TRY(am_yaml_read_all(comm, out->file, &yaml));
        rc = read_map(am_yaml_root(yaml), out);
    } else {
        rc = am_param_defaults(table, out);
    }
    AM_AGREE(comm);
cleanup:
    am_yaml_free(&yaml);
    return rc;
}

void am_site_free(am_site *site)
{
    am_param_free(table, site);
}
