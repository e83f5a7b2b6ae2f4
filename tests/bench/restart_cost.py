#!/usr/bin/env python3
"""What it costs that a job can go on after an interruption: merge, train and iterate with and without saving.

usage: restart_cost.py FOLDER [--seconds 30] [--repeat 3] [--ranks 1] [--width 1024] [--size 0.3GB] [--build DIR]
                       [--every SECONDS]... [JOB]...
  FOLDER    where the inputs and outputs go: on the disk that is meant; what was made is removed at the end
  --every   besides the default: the interval that --save-every sets
  JOB       merge, train, iterate (default: all)

By turns the same job with --save-every 1e9 (never saves), with the default and with each --every. A
training job has an MLP of --width x --width with momentum and as many epochs as last about --seconds; a
merge has two models and a base of --size each, and blocks so small that there is always one to record.
`told` is the job's own account: the time in which it did nothing but save, over all of its time. `wall` is
the ratio of the best times with and without, which other programs on the machine disturb far more.
One JSON line a job, then a table. SPDX-License-Identifier: BSD-3-Clause
"""
import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
JOBS = ("merge", "train", "iterate")
NEVER = "1e9"
TOLD = re.compile(r"(\d+) saves took ([\d.]+) s of ([\d.]+) s")


def size(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)([MG])B", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is no size (0.3GB, 500MB)")
    return int(float(match[1]) * {"M": 10**6, "G": 10**9}[match[2]])


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.o = options
        self.folder = Path(options.folder).resolve() / "restart_cost"
        launcher = os.environ.get("AM_MPIRUN") or str(ROOT / "jobs" / "launch")
        self.launcher = [*shlex.split(launcher), "-n", str(options.ranks)]
        self.length = {}  # what a job is given so that it lasts long enough

    def make(self) -> None:
        self.folder.mkdir(parents=True)
        subprocess.run([sys.executable, SUPPORT / "make_tasks.py", self.folder / "tasks", "a:10:4000", "b:10:4000",
                        "p:10:4000"], check=True)
        section = "{lr: 0.01, momentum: 0.9, batch: 100}"
        (self.folder / "suite.yml").write_text(
            f"model: {{widths: [{self.o.width}, {self.o.width}]}}\ndata: {{folder: tasks, tasks: [a, b]}}\n"
            f"base: {{pretrain: p, epochs: 1}}\nheads: {{epochs: 1}}\nfinetune: {section}\njoint: {section}\n"
            "one_shot: {epochs: [1], alphas: [0.5]}\niterate: {alphas: [0.5]}\n")
        rows = max(self.o.size // 2 // (16 << 20), 1)
        for seed, name in enumerate(("base", "m0", "m1"), start=1):
            subprocess.run([sys.executable, SUPPORT / "make_ckpt.py", self.folder / f"{name}.safetensors",
                            *[f"layer.{i}.weight=4096x4096:f16:{seed}" for i in range(rows)]], check=True)
        (self.folder / "recipe.yml").write_text(
            "merge_method: dare_ties\nbase_model: base.safetensors\nparameters: {density: 0.5}\nmodels:\n"
            + "".join(f"- model: m{m}.safetensors\n  parameters: {{weight: 0.5}}\n" for m in range(2)))

    def command(self, job: str, length: int) -> list[str]:
        if job == "merge":
            return ["merge", "recipe.yml", "-o", "out.safetensors", "--block", "1MiB"]
        rounds = ["--set", f"{'joint.epochs' if job == 'train' else 'iterate.rounds'}={length}"]
        return [job, "suite.yml", "-o", "out", *rounds]

    def run(self, job: str, length: int, every: str | None) -> dict:
        """One run: wall seconds, and what it tells of its saving (of all its parts together)."""
        self.clear()
        command = [*self.launcher, str(self.o.build / "allmerge"), *self.command(job, length),
                   *(["--save-every", every] if every else [])]
        start = monotonic()
        done = subprocess.run(command, cwd=self.folder, text=True, capture_output=True, check=False)
        wall = monotonic() - start
        if done.returncode != 0:
            sys.exit(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr}")
        told = [(int(n), float(cost)) for n, cost, _ in TOLD.findall(done.stderr)]
        return {"wall": wall, "saves": sum(n for n, _ in told), "cost": sum(cost for _, cost in told)}

    def clear(self) -> None:
        for path in self.folder.glob("out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def fit(self, job: str) -> int:
        """So many epochs or rounds that the job lasts about --seconds."""
        length, wall = 1, 0.0
        while job != "merge" and wall < self.o.seconds / 4:
            length *= 2
            wall = self.run(job, length, NEVER)["wall"]
        return int(length * self.o.seconds / wall) if wall > 0 else 0

    def compare(self, job: str) -> dict:
        length = self.fit(job)
        settings = {"never": NEVER, "default": None, **{f"{s:g} s": str(s) for s in self.o.every}}
        runs: dict[str, list[dict]] = {name: [] for name in settings}
        for _ in range(self.o.repeat):
            for name, every in settings.items():
                runs[name].append(self.run(job, length, every))
        row = {"job": job, "ranks": self.o.ranks, "length": length, "repeat": self.o.repeat,
               "seconds_never": min(r["wall"] for r in runs["never"])}
        for name in settings:
            if name != "never":
                r = runs[name]
                row[name] = {"saves": statistics.median(x["saves"] for x in r),
                             "told": statistics.median(x["cost"] / x["wall"] for x in r),
                             "told_max": max(x["cost"] / x["wall"] for x in r),
                             "wall": min(x["wall"] for x in r) / row["seconds_never"] - 1}
        return row


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("folder")
    parser.add_argument("job", nargs="*", choices=[[], *JOBS])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--size", type=size, default=300_000_000)
    parser.add_argument("--every", type=float, action="append", default=[])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    bench = Bench(parser.parse_intermixed_args())
    rows = []
    try:
        bench.make()
        for job in bench.o.job or JOBS:
            rows.append(bench.compare(job))
            print(json.dumps(rows[-1]), flush=True)
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"\n{'job':8} {'setting':8} {'seconds':>8} {'saves':>6} {'told':>8} {'most':>8} {'wall':>8}")
    for row in rows:
        for name, r in row.items():
            if isinstance(r, dict):
                print(f"{row['job']:8} {name:8} {row['seconds_never']:8.1f} {r['saves']:6.0f} "
                      f"{100 * r['told']:7.2f}% {100 * r['told_max']:7.2f}% {100 * r['wall']:+7.1f}%")
    return 0


if __name__ == "__main__":
    sys.exit(main())
