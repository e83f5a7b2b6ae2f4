#!/usr/bin/env python3
"""jobs/recipes/paper/seeds: means and standard errors over the seeds are those of the results; the same
again reads them; a run that fails is named and its code handed on.               usage: theory_seeds.py
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from checks import check, finish  # noqa: E402

SEEDS = HERE.parent.parent / "jobs" / "recipes" / "paper" / "seeds"
KEYS = "--set theory.spectrum=2 --set theory.k=[1,3] --set theory.eta.n=3".split()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([SEEDS, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)


def measured(result: dict) -> dict[tuple[str, str], float]:
    out = {}
    for s in result["slopes"]:
        of = f"T {s['tasks']}, alpha {s['alpha']}, k {s['k']}"
        out["slope of the gap", of] = s["gap"]["slope"]
        out["slope of the residual", of] = s["residual"]["slope"]
        shares = [r["c"] / r["bound_derived"] for r in result["rows"] if r["bound_derived"]
                  and (r["tasks"], r["alpha"], r["k"]) == (s["tasks"], s["alpha"], s["k"])]
        out["share of the derived bound", of] = max(shares, default=None)
    for e in result["epochs"]:
        of = f"eta {e['eta']}, {e['task']}, epoch {e['epoch']}"
        out["share of the gradient norms", of] = e["share"]
        out["cosine with the first gradient", of] = e["cosine_first_gradient"]
        out["cosine of the task vector", of] = e["cosine_task_vector"]
    for s in result["spectra"]:
        at = "base" if s["at"] == "base" else f"end, alpha {s['alpha']}"
        out["largest eigenvalue", f"T {s['tasks']}, {at}, {s['task'] or 'the sum'}"] = s["eigenvalues"][0]
    return {key: value for key, value in out.items() if value is not None}


def table(text: str) -> dict[tuple[str, str], tuple[int, float, float]]:
    out = {}
    for line in text.splitlines()[2:]:
        seeds, mean, error = line[75:].split()
        out[line[:30].strip(), line[31:75].strip()] = int(seeds), float(mean), math.nan if error == "-" else float(error)
    return out


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="am_theory_seeds."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:120", "b:3:90", "c:5:150"], check=True)
    shutil.copy(HERE.parent / "support" / "small_theory.yml", folder / "theory.yml")
    theory = [os.environ["AM_BIN"], "theory", "theory.yml", *KEYS]
    first = run(folder, "-n", "3", "-f", "7", "-o", "runs/", *theory)
    check(first.returncode == 0, f"three seeds: {first.stderr}")
    results = [json.loads((folder / "runs" / f"seed-{s}" / "result.json").read_text()) for s in (7, 8, 9)]
    check([r["seed"] for r in results] == [7, 8, 9], "a run for each seed")
    each = [measured(r) for r in results]
    told = table(first.stdout)
    check(told.keys() == each[0].keys(), f"what is told: {told.keys() ^ each[0].keys()}")
    for key, (seeds, mean, error) in told.items():
        values = [e[key] for e in each]
        wanted = statistics.fmean(values), statistics.stdev(values) / math.sqrt(3)
        check(seeds == 3 and math.isclose(mean, wanted[0], rel_tol=1e-6), f"{key}: mean {mean}, not {wanted[0]}")
        check(math.isclose(error, wanted[1], rel_tol=1e-3, abs_tol=1e-15), f"{key}: error {error}, not {wanted[1]}")
    check((folder / "runs/seeds.txt").read_text() == first.stdout, "the table is in its file")
    check(run(folder, "-n", "3", "-f", "7", "-o", "runs", *theory).stdout == first.stdout, "the same again")
    alone = run(folder, "-n", "1", "-f", "8", "-o", "runs", *theory)
    check(all(n == 1 and math.isnan(e) for n, _, e in table(alone.stdout).values()), "one seed has no error")
    failed = run(folder, "-n", "2", "-o", "bad", *theory, "--set", "theory.k=[0]")
    check(failed.returncode == 2 and "seed 0 failed" in failed.stderr and not (folder / "bad/seeds.txt").exists(),
          f"a run that fails: {failed}")
    for bad in (["-n", "0", "-o", "x", "true"], ["-f", "-1", "-o", "x", "true"], ["-o", "x"], ["true"]):
        check(run(folder, *bad).returncode == 2, f"usage: {bad}")
    finish(folder)


if __name__ == "__main__":
    main()
