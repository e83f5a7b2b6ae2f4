/* Files with every return checked: whole reads and writes by offset, space reservation, sync.
 * Local functions; messages name the path. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_FILE_H
#define AM_IO_FILE_H

#include <stdbool.h>
#include <stdint.h>

/** Open for reading, close-on-exec. Returns the descriptor, or a negative am_error code:
 * AM_E_NOINPUT (absent), AM_E_DATA (not a regular file), AM_E_IO. */
int am_file_open(const char *path, int64_t *bytes);
/** Create a new file (must not exist, symbolic links not followed). Returns the descriptor, or
 * AM_E_CREATE, AM_E_IO. */
int am_file_create(const char *path);
/** Open an existing own file for reading and writing. Returns the descriptor or AM_E_IO. */
int am_file_reopen(const char *path);
/** Read or write exactly n bytes at `offset`; retries EINTR and short counts.
 * Errors: AM_E_IO naming path, bytes, offset (end of file: "file shrank"). */
int am_file_read(int fd, const char *path, void *data, int64_t n, int64_t offset);
int am_file_write(int fd, const char *path, const void *data, int64_t n, int64_t offset);
/** Say that n bytes at `offset` will be read soon, unless the system has them in memory already,
 * and that n bytes were written and may go to the disk now. Both only help: nothing can fail. */
void am_file_announce(int fd, int64_t offset, int64_t n);
void am_file_write_back(int fd, int64_t offset, int64_t n);
/** Make the file `bytes` long with the space really allocated. Where the file system cannot do
 * that, the free space is checked. Errors: AM_E_IO saying how much is needed. */
int am_file_reserve(int fd, const char *path, int64_t bytes);
/** fsync and close. Closes in any case. Errors: AM_E_IO. */
int am_file_sync_close(int fd, const char *path);
/** fsync the folder that holds `path`. Errors: AM_E_IO. */
int am_file_sync_folder(const char *path);
/** Read a whole file of at most `limit` bytes into malloc'ed memory, NUL-terminated.
 * Errors: AM_E_NOINPUT, AM_E_DATA (too large), AM_E_IO, AM_E_NOMEM. */
int am_file_slurp(const char *path, int64_t limit, char **text, int64_t *n);
/** Create a new file with this content, synced. Errors: AM_E_CREATE, AM_E_IO. */
int am_file_dump(const char *path, const void *data, int64_t n);
/** printf into malloc'ed memory; NULL and AM_E_NOMEM in the message slot. */
char *am_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** Path without trailing slashes, malloc'ed. */
char *am_clean_path(const char *path);
/** Folder part of a path ("." if none), malloc'ed. */
char *am_folder_of(const char *path);

#endif
