"""The processes of this machine, by /proc.                          SPDX-License-Identifier: BSD-3-Clause"""
import os
from pathlib import Path


def words(pid: int, what: str) -> list:
    """/proc/PID/environ or cmdline; a process that has ended has an empty one."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]


def processes():
    """(pid, name, parent) of every process."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
            except OSError:
                continue
            name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:]
            yield int(entry), name, int(rest.split()[1])


def is_stopped(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text[text.rindex(")") + 2:].startswith("T")


def descendants(pid: int) -> list:
    below, children = [], [p for p, _, parent in processes() if parent == pid]
    for child in children:
        below += [*descendants(child), child]
    return below


def tell(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass # it has ended by itself
