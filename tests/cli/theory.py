#!/usr/bin/env python3
"""theory measures slopes 2 and 3 and bounds that hold, gives the same bytes for any number of ranks, and
goes on where it was stopped, killed or damaged.                       usage: theory.py [RANKS]...
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import math
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
from proc import tell  # noqa: E402
from checks import check, finish  # noqa: E402

LONG = "--set theory.eta.n=16 --set theory.k=[1,2,6] --set theory.eigen=largest_eta --set theory.spectrum=9 --set theory.optimizers=[adamw]".split()
ALL = "--set theory.spectrum=4 --set theory.optimizers=[gd,sgd,momentum,adamw] --set theory.batches=3".split()
SWEEP = 2 * 16
UNITS = SWEEP + 2 * 3


def run(arguments: list[str], ranks: int, folder: Path, *codes: int, during=None) -> rankrun.Result:
    result = rankrun.run(["theory", "theory.yml", *arguments], ranks, folder, timeout=120, during=during)
    result.expect_code(*(codes or (0,)))
    check(not result.problems, f"theory {' '.join(arguments)} on {ranks} ranks", result)
    return result


def files(folder: Path) -> dict[str, str]:
    return {f: v for f, v in rankrun.snapshot(folder).items() if f != "events.jsonl"}


def check_numbers(result: dict) -> None:
    rows, slopes = result["rows"], result["slopes"]
    check(len(rows) == 2 * 2 * 4 * 4 and len(slopes) == 2 * 2 * 4, "a row for each setting")
    for s in slopes:
        where = f"T {s['tasks']}, alpha {s['alpha']}, k {s['k']}"
        if s["k"] == 1:
            check(s["gap"]["slope"] is None, f"{where}: no slope without a gap")
            continue
        check(abs(s["gap"]["slope"] - 2) < 0.02, f"{where}: slope of the gap {s['gap']}")
        check(abs(s["residual"]["slope"] - 3) < 0.05, f"{where}: slope of the residual {s['residual']}")
        check(s["gap"]["low"] <= s["gap"]["slope"] <= s["gap"]["high"], f"{where}: interval {s['gap']}")
    for r in rows:
        where = f"T {r['tasks']}, alpha {r['alpha']}, k {r['k']}, eta {r['eta']}"
        if r["k"] == 1:
            check(r["ulps"] <= 8 and r["gap"] <= r["rounding"] and r["c"] == 0, f"{where}: {r}")
            continue
        check(r["residual"] < r["gap"] / 20, f"{where}: the second-order term is most of the gap: {r}")
        check(0 < r["c"] <= r["bound_derived"] <= r["network_bound_derived"], f"{where}: bounds: {r}")
        check(r["bound_printed"] < r["bound_derived"] or r["k"] < 3, f"{where}: printed: {r}")
        check(r["gradient"] <= r["network_gradient"] and r["hessian"] <= r["network_hessian"],
              f"{where}: constants: {r}")
    check(result["bounds"]["measured"] == 2 * 2 * 4 * 3, f"bounds everywhere: {result['bounds']}")
    check(0 < result["bounds"]["most_of_derived"] <= 1, f"share of the bound: {result['bounds']}")
    check([b["k"] for b in result["bounds_by_k"]] == [2, 3, 5], f"bounds by k: {result['bounds_by_k']}")
    for b in result["bounds_by_k"]:
        shares = [[r["c"] / r[f"{network}bound_{form}"] for r in rows if r["k"] == b["k"]]
                  for network in ("", "network_") for form in ("derived", "printed")]
        for name, share in zip(("derived", "printed", "network_derived", "network_printed"), shares):
            check(b[name] == {"least": min(share), "most": max(share), "rows": 16, "broken": sum(s > 1 for s in share)},
                  f"k {b['k']}, {name}: {b[name]}, {share}")
    epochs = [e for e in result["epochs"] if e["task"] == "b" and e["eta"] == 1e-3]
    check(len(epochs) == 5, "epochs of task b")
    check(abs(sum(e["share"] for e in epochs) - 1) < 1e-12, "shares of all epochs are one")
    check(abs(epochs[0]["cosine_first_gradient"] - 1) < 1e-15, "the first gradient is itself")
    check(epochs[-1]["loss_nats"] < epochs[0]["loss_nats"], "descent descends")


def check_optimizers(result: dict) -> None:
    rows, slopes = result["optimizers"], result["optimizer_slopes"]
    check(len(rows) == 4 * 2 * 2 * 4 * 4 and len(slopes) == 4 * 2 * 2 * 4, f"{len(rows)} rows of optimisers")
    gaps = {(r["tasks"], r["alpha"], r["k"], r["eta"]): r["gap"] for r in result["rows"]}
    for r in rows:
        where = f"{r['optimizer']}, T {r['tasks']}, alpha {r['alpha']}, k {r['k']}, eta {r['eta']}: {r}"
        check(math.isclose(r["relative_gap"], r["gap"] / r["path"]), where)
        check(-1 <= r["cosine"] <= 1 + 1e-15, where)
        if r["optimizer"] == "gd":
            check(abs(r["gap"] - gaps[r["tasks"], r["alpha"], r["k"], r["eta"]]) <= r["rounding"], where)
        is_exact = r["k"] == 1 and r["optimizer"] in ("gd", "momentum")
        check((r["gap"] <= r["rounding"]) == is_exact, where)
        check((r["relative_gap"] > 0.1) == (r["optimizer"] == "adamw"), where)
    for s in slopes:
        where = f"{s['optimizer']}, T {s['tasks']}, alpha {s['alpha']}, k {s['k']}: {s}"
        if s["k"] == 1 and s["optimizer"] in ("gd", "momentum"):
            check(s["slope"] is None, where)
        else:
            check(abs(s["slope"] - (1 if s["optimizer"] == "adamw" else 2)) < 0.1, where)


def check_spectra(result: dict) -> None:
    spectra = result["spectra"]
    # T = 2: a, b, sum at the base and at two ends; T = 3: c and the sum at the base, four at each end.
    check(len(spectra) == 3 * 3 + 2 + 2 * 4, f"{len(spectra)} spectra")
    at = {(s["tasks"], s["at"], s["alpha"], s["task"]): s for s in spectra}
    check(len(at) == len(spectra), "no spectrum twice")
    for s in spectra:
        values, residuals, where = s["eigenvalues"], s["residuals"], f"{s['tasks']}, {s['at']}, {s['task']}"
        check(len(values) == len(residuals) == 4 and values == sorted(values, reverse=True), f"{where}: {values}")
        check(values[0] > 0 and s["is_converged"] and max(residuals) <= 1e-5 * values[0], f"{where}: {s}")
        check((s["at"] == "base") == (s["alpha"] is None) == (s["eta"] is None) == (s["k"] == 0), f"{where}: {s}")
    for t in 2, 3:
        for alpha in None, 0.3, 1:
            end = "base" if alpha is None else "end"
            parts = [at.get((t, end, alpha, name)) or at[2, end, alpha, name] for name in "abc"[:t]]
            whole, part = at[t, end, alpha, None]["eigenvalues"][0], [p["eigenvalues"][0] for p in parts]
            check(whole <= sum(part) + 1e-6, f"T {t}, {end}: the sum {whole} is no more than its parts {part}")
    for row in result["rows"]: # norms along the way to that end begin at the base
        if row["k"] == 2 and row["eta"] == 1e-3:
            base = max(at[2 if name in "ab" else 3, "base", None, name]["eigenvalues"][0] for name in "abc"[:row["tasks"]])
            check(base <= row["hessian"] * (1 + 1e-6), f"the largest eigenvalue {base} is within the norm {row}")
    ends = {s["eigenvalues"][0] for s in spectra if s["task"] is None}
    check(len(ends) == 6, f"curvature moves along the descent: {ends}")


def after_unit(folder: Path, number: int, sign: int):
    """Strike all ranks once so many units are on disk."""
    def during(ranks) -> None:
        end = time.monotonic() + 60
        while len(list(folder.glob("units/*.unit"))) < number and time.monotonic() < end:
            time.sleep(0.002)
        for pid in ranks().values():
            tell(pid, sign)
    return during


def check_restart(folder: Path) -> None:
    run([*LONG, "-o", "alone"], 2, folder)
    wanted = files(folder / "alone")
    stopped = run([*LONG, "-o", "again"], 2, folder, 75,
                  during=after_unit(folder / "again", 3, signal.SIGTERM))
    first = sorted((folder / "again" / "units").glob("*.unit"))
    check(0 < len(first) < UNITS, f"{len(first)} units after the stop", stopped)
    run([*LONG, "-o", "again"], 3, folder, *range(-9, 256),
        during=after_unit(folder / "again", len(first) + 3, signal.SIGKILL))
    left = len(list((folder / "again" / "units").glob("*.unit")))
    check(len(first) < left < UNITS, f"{left} units after the kill")
    run([*LONG, "-o", "again"], 2, folder, *range(-9, 256),
        during=after_unit(folder / "again", SWEEP + 2, signal.SIGKILL))
    spectra = sorted((folder / "again" / "units").glob("spectra-*.unit"))
    check(0 < len(spectra) < UNITS - SWEEP, f"{len(spectra)} spectra after the second kill")
    kept = [f.stat().st_mtime_ns for f in (first[0], spectra[0])]
    damaged = first[1]
    damaged.write_text(damaged.read_text()[:-2] + "0\n" if not damaged.read_text().endswith("0\n")
                       else damaged.read_text()[:-2] + "1\n")
    last = run([*LONG, "-o", "again"], 1, folder)
    check(f"{damaged.name} is damaged" in last.err, "a damaged unit is named", last)
    check([f.stat().st_mtime_ns for f in (first[0], spectra[0])] == kept, "a finished unit is not measured again")
    for line in rankrun.changes(wanted, files(folder / "again")):
        check(False, f"after a stop, a kill and damage: {line}")


def main() -> None:
    ranks = [int(a) for a in sys.argv[1:]] or [1, 2, 3]
    folder = Path(tempfile.mkdtemp(prefix="am_theory."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:120", "b:3:90", "c:5:150"], check=True)
    shutil.copy(HERE.parent / "support" / "small_theory.yml", folder / "theory.yml")
    reference = None
    for n in ranks:
        result = run(["-o", f"run{n}", *ALL], n, folder)
        reference = reference or files(folder / f"run{n}")
        for line in rankrun.changes(reference, files(folder / f"run{n}")):
            check(False, f"{n} ranks: {line}")
        check(json.loads(result.out) == json.loads((folder / f"run{n}/result.json").read_text()),
              "the line for programs is the result")
    check({"result.json", "table.txt", "base.h5", "heads.h5"} <= set(reference), f"files: {reference}")
    numbers = json.loads((folder / f"run{ranks[0]}/result.json").read_text())
    check_numbers(numbers)
    check_spectra(numbers)
    check_optimizers(numbers)
    again = run(["-o", f"run{ranks[0]}", *ALL], 2, folder)
    check("finished" in again.err, "a finished run says so", again)
    check_restart(folder)
    run(["-o", f"run{ranks[0]}", "--set", "seed=8"], 2, folder, 73)
    run(["-o", f"run{ranks[0]}", "--set", "seed=8", "--overwrite"], 2, folder)
    changed = files(folder / f"run{ranks[0]}")
    check(changed["result.json"] != reference["result.json"], "another seed gives other numbers")

    finish(folder, f"same bytes at {ranks} ranks")


if __name__ == "__main__":
    main()
