"""Checks of a test that goes on after one has failed.                  SPDX-License-Identifier: BSD-3-Clause"""
import shutil
import sys
from pathlib import Path

_failed = 0


def check(holds: bool, what: str, result=None) -> None:
    """Count and print what does not hold; result: a rankrun.Result whose report tells more."""
    global _failed
    if not holds:
        _failed += 1
        print(f"FAILED: {what}")
        if result is not None:
            print(result.report())


def failures() -> int:
    return _failed


def finish(folder: Path, done: str = "") -> None:
    """End the program: 1 if a check has failed, and what it worked on stays."""
    if _failed:
        print(f"{_failed} failures; see {folder}")
    else:
        shutil.rmtree(folder)
        if done:
            print(done)
    sys.exit(_failed > 0)
