#!/usr/bin/env python3
"""allmerge twin against numpy: the shared model, twins cut to singular directions and to largest elements, the
router's answers and the losses of samples that are routed (soft, top1), f64 to 1e-9; a router that tells tasks
apart; twins that are not cut and routed right are the tuned models; eval --twins repeats the scores; the same
bytes on any number of ranks, and after a run that was interrupted.        usage: test_twin.py mlp|more
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from checks import check, failures  # noqa: E402

TASKS = {"a": 4, "b": 3, "c": 5}
LAMBDA, DENSITY = 0.29, 0.3


def run(command: str, ranks: int, folder: Path, code: int = 0) -> dict:
    result = rankrun.run(command.split(), ranks, folder)
    result.expect_code(code)
    if result.problems:
        print(result.report())
        sys.exit(1)
    return json.loads(result.out) if code == 0 else {}


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][...] for name in file}


def close(found, wanted, tolerance: float, what: str) -> None:
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-300)
    check(found.shape == wanted.shape and error <= tolerance, f"{what}: relative error {error:.2e}")


def write_tasks(folder: Path) -> None:
    """Six by six pixels: a block of two rows that says which task it is, and class patterns under noise."""
    (folder / "tasks").mkdir()
    for t, (task, classes) in enumerate(TASKS.items()):
        rng = np.random.default_rng(t)
        pattern = rng.uniform(0, 90, (classes, 36))
        with h5py.File(folder / "tasks" / f"{task}.h5", "w") as file:
            for split, n in (("train", 160), ("validation", 90), ("test", 70 + 11 * t)):
                y = rng.integers(0, classes, n).astype("i4")
                x = pattern[y] + rng.uniform(0, 40, (n, 36))
                x[:, 12 * t:12 * t + 12] += 120
                file[f"{split}/x"], file[f"{split}/y"] = x.astype("u1").reshape(n, 6, 6), y
            file.attrs["name"] = task


def recipe(folder: Path, name: str, model: str, dtype: str, twin: str) -> None:
    head = (f"seed: 3\ndtype: {dtype}\nmodel: {model}\ndata: {{folder: tasks, tasks: [{', '.join(TASKS)}]}}\n"
            "heads: {random: yes}\nfinetune: {lr: 0.2, epochs: 6, batch: 32}\n")
    (folder / f"{name}-train.yml").write_text(head)
    (folder / f"{name}.yml").write_text(
        head + f"base: {{checkpoint: {name}-a/base.h5}}\ntwin: {{models: '{name}-{{task}}/trunk.h5', "
        f"lambda: {LAMBDA}, hidden: 16, epochs: 40, lr: 0.01, batch: 64, {twin}}}\n")


def tune(folder: Path, name: str) -> None:
    for i, task in enumerate(TASKS):
        run(f"train {name}-train.yml --task {task} -o {name}-{task}", i % 3, folder)


# ---- the same in numpy ----

def features(model, x):
    for i in range(len(model) // 2):
        x = np.maximum(x @ model[f"layers.{i}.weight"].T + model[f"layers.{i}.bias"], 0)
    return x


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cut(delta, way):
    """What stays of a twin."""
    if delta.ndim < 2:
        return delta
    if way == "svd":
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        r = max(1, int(DENSITY * len(s)))
        return (u[:, :r] * s[:r]) @ vt[:r]
    keep = np.sort(np.argsort(-np.abs(delta).ravel(), kind="stable")[:max(1, int(DENSITY * delta.size))])
    out = np.zeros(delta.size)
    out[keep] = delta.ravel()[keep]
    return out.reshape(delta.shape)


def stored(twin, name, shape, way):
    """The same from the file, and how many numbers it took."""
    if len(shape) < 2:
        return twin[name]
    if way == "svd":
        return (twin[f"{name}.u"] * twin[f"{name}.s"]) @ twin[f"{name}.vt"]
    out = np.zeros(int(np.prod(shape)))
    out[twin[f"{name}.index"]] = twin[f"{name}.value"]
    return out.reshape(shape)


def router_weights(router, x):
    x = ((x.astype("f4").astype(float) - router["mean"]) * router["scale"]).astype("f4").astype(float)
    h = np.maximum(x @ router["hidden.weight"].T + router["hidden.bias"], 0)
    return softmax(h @ router["head.weight"].T + router["head.bias"])


def routed_scores(shared, twins, router, head, x, y, route):
    weight = router_weights(router, features(shared, x))
    used = np.eye(weight.shape[1])[weight.argmax(axis=1)] if route == "top1" else weight
    loss, right = 0, 0
    for i in range(len(y)):
        model = {n: shared[n] + sum(w * t[n] for w, t in zip(used[i], twins)) for n in shared}
        p = softmax(features(model, x[i:i + 1]) @ head["weight"].T + head["bias"])[0]
        loss -= np.log(p[y[i]])
        right += p.argmax() == y[i]
    return loss / len(y), right / len(y), weight.argmax(axis=1)


def check_mlp(folder: Path) -> None:
    recipe(folder, "mlp", "{widths: [14, 9]}", "float64", f"density: {DENSITY}")
    tune(folder, "mlp")
    base = read(folder / "mlp-a/base.h5")
    models = [read(folder / f"mlp-{t}/trunk.h5") for t in TASKS]
    shared = {n: base[n] + LAMBDA * sum(m[n] - base[n] for m in models) for n in base}
    heads = read(folder / "mlp-a/heads.h5")
    for way in ("svd", "magnitude"):
        twins = [{n: cut(m[n] - shared[n], way) for n in shared} for m in models]
        for route in ("soft", "top1"):
            name = f"{way}-{route}"
            line = run(f"twin mlp.yml -o {name} --set twin.compress={way} --set twin.route={route}", 2, folder)
            rows = {r["key"]: r for r in line["rows"]}
            out = folder / name
            for n, value in read(out / "shared.h5").items():
                close(value, shared[n], 1e-12, f"{name}: shared {n}")
            for t, twin in zip(TASKS, twins):
                file = read(out / f"twins/{t}.h5")
                for n in shared:
                    close(stored(file, n, shared[n].shape, way), twin[n], 1e-9, f"{name}: twin of {t}: {n}")
                    check(twin[n].ndim < 2 or np.abs(twin[n]).max() > 1e-3, f"{name}: {n} has moved")
            router, now = read(out / "router.h5"), read(out / "heads.h5")
            routed = [json.loads(e) for e in (out / "events.jsonl").read_text().splitlines() if '"routed"' in e]
            for i, t in enumerate(TASKS):
                head = {k: now[f"{t}.head.{k}"] for k in ("weight", "bias")}
                check(t != "a" or np.array_equal(head["weight"], heads["a.head.weight"]), "heads are those of training")
                with h5py.File(folder / f"tasks/{t}.h5") as data:
                    x, y = data["test/x"][...], data["test/y"][...]
                x = (x.astype("f4") / np.float32(255)).astype(float).reshape(len(y), -1)
                loss, right, chosen = routed_scores(shared, twins, router, head, x, y, route)
                row = rows[f"twin_{route}"]
                close(row["task_loss_nats"][i], loss, 1e-9, f"{name}: loss of {t}")
                check(row["task_accuracy"][i] == right, f"{name}: accuracy of {t}: {row['task_accuracy'][i]} {right}")
                told = routed[-1]["task_routed_right"][i]
                check(told == np.mean(chosen == i) and told > 0.97, f"{name}: {told} of {t} are routed right")
            check(rows[f"twin_{route}"]["test_accuracy"] > rows["shared"]["test_accuracy"] + 0.05,
                  f"{name}: twins help: {rows[f'twin_{route}']['test_accuracy']} {rows['shared']['test_accuracy']}")
            again = run(f"eval mlp.yml --twins {name} --route {route} --set twin.compress={way}", 3, folder)
            check(again["rows"][0]["task_loss_nats"] == rows[f"twin_{route}"]["task_loss_nats"], f"{name}: eval")


FILES = ["shared.h5", "router.h5", "twins/a.h5", "twins/b.h5", "twins/c.h5", "result.json", "heads.h5"]


def contents(folder: Path) -> dict[str, bytes]:
    return {f: (folder / f).read_bytes() for f in FILES}


def check_more(folder: Path) -> None:
    for name, model, dtype, twin in (
            ("f64", "{widths: [14, 9]}", "float64", f"density: {DENSITY}, route: soft"),
            ("f32", "{widths: [14, 9]}", "float32", f"density: {DENSITY}, route: top1, compress: magnitude"),
            ("cnn", "{preset: cnn, channels: [5], kernel: 3, hidden: 7, batch_norm: yes}", "float32",
             "density: 0.5, route: soft")):
        recipe(folder, name, model, dtype, twin)
        tune(folder, name)
        some = (2, 3, 5) if name == "f64" else (2, 3)
        for ranks in (1, *some):
            run(f"twin {name}.yml -o {name}-{ranks}", ranks, folder)
        first = contents(folder / f"{name}-1")
        for ranks in some:
            for file, value in contents(folder / f"{name}-{ranks}").items():
                check(value == first[file], f"{name}: {file} is the same on {ranks} ranks")
        # What an interrupted run left, one damaged file among it.
        for file in ("result.json", "router.h5", "twins/c.h5"):
            (folder / f"{name}-2" / file).unlink()
        with h5py.File(folder / f"{name}-1/twins/a.h5") as file:
            at = max(file[n].id.get_offset() for n in file)
        damaged = bytearray(first["twins/a.h5"])
        damaged[at] ^= 1
        (folder / f"{name}-2/twins/a.h5").write_bytes(damaged)
        run(f"twin {name}.yml -o {name}-2", 3, folder)
        check(contents(folder / f"{name}-2") == first, f"{name}: an interrupted run gives the same bytes")
    # Whole twins of the likeliest task are the tuned models, where the router is right.
    rows = {r["key"]: r for r in run("twin f64.yml -o whole --set twin.compress=none --set twin.route=top1", 2,
                                     folder)["rows"]}
    routed = [json.loads(e) for e in (folder / "whole/events.jsonl").read_text().splitlines() if '"routed"' in e]
    for i, t in enumerate(TASKS):
        if routed[-1]["task_routed_right"][i] == 1:
            close(rows["twin_top1"]["task_loss_nats"][i], rows["individual"]["task_loss_nats"][i], 1e-12, f"whole: {t}")
    check(max(routed[-1]["task_routed_right"]) == 1, "a task is routed right")
    rows = run("twin f64.yml -o other --set merge.merge_method=tsv --set twin.lambda=1", 2, folder)["rows"]
    check(not np.array_equal(read(folder / "other/shared.h5")["layers.0.weight"],
                             read(folder / "f64-1/shared.h5")["layers.0.weight"]), "any merge makes the shared model")
    shutil.rmtree(folder / "other/twins")
    run("eval f64.yml --twins other", 2, folder, code=66)


def main() -> int:
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        write_tasks(folder)
        {"mlp": check_mlp, "more": check_more}[sys.argv[1]](folder)
    print("ok" if failures() == 0 else f"{failures()} checks failed")
    return failures() != 0


if __name__ == "__main__":
    sys.exit(main())
