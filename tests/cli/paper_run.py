#!/usr/bin/env python3
"""jobs/recipes/paper/run: one command runs the seeds of an experiment and writes its page; the same again reads
them; an unknown name, and a run that fails, are named.                            usage: paper_run.py
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from checks import check, finish  # noqa: E402

PAPER = HERE.parent.parent / "jobs" / "recipes" / "paper"
SMALL = {"data.folder": "tasks", "data.tasks": "[a,b,c]", "data.limit.train": "40", "base.pretrain": "p",
         "heads.epochs": "2", "one_shot.epochs": "[1,2]", "one_shot.alphas": "[0.3]", "iterate.budget": "2",
         "iterate.epochs": "[1,2]", "iterate.alphas": "[0.3]", "joint.epochs": "1", "model.widths": "[16]"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([PAPER / "run", *arguments], cwd=folder, capture_output=True, text=True, timeout=200,
                          env=os.environ | {"ALLMERGE": os.environ["AM_BIN"]})


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="am_paper_run."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:60", "b:3:60", "c:5:60", "p:8:60"], check=True)
    settings = [word for pair in SMALL.items() for word in ("-s", "=".join(pair))]
    first = run(folder, "-n", "2", "-o", "runs", *settings, "budget")
    check(first.returncode == 0, f"two seeds of budget: {first.returncode}\n{first.stderr}")
    results = [json.loads((folder / f"runs/budget/seed-{s}/result.json").read_text()) for s in (0, 1)]
    check([(r["experiment"], r["seed"]) for r in results] == [("budget", 0), ("budget", 1)], "seeds 0 and 1")
    page = folder / "runs/budget/report.html"
    text = page.read_text()
    check("<svg" in text and "</html>" in text, "a page with plots")
    again = run(folder, "-n", "2", "-o", "runs", *settings, "budget")
    check(again.returncode == 0 and again.stderr.count("is finished") == 2, f"finished runs are read\n{again.stderr}")
    check(page.read_text() == text, "the page is the same")

    unknown = run(folder, "-o", "runs", "budgets")
    check(unknown.returncode == 66 and "no experiment budgets" in unknown.stderr, f"unknown: {unknown.stderr}")
    missing = run(folder, "-n", "1", "-o", "none", "-s", "data.folder=nowhere", "dare")
    check(missing.returncode == 66 and "dare, seed 0 failed with exit code 66" in missing.stderr and
          "data prepare" in missing.stderr, f"no data: {missing.returncode}\n{missing.stderr}")
    for wrong in (["-n", "0", "dare"], ["-r", "x", "dare"], [], ["-q", "dare"]):
        check(run(folder, *wrong).returncode == 2, f"run {' '.join(wrong)} is refused")
    check(sorted(p.stem for p in PAPER.glob("*.yml") if "experiment:" in p.read_text()) ==
          sorted("one-epoch budget gradients plane optimizer post-hoc dare twenty methods".split()),
          "`all` has every recipe of an experiment")
    finish(folder)


if __name__ == "__main__":
    main()
