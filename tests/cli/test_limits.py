#!/usr/bin/env python3
"""A time limit and a halt file stop a job at a safe point with exit code 75; it then goes on and ends.
SPDX-License-Identifier: BSD-3-Clause
"""
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402

JOB = "iterate suite.yml --set iterate.rounds=400 --set iterate.patience=0 -o run".split()


def main() -> None:
    top = Path.cwd()
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", top / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    shutil.copy(HERE.parent / "support" / "small_suite.yml", top / "suite.yml")
    halt = top / "run" / "halt"

    def ask_to_halt(_ranks) -> None:
        events = top / "run" / "events.jsonl"
        before = events.stat().st_size
        while events.stat().st_size == before:
            time.sleep(0.02)
        halt.touch()

    def expect(code: int, message: str, ranks: int, job: list[str], **more) -> None:
        result = rankrun.run(job, ranks, top, timeout=60, **more)
        result.expect_code(code)
        result.expect_message(message)
        if result.problems:
            sys.exit(result.report())

    expect(75, r"stop requested \(the time limit\)", 2, [*JOB, "--time-left", "1"])
    expect(75, r"stop requested \(the time limit\)", 3, JOB,
           env={"SLURM_JOB_END_TIME": str(int(time.time()) + 3)})
    expect(75, r"stop requested \(the halt file run/halt", 2, JOB, during=ask_to_halt)
    expect(73, r"run/halt asks to stop: remove it to go on", 2, JOB)
    halt.unlink()
    expect(2, "there is no time left", 1, [*JOB, "--time-left", "0s"])
    (top / "out.halt").touch()
    expect(73, "out.halt asks to stop", 1, ["merge", "suite.yml", "-o", "out"])


if __name__ == "__main__":
    main()
