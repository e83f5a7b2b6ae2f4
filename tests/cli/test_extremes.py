#!/usr/bin/env python3
"""Models of 10,000 tensors, empty and scalar ones among them; a folder of 200 shards, an HDF5 file and a
safetensors file in one merge; outputs of many shards: values against numpy, the same bytes for any ranks.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
TENSORS, SHARDS, WEIGHTS, DENSITY = 10_000, 200, (0.75, 0.5), 0.4
SHAPES = ([], [0], [1], [7], [0, 5], [3, 4], [2, 0, 3], [33], [5, 2, 3], [1, 1])
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "7")))
wrong = []


def make_model():
    return {f"layers.{i // 10}.part.{i % 10}": Tensor("F32", SHAPES[i % 10], rng.standard_normal(
        int(np.prod(SHAPES[i % 10])), dtype="f4")) for i in range(TENSORS)}


def write_shards(folder, model):
    Path(folder).mkdir()
    names, index = sorted(model), {}
    for s in range(SHARDS):
        file = f"model-{s + 1:05}-of-{SHARDS:05}.safetensors"
        own = names[s::SHARDS]
        write(f"{folder}/{file}", {name: model[name] for name in own})
        index.update({name: file for name in own})
    Path(folder, "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": sum(t.raw.nbytes for t in model.values())}, "weight_map": index}))
    Path(folder, "config.json").write_text("{}")


def top(delta):
    mask = np.zeros(delta.size)
    mask[np.argsort(-np.abs(delta).astype("f4"), kind="stable")[:max(1, int(DENSITY * delta.size))]] = 1
    return delta * mask


def expected(method, x):
    base, deltas = x[0], [m - x[0] for m in x[1:]]
    if method == "task_arithmetic":
        return base + sum(w * d for w, d in zip(WEIGHTS, deltas))
    mass = [w * top(d) for w, d in zip(WEIGHTS, deltas)]
    sign = np.where(sum(mass) >= 0, 1.0, -1.0)
    agree = [np.sign(m) == sign for m in mass]
    total = sum(w * a for w, a in zip(WEIGHTS, agree))
    return base + sum(m * a for m, a in zip(mass, agree)) / np.where(total == 0, 1, total)


def merge(method, out, ranks, *more):
    density = f", density: {DENSITY}" if method == "ties" else ""
    Path("recipe.yml").write_text(
        f"merge_method: {method}\nbase_model: base.safetensors\ndtype: float32\nmodels:\n"
        f"- {{model: shards, parameters: {{weight: {WEIGHTS[0]}{density}}}}}\n"
        f"- {{model: two.h5, parameters: {{weight: {WEIGHTS[1]}{density}}}}}\n")
    subprocess.run([*RUN, "-n", str(ranks), BIN, "merge", "recipe.yml", "-o", out, "--quiet", *more],
                   stdout=subprocess.DEVNULL, check=True)


def read_any(path):
    """Values of every tensor, flat, and the shapes."""
    if path.endswith(".h5"):
        with h5py.File(path, "r") as file:
            return {name: (list(d.shape), np.asarray(d[()]).ravel()) for name, d in file.items()}
    files = [path] if path.endswith(".safetensors") else sorted(Path(path).glob("*.safetensors"))
    return {name: (t.shape, t.raw) for f in files for name, t in read(f)[0].items()}


def check_values(method, path, models):
    got = read_any(path)
    if sorted(got) != sorted(models[0]):
        wrong.append(f"{path}: {len(got)} tensors")
        return
    bad = 0
    for name, (shape, values) in got.items():
        want = round_to("F32", expected(method, [m[name].f64() for m in models]))
        near = np.abs(values - want) <= 2e-7 * np.abs(want)  # a unit, where a sum falls on an edge
        bad += shape != models[0][name].shape or not near.all()
    if bad:
        wrong.append(f"{method} {path}: {bad} tensors are wrong")


def contents(path):
    if Path(path).is_dir():
        return {p.name: p.read_bytes() for p in sorted(Path(path).iterdir())}
    return {"": Path(path).read_bytes()}


def main() -> int:
    models = [make_model() for _ in range(3)]
    write("base.safetensors", models[0])
    write_shards("shards", models[1])
    write("two.safetensors", models[2])
    subprocess.run([BIN, "convert", "two.safetensors", "two.h5", "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    for method, name, more in (("task_arithmetic", "folder{}", ("--shard-size", "5kB")),
                               ("ties", "out{}.h5", ()), ("ties", "out{}.safetensors", ())):
        for ranks in (1, 2, 3) if name != "out{}.safetensors" else (1, 3):
            merge(method, name.format(ranks), ranks, *more)
        check_values(method, name.format(1), models)
        for ranks in (2, 3):
            if Path(name.format(ranks)).exists() and contents(name.format(ranks)) != contents(
                    name.format(1)):
                wrong.append(f"{name}: other bytes on {ranks} ranks")
    shards = len(list(Path("folder1").glob("*.safetensors")))
    if shards < 50:
        wrong.append(f"only {shards} shards were written")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
