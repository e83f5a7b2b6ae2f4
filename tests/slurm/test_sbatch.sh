#!/usr/bin/env bash
# slurm/allmerge.sbatch with stand-ins for srun and mpirun: which launcher, which arguments, which
# exit code. What a real Slurm does with it is described in slurm/README.md.
# SPDX-License-Identifier: BSD-3-Clause
set -euo pipefail
script=$AM_SOURCE/slurm/allmerge.sbatch
mkdir bin
for launcher in srun mpirun; do
    cat >bin/$launcher <<'STUB'
#!/usr/bin/env bash
if [ "$*" = --mpi=list ]; then echo "MPI plugin types are... ${STUB_MPI:-none}"; exit 0; fi
printf '%s' "$(basename "$0")"
printf ' [%s]' "$@"
echo " threads $OPENBLAS_NUM_THREADS"
exit "${STUB_CODE:-0}"
STUB
    chmod +x bin/$launcher
done
export PATH=$PWD/bin:$PATH ALLMERGE=/bin/true SLURM_NTASKS=4
unset OPENBLAS_NUM_THREADS AM_LAUNCH SLURM_CPUS_PER_TASK

failed=0
expect() { # TITLE EXPECTED_CODE EXPECTED_TEXT COMMAND...
    local code=0 out
    out=$("${@:4}" 2>&1) || code=$?
    if [ "$code" -ne "$2" ] || [[ $out != *"$3"* ]]; then
        printf 'FAIL %s: code %s (expected %s), output: %s (expected: %s)\n' "$1" "$code" "$2" "$out" "$3"
        failed=1
    fi
}
expect 'srun with PMIx' 0 \
    'srun [--mpi=pmix] [--kill-on-bad-exit=1] [--cpus-per-task=1] [/bin/true] [merge] [a b.yml] threads 1' \
    env STUB_MPI='none pmix pmix_v4' "$script" merge 'a b.yml'
expect 'mpirun without PMIx' 0 'mpirun [-n] [4] [/bin/true] [methods] threads 1' "$script" methods
expect 'the user decides' 0 'mpirun [-n] [4]' env STUB_MPI=pmix AM_LAUNCH=mpirun "$script" methods
expect 'threads follow the CPUs of a task' 0 'threads 3' env SLURM_CPUS_PER_TASK=3 "$script" methods
expect 'the exit code of the command' 75 mpirun env STUB_CODE=75 "$script" methods
expect 'no command' 2 usage "$script"
expect 'no program' 66 'set ALLMERGE' env ALLMERGE=/nowhere/allmerge "$script" methods
expect 'unknown launcher' 2 'srun or mpirun' env AM_LAUNCH=orun "$script" methods
exit $failed
