#!/usr/bin/env python3
"""Faults that are neither a failing call nor the kill of a rank: the launcher is killed, another job
finishes the output, a file may not grow, the folder of the output vanishes, a name in /dev/shm is taken,
/dev/shm is full, the clock jumps. After each the job ends in time with one message and nothing half-written, and the same
command then gives the right bytes.
usage: test_other.py [TIMES [SEED]]                    TIMES: how often the launcher is killed (default 2)
Environment: AM_BIN, AM_MPIRUN, AM_PROGRAMS (libam_shim.so), AM_FAULT_TIMEOUT. SPDX-License-Identifier: BSD-3-Clause
"""
import os
import random
import shlex
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
from scenarios import merge_inputs  # noqa: E402

SECONDS = int(os.environ.get("AM_FAULT_TIMEOUT", "120"))
RECIPE = ["merge", "recipe.yml", "-o"]
SLOWLY = "call=pwrite,rank=-1,do=delay:60,times=always"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Bench:
    def __init__(self, top: Path):
        self.clean, self.work, self.problems = top / "clean", top / "work", 0
        self.environment: dict[str, str] = {}  # of all runs
        self.clean.mkdir()
        merge_inputs(self.clean)
        self.reset()
        result = self.run("out.h5")
        if result.code != 0:
            sys.exit("the clean run fails\n" + result.report())
        self.right = (self.work / "out.h5").read_bytes()

    def reset(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.clean, self.work, copy_function=os.link)

    def run(self, out: str, *, shim: str = "", during=None, limit: int = 0) -> rankrun.Result:
        env = {"AM_STALL_SECONDS": str(SECONDS // 2), **self.environment}
        if shim:
            env["AM_SHIM"] = f"{shim},path={self.work}"
        preload = os.path.join(os.environ["AM_PROGRAMS"], "libam_shim.so") if shim else None
        arguments, program = [*RECIPE, out, "--save-every", "0"], None
        ranks = 2
        if limit:  # alone, without files of Open MPI's in shared memory: the limit would hit those first
            ranks = 0
            env.update(OMPI_MCA_pml="ob1", OMPI_MCA_btl="self", PMIX_MCA_gds="hash")
            arguments, program = [f"--fsize={limit}", rankrun.binary(), *arguments], shutil.which("prlimit")
        return rankrun.run(arguments, ranks, self.work, env=env, preload=preload, program=program,
                           timeout=SECONDS, during=during)

    def until(self, name: str) -> None:
        end = time.monotonic() + SECONDS / 2
        while not (self.work / name).exists() and time.monotonic() < end:
            time.sleep(0.01)

    def note(self, what: str, result: rankrun.Result) -> None:
        if result.hung:
            result.problems.append("hung")
        if result.problems:
            self.problems += 1
        print(("FAIL " if result.problems else "ok   ") + what
              + ("\n" + result.report() if result.problems else ""), flush=True)

    def failed(self, what: str, result: rankrun.Result, *codes: int) -> None:
        result.expect_code(*codes)
        result.expect_message()
        self.note(what, result)

    def done(self, what: str, result: rankrun.Result, out: str = "out.h5") -> None:
        result.expect_code(0)
        path = self.work / out
        if not path.exists() or path.read_bytes() != self.right:
            result.problems.append("not the right bytes")
        left = [n for n in rankrun.snapshot(self.work) if "partial" in n or "journal" in n or "lock" in n]
        result.problems += [f"left behind: {n}" for n in left]
        self.note(what, result)


def launcher(b: Bench, times: int, chance: random.Random) -> None:
    """SIGKILL of mpirun: its ranks live on for a while, and hold the output against the next job. All runs
    have one folder for Open MPI's sessions and one for its shared memory: what the dead leave there stays."""
    places = {"orte_tmpdir_base": b.work.parent / "sessions", "btl_vader_backing_directory": b.work.parent / "memory"}
    for key, folder in places.items():
        folder.mkdir()
        b.environment[f"OMPI_MCA_{key}"] = str(folder)
    for pause in [0.0, 1.5, *(chance.uniform(0, 1.5) for _ in range(times))][:times]:
        b.reset()

        def strike(ranks) -> None:
            b.until("out.h5.partial")
            time.sleep(chance.uniform(0, 0.3))
            pids = ranks()
            if pids:
                os.kill(parent(parent(pids[min(pids)])), signal.SIGKILL)

        result = b.run("out.h5", shim=SLOWLY, during=strike)
        if result.code != -signal.SIGKILL:
            result.problems.append(f"the launcher was not killed: {result.code}")
        b.note("the launcher is killed", result)
        time.sleep(pause)
        end = time.monotonic() + SECONDS / 2
        again = b.run("out.h5")
        while again.code == 73 and "is being written by" in again.err and time.monotonic() < end:
            again = b.run("out.h5")
        b.done(f"started again after {pause:.1f} s", again)
    left = [len([p for p in folder.rglob("*") if not p.is_dir()]) for folder in places.values()]
    print(f"{times} launchers killed: {left[0]} files left in sessions, {left[1]} segments of shared memory", flush=True)
    b.environment.clear()


def waiting(b: Bench) -> None:
    """A job waits for the lock while another one finishes the same output: nothing is left to do."""
    b.reset()
    second = []

    def strike(_ranks) -> None:
        b.until("out.h5.manifest.json")  # only the rename of the output is left, in a while
        second.append(b.run("out.h5"))

    first = b.run("out.h5", shim="call=rename,rank=-1,do=delay:1500,times=always", during=strike)
    first.expect_code(0)
    b.note("another job waits for the lock", first)
    if '"was_finished":true' not in second[0].out:
        second[0].problems.append("it was not told that the output is finished")
    b.done("and finds the output finished", second[0])


def sizes(b: Bench) -> None:
    """A limit to the size of a file: SIGXFSZ, then EFBIG."""
    for share in (0.01, 0.5, 0.99):
        b.reset()
        b.failed(f"files may grow to {100 * share:.0f} % of the output",
                 b.run("out.h5", limit=int(share * len(b.right))), 73, 74)
        b.done("and without the limit", b.run("out.h5"))


def errors(b: Bench) -> None:
    for call, error in (("fallocate", "EDQUOT"), ("pwrite", "EDQUOT"), ("pread", "ESTALE"),
                        ("fsync", "ESTALE"), ("rename", "ESTALE")):
        b.reset()
        b.failed(f"{error} of {call}", b.run("out.h5", shim=f"call={call},nth=1,rank=-1,do={error}"), 73, 74)
        b.done("and once it is over", b.run("out.h5"))


def vanishing(b: Bench) -> None:
    b.reset()
    (b.work / "sub").mkdir()

    def strike(_ranks) -> None:
        b.until("sub/out.h5.partial")
        time.sleep(0.1)
        os.rename(b.work / "sub", b.work / "elsewhere")

    b.failed("the folder of the output vanishes", b.run("sub/out.h5", shim=SLOWLY, during=strike), 73, 74)
    (b.work / "elsewhere").rename(b.work / "sub")
    b.done("and comes back", b.run("sub/out.h5"), "sub/out.h5")


def shared_memory(b: Bench) -> None:
    """Open MPI's file layer waits for ever on a semaphore of this name that is 0: it must not matter."""
    path = Path("/dev/shm/sem.OMPIO_out.h5")
    if path.exists():
        return
    b.reset()
    path.write_bytes(bytes(32))
    try:
        b.done("a semaphore with the name of the output is taken", b.run("out.h5"))
    finally:
        path.unlink()


def full_shared_memory(b: Bench) -> None:
    """No room in /dev/shm for the segments of Open MPI: it says so and goes without. mpirun and its ranks
    have a /dev/shm of their own, in a mount namespace."""
    mount = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    # What Open MPI says of it may be lost on the way to mpirun, so the room is tried here.
    full = "head -c 8192 /dev/zero >/dev/shm/probe 2>/dev/null && exit 99; rm /dev/shm/probe"
    apart = ["unshare", "-m", "sh", "-c", f'{mount} || exit; {full}; exec "$@"', "sh"]
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        print("may not mount a tmpfs here")
        return
    b.reset()
    before = os.environ.get("AM_MPIRUN")
    os.environ["AM_MPIRUN"] = shlex.join([*apart, *rankrun.mpirun()])
    try:
        result = b.run("out.h5")
    finally:
        os.environ.pop("AM_MPIRUN")
        if before is not None:
            os.environ["AM_MPIRUN"] = before
    b.done("/dev/shm is full", result)


def clock(b: Bench) -> None:
    b.reset()
    b.done("the clock jumps by years, back and forth", b.run("out.h5", shim="call=clock,rank=-1,do=delay:0"))


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="am_other.") as top:
        b = Bench(Path(top))
        launcher(b, times, random.Random(seed))
        for test in (waiting, sizes, errors, vanishing, shared_memory, full_shared_memory, clock):
            test(b)
    print(f"{b.problems} failures")
    return 1 if b.problems else 0


if __name__ == "__main__":
    sys.exit(main())
