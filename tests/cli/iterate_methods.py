#!/usr/bin/env python3
"""Methods of iterate that need statistics of the models, that work on matrices, and what is searched of a method: the
statistics are those of `stats`, every row is what `merge` and `eval` give, and the best of all that was tried; the
same bytes on any number of ranks, and after a stop and a kill among the statistics.   usage: iterate_methods.py
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from proc import tell  # noqa: E402
from checks import check, finish  # noqa: E402

TASKS = ["a", "b", "c"]
# A full batch: one epoch of a task from the base is the same step in both phases, so that the models of the
# first round are known. Labels are smoothed and a layer is frozen in training alone: statistics know neither.
RECIPE = """
seed: 7
model: {widths: [24, 16], label_smoothing: 0.1, freeze: ["layers.0.bias"]}
data: {folder: tasks, tasks: [a, b, c]}
base: {pretrain: p, epochs: 4}
heads: {epochs: 12}
finetune: {lr: 0.2, batch: 0, micro_batches: 3}
one_shot:
  epochs: [1, 3]
  alphas: [0.3, 0.6]
  methods:
  - {merge_method: ties, parameters: {density: [0.1, 0.5], normalize: [yes, no]}, semantics: paper}
  - {merge_method: fisher, parameters: {floor: [1.0e-6, 1.0e-3]}}
  - {merge_method: regmean, parameters: {alpha: [0.5, 0.9, 1.0]}}
  - {merge_method: tsv, alphas: [0.2, 0.5, 1.0]}
  - {merge_method: iso_c, alphas: [0.4, 1.2]}
  - {merge_method: iso_cts, parameters: {common_fraction: [0.5, 0.8]}}
  - {merge_method: knots, parameters: {density: [0.2, 1.0]}, alphas: [1.0]}
  - {merge_method: wudi, parameters: {closed_form: [yes, no]}}
twin: {hidden: 8, epochs: 2}
stats: {fisher: exact, samples: 50, batch: 8, micro_batches: 4}
iterate:
  rounds: 2
  methods:
  - {merge_method: regmean, parameters: {alpha: 0.9}}
  - {merge_method: fisher}
  - {merge_method: iso_c, alphas: [0.4, 0.8]}
joint: {run: no}
"""


def run(top: Path, arguments: str, ranks: int, *codes: int, **more) -> rankrun.Result:
    result = rankrun.run(arguments.split(), ranks, top, timeout=120, **more)
    result.expect_code(*(codes or (0,)))
    check(not result.problems, f"{arguments} on {ranks} ranks", result)
    return result


def files(folder: Path) -> dict[str, str]:
    return {n: d for n, d in rankrun.snapshot(folder).items() if n != "events.jsonl"}


def tensors(path: Path) -> dict[str, np.ndarray]:
    out = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: out.update({name: np.array(item)}) if isinstance(item, h5py.Dataset) else None)
    return out


def strike(sums: Path, sign: int):
    """Strike all ranks once statistics are being saved."""
    def during(ranks) -> None:
        end = time.monotonic() + 60
        while not list(sums.glob("*.sums-b.h5")) and time.monotonic() < end:
            time.sleep(0.001)
        for pid in ranks().values():
            tell(pid, sign)
    return during


def check_statistics(top: Path) -> None:
    """Those of each model are what the command makes, number by number."""
    for name in ("a-epochs-001", "c-epochs-003"):
        task = name[0]
        run(top, f"stats r.yml --task {task} --model one/tuned/{name}.h5 --heads one/heads.h5 --fisher exact --samples 50 "
            f"--batch 8 --micro-batches 4 -o {name}.h5", 2)
        got, wanted = tensors(top / f"one/stats/{name}.h5"), tensors(top / f"{name}.h5")
        check(sorted(got) == sorted(wanted) and any(n.startswith("gram.") for n in got) and
              "fisher.layers.0.bias" in got, f"{name}: {sorted(got)}")
        check(all(np.array_equal(got[n], wanted[n]) for n in wanted), f"{name}: the numbers are those of stats")
        with h5py.File(top / f"one/stats/{name}.h5") as ours, h5py.File(top / f"{name}.h5") as theirs:
            for key in ("stats.model_fingerprint", "stats.model_dtype"):
                check(key in ours.attrs and ours.attrs[key] == theirs.attrs[key], f"{name}: {key} is that of stats")
    swapped = {"a": "b", "b": "a", "c": "c"}
    (top / "swapped.yml").write_text("merge_method: regmean\nmodels:\n" + "\n".join(
        f"- {{model: one/tuned/{t}-epochs-001.h5, stats: one/stats/{swapped[t]}-epochs-001.h5}}" for t in TASKS))
    refused = run(top, "merge swapped.yml -o swapped.h5", 2, 65)
    check("was made of another model" in refused.err and "one/stats/b-epochs-001.h5" in refused.err,
          "statistics of another model are refused", refused)
    check(not (top / "one/round-stats").exists(), "statistics of rounds are gone")


def merge_of(row: dict) -> str:
    """Recipe of the merge that a row tells."""
    method, epochs, alpha = row["method"], row["epochs"], row["alpha"]
    own = {"density", "weight"} # of a model, the others are of the merge
    given = {k: v for k, v in row.get("searched", {}).items()}
    second = {"fisher": "fisher", "regmean": "stats"}.get(method)
    models = []
    for task in TASKS:
        name = f"{task}-epochs-{epochs:03d}.h5"
        beside = f", {second}: one/stats/{name}" if second else ""
        values = {"weight": 1.0} if method in ("ties", "fisher", "regmean") else {}
        values |= {k: v for k, v in given.items() if k in own and method == "ties"}
        models.append(f"- {{model: one/tuned/{name}{beside}, parameters: {json.dumps(values)}}}")
    top = {k: v for k, v in given.items() if not (k in own and method == "ties")} | ({} if alpha is None else {"lambda": alpha})
    base = "" if second else "base_model: one/base.h5\n"
    semantics = "semantics: paper\n" if method == "ties" else ""
    return "\n".join([f"merge_method: {method}", "seed: 7", "models:", *models, f"parameters: {json.dumps(top)}",
                      base + semantics])


def check_rows(top: Path) -> None:
    """Each row against a merge of the tuned models; what was chosen is the best of all that was tried."""
    rows = [r for r in json.loads((top / "one/result.json").read_text())["rows"]
            if r["key"].startswith("one_shot_") and r["method"] != "twin"]
    tried = [e for e in map(json.loads, (top / "one/events.jsonl").read_text().splitlines())
             if e["event"] == "validation" and e["phase"] == "one_shot"]
    counts = {"ties": 8, "fisher": 2, "regmean": 3, "tsv": 3, "iso_c": 2, "iso_cts": 4, "knots": 2, "wudi": 4}
    check(len(rows) == 16, f"{len(rows)} rows")
    for row in rows:
        own = [e for e in tried if e["method"] == row["method"] and e["epochs"] == row["epochs"]]
        best = max(own, key=lambda e: e["validation_accuracy"]) # the first of equals
        check(len(own) == counts[row["method"]] and
              len({json.dumps([e["alpha"], e.get("searched")]) for e in own}) == len(own), f"{row['key']}: {len(own)} merges")
        check([best["alpha"], best.get("searched")] == [row["alpha"], row.get("searched")] and
              best["validation_accuracy"] == row["validation_accuracy"], f"{row['key']}: {best}, not {row}")
        (top / "m.yml").write_text(merge_of(row))
        run(top, f"merge m.yml -o {row['key']}.h5", 2)
    evaluated = json.loads(run(top, "eval r.yml --heads one/heads.h5 --model " +
                               " ".join(f"{r['key']}.h5" for r in rows), 2).out)["rows"]
    for row, got in zip(rows, evaluated):
        check(got["task_accuracy"] == row["task_accuracy"] and got["task_loss_nats"] == row["task_loss_nats"],
              f"{row['key']}: merge and eval give {got['task_loss_nats']}, the row is {row['task_loss_nats']}")
    check("density" in (top / "one/table.txt").read_text(), "the table tells what was searched")


def check_twins(top: Path) -> None:
    """The row of twins: the shared model is the best merge on validation data, and twins are what the command makes of the same models."""
    row = next(r for r in json.loads((top / "one/result.json").read_text())["rows"] if r["key"] == "one_shot_twin_3")
    tried = [e for e in map(json.loads, (top / "one/events.jsonl").read_text().splitlines())
             if e["event"] == "validation" and e["phase"] == "shared" and e["epochs"] == 3]
    best = max(tried, key=lambda e: e["validation_accuracy"])
    check([e["alpha"] for e in tried] == [0.3, 0.6] and best["alpha"] == row["alpha"], f"twins: {tried}, row {row}")
    (top / "t.yml").write_text("""seed: 7
model: {widths: [24, 16], label_smoothing: 0.1, freeze: ["layers.0.bias"]}
data: {folder: tasks, tasks: [a, b, c]}
base: {checkpoint: one/base.h5}
heads: {checkpoint: one/heads.h5}
""" + f"twin: {{hidden: 8, epochs: 2, models: 'one/tuned/{{task}}-epochs-003.h5', lambda: {row['alpha']}}}\n")
    run(top, "twin t.yml -o twins", 2)
    got = next(r for r in json.loads((top / "twins/result.json").read_text())["rows"] if r["key"] == "twin_soft")
    check(got["task_loss_nats"] == row["task_loss_nats"] and got["task_accuracy"] == row["task_accuracy"],
          f"twins: the command gives {got['task_loss_nats']}, the row is {row['task_loss_nats']}")


def check_rounds(top: Path) -> None:
    """The first round's models are those of one epoch."""
    names = {"regmean": ("regmean-alpha-nan", {"alpha": 0.9}, None), "fisher": ("fisher-alpha-nan", {}, None),
             "iso_c": ("iso_c-alpha-0.4", {}, 0.4)}
    for method, (name, searched, alpha) in names.items():
        (top / "m.yml").write_text(merge_of({"method": method, "epochs": 1, "alpha": alpha, "searched": searched}))
        run(top, f"merge m.yml -o round-{method}.h5", 2)
        got, wanted = tensors(top / f"one/rounds/{name}-round-001.h5"), tensors(top / f"round-{method}.h5")
        check(all(np.array_equal(got[n], wanted[n]) for n in wanted), f"the first round of {method}")


def check_stops(top: Path, wanted: dict[str, str]) -> None:
    any_code = range(-9, 256)
    stopped = run(top, "iterate r.yml -o cut --save-every 0", 2, 75, during=strike(top / "cut/stats", signal.SIGTERM))
    left = sorted(p.name for p in (top / "cut/stats").glob("*.sums-*.h5"))
    check(left and not list((top / "cut/stats").glob("*-epochs-003*")), f"stopped among statistics: {left}", stopped)
    for path in (top / "cut/stats").glob("*.sums-?.h5*"):
        shutil.copy(path, top / path.name)
    killed = run(top, "iterate r.yml -o cut --save-every 0", 3, *any_code,
                 during=strike(top / "cut/round-stats", signal.SIGKILL))
    check("going on after" in killed.err, "the sums are gone on with", killed)
    check(list((top / "cut/round-stats").glob("*.sums-b.h5")), "killed among statistics of a round", killed)
    run(top, "iterate r.yml -o cut", 1)
    check(files(top / "cut") == wanted, f"after a stop and a kill: {rankrun.changes(wanted, files(top / 'cut'))}")
    # Killed between the statistics of a model and the removal of their sums.
    (top / "cut/result.json").unlink()
    for path in top.glob("*.sums-?.h5*"):
        shutil.copy(path, top / "cut/stats")
    run(top, "iterate r.yml -o cut", 2)
    check(files(top / "cut") == wanted, f"sums of a late kill: {rankrun.changes(wanted, files(top / 'cut'))}")


def main() -> None:
    top = Path(tempfile.mkdtemp(prefix="am_iterate_methods."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", top / "tasks",
                    "a:4:120", "b:6:100", "c:3:90", "p:5:200"], check=True)
    (top / "r.yml").write_text(RECIPE)
    run(top, "iterate r.yml -o one", 1)
    wanted = files(top / "one")
    for ranks in (2, 4):
        run(top, f"iterate r.yml -o ranks{ranks}", ranks)
        check(files(top / f"ranks{ranks}") == wanted,
              f"the same bytes on {ranks} ranks: {rankrun.changes(wanted, files(top / f'ranks{ranks}'))}")
    check_statistics(top)
    check_rows(top)
    check_twins(top)
    check_rounds(top)
    check_stops(top, wanted)
    finish(top)


if __name__ == "__main__":
    main()
