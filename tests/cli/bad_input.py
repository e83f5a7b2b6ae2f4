#!/usr/bin/env python3
"""Run a table of bad inputs: each must end with one message, one exit code on every rank, no output.

usage: bad_input.py TABLE.toml [CASE]...       (environment: AM_BIN, AM_MPIRUN)
The table's keys are described in tests/cli/README.md.
SPDX-License-Identifier: BSD-3-Clause
"""
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402

try:
    import tomllib
except ModuleNotFoundError:
    rankrun.skip("needs Python 3.11 (tomllib)")

KEYS = {"name", "setup", "command", "exit", "message", "absent", "leaves", "np", "timeout",
        "as_user", "env"}
NOBODY = 65534
AT_ONCE = 4  # a run is mostly the waiting of mpirun
# A message costs seconds of a sanitized mpirun, and every rank's part in it is seen without sanitizers.
RANKS = [0] if os.environ.get("ASAN_OPTIONS") else [0, 3]


def read_table(path: Path) -> tuple[str, list[dict]]:
    """The common set-up and the cases; a table that says nothing or something unknown is an error."""
    table = tomllib.loads(path.read_text())
    cases = table.get("case", [])
    if not cases:
        sys.exit(f"{path}: no [[case]]")
    names = [c.get("name") for c in cases]
    for case in cases:
        unknown = set(case) - KEYS
        missing = {"name", "command", "exit", "message"} - set(case)
        if unknown or missing:
            sys.exit(f"{path}: case {case.get('name')}: unknown {unknown}, missing {missing}")
        if names.count(case["name"]) > 1:
            sys.exit(f"{path}: two cases are named {case['name']}")
    if set(table) - {"case", "setup"}:
        sys.exit(f"{path}: unknown keys {set(table) - {'case', 'setup'}}")
    return table.get("setup", ""), cases


def prepare(folder: Path, script: str, functions: Path) -> None:
    """Run set-up lines of the shell in a folder, with the functions of earlier ones, which are kept."""
    env = dict(os.environ, AM_BIN=rankrun.binary(), AM_TESTS=str(HERE.parent))
    subprocess.run(["bash", "-c", f'set -eu\n. "{functions}"\n{script}\ndeclare -f >"{functions}"'],
                   cwd=folder, env=env, check=True, stdin=subprocess.DEVNULL)


def prepare_all(top: Path, script: str) -> None:
    """What the cases of a table have in common: the files of top/common, and functions beside them."""
    support, folder, functions = HERE.parent / "support", top / "common", top / "functions"
    folder.mkdir()
    functions.write_text(f'python3() {{ "{sys.executable}" "$@"; }}\n' + "".join(
        f'{name}() {{ "{sys.executable}" "{support}/make_{name}.py" "$@"; }}\n' for name in ("ckpt", "tasks")))
    prepare(folder, script, functions)


def run_case(common: Path, case: dict, ranks: int) -> rankrun.Result:
    top = Path(tempfile.mkdtemp(prefix="am_bad."))
    folder = top / "case"
    program, user = rankrun.binary(), None
    try:
        shutil.copytree(common / "common", folder, symlinks=True)
        if "setup" in case:
            prepare(folder, case["setup"], Path(shutil.copy(common / "functions", top)))
        if case.get("as_user") and os.getuid() == 0:
            # Root passes every permission check: run as nobody, from a copy that nobody can read.
            user = NOBODY
            program = str(shutil.copy(program, top / "allmerge"))
            top.chmod(0o755)
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        before = rankrun.snapshot(folder)
        result = rankrun.run(case["command"].split(), ranks, folder, program=program, user=user,
                             timeout=case.get("timeout", 60), env=case.get("env"))
        result.expect_code(case["exit"])
        result.expect_message(case["message"])
        for name in case.get("absent", []):
            if (folder / name).exists():
                result.problems.append(f"must not exist: {name}")
        allowed = case.get("leaves", [])
        for line in rankrun.changes(before, rankrun.snapshot(folder)):
            kind, _, name = line.partition(": ")
            if kind != "left behind" or not any(re.fullmatch(p, name) for p in allowed):
                result.problems.append(line)
        return result
    finally:
        for path in [folder, *folder.rglob("*")]: # a read-only folder of the case
            if path.is_dir() and not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IRWXU)
        shutil.rmtree(top)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    common, cases = read_table(Path(sys.argv[1]))
    wanted = sys.argv[2:]
    if set(wanted) - {c["name"] for c in cases}:
        sys.exit(f"no such case: {set(wanted) - {c['name'] for c in cases}}")
    runs = [(case, ranks) for case in cases if not wanted or case["name"] in wanted
            for ranks in case.get("np", RANKS)]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="am_bad.") as top, ThreadPoolExecutor(AT_ONCE) as pool:
        prepare_all(Path(top), common)
        results = pool.map(lambda run: run_case(Path(top), *run), runs)
        for (case, ranks), result in zip(runs, results):
            failed += bool(result.problems)
            word = "FAIL" if result.problems else "ok"
            print(f"{word:4} np {ranks}  {result.seconds:5.1f} s  {case['name']}", flush=True)
            if result.problems:
                print(result.report(), flush=True)
    print(f"{len(runs) - failed} of {len(runs)} runs as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
