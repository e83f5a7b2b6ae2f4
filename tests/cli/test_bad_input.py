#!/usr/bin/env python3
"""bad_input.py must find each kind of misbehaviour: stand-in programs that misbehave on purpose.
SPDX-License-Identifier: BSD-3-Clause
"""
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLE = """
[[case]]
name = "case"
setup = "echo input >input"
command = "merge"
exit = 65
message = 'input: damaged'
np = [{np}]
timeout = 20
"""
SAY = 'echo "allmerge: error: input: damaged" >&2'
STAY = "while :; do sleep 1; done"
RANK = "${OMPI_COMM_WORLD_RANK:-0}"
# As allmerge does: all ranks start before one ends, and SIGTERM does not end one at once.
MEET = """trap : TERM
touch "$AM_STATUS_FOLDER/up.${OMPI_COMM_WORLD_RANK:-0}"
until [ "$(ls "$AM_STATUS_FOLDER" | grep -c up)" -ge "${OMPI_COMM_WORLD_SIZE:-1}" ]; do sleep 0.02; done
"""
# name, ranks, body of the stand-in program, what the runner must say (None: all is well)
CASES = [
    ("well", 3, f"[ {RANK} != 0 ] || {SAY}; exit 65", None),
    ("well alone", 0, f"{SAY}; exit 65", None),
    ("wrong code", 0, f"{SAY}; exit 1", "exit code 1"),
    ("code 0", 3, f"[ {RANK} != 0 ] || {SAY}; exit 0", "exit code 0"),
    ("one rank differs", 3, f"[ {RANK} != 0 ] || {SAY}; [ {RANK} != 2 ] || exit 66; exit 65",
     "exit codes of the ranks"),
    ("one message a rank", 3, f"{SAY}; exit 65", "3 error lines"),
    ("no message", 0, "exit 65", "0 error lines"),
    ("other message", 0, "echo 'allmerge: error: no' >&2; exit 65", "0 lines on stderr match"),
    ("leaves a file", 0, f"{SAY}; touch out.partial; exit 65", "left behind: out.partial"),
    ("changes the input", 0, f"{SAY}; echo >>input; exit 65", "changed: input"),
    ("removes the input", 0, f"{SAY}; rm input; exit 65", "removed: input"),
    ("killed", 0, "kill -9 $$", "exit code 137"),
    ("one rank stays behind", 3, f"[ {RANK} != 1 ] || {STAY}; {SAY}; exit 65",
     "exit codes of the ranks"),
    ("hangs", 3, STAY, "hung"),
]


def main() -> int:
    failed = 0
    for name, ranks, body, expected in CASES:
        Path("case.toml").write_text(TABLE.format(np=ranks))
        program = Path("stand_in").absolute()
        program.write_text(f"#!/bin/sh\n{MEET}{body}\n")
        program.chmod(0o755)
        done = subprocess.run([sys.executable, HERE / "bad_input.py", "case.toml"],
                              env=dict(os.environ, AM_BIN=str(program)), text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        right = done.returncode == (0 if expected is None else 1)
        if not right or (expected is not None and expected not in done.stdout):
            failed += 1
            print(f"FAIL {name}: expected {expected!r}, got code {done.returncode}:\n{done.stdout}")
    print(f"{len(CASES) - failed} of {len(CASES)} recognised")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
