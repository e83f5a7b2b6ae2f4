/* MPI calls with 64-bit counts: data larger than 2^31-1 elements is split. Collective calls only
 * through these wrappers, which turn every MPI return code into an am_error code.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_BIGCOUNT_H
#define AM_MPI_BIGCOUNT_H

#include <mpi.h>
#include <stdint.h>

/** Checked narrowing for MPI counts and ranks; AM_ASSERTs on overflow. */
int am_int(int64_t value);

/** 0 for MPI_SUCCESS, else AM_E_BUG with MPI's own text and the name of the call. (Errors on
 * communicators are fatal by default: this serves file calls and callers that changed that.) */
int am_mpi_code(int mpi_rc, const char *call);

/** Largest single message in bytes, 1 GiB unless set; for tests of the splitting. [same] */
void am_bigcount_set_limit(int64_t bytes);

/** Broadcast `bytes` bytes. Collective [comm]. */
int am_bcast_all(MPI_Comm comm, int root, void *data, int64_t bytes);

/** Every rank sends send_bytes[r] bytes from send + send_at[r] to rank r and receives likewise.
 * Collective [comm]; arrays [size]; send_bytes[r] here equals receive_bytes[this] on rank r. Pairs
 * above 1 GiB are split into several messages; the own part is copied; needs no memory. */
int am_exchange_all(MPI_Comm comm, const void *send, const int64_t *send_bytes,
                    const int64_t *send_at, void *receive, const int64_t *receive_bytes,
                    const int64_t *receive_at);

/** Concatenate every rank's bytes on all ranks: rank r's land at data + at[r], bytes[r] long.
 * Collective [comm]; bytes, at [size, same]; own part already in place. */
int am_gather_all(MPI_Comm comm, void *data, const int64_t *bytes, const int64_t *at);

#endif
