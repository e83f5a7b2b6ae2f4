#!/usr/bin/env python3
"""Make system calls of one rank fail and look at how the whole job takes it.

usage: fault.py SCENARIO KIND [sites|every]    SCENARIO: a name in scenarios.py
  sites, every: not a sample but every call, or the first of every site (three functions deep), of every rank
  calls   the N-th open, pread, pwrite, ... of each rank fails, N = 1, 2, ... until there is no N-th
  memory  the same for the program's own allocations
  kill    a rank dies by SIGKILL at its N-th write, and at random times; run again
  term    a rank receives SIGTERM at its N-th write; run again
  full    the output goes to a file system that is too small (needs root for the mount)
Environment: AM_BIN, AM_MPIRUN, AM_PROGRAMS (libam_shim.so, from shim.c), AM_SEED for the random times,
AM_FAULT_RANKS (3), AM_FAULT_ONLY, the one rank to strike, to work on several at once; AM_FAULT_TIMEOUT,
seconds, for a machine that is busy.
What must hold is written in README.md beside this file.
SPDX-License-Identifier: BSD-3-Clause
"""
import fnmatch
import os
import random
import re
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
from scenarios import SCENARIOS, Scenario  # noqa: E402

RANKS = int(os.environ.get("AM_FAULT_RANKS", "3"))
BY = {"sites": ",frames=3", "every": ""}
LONG = len(sys.argv) == 4 and sys.argv[3] in BY
SOME_RANKS = range(RANKS) if LONG else (0, RANKS - 1)
if "AM_FAULT_ONLY" in os.environ:
    SOME_RANKS = (int(os.environ["AM_FAULT_ONLY"]),)
# Each call with the error that it gets and the exit codes that are right for it.
CALLS = {
    "open": ("EIO", {66, 73, 74}),
    "read": ("EIO", {66, 74}),
    "pread": ("EIO", {74}),
    "pwrite": ("EIO", {74}),
    "write": ("ENOSPC", {73, 74}),
    "fallocate": ("ENOSPC", {73, 74}),
    "ftruncate": ("EIO", {73, 74}),
    "fsync": ("EIO", {74}),
    "close": ("EIO", {73, 74}),
    "rename": ("EIO", {73, 74}),
    "mkdir": ("ENOSPC", {73}),
}


class Bench:
    """A prepared folder, the bytes that a clean run gives, and the checks after each faulty run."""

    def __init__(self, scenario: Scenario, top: Path):
        self.scenario = scenario
        self.clean = top / "clean"
        self.folder = top / "work"
        self.log = top / "shim.log"
        self.timeout = max(scenario.timeout, float(os.environ.get("AM_FAULT_TIMEOUT", "0")))
        self.failures = self.runs = self.left = 0
        self.clean.mkdir()
        scenario.prepare(self.clean)
        self.inputs = rankrun.snapshot(self.clean)
        self.n_inputs = len(list(self.clean.iterdir()))
        result = rankrun.run(scenario.arguments, RANKS, self.clean, timeout=self.timeout)
        result.expect_code(0)
        if result.problems:
            sys.exit("the clean run fails\n" + result.report())
        self.outputs = {n: d for n, d in rankrun.snapshot(self.clean).items()
                        if n not in self.inputs}
        if not self.results(self.outputs):
            sys.exit(f"the clean run left no {scenario.results}")

    def results(self, files: dict[str, str]) -> dict[str, str]:
        return {n: d for n, d in files.items() if matches(n, self.scenario.results)}

    def reset(self) -> None:
        """A fresh copy of the inputs (hard links: the programs never write into an input)."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, digest in self.inputs.items():
            target = self.folder / name
            if digest == "folder":
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.clean / name, target)

    def run(self, shim: str | None, during=None) -> tuple[rankrun.Result, int]:
        """Run once with a fault; returns the result and how often the fault struck."""
        self.log.unlink(missing_ok=True)
        env = {"AM_STALL_SECONDS": str(self.timeout / 2)}
        preload = None
        if shim is not None:
            env.update(AM_SHIM=f"{shim},path={self.folder}", AM_SHIM_LOG=str(self.log))
            preload = os.path.join(os.environ["AM_PROGRAMS"], "libam_shim.so")
        if "ASAN_OPTIONS" in os.environ:  # the shim comes first, and hands on to the sanitizer
            env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
        result = rankrun.run(self.scenario.arguments, RANKS, self.folder, env=env, preload=preload,
                             timeout=self.timeout, during=during)
        self.runs += 1
        hits = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        return result, hits

    def files(self, result: rankrun.Result) -> dict[str, str]:
        """New files; notes every input that changed and every final name that is not the right one."""
        after = rankrun.snapshot(self.folder)
        before = {n: d for n, d in self.inputs.items()}
        for line in rankrun.changes(before, after):
            if not line.startswith("left behind"):
                result.problems.append(f"input {line}")
        new = {n: d for n, d in after.items() if n not in before}
        for name, digest in new.items():
            known = self.outputs.get(name)
            if matches(name, self.scenario.steady) and known not in (None, digest):
                result.problems.append(f"half-written under its final name: {name}")
        return new

    def check_done(self, result: rankrun.Result) -> None:
        """The job says that it is done: then every result is there with the right bytes."""
        result.expect_code(0)
        new = self.files(result)
        if self.results(new) != self.results(self.outputs):
            result.problems.append(f"exit code 0 but wrong or missing {self.scenario.results}")
        for name in new:
            if name not in self.outputs:
                result.problems.append(f"left behind: {name}")

    def check_failed(self, result: rankrun.Result, codes: set[int]) -> None:
        """The job failed in an orderly way: one code, one message, no rubbish; and no result, unless
        it failed after the whole result had got its name (the sync of the folder)."""
        result.expect_code(*sorted(codes))
        result.expect_message()
        new = self.files(result)
        must_leave = self.scenario.must_leave
        self.left += bool(must_leave) and any(fnmatch.fnmatch(n, must_leave) for n in new)
        is_published = self.results(new) == self.results(self.outputs)
        kept = self.scenario.kept + (self.scenario.kept_at_75 if result.code == 75 else [])
        for name in new:
            if not matches(name, kept) and not (is_published and name in self.outputs):
                result.problems.append(f"left behind: {name}")

    def check_again(self, after: str) -> None:
        """The same command again, without a fault, gives the right bytes. Not if the job had got as
        far as its result: merge refuses an output that exists."""
        if self.results(rankrun.snapshot(self.folder)) == self.results(self.outputs):
            return
        result, _ = self.run(None)
        self.check_done(result)
        self.note(result, f"again after {after}")

    def note(self, result: rankrun.Result, what: str) -> None:
        if result.problems:
            self.failures += 1
            print(f"FAIL {what}\n{result.report()}", flush=True)


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, p) for p in patterns)


def numbers():
    """1, 2, 3, ...; in the short version a sample: 1, 2, 4, 8, ..."""
    n = 1
    while True:
        yield n
        n = n + 1 if LONG else 2 * n


def sweep(bench: Bench, call: str, rank: int, error: str, codes: set[int], times: str) -> int:
    """Fail the N-th `call` of one rank (-1: of every rank), N = 1, 2, ...; returns how many struck."""
    struck = 0
    for n in numbers():
        bench.reset()
        fault = f"call={call},nth={n},rank={rank},do={error},times={times}{BY[sys.argv[3]] if LONG else ''}"
        result, hits = bench.run(fault)
        if hits == 0:
            bench.check_done(result)
            bench.note(result, f"no {n}th {call} on rank {rank}")
            return struck
        struck += 1
        if result.code == 0 and not result.hung: # it found another way, or the call did not matter
            bench.check_done(result)
            bench.note(result, fault)
        else:
            bench.check_failed(result, codes)
            bench.note(result, fault)
            if LONG or bench.scenario.must_leave or (n == 1 and rank == 0):
                bench.check_again(fault)
        if times == "always" and not LONG:
            return struck
    return struck


def test_calls(bench: Bench) -> None:
    for call, (error, codes) in CALLS.items():
        struck = [sweep(bench, call, rank, error, codes, "once") for rank in SOME_RANKS]
        struck.append(sweep(bench, call, -1, error, codes, "always"))
        print(f"{call:10} struck {struck[:-1]} times on ranks {list(SOME_RANKS)}, "
              f"{struck[-1]} times on all", flush=True)
        if call in bench.scenario.must_strike and sum(struck) == 0:
            bench.failures += 1
            print(f"FAIL {call} never happened: the test tests nothing")
    sweep(bench, "pwrite", 1, "short", {74}, "once")
    sweep(bench, "pread", 1, "short", {74}, "once")
    if bench.scenario.must_leave:
        print(f"{bench.left} failed runs left {bench.scenario.must_leave}")
        if bench.left == 0:
            bench.failures += 1
            print("FAIL no failed run left anything to go on with")


def test_memory(bench: Bench) -> None:
    for rank in SOME_RANKS:
        struck = sweep(bench, "malloc", rank, "ENOMEM", {71}, "once")
        print(f"malloc     struck {struck} times on rank {rank}", flush=True)
        if struck == 0:
            bench.failures += 1
            print("FAIL no allocation of the program itself was seen")


def check_killed(bench: Bench, result: rankrun.Result, what: str) -> None:
    """A rank was killed: the job ends, and no final name holds anything but the right bytes."""
    if result.hung:
        result.problems.append("hung after a rank was killed")
    if result.code == 0:
        result.problems.append("a rank was killed and the job says 0")
    bench.files(result)
    bench.note(result, what)
    bench.check_again(what)


def test_kill(bench: Bench) -> None:
    struck = 0
    for call in ("pwrite", "fsync", "rename"):
        for rank in range(RANKS):
            for n in numbers():
                bench.reset()
                fault = f"call={call},nth={n},rank={rank},do=kill"
                result, hits = bench.run(fault)
                if hits == 0:
                    break
                struck += 1
                check_killed(bench, result, fault)
                if not LONG:
                    break
    if struck == 0:
        bench.failures += 1
        print("FAIL no write was seen: nothing was killed")
    seed = int(os.environ.get("AM_SEED", "1"))
    print(f"killed {struck} ranks at their writes; random times from AM_SEED={seed}", flush=True)
    chance = random.Random(seed)
    for _ in range(60 if LONG else 4):
        bench.reset()
        rank, delay = chance.randrange(RANKS), chance.uniform(0, bench.scenario.seconds)

        def strike(pids, rank=rank, delay=delay):
            """Wait for the first file: mpirun itself may hang when a rank dies inside MPI_Init."""
            end = time.monotonic() + 20
            while len(list(bench.folder.iterdir())) <= bench.n_inputs and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(delay)
            if rank in pids():
                os.kill(pids()[rank], signal.SIGKILL)

        result, _ = bench.run("call=pwrite,nth=1,rank=-1,do=delay:50,times=always", during=strike)
        if result.code != 0:
            check_killed(bench, result, f"rank {rank} killed {delay:.2f} s after the first file")
        else: # it was faster
            bench.check_done(result)
            bench.note(result, f"done before {delay:.2f} s")


def test_term(bench: Bench) -> None:
    stopped = 0
    for rank in range(RANKS):
        for call in ("pread", "pwrite"):
            bench.reset()
            fault = f"call={call},nth=1,rank={rank},do=term"
            result, hits = bench.run(fault)
            if hits > 0 and result.code == 0: # the request came after the last safe point
                bench.check_done(result)
            elif hits > 0:
                bench.check_failed(result, {75})
                stopped += not result.problems
                bench.check_again(fault)
            bench.note(result, fault)
    print(f"{stopped} runs stopped at a safe point")
    if stopped == 0:
        bench.failures += 1
        print("FAIL SIGTERM never stopped the job")


def test_full(bench: Bench) -> None:
    if os.getuid() != 0:
        rankrun.skip("needs root to mount a small tmpfs")
    needed = sum((bench.clean / n).stat().st_size for n in bench.outputs
                 if (bench.clean / n).is_file())
    inputs = sum((bench.clean / n).stat().st_size for n, d in bench.inputs.items()
                 if d != "folder")
    bench.folder.mkdir(exist_ok=True)
    for share in (0.02, 0.5, 0.95) if not LONG else [k / 20 for k in range(20)]:
        size = inputs + 65536 + int(share * needed)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(bench.folder)]
        if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode != 0:
            rankrun.skip("may not mount a tmpfs here")
        try:
            for name, digest in bench.inputs.items():
                if digest == "folder":
                    (bench.folder / name).mkdir(parents=True, exist_ok=True)
                else:
                    shutil.copy(bench.clean / name, bench.folder / name)
            result, _ = bench.run(None)
            bench.check_failed(result, {73, 74})
            if "no space for" not in result.err or not re.search(r"it needs \d+ bytes", result.err):
                result.problems.append("no word of the bytes that are needed")
            if any(n.endswith((".h5", ".safetensors")) for n in rankrun.snapshot(bench.folder)
                   if n not in bench.inputs):
                result.problems.append("something was written before the space was looked at")
            bench.note(result, f"room for {100 * share:.0f} % of the output")
        finally:
            subprocess.run(["umount", "-l", str(bench.folder)], check=True)


TESTS = {"calls": test_calls, "memory": test_memory, "kill": test_kill, "term": test_term,
         "full": test_full}


def main() -> int:
    if len(sys.argv) != 3 + LONG or sys.argv[1] not in SCENARIOS or sys.argv[2] not in TESTS:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="am_fault.") as top:
        bench = Bench(SCENARIOS[sys.argv[1]], Path(top))
        start = time.monotonic()
        TESTS[sys.argv[2]](bench)
        print(f"{bench.runs} runs in {time.monotonic() - start:.0f} s, {bench.failures} failures")
        return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
