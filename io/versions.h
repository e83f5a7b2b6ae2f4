/* Versions of the libraries that io runs on. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_VERSIONS_H
#define AM_IO_VERSIONS_H

/** "HDF5 1.10.8": the library in use, not the headers. Static buffer. Not collective. */
const char *am_hdf5_version(void);

#endif
