#!/usr/bin/env python3
"""keep: old models of rounds are removed, and a run goes on without them; on_divergence: stop with 76, or
roll back to a smaller step: the same bytes on any number of ranks, and after an interruption.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from checks import check, failures  # noqa: E402

ROUNDS = "iterate suite.yml --set iterate.rounds=7 --set iterate.patience=0 --set joint.run=no".split()
DIVERGING = "iterate suite.yml --set finetune.lr=1e6 --set finetune.clip=0 --set base.lr=0.2".split()
TRAIN = ("train suite.yml --set joint.lr=8 --set joint.epochs=4 --set loss_limit=3 "
         "--save-every 0").split()
ROLL_BACK = "--set on_divergence=rollback --set rollbacks=30".split()
LOGS = ("events.jsonl", "recipe.yml", "job.json")


def run(top: Path, arguments: list[str], out: str, ranks: int, code: int = 0, **more) -> rankrun.Result:
    result = rankrun.run([*arguments, "-o", out], ranks, top, timeout=120, **more)
    result.expect_code(code)
    check(not result.problems, result.report())
    return result


def files(folder: Path) -> dict[str, str]:
    """Without logs, and without the state of a job that has ended."""
    return {n: d for n, d in rankrun.snapshot(folder).items()
            if n not in LOGS and not n.startswith("state/") and not n.endswith(".manifest.json")}


def rollbacks(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if k != "seconds"} for e in lines if e["event"] == "rollback"]


def rounds_of(folder: Path, alpha: str) -> list[int]:
    return sorted(int(p.stem[-3:]) for p in (folder / "rounds").glob(f"alpha-{alpha}-*.h5"))


def best_round(folder: Path, alpha: float, until: int = 7) -> int:
    scores = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    scores = [e for e in scores if e["event"] == "validation" and e["phase"] == "iterate"
              and e["alpha"] == alpha and e["round"] <= until]
    return max(scores, key=lambda e: (e["validation_accuracy"], -e["round"]))["round"]


def test_keep(top: Path) -> None:
    run(top, [*ROUNDS, "--set", "iterate.keep=0"], "all", 2)
    run(top, [*ROUNDS, "--set", "iterate.keep=2"], "two", 2)
    everything, kept = files(top / "all"), files(top / "two")
    for alpha in ("0.3", "0.5"):
        check(rounds_of(top / "all", alpha) == list(range(1, 8)), "keep: 0 keeps all rounds")
        wanted = sorted({6, 7, *(best_round(top / "all", float(alpha), n) for n in (6, 7))})
        found = rounds_of(top / "two", alpha)
        check(found == wanted, f"keep: 2 leaves rounds {found}, not {wanted}")
    for name, digest in kept.items():
        check(name in everything and everything[name] == digest, f"{name} depends on keep")

    # Damaged newest models: on from the one before, or all over again.
    for alpha, damaged, says in (("0.5", [7], "alpha 0.5: going on after round 6"),
                                 ("0.3", [6, 7], "validation")):
        for name in ("result.json", "table.txt", "final.h5"):
            (top / "two" / name).unlink()
        for n in damaged:
            path = top / "two" / "rounds" / f"alpha-{alpha}-round-{n:03}.h5"
            with path.open("r+b") as file:
                file.seek(path.stat().st_size - 1500)
                file.write(b"damaged " * 100)
        result = run(top, [*ROUNDS, "--set", "iterate.keep=2"], "two", 3)
        check(says in result.err, f"not said: {says}\n{result.err}")
        for line in rankrun.changes(kept, files(top / "two")):
            check(False, f"rounds {damaged} of alpha {alpha} damaged: {line}")


def test_iterate_diverges(top: Path) -> None:
    result = run(top, DIVERGING, "stops", 2, 76)
    check("diverged" in result.err, "no message about divergence")
    check(rollbacks(top / "stops") == [], "stop rolls back")
    run(top, [*DIVERGING, *ROLL_BACK], "back1", 1)
    run(top, [*DIVERGING, *ROLL_BACK], "back3", 3)
    events = rollbacks(top / "back1")
    check(len(events) > 0, "nothing was rolled back: this test tests nothing")
    check(events == rollbacks(top / "back3"), "rollbacks depend on the ranks")
    check(all(e["lr"] == 1e6 / 2 ** e["rollbacks"] for e in events), "the step is not halved")
    check(files(top / "back1") == files(top / "back3"), "bytes depend on the ranks")
    few = [*DIVERGING, *ROLL_BACK, "--set", "rollbacks=1"]
    run(top, few, "few", 2, 76)
    check(len(rollbacks(top / "few")) <= 3, "more rollbacks than allowed") # one a task at most


def test_train_diverges(top: Path) -> None:
    run(top, TRAIN, "train_stops", 2, 76)
    run(top, [*TRAIN, *ROLL_BACK], "train", 2)
    check(len(rollbacks(top / "train")) > 0, "train was not rolled back: this test tests nothing")
    shim = os.path.join(os.environ.get("AM_PROGRAMS", ""), "libam_shim.so")
    if not os.path.exists(shim):
        return
    for nth in (9, 25):
        out = f"killed{nth}"
        env = {"AM_SHIM": f"call=rename,nth={nth},rank=0,do=kill,path={top}", "AM_SHIM_LOG": str(top / "hits")}
        (top / "hits").unlink(missing_ok=True)
        rankrun.run([*TRAIN, *ROLL_BACK, "-o", out], 2, top, timeout=120, env=env, preload=shim)
        check((top / "hits").exists(), f"there is no {nth}th rename: this test tests nothing")
        result = run(top, [*TRAIN, *ROLL_BACK], out, 3)
        check("going on in epoch" in result.err, f"did not go on\n{result.err}")
        check(files(top / out) == files(top / "train"), f"other bytes after a kill at rename {nth}")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="am_policies.") as name:
        top = Path(name)
        subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", top / "tasks",
                        "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
        shutil.copy(HERE.parent / "support" / "small_suite.yml", top / "suite.yml")
        test_keep(top)
        test_iterate_diverges(top)
        test_train_diverges(top)
    return failures() > 0


if __name__ == "__main__":
    sys.exit(main())
