#!/bin/bash
# A build without FreeType and libpng: everything else works, and the tasks that need them say so.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
cmake -S "$AM_SOURCE" -B build -G Ninja -DAM_FREETYPE=OFF -DAM_PNG=OFF -DAM_TESTS=OFF \
    -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG=-O0 >cmake.log 2>&1 ||
    { tail cmake.log; exit 1; }
cmake --build build -j2 >build.log 2>&1 || { tail build.log; exit 1; }
if ldd build/allmerge | grep -e freetype -e libpng16; then
    echo 'the program still needs them'
    exit 1
fi
mkdir src
for package in $("$AM_SOURCE/jobs/fetch-data" --list); do
    mkdir "src/$package"
    echo 1 >"src/$package/VERSION"
done
expect() { # TASK LIBRARY
    local status=0
    build/allmerge data prepare "$1" -o out --sources src 2>message || status=$?
    if [ $status != 2 ] || ! grep -q "built without.*$2" message; then
        echo "$1: exit $status: $(cat message)"
        exit 1
    fi
}
expect latin libfreetype-dev
expect scripts libfreetype-dev
expect mnist5k libpng-dev
build/allmerge data list --sources src | grep -q '^latin'
