/* allmerge COMMAND ...: start, run one command, stop with one exit code on every rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/cli.h"
#include "mpi/runtime.h"

int main(int argc, char **argv)
{
    int status = 0;
    int rc = am_start_all(&argc, &argv);
    if (rc == 0) {
        rc = am_cli_run_all(argc, argv, &status);
    }
    int code = am_stop_all(rc);
    return rc == 0 && code == 0 ? status : code;
}
