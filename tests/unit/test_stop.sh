#!/bin/bash
# A signal to one rank stops all at the next step with exit 75; a second one ends at once.
set -u
probe=$AM_PROGRAMS/runtime_probe
bad=0
complain() {
    echo "FAILED: $*"
    sed 's/^/    /' err
    bad=1
}

# launch MODE SECONDS: three ranks, waits for their process ids
launch() {
    rm -f pid.*
    $AM_MPIRUN -n 3 "$probe" "$1" -1 "$2" >out 2>err </dev/null &
    job=$!
    for _ in $(seq 100); do
        [ -s pid.0 ] && [ -s pid.1 ] && [ -s pid.2 ] && return
        sleep 0.1
    done
    complain "the ranks did not start"
}

while read -r signal rank; do
    launch steps 60
    start=$SECONDS code=0
    kill -"$signal" "$(cat pid."$rank")"
    wait $job || code=$?
    [ $code = 75 ] || complain "exit code $code, not 75, after SIG$signal to rank $rank"
    [ $((SECONDS - start)) -le 5 ] || complain "stopped after $((SECONDS - start)) s"
    [ "$(grep -c "allmerge: stopped: stop requested (SIG$signal)" err)" = 1 ] ||
        complain "not one message about SIG$signal"
done <<'SIGNALS'
TERM 1
USR1 2
INT 0
SIGNALS

# the same request twice within a second is one request
launch steps 60
code=0
kill -TERM "$(cat pid.1)"
kill -TERM "$(cat pid.1)" 2>/dev/null
wait $job || code=$?
[ $code = 75 ] || complain "exit code $code, not 75, after two quick signals"

# a rank that does not come to a safe point can still be ended
launch deaf 60
start=$SECONDS code=0
kill -TERM "$(cat pid.1)"
sleep 1.5
kill -0 "$(cat pid.1)" 2>/dev/null || complain "the first signal ended the rank"
kill -TERM "$(cat pid.1)"
wait $job || code=$?
[ $code != 0 ] || complain "exit code 0 after a forced end"
[ $((SECONDS - start)) -le 20 ] || complain "forced end took $((SECONDS - start)) s"
exit $bad
