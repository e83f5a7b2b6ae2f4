#!/usr/bin/env python3
"""gradients and plane of iterate: the same bytes for any number of ranks and after stops; against NumPy:
gradients of the network, shares and cosines, principal components, losses in the plane.
usage: iterate_measures.py
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

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from proc import tell  # noqa: E402
from checks import check, finish  # noqa: E402

BOTH = "--set gradients.epochs=3 --set gradients.parts=5 --set plane.grid=4 --set iterate.keep=0".split()
# Full batches of one task without momentum: rounds, joint epochs and finetuning are one descent.
FLAT = ("--set data.tasks=[a] --set finetune.batch=0 --set finetune.momentum=0 --set one_shot.epochs=[1,2] "
        "--set one_shot.alphas=[1] --set iterate.alphas=[1] --set iterate.rounds=2 --set iterate.warmup=0 "
        "--set joint.epochs=2 --set plane.grid=3 --set plane.margin=0 --set gradients.epochs=0 "
        "--set base.batch=32 --set heads.batch=32").split()


def run(arguments: list[str], ranks: int, folder: Path, *codes: int, during=None) -> rankrun.Result:
    result = rankrun.run(["iterate", "suite.yml", *arguments], ranks, folder, timeout=120, during=during)
    result.expect_code(*(codes or (0,)))
    check(not result.problems, f"iterate {' '.join(arguments)} on {ranks} ranks", result)
    return result


def files(folder: Path) -> dict[str, str]:
    return {f: v for f, v in rankrun.snapshot(folder).items() if f != "events.jsonl"}


def tensors(path: Path) -> dict[str, np.ndarray]:
    out = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, x: out.update({name.split("/")[-1]: x[...].astype(np.float64)})
                        if isinstance(x, h5py.Dataset) and x.dtype.kind == "f" else None)
    return out


def flat(path: Path) -> np.ndarray:
    return np.concatenate([t.ravel() for _, t in sorted(tensors(path).items())])


def gradient(trunk: dict, heads: dict, task: str, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of a relu network, and its gradient for the trunk, by tensor name."""
    layers = sorted({name.rsplit(".", 1)[0] for name in trunk})
    inputs, h = [], x
    for layer in layers:
        inputs.append(h)
        h = np.maximum(h @ trunk[f"{layer}.weight"].T + trunk[f"{layer}.bias"], 0)
    z = h @ heads[f"{task}.head.weight"].T + heads[f"{task}.head.bias"]
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    d, out = p / len(y) @ heads[f"{task}.head.weight"], {}
    for layer, before in reversed(list(zip(layers, inputs))):
        d = d * (before @ trunk[f"{layer}.weight"].T + trunk[f"{layer}.bias"] > 0)
        out[f"{layer}.weight"], out[f"{layer}.bias"] = d.T @ before, d.sum(axis=0)
        d = d @ trunk[f"{layer}.weight"]
    return loss, np.concatenate([out[name].ravel() for name in sorted(out)])


def close(value: float, wanted: float, what: str, tolerance: float = 1e-6) -> None:
    check(math.isclose(value, wanted, rel_tol=tolerance, abs_tol=tolerance), f"{what}: {value}, not {wanted}")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check_gradients(folder: Path, result: dict) -> None:
    rows = result["gradients"]
    check([(r["task"], r["epoch"]) for r in rows] == [(t, e) for t in "abc" for e in (1, 2, 3)], "rows of gradients")
    heads = tensors(folder / "heads.h5")
    base = flat(folder / "base.h5")
    for task in "abc":
        mine = [r for r in rows if r["task"] == task]
        with h5py.File(folder.parent / f"tasks/{task}.h5") as file:
            x, y = file["train/x"][...].reshape(len(file["train/y"]), -1) / 255, file["train/y"][...].astype(int)
        x = x.astype(np.float32).astype(np.float64) # as networks get it
        first = None
        for row, model in zip(mine, ("base.h5", f"tuned/{task}-epochs-001.h5")):
            loss, g = gradient(tensors(folder / model), heads, task, x, y)
            first = g if first is None else first
            where = f"{task}, epoch {row['epoch']}"
            close(row["loss_nats"], loss, f"{where}: loss")
            close(row["gradient"], np.linalg.norm(g), f"{where}: norm")
            close(row["cosine_first_gradient"], cosine(g, first), f"{where}: cosine")
        tau = flat(folder / f"tuned/{task}-epochs-001.h5") - base
        close(mine[0]["task_vector"], np.linalg.norm(tau), f"{task}: task vector")
        close(mine[0]["cosine_task_vector"], -cosine(tau, first), f"{task}: task vector's cosine")
        for norm, share in (("gradient", "share"), ("accumulated", "accumulated_share")):
            for row in mine:
                close(row[share], row[norm] / sum(r[norm] for r in mine), f"{task}: {share}", 1e-12)
        close(mine[0]["cosine_first_accumulated"], 1, f"{task}: the first is itself", 1e-14)
        check(-0.5 < mine[0]["cosine_accumulated"] < 1 - 1e-6, f"{task}: weights move inside an epoch: {mine[0]}")
        check(-0.5 < mine[2]["cosine_first_accumulated"] < 1 - 1e-6, f"{task}: gradients turn: {mine[2]}")


def check_plane(folder: Path, result: dict) -> None:
    plane = result["plane"]
    points = {p["name"]: p for p in plane["points"]}
    alpha = next(r for r in result["rows"] if r["key"] == "iterative")["alpha"]
    model = {"base": "base.h5", "one_shot_1": "plane/one_shot_1.h5", "one_shot_3": "plane/one_shot_3.h5"}
    model |= {f"{t}_{e}": f"tuned/{t}-epochs-00{e}.h5" for e in (1, 3) for t in "abc"}
    model |= {f"iterative_{r}": f"rounds/alpha-{alpha:g}-round-00{r}.h5" for r in (1, 2, 3)}
    model |= {f"joint_{e}": f"joint/epoch-00{e}.h5" for e in (1, 2, 3)}
    check(list(points) == list(model), f"points: {list(points)}")
    x = np.array([flat(folder / f) for f in model.values()])
    x -= x.mean(axis=0)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    for c in (0, 1):
        close(plane["explained"][c], s[c] ** 2 / (s ** 2).sum(), f"component {c}", 1e-9)
        sign = -1 if u[0, c] > 0 else 1
        for i, name in enumerate(model):
            close(points[name]["xy"[c]], sign * u[i, c] * s[c], f"{name}, component {c}", 1e-8)
    for i, name in enumerate(model):
        close(points[name]["distance"], np.linalg.norm(x[i] - u[i, :2] * s[:2] @ v[:2]), f"{name}: distance", 1e-6)
    check((points["base"]["x"] <= 0) and (points["base"]["y"] <= 0), "the base has no positive coordinate")
    rows = {r["key"]: r for r in result["rows"]}
    for key, name in (("base", "base"), ("one_shot_1", "one_shot_1"), ("one_shot_3", "one_shot_3")):
        close(points[name]["loss_nats"], rows[key]["validation_loss_nats"], f"{name}: loss", 1e-12)
    check(points["iterative_1"]["alpha"] == alpha and points["iterative_2"]["round"] == 2, "how a point was made")
    check(points["b_3"]["task"] == "b" and points["b_3"]["alpha"] is None, "an individual model")
    for axis in "xy":
        at = [p[axis] for p in plane["points"]]
        low, high = min(at) - 0.3 * (max(at) - min(at)), max(at) + 0.3 * (max(at) - min(at))
        for value, wanted in zip(plane[axis], np.linspace(low, high, 4), strict=True):
            close(value, wanted, f"axis {axis}", 1e-12)
    grid = np.array(plane["loss_nats"])
    check(grid.shape == (4, 4) and (grid > 0).all() and len(np.unique(grid)) == 16, f"losses: {grid}")


def check_flat(folder: Path) -> None:
    """Three models that differ: they lie in their plane, and its corners are models."""
    run(["-o", "flat", *BOTH, *FLAT], 2, folder)
    result = json.loads((folder / "flat/result.json").read_text())
    lr = json.loads((folder / "flat/recipe.yml").read_text())["finetune"]["lr"]
    first, second = result["gradients"]
    for row in (first, second):
        close(row["accumulated"], row["gradient"], "a full batch is accumulated in one step", 1e-5)
        close(row["cosine_accumulated"], 1, "and is the gradient", 1e-9)
    close(first["task_vector"], lr * first["gradient"], "a step", 1e-5)
    close(first["cosine_task_vector"], 1, "along the gradient", 1e-9)
    plane = result["plane"]
    close(sum(plane["explained"]), 1, "a plane holds three points", 1e-12)
    places = {(round(p["x"], 5), round(p["y"], 5)) for p in plane["points"]}
    check(len(plane["points"]) == 9 and len(places) == 3, f"three points: {places}")
    for p in plane["points"]:
        check(p["distance"] < 1e-5, f"in the plane: {p}")
        close(p["plane_loss_nats"], p["loss_nats"], f"{p['name']}: the loss in the plane is its own", 1e-5)
    # Without a margin the first column of the grid is at the least x.
    low = min(plane["points"], key=lambda p: p["x"])
    close(plane["x"][0], low["x"], "the grid begins at the models", 1e-12)
    others = [p for p in plane["points"] if abs(p["loss_nats"] - low["loss_nats"]) > 1e-3]
    check(others, "the models differ in their losses")


def strike(folder: Path, pattern: str, number: int, sign: int):
    """Strike all ranks once so many units are on disk."""
    def during(ranks) -> None:
        end = time.monotonic() + 60
        while len(list(folder.glob(f"units/{pattern}"))) < number and time.monotonic() < end:
            time.sleep(0.001)
        for pid in ranks().values():
            tell(pid, sign)
    return during


def check_restart(folder: Path, wanted: dict) -> None:
    more = [*BOTH, "--set", "plane.grid=12"]
    run(["-o", "whole", *more], 2, folder)
    wanted = files(folder / "whole")
    run(["-o", "again", *more], 2, folder, *range(-9, 256), during=strike(folder / "again", "gradients-*", 1, signal.SIGTERM))
    left = len(list((folder / "again/units").glob("*.unit")))
    check(0 < left < 12, f"{left} units after the stop")
    run(["-o", "again", *more], 3, folder, *range(-9, 256), during=strike(folder / "again", "plane-row-*", 3, signal.SIGKILL))
    rows = sorted((folder / "again/units").glob("plane-row-*.unit"))
    check(0 < len(rows) < 12, f"{len(rows)} rows after the kill")
    kept = rows[0].stat().st_mtime_ns
    rows[1].write_text(rows[1].read_text()[:-2] + ("0\n" if rows[1].read_text()[-2] != "0" else "1\n"))
    last = run(["-o", "again", *more], 1, folder)
    check(f"{rows[1].name} is damaged" in last.err, "a damaged unit is named", last)
    check(rows[0].stat().st_mtime_ns == kept, "a finished row is not measured again")
    for line in rankrun.changes(wanted, files(folder / "again")):
        check(False, f"after a stop, a kill and damage: {line}")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="am_measures."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    shutil.copy(HERE.parent / "support" / "small_suite.yml", folder / "suite.yml")
    run(["-o", "run1", *BOTH], 1, folder)
    run(["-o", "run3", *BOTH], 3, folder)
    reference = files(folder / "run1")
    for line in rankrun.changes(reference, files(folder / "run3")):
        check(False, f"3 ranks: {line}")
    result = json.loads((folder / "run1/result.json").read_text())
    check_gradients(folder / "run1", result)
    check_plane(folder / "run1", result)
    table = (folder / "run1/table.txt").read_text()
    check("gradients by epoch" in table and "plane of 15 models" in table, "both are in the table")
    check_flat(folder)
    check_restart(folder, reference)
    run(["-o", "run3", *BOTH, "--set", "seed=8", "--overwrite"], 2, folder)
    other = json.loads((folder / "run3/result.json").read_text())
    check(other["gradients"] != result["gradients"] and other["plane"] != result["plane"],
          "nothing of a run that is started over stays")
    finish(folder, "gradients and plane are those of NumPy, at 1 and 3 ranks, after stops")


if __name__ == "__main__":
    main()
