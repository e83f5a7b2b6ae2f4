#!/usr/bin/env bash
# slurm/allmerge.sbatch with stand-ins for srun and mpirun: which launcher, which arguments, which
# exit code, which settings of the site file. A real Slurm: test_cluster.py.
# SPDX-License-Identifier: BSD-3-Clause
set -euo pipefail
script=$AM_SOURCE/slurm/allmerge.sbatch
mkdir bin
for launcher in srun mpirun; do
    cat >bin/$launcher <<'STUB'
#!/usr/bin/env bash
if [ "$*" = --mpi=list ]; then echo "MPI plugin types are... ${STUB_MPI:-none}"; exit 0; fi
printf '%s' "$(basename "$0")"
while [ "$1" != bash ]; do
    printf ' [%s]' "$1"
    shift
done
if [ -z "${STUB_LAZY:-}" ]; then echo started >"$4"; fi # what rank 0 does
printf ' [%s]' "${@:5}"
echo " threads $OPENBLAS_NUM_THREADS"
exit "${STUB_CODE:-0}"
STUB
    chmod +x bin/$launcher
done
cat >bin/squeue <<'STUB'
#!/usr/bin/env bash
echo "${STUB_STATE:-}"
STUB
cat >bin/scontrol <<'STUB'
#!/usr/bin/env bash
printf 'scontrol'
printf ' [%s]' "$@"
echo
STUB
chmod +x bin/squeue bin/scontrol
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
expect 'the exit code of the command' 76 mpirun env STUB_CODE=76 "$script" methods
expect 'a launcher that lies' 71 'never started the ranks' env STUB_LAZY=1 "$script" methods
expect 'stopped, outside Slurm' 75 mpirun env STUB_CODE=75 "$script" methods
expect 'stopped: requeue' 75 'scontrol [requeue] [7]' \
    env STUB_CODE=75 SLURM_JOB_ID=7 STUB_STATE=RUNNING "$script" methods
expect 'stopped, but cancelled' 75 'not requeued: the job is cancelled' \
    env STUB_CODE=75 SLURM_JOB_ID=7 STUB_STATE=CANCELLED "$script" methods
expect 'requeued often enough' 75 'not requeued: it has been 100 times' \
    env STUB_CODE=75 SLURM_JOB_ID=7 STUB_STATE=RUNNING SLURM_RESTART_COUNT=100 "$script" methods

cat >site.yml <<'SITE'
launcher: mpirun   # a comment
mpirun_options: "--mca pml  ob1" # another
max_requeues: 2
setup: export FROM_SETUP='a b' # a third
mpi:
SITE
expect 'site: launcher and options' 0 'mpirun [-n] [4] [--mca] [pml] [ob1] [/bin/true] [methods]' \
    env STUB_MPI=pmix "$script" --site site.yml methods
expect 'site: setup' 0 '[/usr/bin/env]' "$script" --site site.yml --program /usr/bin/env methods
expect 'site: requeues' 75 'not requeued: it has been 2 times' env STUB_CODE=75 SLURM_JOB_ID=7 \
    STUB_STATE=RUNNING SLURM_RESTART_COUNT=2 ALLMERGE_SITE=site.yml "$script" methods
expect 'site: an empty value is the default' 0 'srun [--mpi=pmix]' \
    env STUB_MPI=pmix AM_LAUNCH=srun "$script" --site site.yml methods
expect 'no site file' 66 'no site file nowhere.yml' "$script" --site nowhere.yml methods
echo 'modules: gcc/12 openmpi' >modules.yml
module() { echo "module [$*]"; }
export -f module
expect 'site: modules' 0 'module [load gcc/12 openmpi]' "$script" --site modules.yml methods
unset -f module
echo 'setup: "false"' >bad.yml
expect 'site: a setup that fails' 71 'setup of bad.yml failed' "$script" --site bad.yml methods

printf '%s\t' -o 'a b.h5' >cases.tsv
printf '\n--set\tx=1\n' >>cases.tsv
expect 'cases: with blanks' 0 '[merge] [r.yml] [-o] [a b.h5] ' \
    env SLURM_ARRAY_TASK_ID=0 "$script" --cases cases.tsv merge r.yml
expect 'cases: the second line' 0 '[merge] [--set] [x=1] ' \
    env SLURM_ARRAY_TASK_ID=1 "$script" --cases cases.tsv merge
expect 'cases: no such line' 2 'no line for array index 2' \
    env SLURM_ARRAY_TASK_ID=2 "$script" --cases cases.tsv merge
expect 'cases: no array' 2 'sbatch --array' "$script" --cases cases.tsv merge
expect 'unknown option' 2 usage "$script" --sites x methods
expect 'no command' 2 usage "$script"
expect 'no program' 66 'set ALLMERGE' env ALLMERGE=/nowhere/allmerge "$script" methods
expect 'unknown launcher' 2 'srun or mpirun' env AM_LAUNCH=orun "$script" methods
exit $failed
