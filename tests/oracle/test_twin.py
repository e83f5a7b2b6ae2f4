#!/usr/bin/env python3
"""allmerge twin against numpy: the shared model, twins cut to singular directions and to largest elements, the
router's answers and the losses of samples that are routed (soft, top1), f64 to 1e-9; a router that tells tasks
apart; twins that are not cut and routed right are the tuned models; eval --twins repeats the scores; the same
bytes on any number of ranks, and after a run that was interrupted or stopped among the scores; models that are tuned
again; what is larger cut than whole.        usage: test_twin.py mlp|more|stop
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import shutil
import signal
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
from checks import check, failures  # noqa: E402

TASKS = {"a": 4, "b": 3, "c": 5}
MANY = "c" # its samples are evaluated, and its features made, in more than one group of 256
LAMBDA, DENSITY = 0.29, 0.3


def run(command: str, ranks: int, folder: Path, code: int = 0, during=None) -> dict:
    result = rankrun.run(command.split(), ranks, folder, during=during)
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
            many = task == MANY
            for split, n in (("train", 160), ("validation", 1201 if many else 90), ("test", 603 if many else 70 + 11 * t)):
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

def samples(folder: Path, task: str, split: str):
    with h5py.File(folder / f"tasks/{task}.h5") as data:
        x, y = data[f"{split}/x"][...], data[f"{split}/y"][...]
    return (x.astype("f4") / np.float32(255)).astype(float).reshape(len(y), -1), y


def halves(folder: Path, task: str):
    """Of the validation samples: what the router learns from, and what scores are of."""
    x, y = samples(folder, task, "validation")
    return (x[:len(y) // 2], y[:len(y) // 2]), (x[len(y) // 2:], y[len(y) // 2:])


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
            learnt = features(shared, np.concatenate([halves(folder, t)[0][0] for t in TASKS]))
            close(router["mean"], learnt.astype("f4").astype(float).mean(axis=0), 1e-9, f"{name}: the router's half")
            row, chosen_by = rows[f"twin_{route}"], []
            for i, t in enumerate(TASKS):
                head = {k: now[f"{t}.head.{k}"] for k in ("weight", "bias")}
                check(t != "a" or np.array_equal(head["weight"], heads["a.head.weight"]), "heads are those of training")
                loss, right, chosen = routed_scores(shared, twins, router, head, *samples(folder, t, "test"), route)
                close(row["task_loss_nats"][i], loss, 1e-9, f"{name}: loss of {t}")
                check(row["task_accuracy"][i] == right, f"{name}: accuracy of {t}: {row['task_accuracy'][i]} {right}")
                told = routed[-1]["task_routed_right"][i]
                check(told == np.mean(chosen == i) and told > 0.97, f"{name}: {told} of {t} are routed right")
                chosen_by.append(routed_scores(shared, twins, router, head, *halves(folder, t)[1], route)[:2])
            loss, right = np.mean(chosen_by, axis=0)
            close(row["validation_loss_nats"], loss, 1e-9, f"{name}: loss of the other half")
            close(row["validation_accuracy"], right, 1e-12, f"{name}: accuracy on the other half")
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
    check_again(folder)
    check_large(folder)
    rows = run("twin f64.yml -o other --set merge.merge_method=tsv --set twin.lambda=1", 2, folder)["rows"]
    check(not np.array_equal(read(folder / "other/shared.h5")["layers.0.weight"],
                             read(folder / "f64-1/shared.h5")["layers.0.weight"]), "any merge makes the shared model")
    shutil.rmtree(folder / "other/twins")
    run("eval f64.yml --twins other", 2, folder, code=66)


def own_lambda(folder: Path) -> None:
    """Without twin.lambda it is the lambda of the merge; with it, that."""
    base, models = read(folder / "f64-a/base.h5"), [read(folder / f"f64-{t}/trunk.h5") for t in TASKS]
    for name, keys, wanted in (("own", "--set twin.lambda=null --set merge.parameters.lambda=0.6", 0.6),
                               ("both", "--set twin.lambda=0.4 --set merge.parameters.lambda=0.6", 0.4),
                               ("neither", "--set twin.lambda=null", 0.29)):
        run(f"twin f64.yml -o {name} {keys}", 2, folder)
        for n, value in read(folder / name / "shared.h5").items():
            close(value, base[n] + wanted * sum(m[n] - base[n] for m in models), 1e-12, f"lambda {name}: {n}")


def check_again(folder: Path) -> None:
    """Models that are tuned again: nothing of the old ones stays with --overwrite, and a twin or a router of another
    shared model that lies in the folder, sound by itself, is not taken."""
    own_lambda(folder)
    shutil.copytree(folder / "f64-1", folder / "old")
    run("train f64-train.yml --task b -o f64-b --overwrite --set finetune.epochs=2", 2, folder)
    for end in ("", ".manifest.json"):
        shutil.copyfile(folder / f"old/twins/a.h5{end}", folder / f"f64-1/twins/gone.h5{end}")
    run("twin f64.yml -o fresh", 1, folder)
    fresh = contents(folder / "fresh")
    run("twin f64.yml -o f64-1 --overwrite", 3, folder)
    check(contents(folder / "f64-1") == fresh, "--overwrite makes all twins anew")
    check(not (folder / "f64-1/twins/gone.h5").exists(), "--overwrite leaves no file of the old run")
    check(all(fresh[f] != (folder / "old" / f).read_bytes() for f in FILES[:-2]), "the models have changed")
    for file in ("twins/a.h5", "twins/b.h5", "router.h5"):
        for end in ("", ".manifest.json"):
            shutil.copyfile(folder / "old" / (file + end), folder / "f64-1" / (file + end))
    run("eval f64.yml --twins f64-1", 2, folder, code=65)
    (folder / "f64-1/result.json").unlink()
    run("twin f64.yml -o f64-1", 2, folder)
    check(contents(folder / "f64-1") == fresh, "twins and a router of another shared model are not taken")


def check_large(folder: Path) -> None:
    """Where cutting saves nothing a tensor stays as it is: 11 of 14 directions of 14 x 36 take 561 numbers of 504."""
    check(run("plan f64.yml --json", 0, folder)["job"] == "twin", "plan knows what a recipe with twin: models is for")
    for way, density in (("svd", 0.8), ("magnitude", 0.5)):
        run(f"twin f64.yml -o large-{way} --set twin.compress={way} --set twin.density={density}", 2, folder)
        shared, model = read(folder / f"large-{way}/shared.h5"), read(folder / "f64-a/trunk.h5")
        twin = read(folder / f"large-{way}/twins/a.h5")
        check(sorted(twin) == sorted(shared), f"{way}: {sorted(twin)}")
        for n in shared:
            close(twin[n], model[n] - shared[n], 1e-12, f"{way}: {n} is whole")


def check_stop(folder: Path) -> None:
    """Asked to stop once a task has its scores, and gone on with on other ranks: these are not made again."""
    recipe(folder, "slow", "{widths: [600, 400]}", "float32", "density: 0.05, compress: magnitude, route: soft")
    tune(folder, "slow")
    run("twin slow.yml -o slow-whole", 1, folder)
    units = folder / "slow-cut/units"

    def during(ranks) -> None:
        end = time.monotonic() + 60
        while not list(units.glob("*.unit")) and time.monotonic() < end:
            time.sleep(0.001)
        for pid in ranks().values():
            tell(pid, signal.SIGTERM)
    run("twin slow.yml -o slow-cut", 2, folder, code=75, during=during)
    left = {u.name: u.stat().st_mtime_ns for u in units.glob("*.unit")}
    check(0 < len(left) < 2 * len(TASKS), f"stopped among the scores: {sorted(left)}")
    run("twin slow.yml -o slow-cut", 3, folder)
    check(contents(folder / "slow-cut") == contents(folder / "slow-whole"), "the same bytes after a stop")
    now = {u.name: u.stat().st_mtime_ns for u in units.glob("*.unit")}
    check(len(now) == 2 * len(TASKS) and all(now[n] == left[n] for n in left), f"scores that were there are kept: {now}")


def main() -> int:
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        write_tasks(folder)
        {"mlp": check_mlp, "more": check_more, "stop": check_stop}[sys.argv[1]](folder)
    print("ok" if failures() == 0 else f"{failures()} checks failed")
    return failures() != 0


if __name__ == "__main__":
    sys.exit(main())
