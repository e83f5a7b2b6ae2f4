#!/usr/bin/env python3
"""A run of iterate that is killed or asked to stop, again and again, on changing numbers of ranks, ends
with the same bytes as one that was left alone; so does one of which single models are gone, which
groups of ranks then make while others have nothing to do.       usage: iterate_restart.py [RUNS [SEED]]
SPDX-License-Identifier: BSD-3-Clause
"""
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from proc import tell  # noqa: E402

ARGUMENTS = "iterate suite.yml --set iterate.rounds=12 --set data.limit.train=60 -o".split()
SECONDS = 120


def disturb(how: str, delay: float, log: Path):
    """Strike after the job has begun: mpirun itself may hang when a rank dies inside MPI_Init."""
    before = log.stat().st_size if log.exists() else 0

    def during(ranks) -> None:
        end = time.monotonic() + SECONDS / 2
        while (not log.exists() or log.stat().st_size == before) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(delay)
        running = sorted(ranks().items())
        victims = {"kill one": running[-1:], "kill all": running, "stop one": running[:1],
                   "stop all": running}[how]
        for _, pid in victims:
            tell(pid, signal.SIGTERM if how.startswith("stop") else signal.SIGKILL)
    return during


def check_gaps(top: Path, wanted: dict[str, str]) -> list[str]:
    """One task is trained by one group of ranks, then joint training by all of them together."""
    problems = []
    for task in ("a", "b", "c"):
        shutil.rmtree(top / "gap", ignore_errors=True)
        shutil.copytree(top / "alone", top / "gap")
        shutil.rmtree(top / "gap" / "joint")
        for pattern in ("result.json", "joint.h5*", "final.h5*", f"tuned/{task}-epochs-003*"):
            for path in (top / "gap").glob(pattern):
                path.unlink()
        result = rankrun.run([*ARGUMENTS, "gap"], 2, top, timeout=SECONDS,
                             env={"AM_STALL_SECONDS": str(SECONDS // 2)})
        if result.code != 0 or result.hung:
            problems.append(f"without a model of {task}: exit code {result.code}\n{result.report()}")
        files = {f: v for f, v in rankrun.snapshot(top / "gap").items() if f != "events.jsonl"}
        problems += [f"without a model of {task}: {line}" for line in rankrun.changes(wanted, files)]
    return problems


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    choose = random.Random(seed)
    print(f"seed {seed}")
    top = Path(tempfile.mkdtemp(prefix="am_restart."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", top / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    shutil.copy(HERE.parent / "support" / "small_suite.yml", top / "suite.yml")
    alone = rankrun.run([*ARGUMENTS, "alone"], 2, top, timeout=SECONDS)
    if alone.code != 0:
        sys.exit(alone.report())
    wanted = {f: v for f, v in rankrun.snapshot(top / "alone").items() if f != "events.jsonl"}

    problems, ends, interrupted = check_gaps(top, wanted), {}, 0
    for run in range(runs):
        folder = f"run{run}"
        for attempt in range(4):
            how = choose.choice(["kill one", "kill all", "stop one", "stop all"])
            delay = choose.uniform(0, 0.1 + alone.seconds)
            result = rankrun.run([*ARGUMENTS, folder], choose.randint(1, 4), top, timeout=SECONDS,
                                 during=None if attempt == 3 else
                                 disturb(how, delay, top / folder / "events.jsonl"))
            ends[result.code] = ends.get(result.code, 0) + 1
            if result.hung:
                problems.append(f"{folder}: hung after '{how}'")
            if result.code == 0:
                break
            interrupted += 1
        files = {f: v for f, v in rankrun.snapshot(top / folder).items() if f != "events.jsonl"}
        for line in rankrun.changes(wanted, files):
            problems.append(f"{folder}: {line}")
    print(f"{runs} runs, {interrupted} interruptions, exit codes {ends}")
    if interrupted == 0:
        problems.append("nothing was interrupted: this test tests nothing")
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        shutil.rmtree(top)
    sys.exit(len(problems) > 0)


if __name__ == "__main__":
    main()
