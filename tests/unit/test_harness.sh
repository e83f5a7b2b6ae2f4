#!/bin/bash
# A check that fails on any one rank fails the test on all, hangs nothing, and says where.
set -u
bad=0
for rank in 0 2 none; do
    code=0
    PROBE_RANK=${rank/none/-1} AM_TMP=$PWD/run $AM_MPIRUN -n 3 "$AM_PROGRAMS/harness_probe" \
        >out 2>&1 </dev/null || code=$?
    if [ "$rank" = none ]; then
        [ $code = 0 ] || { bad=1; echo "FAILED: exit code $code of a good test"; }
        continue
    fi
    [ $code != 0 ] || { bad=1; echo "FAILED: a failed check on rank $rank went unseen"; }
    [ "$(grep -c "harness_probe.c:[0-9]*: rank $rank of 3: .* is 1, not 0" out)" = 1 ] ||
        { bad=1; echo "FAILED: no report from rank $rank"; cat out; }
    [ "$(grep -c '\[       OK \] good_all' out)" = 2 ] ||
        { bad=1; echo "FAILED: the tests around it were not run once"; cat out; }
done
exit $bad
