/* Records of training: see record.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/record.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

int am_train_log_make(int64_t tensors, int64_t epochs, am_train_log *out)
{
    *out = (am_train_log){.room = epochs, .tensors = tensors};
    out->record = am_new(epochs + 1, sizeof *out->record, "records of training");
    out->energy = am_new(epochs * tensors + 1, sizeof *out->energy, "records of training");
    return out->record == NULL || out->energy == NULL ? AM_E_NOMEM : 0;
}

void am_train_log_free(am_train_log *log)
{
    free(log->record);
    free(log->energy);
    *log = (am_train_log){0};
}

void am_train_log_clear(am_train_log *log)
{
    log->n = 0;
}

am_exact *am_train_log_energy(const am_train_log *log, int64_t k)
{
    return log->energy + k * log->tensors;
}

am_train_record *am_train_log_at(am_train_log *log, int64_t epoch)
{
    if (log->n == 0 || log->record[log->n - 1].epoch != epoch) {
        AM_ASSERT(log->n < log->room);
        log->record[log->n++] = (am_train_record){.epoch = epoch};
        am_exact *energy = am_train_log_energy(log, log->n - 1);
        memset(energy, 0, (size_t)log->tensors * sizeof *energy);
    }
    return &log->record[log->n - 1];
}
