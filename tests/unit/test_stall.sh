#!/bin/bash
# The watchdog ends a job in which one rank hangs, says where, and leaves others alone.
set -u
probe=$AM_PROGRAMS/runtime_probe
bad=0
complain() {
    echo "FAILED: $*"
    sed 's/^/    /' err
    bad=1
}

for rank in 0 2; do
    start=$SECONDS code=0
    AM_STALL_SECONDS=2 $AM_MPIRUN -n 3 "$probe" stall $rank >out 2>err </dev/null || code=$?
    [ $code = 124 ] || complain "exit code $code, not 124"
    [ $((SECONDS - start)) -le 15 ] || complain "took $((SECONDS - start)) s"
    grep -q "stalled: rank [0-2] on $(uname -n) .* in phase \"reading blocks\"" err ||
        complain "no report of the phase"
done

# a rank that is stopped from outside cannot speak: the others do
AM_STALL_SECONDS=2 $AM_MPIRUN -n 2 "$probe" steps -1 60 >out 2>err </dev/null &
job=$!
for _ in $(seq 100); do [ -s pid.0 ] && [ -s pid.1 ] && break || sleep 0.1; done
kill -STOP "$(cat pid.1)"
code=0
wait $job || code=$?
[ $code = 124 ] || complain "exit code $code, not 124, after SIGSTOP"
grep -q 'stalled: rank 0 .* in phase "step"' err || complain "no report from rank 0"

# steps that move are never ended, however long the job
code=0
AM_STALL_SECONDS=2 $AM_MPIRUN -n 2 "$probe" steps -1 5 >out 2>err </dev/null || code=$?
[ $code = 0 ] || complain "exit code $code, not 0, of a job that moves"
code=0
AM_STALL_SECONDS=0 $AM_MPIRUN -n 2 "$probe" deaf 0 2 >out 2>err </dev/null || code=$?
[ $code = 0 ] || complain "exit code $code, not 0, with the watchdog off"
code=0
AM_STALL_SECONDS=soon $AM_MPIRUN -n 2 "$probe" steps -1 0 >out 2>err </dev/null || code=$?
[ $code = 2 ] || complain "exit code $code, not 2, for a bad AM_STALL_SECONDS"
grep -q 'AM_STALL_SECONDS=soon is not a number' err || complain "no message"
exit $bad
