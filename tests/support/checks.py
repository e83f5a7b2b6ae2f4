"""Checks of a test that goes on after one has failed.                  SPDX-License-Identifier: BSD-3-Clause"""
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
