#!/usr/bin/env python3
"""Run the main job for several seeds and print mean and spread of the test accuracy of every row.

usage: suite_seeds.py [-n RANKS] FOLDER SEED...      runs that are finished in FOLDER are only read
The recipe is jobs/recipes/suite.yml, the data sets data/suite (jobs/quickstart makes them).
SPDX-License-Identifier: BSD-3-Clause
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent


def run(folder: Path, seed: int, ranks: int | None) -> dict:
    out = folder / f"seed-{seed}"
    if not (out / "result.json").exists():
        launch = [TOP / "jobs" / "launch", *(["-n", str(ranks)] if ranks else [])]
        subprocess.run([*launch, TOP / "build" / "allmerge", "iterate", "jobs/recipes/suite.yml",
                        "--set", f"seed={seed}", "-o", out.resolve()],
                       cwd=TOP, check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "result.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("-n", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int, nargs="+")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    results = [run(given.folder, seed, given.n) for seed in given.seed]

    print(f"test accuracy, mean over {len(results[0]['tasks'])} tasks")
    print(f"{'':28} {'mean':>7} {'sd':>7}  " + " ".join(f"{'seed ' + str(s):>8}" for s in given.seed))
    for row in results[0]["rows"]:
        values = [next(r["test_accuracy"] for r in result["rows"] if r["key"] == row["key"])
                  for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{row['name']:28} {statistics.mean(values):7.4f} {spread:7.4f}  "
              + " ".join(f"{v:8.4f}" for v in values))
    for key, name in (("gain_over_one_shot", "iterative - best one-shot"),
                      ("below_joint", "joint - iterative"), ("gap_closed", "part of the gap closed")):
        values = [result[key] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:28} {statistics.mean(values):7.4f} {spread:7.4f}  "
              + " ".join(f"{v:8.4f}" for v in values))


if __name__ == "__main__":
    main()
