#!/bin/bash
# Whatever rank fails, the job has one message and one exit code; a bug ends all ranks with 70.
set -u
probe=$AM_PROGRAMS/runtime_probe
bad=0
complain() {
    echo "FAILED: $*"
    sed 's/^/    /' err
    bad=1
}

# check EXPECTED_EXIT EXPECTED_TEXT TIMES COMMAND...
check() {
    local expected=$1 text=$2 times=$3 code=0 found
    shift 3
    "$@" >out 2>err </dev/null || code=$?
    found=$(grep -cF -- "$text" err)
    [ $code = "$expected" ] || complain "exit code $code, not $expected: $*"
    [ "$found" = "$times" ] || complain "\"$text\" $found times, not $times: $*"
}

# mode `fail` takes the error code of mpi/error.h
for pair in -1:2 -4:65 -5:66 -6:76 -7:73 -8:74 -9:71; do
    check "${pair#*:}" "allmerge: error: tensor w of a.h5 is bad (" 1 \
        $AM_MPIRUN -n 3 "$probe" fail 1 "${pair%:*}"
done
for rank in 0 2; do
    check 74 "allmerge: error: tensor w of a.h5 is bad (input/output error)" 1 \
        $AM_MPIRUN -n 3 "$probe" fail $rank -8
    [ ! -s out ] || complain "a failed job wrote a result"
done
check 74 "tensor w of a.h5 is bad" 1 "$probe" fail 0 -8
check 70 'allmerge: bug: tests/unit/runtime_probe.c:' 1 $AM_MPIRUN -n 3 "$probe" bug 2

check 0 "error" 0 $AM_MPIRUN -n 3 "$probe" steps -1 0
[ "$(cat out)" = '{"mode":"steps"}' ] || complain "stdout is not one result line: $(cat out)"

# one rank where the batch system speaks of four
check 0 "SLURM_NTASKS=4" 1 env SLURM_NTASKS=4 "$probe" steps -1 0
check 0 "SLURM_NTASKS=4" 0 env SLURM_NTASKS=4 SLURM_PROCID=2 "$probe" steps -1 0
check 0 "SLURM_NTASKS=4" 0 env SLURM_NTASKS=4 $AM_MPIRUN -n 2 "$probe" steps -1 0
exit $bad
