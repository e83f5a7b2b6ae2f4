#!/usr/bin/env python3
"""allmerge regmean against numpy: RegMean++ of an mlp from forward passes of our own, f64 to 1e-9. Of other
networks what defines the result: with Gram matrices of what the layers of the merged model itself get
(allmerge stats), every weight is the regression mean of the models'. One layer, and a network that is one
block, are merge_method: regmean; equal models stay as they are; the same bytes on any number of ranks and
after a kill between layers.                                       usage: test_regmean_pp.py mlp|nets|restart
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
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
import make_tasks  # noqa: E402
import rankrun  # noqa: E402
from checks import check, failures  # noqa: E402

TASKS = {"a": (4, 120), "b": (3, 90), "c": (5, 150)}
MEAN_ONLY = 1e-14


def run(command: str, ranks: int, folder: Path, code: int = 0) -> dict:
    result = rankrun.run(command.split(), ranks, folder)
    result.expect_code(code)
    if result.problems:
        print(result.report())
        sys.exit(1)
    return json.loads(result.out)


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][...].astype(float) for name in file}


def close(found, wanted, tolerance: float, what: str) -> None:
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-300)
    check(found.shape == wanted.shape and error <= tolerance, f"{what}: relative error {error:.2e}")


def recipe(folder: Path, name: str, model: str, dtype: str, more: str) -> None:
    head = (f"seed: 3\ndtype: {dtype}\nmodel: {model}\ndata: {{folder: tasks, tasks: [{', '.join(TASKS)}]}}\n"
            "heads: {random: yes}\nfinetune: {lr: 0.2, epochs: 3, batch: 32}\n")
    (folder / f"{name}-train.yml").write_text(head)
    (folder / f"{name}.yml").write_text(
        head + f"base: {{checkpoint: {name}-a/base.h5}}\nregmean: {{models: '{name}-{{task}}/trunk.h5', {more}}}\n")


def tune(folder: Path, name: str) -> list[dict[str, np.ndarray]]:
    for i, task in enumerate(TASKS):
        run(f"train {name}-train.yml --task {task} -o {name}-{task}", i % 3, folder)
    return [read(folder / f"{name}-{t}/trunk.h5") for t in TASKS]


def regression(weights, grams, alpha):
    """Equation 2 of arXiv:2212.09849 for weights [rows, ...], by an eigen decomposition where it is singular."""
    shape = weights[0].shape
    flat = [w.reshape(shape[0], -1) for w in weights]
    shrunk = [np.where(np.eye(len(g), dtype=bool), g, alpha * g) for g in grams]
    mean, total = sum(flat) / len(flat), sum(shrunk)
    right = sum((w - mean) @ g for w, g in zip(flat, shrunk))
    if alpha < 1:
        d = np.where(np.diag(total) == 0, 1, 0)
        return (mean + np.linalg.solve(total + np.diag(d), right.T).T).reshape(shape)
    values, vectors = np.linalg.eigh(total)
    keep = values > values.max() * len(values) * np.finfo(float).eps
    inverse = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
    return (mean + right @ inverse).reshape(shape)


def inputs(folder: Path, task: str) -> np.ndarray:
    with h5py.File(folder / f"tasks/{task}.h5") as data:
        x = data["train/x"][...]
    return (x.astype("f4") / np.float32(255)).astype(float).reshape(len(x), -1)


def check_mlp(folder: Path) -> None:
    recipe(folder, "mlp", "{widths: [12, 9, 7]}", "float64", "batch: 64, micro_batches: 3")
    models = tune(folder, "mlp")
    for alpha in (0.95, 0.5, 0.0):
        out = f"out-{alpha}"
        run(f"regmean mlp.yml -o {out} --set regmean.alpha={alpha}", 2, folder)
        found = read(folder / out / "merged.h5")
        rows = {t: inputs(folder, t) for t in TASKS}
        for layer in range(3):
            weight, bias = f"layers.{layer}.weight", f"layers.{layer}.bias"
            grams = [x.T @ x / len(x) for x in rows.values()]
            wanted = regression([m[weight] for m in models], grams, alpha)
            mean = sum(m[bias] for m in models) / len(models)
            close(found[weight], wanted, 1e-9, f"alpha {alpha}: {weight}")
            close(found[bias], mean, MEAN_ONLY, f"alpha {alpha}: {bias}")
            plain = sum(m[weight] for m in models) / len(models)
            check(np.abs(wanted - plain).max() > 1e-3 * np.abs(plain).max(), f"alpha {alpha}: {weight} is not the mean")
            rows = {t: np.maximum(x @ wanted.T + mean, 0) for t, x in rows.items()}
    for ranks in (1, 2, 3, 5):
        run(f"regmean mlp.yml -o np{ranks}", ranks, folder)
        for file in ("merged.h5", "result.json"):
            same = (folder / f"np{ranks}" / file).read_bytes() == (folder / "np1" / file).read_bytes()
            check(same, f"{file} is the same on {ranks} ranks")
    check(not (folder / "np1/layers").exists(), "files of layers are gone in the end")
    # Killed between the merged model and the removal of the layers' files.
    shutil.copytree(folder / "np1", folder / "late")
    (folder / "late/result.json").unlink()
    (folder / "late/layers").mkdir()
    shutil.copy(folder / "late/merged.h5", folder / "late/layers/0000.h5")
    run("regmean mlp.yml -o late", 3, folder)
    check(not (folder / "late/layers").exists(), "files of layers of a late kill are gone")
    check((folder / "late/result.json").read_bytes() == (folder / "np1/result.json").read_bytes(), "a late kill: the same result")
    # Fewer samples, another split: other matrices.
    told = run("regmean mlp.yml -o few --set regmean.samples=20 --set regmean.split=validation", 2, folder)
    check(told["split"] == "validation", f"the result names the split: {told}")
    tested = rankrun.run("regmean mlp.yml -o tested --set regmean.split=test".split(), 2, folder)
    check(tested.code == 0 and "test samples make the merge" in tested.err, "test samples are named", tested)
    some = read(folder / "few/merged.h5")
    check(not np.array_equal(some["layers.0.weight"], read(folder / "np1/merged.h5")["layers.0.weight"]), "few samples")
    # One task's model for all: it stays, whatever the samples are.
    run("regmean mlp.yml -o equal --set regmean.models=mlp-a/trunk.h5 --set data.tasks=[a]", 2, folder)
    for t in ("x-a", "x-b", "x-c"):
        shutil.copytree(folder / "mlp-b", folder / t)
    run("regmean mlp.yml -o equals --set regmean.models=x-{task}/trunk.h5", 3, folder)
    for out, task in (("equal", 0), ("equals", 1)):
        for name, value in read(folder / out / "merged.h5").items():
            check(np.array_equal(value, models[task][name]), f"{out}: {name} of equal models stays as it is")


def stats_of(folder: Path, name: str, model: str) -> list[dict[str, np.ndarray]]:
    for t in TASKS:
        run(f"stats {name}-train.yml --task {t} --model {model.replace('{t}', t)} --fisher none -o {name}-s-{t}.h5 "
            "--overwrite", 0, folder)
    return [read(folder / f"{name}-s-{t}.h5") for t in TASKS]


def check_fixed_point(folder: Path, name: str, model: str, alpha: float) -> None:
    recipe(folder, name, model, "float64", f"alpha: {alpha}")
    models = tune(folder, name)
    for ranks in (1, 3):
        run(f"regmean {name}.yml -o {name}-out{ranks}", ranks, folder)
    same = (folder / f"{name}-out1/merged.h5").read_bytes() == (folder / f"{name}-out3/merged.h5").read_bytes()
    check(same, f"{name}: the same bytes on 1 and 3 ranks")
    found, stats = read(folder / f"{name}-out1/merged.h5"), stats_of(folder, name, f"{name}-out1/merged.h5")
    products = 0
    for tensor, value in found.items():
        gram, mean = f"gram.{tensor.removesuffix('.weight')}", sum(m[tensor] for m in models) / len(models)
        if tensor.endswith(".weight") and gram in stats[0]:
            wanted, products = regression([m[tensor] for m in models], [s[gram] for s in stats], alpha), products + 1
            close(value, wanted, 1e-9, f"{name}: {tensor} behind the merged layers")
        else:
            close(value, mean, MEAN_ONLY, f"{name}: {tensor}")
    check(products >= 2, f"{name}: {products} products")


def check_plain(folder: Path, name: str, by: str) -> None:
    """merge_method: regmean gives the same."""
    stats_of(folder, name, f"{name}-{{t}}/trunk.h5")
    (folder / "r.yml").write_text("merge_method: regmean\nmodels:\n" + "".join(
        f"- {{model: {name}-{t}/trunk.h5, stats: {name}-s-{t}.h5}}\n" for t in TASKS))
    run("merge r.yml -o plain.h5 --overwrite", 2, folder)
    run(f"regmean {name}.yml -o {name}-{by} --set regmean.by={by}", 2, folder)
    plain = read(folder / "plain.h5")
    for tensor, value in read(folder / f"{name}-{by}/merged.h5").items():
        close(value, plain[tensor], 1e-12, f"{name} by {by}: {tensor} is that of merge_method: regmean")


def check_nets(folder: Path) -> None:
    cnn = "{preset: cnn, channels: [5, 4], kernel: 3, hidden: 7, height: 6, width: 6, batch_norm: yes}"
    check_fixed_point(folder, "cnn", cnn, 0.95)
    check_fixed_point(folder, "vit", "{preset: vit, patch: 3, features: 12, depth: 2, heads: 2, hidden: 10}", 0.9)
    recipe(folder, "one", "{widths: [9]}", "float64", "")
    tune(folder, "one")
    check_plain(folder, "one", "layer")
    recipe(folder, "deep", "{widths: [12, 8]}", "float64", "")
    tune(folder, "deep")
    check_plain(folder, "deep", "block")
    by_layer = run("regmean deep.yml -o deep-layer", 2, folder)
    plain, layered = read(folder / "deep-block/merged.h5"), read(folder / "deep-layer/merged.h5")
    check(not np.allclose(plain["layers.1.weight"], layered["layers.1.weight"], rtol=1e-6),
          "the second layer's inputs are those of the merged first one")
    check([r["key"] for r in by_layer["rows"]] == ["average", "regmean_plus_plus", "individual"], "rows")
    blocks = {}
    for ranks in (1, 2): # by blocks, where there are some
        run(f"regmean vit.yml -o vit-blocks{ranks} --set regmean.by=block", ranks, folder)
        blocks[ranks] = (folder / f"vit-blocks{ranks}/merged.h5").read_bytes()
    check(blocks[1] == blocks[2] != (folder / "vit-out1/merged.h5").read_bytes(), "vit by blocks")


def check_restart(folder: Path) -> None:
    recipe(folder, "slow", "{widths: [12, 9, 8, 7]}", "float32", "batch: 1, micro_batches: 1")
    tune(folder, "slow")
    run("regmean slow.yml -o whole", 2, folder)
    wanted = {f: (folder / "whole" / f).read_bytes() for f in ("merged.h5", "result.json")}
    hits = 0
    for attempt in range(12):
        out = folder / f"killed{attempt}"
        with subprocess.Popen([os.environ["AM_BIN"], "regmean", "slow.yml", "-o", out.name], cwd=folder,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
            layer = out / f"layers/{attempt % 3:04d}.h5"
            while job.poll() is None and not layer.exists():
                time.sleep(0.002)
            job.send_signal(signal.SIGKILL if attempt % 2 == 0 else signal.SIGTERM)
            job.wait(60)
        if layer.exists() and not (out / "merged.h5").exists():
            hits += 1
            shutil.copytree(out, folder / "cut", dirs_exist_ok=True)
        again = rankrun.run(shlex.split(f"regmean slow.yml -o {out.name}"), attempt % 3 + 1, folder)
        again.expect_code(0)
        check(not again.problems, f"attempt {attempt} goes on", again)
        for file, value in wanted.items():
            check((out / file).read_bytes() == value, f"attempt {attempt}: {file} is that of a run without a kill")
        if hits == 2:
            break
    check(hits > 0, "a kill came between two layers")
    # Models that are tuned again: --overwrite takes no layer of the old ones.
    run("train slow-train.yml --task b -o slow-b --overwrite --set finetune.epochs=1", 2, folder)
    run("regmean slow.yml -o anew", 2, folder)
    run("regmean slow.yml -o cut --overwrite", 1, folder)
    now = (folder / "anew/merged.h5").read_bytes()
    check((folder / "cut/merged.h5").read_bytes() == now != wanted["merged.h5"], "--overwrite merges all layers anew")
    check(run("plan slow.yml --json", 0, folder)["job"] == "regmean", "plan knows what a recipe with regmean: models is for")


def main() -> int:
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        (folder / "tasks").mkdir()
        for task, (classes, n) in TASKS.items():
            make_tasks.write_task(folder / "tasks" / f"{task}.h5", task, classes, n)
        {"mlp": check_mlp, "nets": check_nets, "restart": check_restart}[sys.argv[1]](folder)
    print("ok" if failures() == 0 else f"{failures()} checks failed")
    return failures() != 0


if __name__ == "__main__":
    sys.exit(main())
