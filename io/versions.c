/* Versions of the libraries that io runs on. SPDX-License-Identifier: BSD-3-Clause */
#include <hdf5.h>
#include <stdio.h>
#include "io/versions.h"

const char *am_hdf5_version(void)
{
    static char text[64];
    unsigned major = 0, minor = 0, release = 0;
    if (H5get_libversion(&major, &minor, &release) < 0) {
        return "HDF5 (version unknown)";
    }
    snprintf(text, sizeof text, "HDF5 %u.%u.%u", major, minor, release);
    return text;
}
