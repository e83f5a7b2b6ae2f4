#!/usr/bin/env python3
"""slurm/allmerge.sbatch on a real Slurm: exit codes, time limit -> USR1 -> 75 -> requeue -> the same bytes,
arrays and dependencies, scancel, preemption; through srun and mpirun.

Runs stop themselves (SIGSTOP) at a certain call while Slurm takes its time, so that the test needs seconds of
processor time and no luck.                                                                    usage: test_cluster.py [SCENARIO...]
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"
sys.path.insert(0, str(SUPPORT))
sys.path.insert(0, str(HERE))
import rankrun  # noqa: E402
import cluster as slurm  # noqa: E402
from proc import is_stopped, tell  # noqa: E402

SCRIPT = HERE.parents[1] / "slurm" / "allmerge.sbatch"
ITERATE = "iterate suite.yml --set iterate.rounds=40 --set data.limit.train=60 -o".split()
MERGE = "merge recipe.yml -o".split()
LARGE_MERGE = "merge large.yml --block 64KiB --save-every 0 -o".split()
LAUNCHERS = ("srun", "mpirun")
CPUS = 24


class Failed(Exception):
    pass


def check(condition, what: str) -> None:
    if not condition:
        raise Failed(what)


class Jobs:
    """Inputs, the cluster, and jobs in the folder of the test."""

    def __init__(self, top: Path, cluster: slurm.Cluster):
        self.top, self.cluster = top, cluster

    def submit(self, launcher: str, command: list, *options: str, ranks: int = 2, program: Path | None = None) -> str:
        return self.cluster.sbatch(f"--export=ALL,AM_LAUNCH={launcher}", f"--ntasks={ranks}",
                                   "--mem-per-cpu=64", f"--chdir={self.top}", *options, str(SCRIPT),
                                   "--program", str(program or rankrun.binary()), *command)

    def log(self, job: str) -> str:
        path = self.top / f"allmerge-{job}.log"
        return path.read_text() if path.exists() else ""

    def wait_log(self, job: str, text: str, seconds: float = 90) -> None:
        self.cluster.until(lambda: text in self.log(job), seconds, f"'{text}' in the log of {job}")

    def submit_held(self, launcher: str, command: list, stop: str, *options: str) -> str:
        """A job whose first run stops itself at a call: `stop` is what tests/fault/shim.c reads."""
        program = self.top / f"held-{launcher}-{command[-1]}"
        shim = Path(os.environ["AM_PROGRAMS"]) / "libam_shim.so"
        program.write_text(f"""#!/bin/sh
if [ "${{SLURM_RESTART_COUNT:-0}}" -eq 0 ]; then
    export LD_PRELOAD='{shim}' AM_SHIM='{stop},rank=-1,do=stop'
fi
exec '{rankrun.binary()}' "$@"
""")
        program.chmod(0o755)
        return self.submit(launcher, command, *options, program=program)

    def submit_iterate(self, launcher: str, run: str, *options: str) -> str:
        """An iterative run that stops itself between its first round and its end."""
        return self.submit_held(launcher, [*ITERATE, run], f"call=rename,nth=2,path={self.top}/{run}/rounds/",
                                *options)

    def hold(self, job: str, output: str) -> list:
        """Wait until the job has stopped itself; stop its other rank as well. The two process ids."""
        ranks = []

        def is_held() -> bool:
            ranks[:] = self.cluster.ranks(job, "allmerge")
            return len(ranks) == 2 and any(is_stopped(pid) for pid in ranks)

        self.cluster.until(is_held, 60, f"job {job} to stop itself")
        for pid in ranks:
            tell(pid, signal.SIGSTOP)
        check(not (self.top / output).exists(), f"{output} is there before job {job} goes on")
        return ranks

    def let_go(self, ranks: list) -> None:
        for pid in ranks:
            tell(pid, signal.SIGCONT)

    def check_resumed(self, job: str, run: str) -> None:
        shown = self.cluster.wait(job, "COMPLETED")
        log = self.log(job)
        check(int(shown["Restarts"]) >= 1, f"{run}: Restarts={shown['Restarts']}\n{log}")
        for text in ("stopped at a safe point: requeue", "run 2", "going on from the models"):
            check(text in log, f"{run}: no '{text}' in its log\n{log}")
        self.check_same(run)

    def check_same(self, run: str) -> None:
        problems = rankrun.changes(files(self.top / "alone"), files(self.top / run))
        check(not problems, f"{run} differs from a run without Slurm: {problems}")


def files(folder: Path) -> dict:
    return {f: v for f, v in rankrun.snapshot(folder).items() if f != "events.jsonl"}


def prepare(top: Path) -> None:
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", top / "tasks", "a:4:120", "b:3:90",
                    "c:5:150", "p:8:200"], check=True)
    shutil.copy(SUPPORT / "small_suite.yml", top / "suite.yml")
    for seed in "123":
        subprocess.run([sys.executable, SUPPORT / "make_ckpt.py", top / f"model{seed}.safetensors",
                        f"embed=1000x64:f32:{seed}", f"head=10x64:f32:{seed}"], check=True)
        subprocess.run([sys.executable, SUPPORT / "make_ckpt.py", top / f"large{seed}.safetensors",
                        f"a=3000x1000:f32:{seed}", f"b=3000x1000:f32:{seed}"], check=True)
    (top / "recipe.yml").write_text("merge_method: task_arithmetic\nbase_model: model1.safetensors\n"
                                    "models:\n- {model: model2.safetensors, parameters: {weight: 0.4}}\n"
                                    "- {model: model3.safetensors, parameters: {weight: 0.3}}\n"
                                    "dtype: float32\n")
    (top / "large.yml").write_text("merge_method: ties\nbase_model: large1.safetensors\nmodels:\n"
                                   "- {model: large2.safetensors, parameters: {weight: 1, density: 0.5}}\n"
                                   "- {model: large3.safetensors, parameters: {weight: 1, density: 0.5}}\n")
    for command in ([*ITERATE, "alone"], [*MERGE, "alone.h5"], [*LARGE_MERGE, "large.h5"]):
        done = rankrun.run(command, 2, top, timeout=60)
        check(done.code == 0, done.report())


# ---- scenarios: they wait side by side, each in a thread ----

def exit_codes(jobs: Jobs):
    """The job's state and exit code are those of the command; the bytes are those of any other run."""
    job = {how: jobs.submit(how, [*MERGE, f"{how}.h5"]) for how in LAUNCHERS}
    bad = {how: jobs.submit(how, ["merge", "absent.yml", "-o", f"never-{how}.h5"]) for how in LAUNCHERS}
    for how in LAUNCHERS:
        jobs.cluster.wait(job[how], "COMPLETED")
        check((jobs.top / f"{how}.h5").read_bytes() == (jobs.top / "alone.h5").read_bytes(),
              f"{how}: other bytes than without Slurm")
        shown = jobs.cluster.wait(bad[how], "FAILED")
        check(shown["ExitCode"] == "66:0", f"{how}: ExitCode={shown['ExitCode']}, not 66:0")


def time_limit(jobs: Jobs):
    """USR1 before the limit, 75, requeue, resume; a job that waits for it (afterok) runs once, after it."""
    job = {how: jobs.submit_iterate(how, f"limit-{how}", "--time=1", "--signal=B:USR1@45")
           for how in LAUNCHERS}
    after = jobs.submit("srun", ["inspect", "limit-srun/final.h5"], f"--dependency=afterok:{job['srun']}",
                        ranks=1)
    held = {how: jobs.hold(job[how], f"limit-{how}/result.json") for how in LAUNCHERS}
    for how in LAUNCHERS:
        jobs.wait_log(job[how], "USR1: asking the ranks")
        jobs.let_go(held[how])
    for how in LAUNCHERS:
        jobs.check_resumed(job[how], f"limit-{how}")
    jobs.cluster.wait(after, "COMPLETED")
    check(jobs.log(after).count("run 1,") == 1, f"the dependent job: {jobs.log(after)}")


def merge_limit(jobs: Jobs):
    """A merge at the time limit: what it has done is kept."""
    job = jobs.submit_held("srun", [*LARGE_MERGE, "limit.h5"], f"call=pwrite,path={jobs.top}/limit.h5.partial",
                           "--time=1", "--signal=B:USR1@45")
    held = jobs.hold(job, "limit.h5")
    jobs.wait_log(job, "USR1: asking the ranks")
    jobs.let_go(held)
    shown = jobs.cluster.wait(job, "COMPLETED")
    log = jobs.log(job)
    check(int(shown["Restarts"]) >= 1 and "stopped at a safe point: requeue" in log, f"not requeued\n{log}")
    check((jobs.top / "limit.h5").read_bytes() == (jobs.top / "large.h5").read_bytes(),
          "limit.h5: other bytes than without Slurm")


def array(jobs: Jobs):
    """Elements with their own arguments, then a job that depends on all of them."""
    (jobs.top / "cases.tsv").write_text("--set\tmodels.0.parameters.weight=0.4\t-o\tcase 0.h5\n"
                                        "--set\tmodels.0.parameters.weight=0.9\t-o\tcase 1.h5\n")
    sweep = jobs.submit("srun", ["--cases", "cases.tsv", "merge", "recipe.yml"], "--array=0-1",
                        "--output=allmerge-%A_%a.log", ranks=1)
    after = jobs.submit("srun", ["diff", "case 0.h5", "case 1.h5"], f"--dependency=afterok:{sweep}",
                        ranks=1)
    never = jobs.submit("srun", ["inspect", "alone.h5"], f"--dependency=afterok:{after}",
                        "--kill-on-invalid-dep=yes", ranks=1)
    shown = jobs.cluster.wait(after, "FAILED") # 1: they differ
    check(shown["ExitCode"] == "1:0", f"diff of two elements: ExitCode={shown['ExitCode']}, not 1:0")
    check((jobs.top / "case 0.h5").read_bytes() == (jobs.top / "alone.h5").read_bytes(),
          "element 0 has other bytes than the same merge without Slurm")
    jobs.cluster.wait(never, "CANCELLED")


def cancel(jobs: Jobs):
    """A cancelled job stays cancelled, nothing is left running, and the same command goes on by hand."""
    job = jobs.submit_iterate("srun", "cancelled")
    other = jobs.submit_iterate("mpirun", "cancelled-mpirun")
    held = [jobs.hold(job, "cancelled/result.json"), jobs.hold(other, "cancelled-mpirun/result.json")]
    jobs.cluster.run("scancel", job, other)
    for ranks in held:
        jobs.let_go(ranks)
    for one, run in ((job, "cancelled"), (other, "cancelled-mpirun")):
        jobs.cluster.wait(one, "CANCELLED")
        jobs.cluster.until(lambda: not jobs.cluster.ranks(one, "allmerge"), 30, f"the ranks of {run} to end")
        again = rankrun.run([*ITERATE, run], 1, jobs.top, timeout=60)
        check(again.code == 0, again.report())
        jobs.check_same(run)
        check(jobs.cluster.state(one) == "CANCELLED", f"{run}: is {jobs.cluster.state(one)}")


def preempt(jobs: Jobs):
    """A job of a higher partition takes the processors. Ranks of srun are told and stop within the grace
    time; those of mpirun are not, and are killed after it. Both are requeued and give the same bytes."""
    job = {how: jobs.submit_iterate(how, f"preempted-{how}") for how in LAUNCHERS}
    held = {how: jobs.hold(job[how], f"preempted-{how}/result.json") for how in LAUNCHERS}
    urgent = jobs.submit("srun", ["inspect", "alone.h5"], "--partition=urgent",
                         f"--cpus-per-task={CPUS}", ranks=1)
    jobs.cluster.until(lambda: jobs.cluster.show(job["srun"]).get("PreemptTime", "None") != "None", 60,
                       "the preemption")
    jobs.let_go(held["srun"])
    jobs.cluster.wait(urgent, "COMPLETED")
    for how in LAUNCHERS:
        shown = jobs.cluster.wait(job[how], "COMPLETED")
        check(int(shown["Restarts"]) >= 1, f"{how}: Restarts={shown['Restarts']}")
        check("going on from the models" in jobs.log(job[how]), f"{how} started over")
        jobs.check_same(f"preempted-{how}")
    check("stopped at a safe point" in jobs.log(job["srun"]), f"not told:\n{jobs.log(job['srun'])}")


def submit(jobs: Jobs):
    """`allmerge submit`: a merge with the ranks and memory of its plan; a pipeline of three stages."""
    def allmerge(*words: str) -> dict:
        done = subprocess.run([rankrun.binary(), "submit", *words], text=True, capture_output=True,
                              cwd=jobs.top, env=jobs.cluster.environment, timeout=60)
        check(done.returncode == 0, f"submit {words}: {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)["jobs"]

    merge = allmerge("recipe.yml", "-o", "submitted.h5", "--ranks", "3")["merge"]
    chain = allmerge("suite.yml", "--as", "pipeline", "-o", "pipe", "--set", "data.limit.train=60")
    jobs.cluster.wait(str(merge), "COMPLETED")
    check((jobs.top / "submitted.h5").read_bytes() == (jobs.top / "alone.h5").read_bytes(),
          "submitted.h5: other bytes than without Slurm")
    for task in range(3):
        jobs.cluster.wait(f"{chain['evaluate']}_{task}", "COMPLETED")
    for name, how in (("a", "train suite.yml --set data.limit.train=60 --task a -o a"),
                      ("merged.h5", "merge pipe/merge.yml -o merged.h5")):
        again = rankrun.run(how.split(), 1, jobs.top, timeout=60)
        check(again.code == 0, again.report())
        one, other = jobs.top / name, jobs.top / "pipe" / name
        same = files(one) == files(other) if one.is_dir() else one.read_bytes() == other.read_bytes()
        check(same, f"pipe/{name}: other bytes than without Slurm")
    results = [json.loads(f.read_text()) for f in sorted((jobs.top / "pipe").glob("evaluate-*.json"))]
    check([r["tasks"] for r in results] == [["a"], ["b"], ["c"]], f"results of evaluate: {results}")


TOGETHER = (time_limit, merge_limit, cancel, submit, array, exit_codes)
ALONE = (preempt,)


def run_together(scenarios, jobs: Jobs) -> int:
    """How many failed."""
    start = time.monotonic()

    def one(scenario) -> bool:
        try:
            scenario(jobs)
        except (Failed, RuntimeError, OSError) as error:
            print(f"FAILED {scenario.__name__}: {error}", flush=True)
            return False
        print(f"{time.monotonic() - start:5.1f} s  {scenario.__name__}: ok", flush=True)
        return True

    with ThreadPoolExecutor(max(1, len(scenarios))) as pool:
        return sum(not is_ok for is_ok in pool.map(one, scenarios))


def main() -> None:
    wanted = sys.argv[1:]
    why = slurm.missing()
    if why:
        rankrun.skip(why)
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                      OMPI_MCA_mpi_yield_when_idle="1", OPENBLAS_NUM_THREADS="1")
    top = Path.cwd()
    prepare(top)
    failed, start = 0, time.monotonic()
    with slurm.Cluster(top / "slurm", CPUS) as cluster:
        print(f"Slurm is up after {time.monotonic() - start:.1f} s", flush=True)
        jobs = Jobs(top, cluster)
        for group in (TOGETHER, ALONE):
            failed += run_together([s for s in group if not wanted or s.__name__ in wanted], jobs)
        if failed:
            print(cluster.logs())
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
