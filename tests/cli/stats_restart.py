#!/usr/bin/env python3
"""stats goes on where it was stopped, killed or damaged, on other ranks, to the same bytes, and leaves nothing;
another job on its output is refused; a finished one does nothing; its memory does not grow with samples and
keeps to --memory.                                             usage: stats_restart.py restart|fresh|memory
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import make_tasks  # noqa: E402
import rankrun  # noqa: E402
from proc import tell  # noqa: E402
from checks import check, finish  # noqa: E402

RECIPE = """seed: 5
model: {widths: [200, 150]}
data: {folder: tasks, tasks: [a, b]}
heads: {random: yes}
joint: {epochs: 1}
"""
STATS = "stats r.yml --model run/trunk.h5 --heads run/heads.h5 --fisher exact --batch 32 --micro-batches 6 --save-every 0"


def run(command: str, ranks: int, folder: Path, *codes: int, during=None) -> rankrun.Result:
    result = rankrun.run(command.split(), ranks, folder, during=during)
    result.expect_code(*(codes or (0,)))
    check(not result.problems, f"{command} on {ranks} ranks", result)
    return result


def number(path: Path) -> int:
    """When a saved state appeared, 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def after_saves(folder: Path, sign: int, more: int):
    """Strike all ranks once both states have appeared anew so often."""
    def during(ranks) -> None:
        states = [folder / f"out.h5.sums-{c}.h5" for c in "ab"]
        seen, changes, end = [number(s) for s in states], 0, time.monotonic() + 40
        while changes < more and time.monotonic() < end:
            now = [number(s) for s in states]
            changes += now != seen
            seen = now
            time.sleep(0.001)
        for pid in ranks().values():
            tell(pid, sign)
    return during


def check_restart(folder: Path) -> None:
    out = folder / "out.h5"
    run(f"{STATS} -o whole.h5 --save-every -1", 2, folder)
    wanted = (folder / "whole.h5").read_bytes()
    any_code = range(-9, 256)
    stopped = run(f"{STATS} -o out.h5", 2, folder, 75, during=after_saves(folder, signal.SIGTERM, 3))
    left = {p.name for p in folder.glob("out.h5*")}
    check(left == {"out.h5.sums.json"} | {f"out.h5.sums-{c}.h5{m}" for c in "ab" for m in ("", ".manifest.json")},
          f"after the stop: {left}", stopped)
    killed = run(f"{STATS} -o out.h5", 3, folder, *any_code, during=after_saves(folder, signal.SIGKILL, 4))
    check("going on after" in killed.err, "the second attempt goes on", killed)
    check(not out.exists(), "the second attempt was killed in time", killed)
    newest = max((folder / f"out.h5.sums-{c}.h5" for c in "ab"), key=number)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    last = run(f"{STATS} -o out.h5", 1, folder)
    check("going on after" in last.err and newest.name not in last.err.split("going on after")[1],
          "a damaged state falls back to the one before", last)
    check(out.read_bytes() == wanted, "after a stop, a kill and damage: the same bytes")
    left = {p.name for p in folder.glob("out.h5*")}
    check(left == {"out.h5", "out.h5.manifest.json"}, f"at the end: {left}")
    again = run(f"{STATS} -o out.h5", 2, folder)
    check(json.loads(again.out)["was_finished"] and "nothing to do" in again.err, "a finished job says so", again)


def check_fresh(folder: Path) -> None:
    """--fresh: neither another job's state nor its own is used."""
    run(f"{STATS} -o out.h5", 2, folder, 75, during=after_saves(folder, signal.SIGTERM, 2))
    refused = run(f"{STATS} --samples 7 -o out.h5", 2, folder, 73)
    check("--samples 7" in refused.err, "another job is told in what it differs", refused)
    fresh = run(f"{STATS} -o out.h5 --fresh --samples 40", 2, folder)
    check("going on" not in fresh.err, "--fresh starts over", fresh)
    run(f"{STATS} -o forty.h5 --samples 40", 1, folder)
    check((folder / "out.h5").read_bytes() == (folder / "forty.h5").read_bytes(), "--fresh: the bytes of the new job")
    check({p.name for p in folder.glob("out.h5*")} == {"out.h5", "out.h5.manifest.json"}, "--fresh leaves nothing")


def check_memory(folder: Path) -> None:
    """31 MB of samples, of which a few are in memory."""
    (folder / "tasks").mkdir()
    rng = np.random.default_rng(1)
    with h5py.File(folder / "tasks" / "big.h5", "w") as file:
        for split, n in ("train", 40000), ("validation", 9), ("test", 9):
            file[f"{split}/x"] = rng.integers(0, 256, (n, 784)).astype("u1")
            file[f"{split}/y"] = rng.integers(0, 3, n).astype("i4")
    (folder / "r.yml").write_text(RECIPE.replace("a, b", "big").replace("[200, 150]", "[20]"))
    run("train r.yml -o run --set data.limit.train=64", 1, folder)
    quick = "stats r.yml --model run/trunk.h5 --fisher none"
    whole = json.loads(run(f"{quick} -o whole.h5", 1, folder).out)["peak_bytes"]
    few = json.loads(run(f"{quick} --samples 512 -o few.h5", 1, folder).out)["peak_bytes"]
    check(29e6 < whole - few < 33e6, f"peak of all samples {whole}, of a batch {few}: they differ by the set")
    refused = run(f"{quick} --memory 1M -o paged.h5", 1, folder, 2)
    least = next(w for w in refused.err.split() if w.endswith("MiB") and w[:-3].isdigit())
    paged = json.loads(run(f"{quick} --memory {least} -o paged.h5", 1, folder).out)["peak_bytes"]
    check(paged <= int(least[:-3]) << 20 and paged < whole - 20e6, f"--memory {least}: peak {paged}, whole {whole}")
    check((folder / "paged.h5").read_bytes() == (folder / "whole.h5").read_bytes(), "pages: the same bytes")
    run("plan r.yml --job stats --ranks 2 --json", 0, folder)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="am_stats."))
    part = sys.argv[1]
    if part == "memory":
        check_memory(folder)
    else:
        (folder / "tasks").mkdir()
        for task, classes, n in (("a", 6, 700), ("b", 5, 500)):
            make_tasks.write_task(folder / "tasks" / f"{task}.h5", task, classes, n)
        (folder / "r.yml").write_text(RECIPE)
        run("train r.yml -o run", 2, folder)
        check_fresh(folder) if part == "fresh" else check_restart(folder)
    finish(folder, "ok")


if __name__ == "__main__":
    main()
