/* See tally.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/extract/tally.h"

#include <math.h>

void am_loss_add(am_loss *to, const am_loss *from)
{
    to->all += from->all;
    to->kept += from->kept;
    to->error += from->error;
    to->largest = fmax(to->largest, from->largest);
}

double am_loss_share(double part, double whole)
{
    return whole > 0 ? sqrt(part) / sqrt(whole) : 0;
}

void am_loss_write(am_json *j, const am_loss *loss)
{
    am_json_real(j, "relative_l2", am_loss_share(loss->error, loss->kept));
    am_json_real(j, "max_abs", loss->largest);
    am_json_real(j, "norm", sqrt(loss->all));
    am_json_real(j, "kept_norm", am_loss_share(loss->kept, loss->all));
}

void am_tally_add(am_tally *tally, const double *kept, const double *error, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        tally->largest = fmax(tally->largest, fabs(error[i]));
    }
    am_dot_chunk(kept, kept, n, &tally->kept);
    am_dot_chunk(error, error, n, &tally->error);
}

am_loss am_tally_round(const am_tally *tally)
{
    return (am_loss){.all = am_exact_round(&tally->all),
                     .kept = am_exact_round(&tally->kept),
                     .error = am_exact_round(&tally->error),
                     .largest = tally->largest};
}

int am_tally_all(MPI_Comm comm, am_tally *tally, am_loss *out)
{
    int rc = am_exact_sum_all(comm, &tally->all, 1);
    rc = rc != 0 ? rc : am_exact_sum_all(comm, &tally->kept, 1);
    rc = rc != 0 ? rc : am_exact_sum_all(comm, &tally->error, 1);
    rc = rc != 0 ? rc : am_max_f64_all(comm, &tally->largest, 1);
    *out = am_tally_round(tally);
    return rc;
}
