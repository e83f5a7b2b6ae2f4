#!/usr/bin/env bash
# jobs/launch -x: rank counts, settings that the user made, refusals.
# SPDX-License-Identifier: BSD-3-Clause
set -euo pipefail
launch=$AM_SOURCE/jobs/launch
unset OPENBLAS_NUM_THREADS

failed=0
fail() { echo "FAIL $*"; failed=1; }
out=$("$launch" -n 5000 -x program 'an argument')
[[ $out == *"mpirun -n 5000 --oversubscribe"*"program an argument"* ]] || fail "more ranks than cores: $out"
[[ $out == *"OPENBLAS_NUM_THREADS=1 "* ]] || fail "one thread a rank: $out"
out=$(OPENBLAS_NUM_THREADS=2 "$launch" -n 1 -x program)
[[ $out != *OPENBLAS_NUM_THREADS=1* ]] || fail "overrides the user's setting: $out"
[[ $out == *"mpirun -n 1 "* && $out != *--oversubscribe* ]] || fail "one rank: $out"
if "$launch" -n 0 program 2>/dev/null || "$launch" -n two program 2>/dev/null || "$launch" 2>/dev/null; then
    fail 'accepts nonsense'
fi
# shellcheck disable=SC2016 # the ranks expand it
out=$("$launch" -n 2 bash -c 'echo rank $OMPI_COMM_WORLD_RANK' | sort | tr '\n' ' ')
[ "$out" = 'rank 0 rank 1 ' ] || fail "two ranks: $out"
exit $failed
