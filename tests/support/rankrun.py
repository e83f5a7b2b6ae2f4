"""Run allmerge on R ranks under a time limit and see every rank's own exit status.

mpirun reports one status for the whole job; the promise is that all ranks agree on it, so each rank
runs below `rank_status`, which writes down what its rank returned.
SPDX-License-Identifier: BSD-3-Clause
"""
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIP = 77


def binary() -> str:
    """Path of the program under test: $AM_BIN, or build/allmerge of this tree."""
    return os.environ.get("AM_BIN") or str(HERE.parent.parent / "build" / "allmerge")


def mpirun() -> list[str]:
    """The mpirun command without a rank count: $AM_MPIRUN, or what suits any machine."""
    default = "mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1"
    return shlex.split(os.environ.get("AM_MPIRUN") or default)


def skip(why: str) -> None:
    print(f"skipped: {why}")
    sys.exit(SKIP)


@dataclass
class Result:
    code: int  # of mpirun, or of the program when it runs alone; -signal when killed
    ranks: list[int | None]  # each rank's own status; None: the rank was killed before it returned
    out: str
    err: str
    seconds: float
    hung: bool
    command: str = ""
    problems: list[str] = field(default_factory=list)

    def expect_code(self, *codes: int) -> None:
        """No hang; every rank returned the same one of `codes`, and so did mpirun."""
        if self.hung:
            self.problems.append(f"hung: ended by the time limit after {self.seconds:.0f} s")
            return
        if self.code not in codes:
            self.problems.append(f"exit code {self.code}, expected {' or '.join(map(str, codes))}")
        if set(self.ranks) != {self.code}:
            self.problems.append(f"exit codes of the ranks {self.ranks}, of the job {self.code}")

    def error_lines(self) -> list[str]:
        """The lines with which allmerge says why it failed."""
        return [line for line in self.err.splitlines() if re.match(ERROR_LINE, line)]

    def expect_message(self, pattern: str | None = None) -> None:
        """Exactly one line that says why, for all ranks together; one line matches `pattern`."""
        lines = self.error_lines()
        if len(lines) != 1:
            self.problems.append(f"{len(lines)} error lines on stderr, expected one")
        if pattern is not None:
            count = sum(1 for line in self.err.splitlines() if re.search(pattern, line))
            if count != 1:
                self.problems.append(f"{count} lines on stderr match {pattern!r}, expected one")

    def report(self) -> str:
        tail = "\n".join("      | " + line for line in self.err.splitlines()[-15:])
        return "\n".join([f"    $ {self.command}"] + [f"    {p}" for p in self.problems] + [tail])


ERROR_LINE = r"allmerge: (error|stopped|bug): "


def run(arguments: list[str], ranks: int, cwd: str | Path, *, timeout: float = 60.0,
        env: dict[str, str] | None = None, preload: str | None = None, program: str | None = None,
        user: int | None = None, during=None) -> Result:
    """Run the program on `ranks` ranks (0: alone, without mpirun) in the folder `cwd`.

    preload   shared library for the ranks only (tests/fault/shim.c)
    user      user id to run as (the test itself must be root)
    during    called right after the start with a function that lists the process ids of the ranks
              that run (by rank)
    """
    status = Path(tempfile.mkdtemp(prefix="am_status."))
    status.chmod(0o777)
    full_env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                    OPENBLAS_NUM_THREADS="1", AM_STATUS_FOLDER=str(status), **(env or {}))
    # Open MPI 4.1 keeps its sessions in one folder a user and host, which the last one to end removes:
    # beside one that starts, mkdir and rmdir collide ("orte_session_dir failed").
    full_env.setdefault("OMPI_MCA_orte_tmpdir_base", str(status))
    full_env["AM_PRELOAD"] = preload or ""
    below = HERE / "rank_status"
    if user: # who may not be able to look into the source tree
        below = Path(shutil.copy(below, status))
    command = [str(below), program or binary(), *arguments]
    if ranks > 0:
        # mpirun ends the others about 2 s after the first rank that returns an error: enough for
        # ranks that end together, and a rank that would stay behind has no status of its own.
        command = [*mpirun(), "-n", str(ranks), *command]
    start = time.monotonic()
    hung = False
    process = subprocess.Popen(command, cwd=cwd, env=full_env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               errors="replace", start_new_session=True,
                               **({"user": user, "group": user, "extra_groups": []} if user else {}))
    try:
        if during is not None:
            during(lambda: rank_pids(status))
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        hung = True
        out, err = end(process)
    codes: list[int | None] = []
    for rank in range(max(ranks, 1)):
        path = status / str(rank)
        text = path.read_text().strip() if path.exists() else ""
        codes.append(int(text) if text else None)
    shutil.rmtree(status, ignore_errors=True)
    shown = " ".join(shlex.quote(a) for a in ["allmerge", *arguments])
    return Result(code=process.returncode, ranks=codes, out=out, err=err,
                  seconds=time.monotonic() - start, hung=hung,
                  command=(f"mpirun -n {ranks} " if ranks else "") + shown
                  + (f"   ({env['AM_SHIM']})" if env and "AM_SHIM" in env else ""))


def stopped_at(folder: Path, writes: int) -> dict:
    """For run(): SIGTERM to rank 0 when it has written to files of the folder so many times, which for a
    run of training are mostly lines of events.jsonl: wherever time stands. Needs tests/fault/shim.c."""
    return {"env": {"AM_SHIM": f"call=write,nth={writes},rank=0,do=term,path={folder}"},
            "preload": os.path.join(os.environ["AM_PROGRAMS"], "libam_shim.so")}


def rank_pids(status: Path) -> dict[int, int]:
    """Process id of the program on each rank that has started: the child of its `rank_status`."""
    pids = {}
    for path in status.glob("shell.*"):
        text = path.read_text().strip()
        try:
            children = Path(f"/proc/{text}/task/{text}/children").read_text().split()
        except OSError:
            continue
        if children:
            pids[int(path.suffix[1:])] = int(children[0])
    return pids


def end(process: subprocess.Popen) -> tuple[str, str]:
    """End a job that hangs: mpirun first, which ends its ranks; then whatever is left of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            return process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    return "", ""


def snapshot(folder: str | Path) -> dict[str, str]:
    """Every file below `folder` with a digest of its bytes; folders and links with their kind."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "link " + os.readlink(path)
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs between two snapshots, as sentences."""
    left = [f"left behind: {name}" for name in after if name not in before]
    gone = [f"removed: {name}" for name in before if name not in after]
    return left + gone + [f"changed: {n}" for n in before if n in after and before[n] != after[n]]
