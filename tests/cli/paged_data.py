#!/usr/bin/env python3
"""Data sets that do not fit: train, iterate and eval with --memory give the bytes of a run that has the sets
whole, on 1, 2 and 3 ranks, after stops with other budgets, and stay within the budget that `plan` refuses,
obeys and predicts. A file that changes meanwhile is one clear error.
usage: paged_data.py
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import rankrun  # noqa: E402

MIB = 1 << 20
RECIPE = """
seed: 4
model: {preset: mlp, widths: [48], dropout: 0.1}
data: {folder: sets, tasks: [a, b, c], limit: {train: 30000}}
base: {pretrain: p, epochs: 1}
heads: {epochs: 1}
finetune: {optimizer: adamw, lr: 0.001, batch: 128, micro_batches: 3, epochs: 1, augment_shift: 1}
one_shot: {epochs: [1], alphas: [0.5]}
iterate: {rounds: 2, alphas: [0.5]}
joint: {epochs: 1}
"""
BUDGET = 48 * MIB  # for sets of 25, 7 and 1 MiB, and one of 16 to begin with
failures = 0


def check(held: bool, what: str, result: rankrun.Result | None = None) -> None:
    global failures
    if not held:
        failures += 1
        print(f"FAILED: {what}\n{result.err if result else ''}", flush=True)


def run(command: str, ranks: int, folder: Path, code: int = 0, **more) -> rankrun.Result:
    result = rankrun.run(command.split(), ranks, folder, timeout=240, **more)
    result.expect_code(code)
    check(not result.problems, f"{command} on {ranks}: {result.problems}", result)
    return result


def write_sets(folder: Path) -> None:
    """Bytes one after the other, packed chunks of floats that divide samples, a small set."""
    rng = np.random.default_rng(6)
    folder.mkdir()
    mean = rng.normal(size=(10, 784))
    for name, n, kind in ("a", 30000, "u1"), ("b", 2000, "f4"), ("c", 1000, "u1"), ("p", 20000, "u1"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.attrs["classes"] = json.dumps([str(i) for i in range(10)])
            for split, m in (("train", n), ("validation", n // 20), ("test", n // 20)):
                y = rng.integers(0, 10, m)
                x = (mean[y] + 2 * rng.normal(size=(m, 784)) + 8).astype("f4").reshape(m, 28, 28)
                x = np.clip(x * 16, 0, 255).astype(kind)
                how = dict(chunks=(8, 14, 28), compression=1, shuffle=True) if kind == "f4" else {}
                file.create_dataset(f"{split}/x", data=x / 256 if kind == "f4" else x, dtype=kind, **how)
                file.create_dataset(f"{split}/y", data=y.astype("i4"))


def peak(folder: Path) -> int:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return next(e["peak_bytes"] for e in events if e["event"] == "memory")


def models(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name not in ("events.jsonl", "run.json") and not {"work", "state"} & set(p.relative_to(folder).parts)}


def same(a: Path, b: Path) -> None:
    x, y = models(a), models(b)
    check(x.keys() == y.keys() and len(x) > 4, f"{a.name}, {b.name}: the same files: {sorted(x.keys() ^ y.keys())}")
    for name in x.keys() & y.keys():
        check(x[name] == y[name], f"{a.name}, {b.name}: {name} is the same")


def compare(folder: Path, job: str, ranks: list[int]) -> None:
    run(f"{job} r.yml -o {job}-whole", 1, folder)
    whole = peak(folder / f"{job}-whole")
    check(whole > 1.2 * BUDGET, f"{job}: whole sets are larger than the budget: {whole / MIB:.1f} MiB")
    for n in ranks:
        out = folder / f"{job}-{n}"
        result = run(f"{job} r.yml -o {out.name} --memory {BUDGET}", n, folder)
        check("a: " in result.err and "read in pages" in result.err, f"{job}: says so", result)
        same(folder / f"{job}-whole", out)
        told = run(f"plan r.yml --job {job} --ranks {n} --memory {BUDGET} --json", 1, folder)
        plan = json.loads(told.out)
        print(f"{job} on {n}: {peak(out) / MIB:.1f} MiB, {peak(out) / plan['peak_bytes']:.3f} of the plan's, whole "
              f"{whole / MIB:.1f}", flush=True)
        check(plan["peak_bytes"] <= BUDGET, f"{job}: the plan keeps the budget: {plan}")
        check(peak(out) <= plan["peak_bytes"],
              f"{job}: a peak of {peak(out) / MIB:.1f} MiB, planned {plan['peak_bytes'] / MIB:.1f}")


def evaluate(folder: Path) -> None:
    command = "eval r.yml --model train-whole/trunk.h5 --heads train-whole/heads.h5 --split train"
    whole = run(command, 1, folder)
    for n in (1, 2, 3):
        check(run(f"{command} --memory {BUDGET}", n, folder).out == whole.out, f"eval on {n}: the same scores")


def soon(out: Path, do) -> object:
    """Do something to the ranks once this attempt trains."""
    def size_of_log() -> int:
        log = out / "events.jsonl"
        return log.stat().st_size if log.exists() else 0

    before = size_of_log()

    def during(pids) -> None:
        end, ran = time.monotonic() + 60, False
        while time.monotonic() < end and not (ran and not pids()):
            if (out / "state").exists() and size_of_log() > before:
                break
            ran = ran or bool(pids())
            time.sleep(0.05)
        time.sleep(0.3)
        do(list(pids().values()))
    return during


def stops(folder: Path) -> None:
    command = "train r.yml --task a -o OUT --set finetune.epochs=20"
    run(command.replace("OUT", "whole"), 1, folder)
    for n, memory in ((2, BUDGET), (1, 0), (3, BUDGET + 3 * MIB)):
        result = rankrun.run(command.replace("OUT", "stopped").split() + ["--memory", str(memory)], n, folder,
                             timeout=240, **rankrun.stopped_at(folder / "stopped", 8))
        check(result.code == 75, f"stopped: {result.code}", result)
    run(command.replace("OUT", "stopped") + f" --memory {BUDGET}", 2, folder)
    same(folder / "whole", folder / "stopped")


def changes(folder: Path) -> None:
    """One byte of the file is written while it is in use; the file is cut."""
    data = folder / "sets/a.h5"
    kept, times = data.read_bytes(), data.stat()

    def write(_) -> None:
        with data.open("r+b") as file:
            file.seek(len(kept) // 2)
            file.write(b"!")

    for what, harm in (("written", write), ("cut", lambda _: os.truncate(data, len(kept) // 2))):
        result = run(f"train r.yml --task a -o {what} --set finetune.epochs=200 --memory {BUDGET}", 2, folder, 65,
                     during=soon(folder / what, harm))
        result.expect_message(r"sets/a\.h5 has changed while it was in use: leave data sets alone")
        check(not result.problems, f"{what}: {result.problems}", result)
        data.write_bytes(kept)
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))  # job.json has it
    result = run("train r.yml -o small --memory 20MiB", 2, folder, 2)
    result.expect_message(r"--memory 20.00 MiB is too little: .* the smallest that does is \d+MiB")
    check(not result.problems, f"{result.problems}", result)
    enough = result.err.split("that does is ")[1].split("MiB")[0]
    run(f"train r.yml -o small --memory {enough}MiB", 2, folder)
    same(folder / "train-whole", folder / "small")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="am_paged."))
    write_sets(folder / "sets")
    (folder / "r.yml").write_text(RECIPE)
    compare(folder, "train", [1, 2, 3])
    compare(folder, "iterate", [2])
    evaluate(folder)
    stops(folder)
    changes(folder)
    shutil.rmtree(folder)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
