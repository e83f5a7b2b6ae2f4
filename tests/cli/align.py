#!/usr/bin/env python3
"""align finds a network that was put into another order as it was, bit by bit, so that merging the two
changes nothing; a network of its own it puts into another order without changing what it computes.
The orders are made here, from what each architecture is, not from the program's own tables.
usage: align.py NETWORK...
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
sys.path.insert(0, str(HERE.parent / "support"))
import make_tasks  # noqa: E402
import rankrun  # noqa: E402
from checks import check, failures  # noqa: E402

CLASSES = 4
T = 7  # positions of a text
MERGE = """
merge_method: linear
models:
- {model: base.h5, parameters: {weight: 0.5}}
- {model: aligned.h5, parameters: {weight: 0.5}}
dtype: float32
"""

Tensors = dict[str, np.ndarray]


class Orders:
    """Random permutations that an architecture allows."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def of(self, n: int) -> np.ndarray:
        return self.rng.permutation(n)

    def attention(self, heads: int, groups: int, width: int, rotary: bool) -> tuple[np.ndarray, np.ndarray]:
        """Orders of the rows of queries, keys and values, and of what attention makes."""
        share = heads // groups
        q, k, v, o = [], [], [], []
        for g in self.of(groups):
            qk = np.arange(width) if rotary else self.of(width)
            vo = self.of(width)
            k += list(g * width + qk)
            v += list(g * width + vo)
            for r in self.of(share):
                q += list((g * share + r) * width + qk)
                o += list((g * share + r) * width + vo)
        rows = q + [heads * width + i for i in k] + [(heads + groups) * width + i for i in v]
        return np.array(rows), np.array(o)


def mlp() -> tuple:
    widths = [36, 24, 16]
    shapes = {}
    for i in range(2):
        shapes |= {f"layers.{i}.weight": (widths[i + 1], widths[i]), f"layers.{i}.bias": (widths[i + 1],)}

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        a, b = o.of(24), o.of(16)
        t["layers.0.weight"], t["layers.0.bias"] = t["layers.0.weight"][a], t["layers.0.bias"][a]
        t["layers.1.weight"], t["layers.1.bias"] = t["layers.1.weight"][b][:, a], t["layers.1.bias"][b]
        return b

    return "{widths: [24, 16]}", shapes, permute, 16, False


def cnn() -> tuple:
    shapes = {"conv.0.weight": (6, 1, 3, 3), "conv.1.weight": (8, 6, 3, 3), "hidden.weight": (20, 8), "hidden.bias": (20,)}
    for i, n in enumerate((6, 8)):
        shapes |= {f"norm.{i}.{s}": (n,) for s in ("weight", "bias", "running_mean", "running_var")}

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        a, b, c = o.of(6), o.of(8), o.of(20)
        t["conv.0.weight"] = t["conv.0.weight"][a]
        t["conv.1.weight"] = t["conv.1.weight"][b][:, a]
        for name in list(t):
            if name.startswith("norm."):
                t[name] = t[name][a if name.startswith("norm.0") else b]
        t["hidden.weight"], t["hidden.bias"] = t["hidden.weight"][c][:, b], t["hidden.bias"][c]
        return c

    return "{preset: cnn, channels: [6, 8], kernel: 3, hidden: 20, batch_norm: yes}", shapes, permute, 20, False


def flat() -> tuple:
    """A convolution whose pixels become one row: nine places go with each channel."""
    shapes = {"conv.0.weight": (6, 1, 5, 5), "conv.0.bias": (6,), "hidden.weight": (20, 54), "hidden.bias": (20,)}

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        a, c = o.of(6), o.of(20)
        t["conv.0.weight"], t["conv.0.bias"] = t["conv.0.weight"][a], t["conv.0.bias"][a]
        pixels = t["hidden.weight"][c].reshape(20, 9, 6)[:, :, a]
        t["hidden.weight"], t["hidden.bias"] = pixels.reshape(20, 54), t["hidden.bias"][c]
        return c

    return "{preset: cnn, channels: [6], hidden: 20}", shapes, permute, 20, False


def block(t: Tensors, b: str, f: np.ndarray, o: Orders, heads: int, groups: int, rotary: bool, gated: bool) -> None:
    """Put a transformer block into another order, that of its features being f."""
    width = len(f) // heads
    rows, out = o.attention(heads, groups, width, rotary)
    up = "gate_up" if gated else "up"
    hidden = t[f"{b}.down.weight"].shape[1]
    h = o.of(hidden)
    hs = np.concatenate([h, hidden + h]) if gated else h
    t[f"{b}.qkv.weight"] = t[f"{b}.qkv.weight"][rows][:, f]
    t[f"{b}.proj.weight"] = t[f"{b}.proj.weight"][f][:, out]
    t[f"{b}.{up}.weight"] = t[f"{b}.{up}.weight"][hs][:, f]
    t[f"{b}.down.weight"] = t[f"{b}.down.weight"][f][:, h]
    for name, order in (("qkv", rows), ("proj", f), (up, hs), ("down", f)):
        if f"{b}.{name}.bias" in t:
            t[f"{b}.{name}.bias"] = t[f"{b}.{name}.bias"][order]
    for name in list(t):
        if name.startswith(f"{b}.norm"):
            t[name] = t[name][f]


def block_shapes(b: str, F: int, qkv: int, hidden: int, gated: bool, bias: bool) -> dict:
    up = "gate_up" if gated else "up"
    sizes = {"qkv": (qkv, F), "proj": (F, F), up: (hidden * (1 + gated), F), "down": (F, hidden)}
    shapes = {f"{b}.{n}.weight": s for n, s in sizes.items()}
    shapes |= {f"{b}.{n}.bias": s[:1] for n, s in sizes.items() if bias}
    return shapes | {f"{b}.norm{i}.{s}": (F,) for i in (1, 2) for s in ("weight", "bias")[:1 + bias]}


def vit() -> tuple:
    F = 16
    shapes = {"patch.weight": (F, 1, 2, 2), "patch.bias": (F,), "class.weight": (F,), "position.weight": (10, F),
              "norm.weight": (F,), "norm.bias": (F,)}
    for i in range(2):
        shapes |= block_shapes(f"blocks.{i}", F, 3 * F, 24, False, True)

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        f = o.of(F)
        for name in "patch.weight", "patch.bias", "class.weight", "norm.weight", "norm.bias":
            t[name] = t[name][f]
        t["position.weight"] = t["position.weight"][:, f]
        for i in range(2):
            block(t, f"blocks.{i}", f, o, 4, 4, False, False)
        return f

    return "{preset: vit, patch: 2, features: 16, depth: 2, heads: 4, hidden: 24}", shapes, permute, F, False


def gpt() -> tuple:
    F = 16
    shapes = {"token.weight": (256, F), "position.weight": (T, F), "norm.weight": (F,), "norm.bias": (F,)}
    for i in range(2):
        shapes |= block_shapes(f"blocks.{i}", F, 3 * F, 32, False, True)

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        f = o.of(F)
        for name in "token.weight", "position.weight", "norm.weight", "norm.bias":
            t[name] = t[name][..., f]
        for i in range(2):
            block(t, f"blocks.{i}", f, o, 2, 2, False, False)
        return f

    return "{preset: gpt, features: 16, depth: 2, heads: 2, hidden: 32}", shapes, permute, F, True


def llama() -> tuple:
    F = 24  # 6 query heads of 4 in 2 groups
    shapes = {"token.weight": (256, F), "norm.weight": (F,)}
    for i in range(2):
        shapes |= block_shapes(f"blocks.{i}", F, 40, 20, True, False)

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        f = o.of(F)
        for name in "token.weight", "norm.weight":
            t[name] = t[name][..., f]
        for i in range(2):
            block(t, f"blocks.{i}", f, o, 6, 2, True, True)
        return f

    model = "{preset: llama, features: 24, depth: 2, heads: 6, groups: 2, hidden: 20}"
    return model, shapes, permute, F, True


def layers() -> tuple:
    """A list of layers: a square matrix inside a residual, grouped heads without rotary positions."""
    F = 16
    model = """
  layers:
  - {layer: image, name: image}
  - {layer: conv2d, name: patch, out: 16, kernel: 2, stride: 2}
  - {layer: flatten, name: rows, positions: yes}
  - {layer: linear, name: square, out: 16, activation: tanh}
  - {layer: add, name: sum, from: [rows, square]}
  - {layer: linear, name: qkv, out: 32}
  - {layer: attention, name: attention, heads: 4, groups: 2}
  - {layer: linear, name: proj, out: 16}
  - {layer: add, name: again, from: [sum, proj]}
  - {layer: rms_norm, name: norm}
  - {layer: pool_positions, name: pool}"""
    shapes = {"patch.weight": (F, 1, 2, 2), "patch.bias": (F,), "square.weight": (F, F), "square.bias": (F,),
              "qkv.weight": (32, F), "qkv.bias": (32,), "proj.weight": (F, F), "proj.bias": (F,),
              "norm.weight": (F,)}

    def permute(t: Tensors, o: Orders) -> np.ndarray:
        f = o.of(F)
        rows, out = o.attention(4, 2, 4, False)
        for name in "patch.weight", "patch.bias", "square.bias", "proj.bias", "norm.weight":
            t[name] = t[name][f]
        t["square.weight"] = t["square.weight"][f][:, f]
        t["qkv.weight"], t["qkv.bias"] = t["qkv.weight"][rows][:, f], t["qkv.bias"][rows]
        t["proj.weight"] = t["proj.weight"][f][:, out]
        return f

    return model, shapes, permute, F, False


NETWORKS = {f.__name__: f for f in (mlp, cnn, flat, vit, gpt, llama, layers)}


def random_model(shapes: dict, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    scale = {n: 0.5 if n.endswith("bias") else 1 / np.sqrt(np.prod(s[1:])) for n, s in shapes.items()}
    t = {n: scale[n] * rng.normal(size=s) for n, s in shapes.items()}
    for n in t:
        if "norm" in n and n.endswith("weight"):
            t[n] = 1 + 0.2 * rng.normal(size=shapes[n])
        if n.endswith("running_var"):
            t[n] = rng.uniform(0.5, 2, shapes[n])
    return {n: x.astype("f4") for n, x in t.items()}


def write(path: Path, tensors: Tensors) -> None:
    with h5py.File(path, "w") as file:
        for name, x in tensors.items():
            file.create_dataset(name, data=np.ascontiguousarray(x))


def read(path: Path) -> Tensors:
    with h5py.File(path) as file:
        return {name: x[()] for name, x in file.items()}


def write_text(path: Path) -> None:
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for split in "train", "validation", "test":
            file[f"{split}/tokens"] = rng.integers(0, 256, (8, T + 1)).astype("u1")
        file.attrs["name"] = "a"


def run(arguments: str, folder: Path, ranks: int = 1, *codes: int) -> rankrun.Result:
    result = rankrun.run(arguments.split(), ranks, folder, timeout=60)
    result.expect_code(*(codes or (0,)))
    check(not result.problems, f"{arguments} on {ranks} ranks", result)
    return result


def loss(folder: Path, model: str, heads: str) -> float:
    result = run(f"eval r.yml --model {model} --heads {heads}", folder)
    return json.loads(result.out)["rows"][0]["task_loss_nats"][0]


def near(a: float, b: float) -> bool:
    return abs(a - b) <= 2e-5 * max(abs(a), abs(b))


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def check_copy(name: str, folder: Path) -> None:
    """A copy in another order: found as it was, on any number of ranks, and merged without a trace."""
    base = read(folder / "base.h5")
    heads = read(folder / "heads.h5")
    before = loss(folder, "base.h5", "heads.h5")
    check(near(loss(folder, "copy.h5", "copy_heads.h5"), before), f"{name}: the copy computes the same")
    check(not near(loss(folder, "copy.h5", "heads.h5"), before), f"{name}: the heads moved, too")
    digests = set()
    for ranks in 1, 3:
        result = run("align r.yml copy.h5 --to base.h5 -o aligned.h5 --overwrite --heads copy_heads.h5 "
                     "--heads-to heads.h5 --heads-output aligned_heads.h5", folder, ranks)
        told = json.loads(result.out)
        digests.add(hashlib.sha256((folder / "aligned.h5").read_bytes()).hexdigest())
        check(same(read(folder / "aligned.h5"), base), f"{name}: the base bit by bit on {ranks} ranks: {told}")
        check(same(read(folder / "aligned_heads.h5"), heads), f"{name}: the heads bit by bit on {ranks} ranks")
        check(abs(told["cosine_after"] - 1) < 1e-12 and told["cosine_before"] < 0.9 and told["is_converged"],
              f"{name}: {told}")
    check(len(digests) == 1, f"{name}: the same bytes on any number of ranks")
    (folder / "m.yml").write_text(MERGE)
    run("merge m.yml -o merged.h5", folder)
    check(same(read(folder / "merged.h5"), base), f"{name}: the merged model is the base")


def check_objective(name: str, match: str, told: dict) -> None:
    """What is told is what was made larger: by activations their products, by both a sum with them."""
    before, after = told["objective_before"], told["objective_after"]
    if match == "activations":
        share = told["activation_cosine_before"] / told["activation_cosine_after"]
        check(near(before / after, share), f"{name}: by activations: {told}")
    else:
        check(after > before, f"{name}: by both: {told}")


def check_weights(told: dict, folder: Path) -> None:
    """Of the list of layers: a network that is the base, and does what it does, has its squared weights and once more those
    that touch each of its two groups, the residual stream and attention; not four times for the four fields of that."""
    base, heads = read(folder / "base.h5"), read(folder / "heads.h5")
    square = {n: float(np.sum(x.astype("f8") ** 2)) for n, x in (base | heads).items()}
    stream = sum(s for n, s in square.items() if n not in ("qkv.bias", "a.head.bias"))
    attention = square["qkv.weight"] + square["qkv.bias"] + square["proj.weight"]
    wanted = sum(square.values()) + stream + attention
    check(near(told["objective_after"], wanted), f"layers: by both: {told['objective_after']}, not {wanted}")


def check_activations(name: str, folder: Path) -> None:
    """By activations the copy does what the base does, unit by unit; of relu there may be units that never work, which
    only weights tell apart. The same bytes on any number of ranks, and the manifest says how it was made."""
    for match in "activations", "both":
        digests = set()
        for ranks in 1, 3:
            told = json.loads(run(f"align r.yml copy.h5 --to base.h5 -o like.h5 --overwrite --match {match} --heads "
                                  "copy_heads.h5 --heads-to heads.h5 --heads-output like_heads.h5", folder, ranks).out)
            digests.add(hashlib.sha256((folder / "like.h5").read_bytes()).hexdigest())
        check(len(digests) == 1, f"{name}: by {match}: the same bytes on any number of ranks")
        check(abs(told["activation_cosine_after"] - 1) < 1e-6 and told["activation_cosine_before"] < 0.9, f"{name}: {told}")
        check(near(loss(folder, "like.h5", "like_heads.h5"), loss(folder, "base.h5", "heads.h5")), f"{name}: by {match}")
        check_objective(name, match, told)
        with h5py.File(folder / "like.h5") as file:
            made = {key: str(file.attrs[key]) for key in file.attrs}
        check(f"--match {match} --seed 0 " in str(made) and "tasks" in made.get("align.recipe", ""), f"{name}: {made}")
    check(same(read(folder / "like.h5"), read(folder / "base.h5")), f"{name}: by both: the base bit by bit")
    if name == "layers":
        check_weights(told, folder)


def check_restart(name: str, folder: Path) -> None:
    """The heads get their name before the trunk: killed between the two, the same command makes the trunk; whole, it has
    nothing to do; of other data, or with the outputs exchanged, it is another one."""
    arguments = ("align r.yml copy.h5 --to base.h5 -o again.h5 --match both --heads copy_heads.h5 --heads-to heads.h5 "
                 "--heads-output again_heads.h5")
    outputs = [folder / f for f in ("again.h5", "again_heads.h5")]
    run(arguments, folder)
    whole = [p.read_bytes() for p in outputs]
    for missing in outputs:
        for path in folder.glob(f"{missing.name}*"):
            path.unlink()
        told = json.loads(run(arguments, folder, 3).out)
        check(not told["was_finished"] and [p.read_bytes() for p in outputs] == whole, f"{name}: {missing.name} again: {told}")
    done = run(arguments, folder, 2)
    check(json.loads(done.out)["was_finished"] and "nothing to do" in done.err, f"{name}: a finished job says so", done)
    exchanged = arguments.replace("again.h5", "x.h5").replace("again_heads.h5", "again.h5").replace("x.h5", "again_heads.h5")
    run(exchanged, folder, 2, 73)
    run(arguments + " --seed 9", folder, 2, 73)
    with h5py.File(folder / "tasks/a.h5", "r+") as file:
        file.attrs["more"] = 1
    run(arguments, folder, 2, 73)


def check_other(name: str, folder: Path) -> None:
    """A network of its own: the same function, the same weights, more like the base than it was."""
    other = read(folder / "other.h5")
    before = loss(folder, "other.h5", "other_heads.h5")
    told = json.loads(run("align r.yml other.h5 --to base.h5 -o moved.h5 --heads other_heads.h5 --seed 5 "
                          "--heads-to heads.h5 --heads-output moved_heads.h5", folder, 2).out)
    moved = read(folder / "moved.h5")
    check(near(loss(folder, "moved.h5", "moved_heads.h5"), before), f"{name}: the other one computes the same")
    check(all(np.array_equal(np.sort(moved[n], None), np.sort(other[n], None)) for n in other),
          f"{name}: the weights are those of the other one")
    check(told["cosine_after"] > told["cosine_before"] + 0.02, f"{name}: {told}")
    check(any(not np.array_equal(moved[n], other[n]) for n in other), f"{name}: something moved")
    product = sum(float(np.vdot(moved[n].astype("f8"), x)) for n, x in read(folder / "base.h5").items()
                  if "running" not in n)
    product += sum(float(np.vdot(read(folder / "moved_heads.h5")[n].astype("f8"), x))
                   for n, x in read(folder / "heads.h5").items())
    check(near(product, told["objective_after"]), f"{name}: objective {told['objective_after']}, not {product}")
    # Without heads the last value keeps its order: the heads still fit.
    run("align r.yml other.h5 --to base.h5 -o kept.h5", folder)
    check(near(loss(folder, "kept.h5", "other_heads.h5"), before), f"{name}: heads that stay fit")


def check_network(name: str, folder: Path) -> None:
    model, shapes, permute, features, is_text = NETWORKS[name]()
    (folder / "tasks").mkdir()
    if is_text:
        write_text(folder / "tasks/a.h5")
    else:
        make_tasks.write_task(folder / "tasks/a.h5", "a", CLASSES, 24)
    (folder / "r.yml").write_text(f"model: {model}\ndata: {{folder: tasks, tasks: [a]}}\n")
    K = 256 if is_text else CLASSES
    head_shapes = {"a.head.weight": (K, features), "a.head.bias": (K,)}
    for seed, file in (1, ""), (2, "other"):
        write(folder / f"{file or 'base'}.h5", random_model(shapes, seed))
        write(folder / f"{file}{'_' if file else ''}heads.h5", random_model(head_shapes, 10 + seed))
    copy, heads = read(folder / "base.h5"), read(folder / "heads.h5")
    last = permute(copy, Orders(3))
    heads["a.head.weight"] = heads["a.head.weight"][:, last]
    write(folder / "copy.h5", copy)
    write(folder / "copy_heads.h5", heads)
    check_copy(name, folder)
    check_activations(name, folder)
    check_other(name, folder)
    check_restart(name, folder)


def main() -> int:
    for name in sys.argv[1:] or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            check_network(name, Path(folder))
    return 1 if failures() else 0


if __name__ == "__main__":
    sys.exit(main())
