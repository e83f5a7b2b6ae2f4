#!/usr/bin/env python3
"""Comparisons of iterate: methods, epochs a round, starts, rounds on validation data. The same bytes on any number
of ranks and after a stop; every one-shot row is what `merge` and `eval` give; the noise of DARE is what NumPy
finds.                                                        SPDX-License-Identifier: BSD-3-Clause
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from checks import check, finish  # noqa: E402

TASKS = ["a", "b", "c"]
SUITE = """
experiment: dare
seed: 7
model: {widths: [24, 16]}
data: {folder: tasks, tasks: [a, b, c]}
base: {pretrain: p, epochs: 4}
heads: {epochs: 12}
finetune: {lr: 0.2, momentum: 0.5, batch: 0, micro_batches: 3}
"""
# A full batch: one epoch of a task from the base is the same step in both phases, so that the models of the
# first round are known.
COMPARE = SUITE + """
one_shot:
  epochs: [1, 3]
  alphas: [0.3, 0.6]
  methods:
  - {name: average, merge_method: linear}
  - {merge_method: task_arithmetic}
  - {merge_method: ties, parameters: {density: 0.2}, semantics: paper}
  - {merge_method: breadcrumbs, parameters: {density: 0.8, gamma: 0.05}, scope: global}
  - {merge_method: dare_linear, parameters: {density: 0.5}, semantics: paper}
  - {merge_method: della, parameters: {density: 0.5}}
iterate:
  rounds: 3
  alphas: [0.3, 0.5]
  curve: yes
  methods:
  - {merge_method: task_arithmetic}
  - {name: dare, merge_method: dare_linear, parameters: {density: 0.1}, semantics: paper}
"""
POST_HOC = SUITE.replace("dare", "post_hoc").replace("batch: 0", "batch: 16") + """
one_shot: {alphas: [0.3]}
iterate: {budget: 4, epochs: [1, 2, 4], start: one_shot, split: validation, curve: yes, alphas: [0.3, 0.5]}
joint: {run: no}
"""
# Tensors of several chunks, which ranks share: methods that work by rows see whole rows.
WIDE = SUITE.replace("[24, 16]", "[2000, 40]") + """
one_shot:
  alphas: [0.3]
  methods: [{merge_method: della, parameters: {density: 0.5}},
            {merge_method: breadcrumbs, parameters: {density: 0.5, gamma: 0.1}, semantics: paper}]
iterate: {rounds: 2, alphas: [0.3], methods: [{merge_method: della, parameters: {density: 0.5}}]}
joint: {run: no}
"""


def run(top: Path, arguments: str, ranks: int, code: int = 0, **more) -> rankrun.Result:
    result = rankrun.run(arguments.split(), ranks, top, timeout=120, **more)
    result.expect_code(code)
    check(not result.problems, f"{arguments} on {ranks} ranks", result)
    return result


def files(folder: Path) -> dict[str, str]:
    return {n: d for n, d in rankrun.snapshot(folder).items() if n != "events.jsonl"}


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def model(path: Path) -> np.ndarray:
    values = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: values.append((name, np.array(item, dtype="f8").ravel()))
                        if isinstance(item, h5py.Dataset) else None)
    return np.concatenate([v for _, v in sorted(values, key=lambda pair: pair[0])])


def same_bytes(top: Path, name: str, text: str, stop_after: str) -> None:
    """On 1 and 3 ranks, and when a file asks it to stop once it has written `stop_after`."""
    (top / f"{name}.yml").write_text(text)
    for ranks in (1, 3):
        run(top, f"iterate {name}.yml -o {name}{ranks}", ranks)
    wanted = files(top / f"{name}1")
    check(wanted == files(top / f"{name}3"), f"{name}: the same bytes on 1 and 3 ranks: "
          f"{rankrun.changes(wanted, files(top / f'{name}3'))}")

    shutil.copytree(top / f"{name}1", top / f"{name}-cut") # as if stopped: what came later is not there
    cut = top / f"{name}-cut"
    at = (cut / "rounds" / stop_after).stat().st_mtime_ns
    for path in [p for p in cut.rglob("*") if p.is_file() and p.parent != cut and p.stat().st_mtime_ns > at]:
        path.unlink()
    for pattern in ("result.json", "table.txt", "final.h5*", "joint.h5*"):
        for path in cut.glob(pattern):
            path.unlink()
    again = run(top, f"iterate {name}.yml -o {name}-cut", 2)
    check("going on after round" in again.err, f"{name}: a run goes on", again)
    check(files(cut) == wanted, f"{name}: the same bytes after a stop: {rankrun.changes(wanted, files(cut))}")


def check_rows(top: Path) -> None:
    """Each one-shot row against a merge of the tuned models."""
    rows = {r["key"]: r for r in result_of(top / "compare1")["rows"]}
    methods = {"average": ("linear", "", ""), "task_arithmetic": ("task_arithmetic", "", ""),
               "ties": ("ties", "density: 0.2", "semantics: paper"),
               "breadcrumbs": ("breadcrumbs", "density: 0.8, gamma: 0.05", "scope: global"),
               "dare_linear": ("dare_linear", "density: 0.5", "semantics: paper"),
               "della": ("della", "density: 0.5", "")}
    keys = []
    for epochs in (1, 3):
        for name, (method, parameters, own) in methods.items():
            row = rows[f"one_shot_{name}_{epochs}"]
            keys.append(row["key"])
            check(row["phase"] == "one_shot" and row["method"] == name and row["epochs"] == epochs, f"{row['key']}: {row}")
            check((row["alpha"] is None) == (name == "average"), f"{row['key']} has alpha {row['alpha']}")
            given = ", ".join(["weight: 1"] + ([parameters] if parameters else []))
            models = "\n".join(f"- {{model: compare1/tuned/{t}-epochs-{epochs:03d}.h5, parameters: {{{given}}}}}"
                               for t in TASKS)
            alpha = "" if row["alpha"] is None else f"parameters: {{lambda: {row['alpha']}}}\n"
            base = "" if method == "linear" else "base_model: compare1/base.h5\n"
            (top / "merge.yml").write_text(f"merge_method: {method}\nseed: 7\n{base}models:\n{models}\n{alpha}{own}\n")
            run(top, f"merge merge.yml -o {row['key']}.h5", 2)
    evaluated = json.loads(run(top, "eval compare.yml --heads compare1/heads.h5 --model " +
                               " ".join(f"{k}.h5" for k in keys), 2).out)["rows"]
    for key, got in zip(keys, evaluated):
        check(got["task_accuracy"] == rows[key]["task_accuracy"] and got["task_loss_nats"] == rows[key]["task_loss_nats"],
              f"{key}: merge and eval give {got['task_loss_nats']}, the row is {rows[key]['task_loss_nats']}")
    best = max(keys, key=lambda k: rows[k]["validation_accuracy"])
    check(rows["one_shot"]["validation_accuracy"] == rows[best]["validation_accuracy"], f"{best} is the best merge")


def check_rounds(top: Path) -> None:
    result = result_of(top / "compare1")
    rows, runs = {r["key"]: r for r in result["rows"]}, {r["key"]: r for r in result["rounds"]}
    check(result["experiment"] == "dare", "the experiment is told")
    check(sorted(runs) == ["iterative_dare", "iterative_task_arithmetic"], f"runs: {sorted(runs)}")
    check([i["epochs"] for i in result["individual_validation"]] == [1, 3], "individual models by epochs")
    for key, one in runs.items():
        row, points = rows[key], one["points"]
        check((row["alpha"], row["round"], row["round_epochs"]) == (one["alpha"], one["round"], 1), f"{key}: {row}")
        check(len(points) == 4 and points[0]["test_accuracy"] == rows["base"]["test_accuracy"], f"{key} begins at the base")
        check(points[one["round"]]["test_accuracy"] == row["test_accuracy"] and
              points[one["round"]]["validation_accuracy"] == row["validation_accuracy"] ==
              max(p["validation_accuracy"] for p in points[1:]), f"{key}: the row is the best of its points")
        check(all((p["noise_energy"] is not None) == (key == "iterative_dare" and p["round"] > 0) for p in points),
              f"{key}: noise is measured of merges that drop at random")
    best = max(runs, key=lambda k: rows[k]["validation_accuracy"])
    check(rows["iterative"]["test_accuracy"] == rows[best]["test_accuracy"], f"{best} is the best run")

    base, dare = model(top / "compare1/base.h5"), runs["iterative_dare"]
    vectors = [model(top / f"compare1/tuned/{t}-epochs-001.h5") - base for t in TASKS]
    first = model(top / f"compare1/rounds/dare-alpha-{dare['alpha']:g}-round-001.h5")
    noise = np.sum((first - base - dare["alpha"] * sum(vectors)) ** 2)
    expected = dare["alpha"] ** 2 * 9 * sum(np.sum(v ** 2) for v in vectors)
    point = dare["points"][1]
    check(abs(point["noise_energy"] / noise - 1) < 1e-3, f"noise {point['noise_energy']}, NumPy {noise}")
    check(abs(point["noise_expected"] / expected - 1) < 1e-3, f"expected {point['noise_expected']}, NumPy {expected}")
    check(0.5 < noise / expected < 2, f"the noise {noise} is about what is expected, {expected}")
    second = model(top / f"compare1/rounds/dare-alpha-{dare['alpha']:g}-round-002.h5")
    check(np.mean((first != base) == (second != first)) < 0.85, "every round drops other elements")


def check_post_hoc(top: Path) -> None:
    result = result_of(top / "hoc1")
    rows = {r["key"]: r for r in result["rows"]}
    check(sorted(r["key"] for r in result["rounds"]) == [f"iterative_epochs_{k}" for k in (1, 2, 4)], "a run a split")
    for one in result["rounds"]:
        check(len(one["points"]) == 1 + 4 // one["round_epochs"], f"{one['key']} has {len(one['points'])} points")
        check(one["points"][0]["test_accuracy"] == rows["one_shot"]["test_accuracy"], "they begin at the best merge")
        check(one["points"][-1]["epochs"] == 4, f"{one['key']} trains the budget")

    # The same from other files: what it trains on and chooses by are the halves of validation data.
    for name in TASKS:
        with h5py.File(top / f"tasks/{name}.h5") as old, h5py.File(top / f"halves/{name}.h5", "w") as new:
            new.attrs.update(old.attrs)
            n = len(old["validation/y"]) // 2
            for kind in ("x", "y"):
                new[f"train/{kind}"] = old[f"validation/{kind}"][:n]
                new[f"validation/{kind}"] = old[f"validation/{kind}"][n:]
                new[f"test/{kind}"] = old[f"test/{kind}"][:]
    text = POST_HOC.replace("start: one_shot, split: validation", "start: base").replace("folder: tasks", "folder: halves")
    (top / "halves.yml").write_text(text.replace("{pretrain: p, epochs: 4}", "{checkpoint: hoc1/one-shot.h5}").replace(
        "heads: {epochs: 12}", "heads: {checkpoint: hoc1/heads.h5}"))
    run(top, "iterate halves.yml -o halves-run", 2)
    for one, other in zip(result["rounds"], result_of(top / "halves-run")["rounds"]):
        check(one == other, f"{one['key']}: rounds on halves of the validation data: {one}, alone: {other}")


def main() -> None:
    top = Path(tempfile.mkdtemp(prefix="am_comparisons."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", top / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    (top / "halves").mkdir()
    same_bytes(top, "compare", COMPARE, "dare-alpha-0.3-round-002.h5")
    same_bytes(top, "hoc", POST_HOC, "epochs-2-alpha-0.3-round-001.h5")
    same_bytes(top, "wide", WIDE, "alpha-0.3-round-002.h5")
    check_rows(top)
    check_rounds(top)
    check_post_hoc(top)
    warned = rankrun.run("iterate compare.yml -o warned --set one_shot.epochs=[1] --set iterate.rounds=2".split(), 1, top)
    check("dare drops 0.9 of the task vectors at random in each of 2 rounds" in warned.err and
          "use task_arithmetic" in warned.err, "iterated DARE is a warning", warned)
    calm = rankrun.run("iterate compare.yml -o calm --set one_shot.epochs=[1] --set iterate.rounds=1".split(), 1, top)
    check("at random" not in calm.err, "a single round is none", calm)
    finish(top)


if __name__ == "__main__":
    main()
