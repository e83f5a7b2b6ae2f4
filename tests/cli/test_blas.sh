#!/bin/bash
# The program's own BLAS stands before ScaLAPACK, which brings the system's default one: the first serves all.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
needed=$(readelf -d "$AM_BIN" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p')
first=$(grep -i -e blas -e lapack -e mkl <<<"$needed" | head -n 1)
case $first in
*scalapack* | libblas.so.3 | liblapack.so.3 | '')
    printf 'ScaLAPACK or a default BLAS comes first:\n%s\n' "$needed"
    exit 1
    ;;
esac
