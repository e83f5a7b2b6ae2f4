/* What is particular to a cluster: slurm/site.yml, one flat map. The batch script reads the same
 * file. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_SUBMIT_SITE_H
#define AM_JOBS_SUBMIT_SITE_H

#include <mpi.h>
#include <stdint.h>

enum { AM_SITE_PATH = 4096 };

typedef struct am_site {
    char *partition, *account, *qos, *constraint, *sbatch_options; /* NULL: none */
    char *modules, *setup, *mpi, *srun_options, *mpirun_options;   /* for the script */
    char *time;
    int launcher;
    int64_t signal_seconds, max_requeues, cpus_per_rank, ranks_per_node;
    int64_t max_ranks, bytes_per_rank, memory; /* bytes */
    char program[AM_SITE_PATH];                /* this program */
    char script[AM_SITE_PATH];                 /* allmerge.sbatch */
    char file[AM_SITE_PATH];                   /* the file that was read; "": none, all defaults */
} am_site;

/** Find the program and its batch script, and read the site file.
 *
 * Collective [comm]; file [same]: NULL for $ALLMERGE_SITE, else site.yml beside the script. out:
 * overwritten, freed by am_site_free, also after an error. Errors: AM_E_NOINPUT for a script or
 * file that is not there; AM_E_RECIPE for unknown keys and bad values, with file, line and column;
 * agreed.
 */
int am_site_read_all(MPI_Comm comm, const char *file, am_site *out);
void am_site_free(am_site *site);

/** Is it a time limit as sbatch takes it: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-...
 * Errors: AM_E_RECIPE naming `what`. */
int am_site_check_time(const char *time, const char *what);

#endif
