#!/usr/bin/env python3
"""pleas: a network and a copy in another order become the network again; at a budget of 2 the trunk gives what
both networks give; at 1.5 the weights of an MLP are those of numpy's least squares on its activations; the same
bytes on any number of ranks; what cannot grow stays or is refused.
usage: pleas.py NETWORK... | oracle | memory | image | norm | unfit
SPDX-License-Identifier: BSD-3-Clause
"""
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import align  # noqa: E402
from align import CLASSES, NETWORKS, Orders, make_tasks, random_model, read, run, write  # noqa: E402
from checks import check, failures  # noqa: E402

TASKS = "a", "b"
GROWS = {"mlp": 2, "cnn": 3, "flat": 2, "vit": 2, "llama": 2, "layers": 0}  # layers that can


def digest(folder: Path, files: tuple = ("trunk.h5", "heads.h5", "recipe.yml")) -> str:
    return hashlib.sha256(b"".join((folder / f).read_bytes() for f in files)).hexdigest()


def heads_of(tasks: str, features: int, classes: int, seed: int) -> dict:
    shapes = {}
    for t in tasks:
        shapes |= {f"{t}.head.weight": (classes, features), f"{t}.head.bias": (classes,)}
    return random_model(shapes, seed)


def losses(folder: Path, recipe: str, model: str) -> list:
    """Loss of each task whose head is there."""
    out = []
    for task in TASKS:
        result = run(f"eval {recipe} --model {model}/trunk.h5 --heads {model}/heads.h5 --set data.tasks=[{task}]",
                     folder)
        out.append(json.loads(result.out)["rows"][0]["task_loss_nats"][0])
    return out


def near(a: list, b: list, error: float) -> bool:
    return all(abs(x - y) <= error * max(abs(x), abs(y)) for x, y in zip(a, b))


def model_folder(path: Path, trunk: dict, heads: dict) -> None:
    path.mkdir()
    write(path / "trunk.h5", trunk)
    write(path / "heads.h5", heads)


def check_network(name: str, folder: Path) -> None:
    model, shapes, permute, features, is_text = NETWORKS[name]()
    (folder / "tasks").mkdir()
    for task in TASKS:
        if is_text:
            align.write_text(folder / f"tasks/{task}.h5")
        else:
            make_tasks.write_task(folder / f"tasks/{task}.h5", task, CLASSES, 40)
    (folder / "r.yml").write_text(f"model: {model}\ndata: {{folder: tasks, tasks: [a, b]}}\n"
                                  "base: {checkpoint: one/trunk.h5}\nheads: {checkpoint: one/heads.h5}\n")
    K = 256 if is_text else CLASSES
    one, two = random_model(shapes, 1), random_model(shapes, 2)
    copy = {n: x.copy() for n, x in one.items()}
    last = permute(copy, Orders(3))
    heads = heads_of("ab", features, K, 11)
    moved = {n: x[:, last] if x.ndim == 2 else x for n, x in heads.items()}
    model_folder(folder / "one", one, heads)
    model_folder(folder / "copy", copy, moved)
    model_folder(folder / "left", one, {n: x for n, x in heads.items() if n[0] == "a"})
    model_folder(folder / "right", two, {n: x for n, x in heads_of("ab", features, K, 12).items() if n[0] == "b"})
    model_folder(folder / "two", two, heads_of("ab", features, K, 12))
    before, other = losses(folder, "r.yml", "one"), losses(folder, "r.yml", "two")

    for ranks in 1, 3:
        result = json.loads(run("pleas r.yml one copy -o same --match both --overwrite", folder, ranks).out)
        check(near(losses(folder, "same/recipe.yml", "same"), before, 1e-6), f"{name}: merged with its copy on {ranks} ranks")
        merged = read(folder / "same/trunk.h5")
        check(all(np.allclose(merged[n], x, rtol=1e-6, atol=1e-7) for n, x in one.items()), f"{name}: the same weights")
        check(result["merged_parameters"] == result["parameters"], f"{name}: {result}")

    grown = GROWS[name]
    if grown == 0:
        refused = run("pleas r.yml one two -o no --budget 1.5", folder, 3, 2)
        check("no layer of this network can grow" in refused.err, f"{name}: refused", refused)
        return
    seen = set()
    for ranks in 1, 3:
        result = json.loads(run("pleas r.yml one two -o half --budget 1.5 --overwrite", folder, ranks).out)
        seen.add(digest(folder / "half"))
    check(len(seen) == 1, f"{name}: the same bytes on any number of ranks")
    wide = [g for g in result["groups"] if g["merged_units"] > g["units"]]
    check(len(wide) == grown and all(g["merged_units"] == round(1.5 * g["units"]) for g in wide), f"{name}: {result}")
    check(all(x["error_after"] <= x["error_before"] + 1e-9 for x in result["layers"]), f"{name}: {result}")
    check(result["merged_parameters"] > result["parameters"], f"{name}: more parameters")
    check(all(np.isfinite(x) for x in losses(folder, "half/recipe.yml", "half")), f"{name}: it can be evaluated")

    run("pleas r.yml left right -o both --budget 2", folder, 2)
    again = run("pleas r.yml left right -o both --budget 2", folder, 3)
    check("nothing to do" in again.err, f"{name}: a finished run is recognised", again)
    both = losses(folder, "both/recipe.yml", "both")
    if name in ("mlp", "cnn", "flat"):
        check(near(both, [before[0], other[1]], 2e-6), f"{name}: both trunks side by side: {both}, {before}, {other}")
    trained = run("train both/recipe.yml --task a -o trained --set finetune.epochs=1", folder, 2)
    begun = read(folder / "trained/base.h5") | read(folder / "trained/heads.h5")
    from_it = read(folder / "both/trunk.h5") | read(folder / "both/heads.h5")
    check("a.head.weight" in begun and all(np.array_equal(begun[n], from_it[n]) for n in begun),
          f"{name}: training goes on from the merged trunk and heads, not from those of the recipe", trained)
    once = run("pleas r.yml one two -o once --match weights --sweeps 1 --split test", folder, 2)
    told = json.loads(once.out)
    if name == "mlp": # of others the start may be the best order
        check("still gaining after 1 sweeps" in once.err and told["sweeps"] == 1 and not told["is_converged"],
              f"{name}: stopped before the best order", once)
    check(told["is_converged"] != ("still gaining" in once.err), f"{name}: a warning where it is not the best", once)
    check("test samples are used" in once.err and told["split"] == "test", f"{name}: test samples are named", once)
    check(told["ridge"] == 1e-4 and result["split"] == "train" and result["is_converged"], f"{name}: {told}, {result}")


# ---- numpy ----

def assign(gain: np.ndarray) -> list:
    """Column of each row with the largest sum: shortest augmenting paths."""
    n = len(gain)
    u, v, row = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1, int)
    for i in range(1, n + 1):
        row[0], at = i, 0
        least, way, done = np.full(n + 1, np.inf), np.zeros(n + 1, int), np.zeros(n + 1, bool)
        while row[at] != 0:
            done[at] = True
            cost = -gain[row[at] - 1] - u[row[at]] - v[1:]
            for j in range(1, n + 1):
                if not done[j] and cost[j - 1] < least[j]:
                    least[j], way[j] = cost[j - 1], at
            to = min((j for j in range(1, n + 1) if not done[j]), key=lambda j: least[j])
            delta = least[to]
            u[row[done]] += delta
            v[done] -= delta
            least[~done] -= delta
            at = to
        while at != 0:
            row[at] = row[way[at]]
            at = way[at]
    match = np.zeros(n, int)
    match[row[1:] - 1] = np.arange(n)
    return list(match)


def activations(t: dict, x: np.ndarray) -> list:
    out = [x]
    for i in range(2):
        out.append(np.tanh(out[-1] @ t[f"layers.{i}.weight"].T + t[f"layers.{i}.bias"]))
    return out


def pair(a: np.ndarray, b: np.ndarray, units: int) -> tuple:
    """Units of both in the merged layer, -1: none."""
    n = a.shape[1]
    match = assign(a.T @ b)
    order = sorted(range(n), key=lambda i: (np.sum((a[:, i] - b[:, match[i]]) ** 2), i))
    pairs = sorted(order[:2 * n - units])
    alone = sorted(order[2 * n - units:])
    return (np.array(pairs + alone + [-1] * len(alone)),
            np.array([match[i] for i in pairs] + [-1] * len(alone) + [match[i] for i in alone]))


def take(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Columns, zeros where there is none."""
    return np.where(index >= 0, x[:, index], 0)


def merged_inputs(a, b, one, two):
    count = (one >= 0).astype(float) + (two >= 0)
    return (take(a, one) + take(b, two)) / count


def fit(x, wanted, start, ridge):
    """Nearest to `start` [terms,outputs] by ridge regression on what is left, as an augmented least squares."""
    g = np.mean(np.sum(x * x, 0))
    rows = np.vstack([x, np.sqrt(ridge * g) * np.eye(x.shape[1])])
    left = np.vstack([wanted - x @ start, np.zeros((x.shape[1], wanted.shape[1]))])
    return start + np.linalg.lstsq(rows, left, rcond=None)[0]


def starting(wa, wb, rows, terms, shares):
    """Weights put together [terms,outputs]."""
    out = np.zeros((len(terms[0]), len(rows[0])))
    for w, row, term, share in zip((wa, wb), rows, terms, shares):
        block = np.where((row >= 0)[:, None] & (term >= 0)[None, :], w[np.ix_(row, term)], 0)
        out += (share[:, None] * block).T
    return out


def close(a, b):
    return np.linalg.norm(a - b) <= 1e-9 * np.linalg.norm(b)


def check_oracle(folder: Path) -> None:
    ridge = 1e-3
    _, shapes, _, features, _ = NETWORKS["mlp"]()
    model = "{widths: [24, 16], activation: tanh}"  # of relu there are units that never work: any match does
    (folder / "tasks").mkdir()
    make_tasks.write_task(folder / "tasks/a.h5", "a", CLASSES, 300)
    (folder / "r.yml").write_text(f"dtype: float64\nmodel: {model}\ndata: {{folder: tasks, tasks: [a]}}\nbase: {{pretrain: a}}\n")
    nets = [{n: x.astype("f8") for n, x in random_model(shapes, seed).items()} for seed in (1, 2)]
    heads = [{n: x.astype("f8") for n, x in heads_of("a", features, CLASSES, seed).items()} for seed in (11, 12)]
    model_folder(folder / "one", nets[0], heads[0])
    model_folder(folder / "two", nets[1], heads[1])
    with h5py.File(folder / "tasks/a.h5") as file:
        raw = file["train/x"][()]
        x = (raw.reshape(len(raw), -1).astype("f4") / np.float32(255)).astype("f8")
    A, B = (activations(t, x) for t in nets)

    told = json.loads(run(f"align r.yml two/trunk.h5 --to one/trunk.h5 -o al.h5 --match activations --heads two/heads.h5 "
                          f"--heads-output alh.h5", folder, 2).out)
    norms = np.sqrt(sum(np.sum(a * a) for a in A[1:])) * np.sqrt(sum(np.sum(b * b) for b in B[1:]))
    best = 0
    for a, b in zip(A[1:], B[1:]):
        gain = a.T @ b
        best += sum(gain[i, j] for i, j in enumerate(assign(gain)))
    plain = sum(np.sum(a * b) for a, b in zip(A[1:], B[1:]))
    check(abs(told["activation_cosine_after"] - best / norms) < 1e-9, f"align: {told}, {best / norms}")
    check(abs(told["activation_cosine_before"] - plain / norms) < 1e-9, f"align: {told}, {plain / norms}")

    result = json.loads(run(f"pleas r.yml one two -o half --budget 1.5 --ridge {ridge}", folder, 2).out)
    wide = json.loads((folder / "half/recipe.yml").read_text())
    check(wide["base"]["checkpoint"] == "half/trunk.h5" and "pretrain" not in wide["base"] and
          wide["heads"]["checkpoint"] == "half/heads.h5", f"recipe.yml begins with what was made: {wide}")
    got = read(folder / "half/trunk.h5") | read(folder / "half/heads.h5")
    index = np.arange(x.shape[1])
    terms, inputs = (index, index), x
    for i in range(3):
        name = f"layers.{i}" if i < 2 else "a.head"
        w = [t[f"{name}.weight"] for t in (nets if i < 2 else heads)]
        bias = [t[f"{name}.bias"] for t in (nets if i < 2 else heads)]
        rows = pair(A[i + 1], B[i + 1], round(1.5 * A[i + 1].shape[1])) if i < 2 else (np.arange(CLASSES),) * 2
        count = (rows[0] >= 0).astype(float) + (rows[1] >= 0)
        shares = [(r >= 0) / count for r in rows]
        full = np.hstack([inputs, np.ones((len(x), 1))])
        wanted = sum(s * take(y @ v.T + c, r) for s, r, y, v, c in zip(shares, rows, (A[i], B[i]), w, bias))
        start = starting(*w, rows, terms, shares)
        start = np.vstack([start, sum(s * take(c[None], r)[0] for s, r, c in zip(shares, rows, bias))[None]])
        best = fit(full, wanted, start, ridge)
        check(close(got[f"{name}.weight"], best[:-1].T), f"oracle: {name}.weight is numpy's")
        check(close(got[f"{name}.bias"], best[-1]), f"oracle: {name}.bias is numpy's")
        error = np.linalg.norm(full @ best - wanted) / np.linalg.norm(wanted)
        check(abs(result["layers"][i]["error_after"] - error) < 1e-9, f"oracle: {result['layers'][i]}, {error}")
        if i < 2:
            terms, inputs = rows, merged_inputs(A[i + 1], B[i + 1], *rows)


def normed(t: dict, x: np.ndarray) -> np.ndarray:
    """What the first convolution of the cnn and its batch_norm give of images [n,6,6], by channel."""
    around = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    patches = np.stack([around[:, i:i + 6, j:j + 6] for i in range(3) for j in range(3)], -1)
    z = patches @ t["conv.0.weight"].reshape(6, 9).T
    scale = t["norm.0.weight"] / np.sqrt(t["norm.0.running_var"] + 1e-5)
    return (z - t["norm.0.running_mean"]) * scale + t["norm.0.bias"]


def check_norm(folder: Path) -> None:
    """Channels of other scales and signs of batch_norm: both read the samples, so the fit is exact, and the merged channel
    gives the mean of what its two give behind the norm."""
    model, shapes, _, features, _ = NETWORKS["cnn"]()
    (folder / "tasks").mkdir()
    make_tasks.write_task(folder / "tasks/a.h5", "a", CLASSES, 60)
    (folder / "r.yml").write_text(f"dtype: float64\nmodel: {model}\ndata: {{folder: tasks, tasks: [a]}}\n")
    nets = [{n: x.astype("f8") for n, x in random_model(shapes, seed).items()} for seed in (1, 2)]
    nets[1]["norm.0.weight"] *= [3, -0.5, 2, 4, -7, 0.1]
    nets[0]["norm.0.weight"][:2] *= -1
    for name, trunk, seed in ("one", nets[0], 11), ("two", nets[1], 12):
        model_folder(folder / name, trunk, {n: x.astype("f8") for n, x in heads_of("a", features, CLASSES, seed).items()})
    run("align r.yml two/trunk.h5 --to one/trunk.h5 -o al.h5 --match activations", folder, 2)
    run("pleas r.yml one two -o merged", folder, 2)
    got, other = read(folder / "merged/trunk.h5"), read(folder / "al.h5")
    with h5py.File(folder / "tasks/a.h5") as file:
        x = (file["train/x"][()].reshape(-1, 6, 6).astype("f4") / np.float32(255)).astype("f8")
    wanted = (normed(nets[0], x) + normed(other, x)) / 2
    ratio = np.abs(other["norm.0.weight"] / nets[0]["norm.0.weight"])
    check(ratio.max() > 2 and ratio.min() < 0.5, f"norm: scales differ: {ratio}")
    check(close(normed(got, x), wanted), f"norm: off by {np.abs(normed(got, x) - wanted).max()}")


def check_memory(folder: Path) -> None:
    """9 MB of samples: a plan tells what it takes, a budget that does not do is refused, and one that does is kept, with samples in
    pages, to the same bytes."""
    (folder / "tasks").mkdir()
    rng = np.random.default_rng(1)
    with h5py.File(folder / "tasks/a.h5", "w") as file:
        for split, n in ("train", 12000), ("validation", 9), ("test", 9):
            file[f"{split}/x"] = rng.integers(0, 256, (n, 784)).astype("u1")
            file[f"{split}/y"] = rng.integers(0, 3, n).astype("i4")
    (folder / "r.yml").write_text("model: {widths: [60, 40]}\ndata: {folder: tasks, tasks: [a]}\n")
    shapes = {"layers.0.weight": (60, 784), "layers.0.bias": (60,), "layers.1.weight": (40, 60), "layers.1.bias": (40,)}
    for seed, name in (1, "one"), (2, "two"):
        model_folder(folder / name, random_model(shapes, seed), heads_of("a", 40, 3, seed))
    plan = json.loads(run("plan r.yml --job pleas --json", folder).out)
    smaller = json.loads(run("plan r.yml --job align --json", folder).out)
    check(smaller["peak_bytes"] < plan["peak_bytes"], f"align takes less: {smaller}, {plan}")
    run("pleas r.yml one two -o whole --budget 2", folder)
    peak = {}
    for name in "whole", "paged":
        if name == "paged":
            refused = run("pleas r.yml one two -o paged --budget 2 --memory 1M", folder, 1, 2)
            least = next(w for w in refused.err.split() if w.endswith("MiB") and w[:-3].isdigit())
            run(f"pleas r.yml one two -o paged --budget 2 --memory {least}", folder)
        events = [json.loads(line) for line in (folder / name / "events.jsonl").read_text().splitlines()]
        peak[name] = next(e["peak_bytes"] for e in events if e["event"] == "memory")
    check(peak["whole"] <= plan["peak_bytes"] <= 1.25 * peak["whole"], f"plan {plan}, taken {peak}")
    check(peak["paged"] <= int(least[:-3]) << 20 and peak["paged"] < peak["whole"] - 5e6, f"--memory {least}: {peak}")
    models = "trunk.h5", "heads.h5"
    check(digest(folder / "whole", models) == digest(folder / "paged", models), "pages: the same bytes")
    # Heads of other tasks are in the files, too, and in the merged one.
    big = {"z.head.weight": (30000, 40), "z.head.bias": (30000,)}
    for seed, name in (1, "big_one"), (2, "big_two"):
        model_folder(folder / name, random_model(shapes, seed), heads_of("a", 40, 3, seed) | random_model(big, seed))
    refused = run("pleas r.yml big_one big_two -o big --budget 2 --memory 1M", folder, 1, 2)
    least = next(w for w in refused.err.split() if w.endswith("MiB") and w[:-3].isdigit())
    run(f"pleas r.yml big_one big_two -o big --budget 2 --memory {least}", folder)
    events = [json.loads(line) for line in (folder / "big/events.jsonl").read_text().splitlines()]
    taken = next(e["peak_bytes"] for e in events if e["event"] == "memory")
    check(taken <= int(least[:-3]) << 20, f"heads of other tasks: --memory {least}, taken {taken}")


def check_image(folder: Path) -> None:
    """A layer that is seen as an image of given channels keeps its width, others grow: the plan lays out a budget of 2, and the
    fit of what is left is no worse than the start."""
    shapes = {"a.weight": (64, 36), "a.bias": (64,), "c.weight": (6, 4, 3, 3), "c.bias": (6,)}
    (folder / "tasks").mkdir()
    make_tasks.write_task(folder / "tasks/a.h5", "a", CLASSES, 40)
    (folder / "r.yml").write_text("""data: {folder: tasks, tasks: [a]}
model:
  layers:
  - {layer: linear, name: a, out: 64}
  - {layer: activation, name: f, function: relu}
  - {layer: image, name: i, channels: 4, height: 4}
  - {layer: conv2d, name: c, out: 6, kernel: 3}
  - {layer: flatten, name: rows}
""")
    features = 24
    for seed, name in (1, "one"), (2, "two"):
        model_folder(folder / name, random_model(shapes, seed), heads_of("a", features, CLASSES, 10 + seed))
    run("plan r.yml --job pleas", folder)
    for budget in 1.5, 2:
        result = json.loads(run(f"pleas r.yml one two -o b{budget} --budget {budget}", folder, 2).out)
        units = {g["layer"]: (g["units"], g["merged_units"]) for g in result["groups"]}
        check(units == {"a": (4, 4), "c": (6, 6 * budget)}, f"image: {units}")
        check(all(x["error_after"] <= x["error_before"] + 1e-9 for x in result["layers"]), f"image: {result}")
        check(read(folder / f"b{budget}/trunk.h5")["a.weight"].shape == (64, 36), "image: what is seen as one keeps its width")
        run(f"eval b{budget}/recipe.yml --model b{budget}/trunk.h5 --heads b{budget}/heads.h5", folder)


def check_unfit(folder: Path) -> None:
    """A fit that has no solution names its layer and what helps: here inputs whose squares are so small that a share of
    1e-10 of them is 0, and units that never work. A larger ridge helps."""
    (folder / "tasks").mkdir()
    make_tasks.write_task(folder / "tasks/a.h5", "a", CLASSES, 40)
    (folder / "r.yml").write_text("""dtype: float64
data: {folder: tasks, tasks: [a]}
model:
  layers:
  - {layer: linear, name: f, out: 8, bias: no}
  - {layer: linear, name: g, out: 6, bias: no}
""")
    for seed, name in (1, "one"), (2, "two"):
        trunk = {n: x.astype("f8") for n, x in random_model({"f.weight": (8, 36), "g.weight": (6, 8)}, seed).items()}
        trunk["f.weight"] *= 1e-160
        trunk["f.weight"][:6] = 0
        model_folder(folder / name, trunk, {n: x.astype("f8") for n, x in heads_of("a", 6, CLASSES, seed).items()})
    for ranks in 1, 3:
        refused = run("pleas r.yml one two -o run --match weights --ridge 1e-10 --overwrite", folder, ranks, 76)
        check("least squares of layer 'g'" in refused.err and "raise --ridge" in refused.err, "unfit: says which", refused)
    run("pleas r.yml one two -o run --match weights --ridge 1 --overwrite", folder)


CHECKS = {"oracle": check_oracle, "memory": check_memory, "image": check_image, "norm": check_norm, "unfit": check_unfit}


def main() -> int:
    for name in sys.argv[1:] or [*GROWS, *CHECKS]:
        with tempfile.TemporaryDirectory() as folder:
            if name in CHECKS:
                CHECKS[name](Path(folder))
            else:
                check_network(name, Path(folder))
    return 1 if failures() else 0


if __name__ == "__main__":
    sys.exit(main())
