#!/usr/bin/env python3
"""Methods on angles against numpy, on whole vectors and in float64, not through a Gram matrix.

Shapes: scalars, vectors, matrices, convolutions, several tiles. Edges: zero vectors, equal, parallel
and opposite models. Every fourth merge runs on three ranks.
usage: test_angles.py METHOD...     SPDX-License-Identifier: BSD-3-Clause
"""
import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, write  # noqa: E402

Tensors = dict[str, np.ndarray]
LAYERS, MODELS = 3, 4
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "20")))


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def draw(edges: bool) -> list[Tensors]:
    """Base and models; with edges also vectors without a direction of their own."""
    shapes = {f"model.layers.{i}.w": (7, 11) for i in range(LAYERS)}
    shapes |= {"tiles": (90, 131), "conv": (5, 4, 3, 2), "one_row": (1, 9), "one_col": (9, 1),
               "vector": (17,), "one": (1,), "scalar": ()}
    base = {name: normal(*shape) for name, shape in shapes.items()}
    models = [{name: base[name] + 0.3 * normal(*shape) for name, shape in shapes.items()}
              for _ in range(MODELS)]
    if edges:
        special = {"zero": [0.0, 0, 0, 0], "equal": [1.0, 1, 1, 1], "parallel": [1.0, 3, 0.25, 2],
                   "opposite": [1.0, -1, 0.5, 2], "some_zero": [1.0, 0, 0, 2]}
        for name, factors in special.items():
            direction = normal(6, 5)
            base[name] = np.zeros((6, 5))
            for model, factor in zip(models, factors):
                model[name] = factor * direction
    return [base, *models]


def save(path: str, tensors: Tensors) -> None:
    write(path, {name: Tensor("F64", list(x.shape), x.reshape(-1)) for name, x in tensors.items()})


runs = itertools.count()


def run(recipe: str) -> Tensors:
    ranks = 3 if next(runs) % 4 == 0 else 1
    Path("r.yml").write_text(recipe)
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", "out.safetensors", "--overwrite",
               "--quiet", "--block=30000"]
    if ranks > 1:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, recipe + done.stderr
    out, _ = read("out.safetensors")
    return {name: t.raw.reshape(t.shape) for name, t in out.items()}


def recipe(method: str, models: list[str], base: str | None, **keys: object) -> str:
    lines = [f"merge_method: {method}", *([f"base_model: {base}.safetensors"] if base else [])]
    lines += [f"{k}: {keys.pop(k)}" for k in ("scope", "semantics", "seed") if k in keys]
    lines.append("models:")
    own = {k: v for k, v in keys.items() if isinstance(v, list)}
    for i, name in enumerate(models):
        values = ", ".join(f"{k}: {v[i]}" for k, v in own.items())
        lines += [f"- model: {name}.safetensors", f"  parameters: {{{values}}}"]
    rest = ", ".join(f"{k}: {str(v).lower()}" for k, v in keys.items() if k not in own)
    return "\n".join([*lines, f"parameters: {{{rest}}}", ""])


def check(text: str, expected: Tensors, tolerance: float = 1e-11) -> None:
    got = run(text)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        error = np.abs(got[name] - value).max() / max(1e-30, np.abs(value).max())
        assert error < tolerance or np.abs(got[name] - value).max() < 1e-14, \
            f"{name} is off by {error}\n{text}"


# ---- how a formula on vectors runs over the tensors of a checkpoint ----

def each(f: Callable, inputs: list[Tensors]) -> Tensors:
    """f on every tensor as one vector."""
    return {name: f(*[x[name].reshape(-1) for x in inputs]).reshape(inputs[0][name].shape)
            for name in inputs[0]}


def along(f: Callable, axis: int, inputs: list[Tensors]) -> Tensors:
    """f on every vector of each tensor along an axis; a scalar is a vector of one."""
    out = {}
    for name, first in inputs[0].items():
        xs = [np.moveaxis(np.atleast_1d(x[name]), axis, -1) for x in inputs]
        shape = xs[0].shape
        rows = [f(*row) for row in zip(*[x.reshape(-1, shape[-1]) for x in xs])]
        out[name] = np.moveaxis(np.array(rows).reshape(shape), -1, axis).reshape(first.shape)
    return out


def everything(f: Callable, inputs: list[Tensors]) -> Tensors:
    """f on all tensors as one vector, in the order of names."""
    names = sorted(inputs[0])
    flat = f(*[np.concatenate([x[n].reshape(-1) for n in names]) for x in inputs])
    ends = np.cumsum([inputs[0][n].size for n in names])
    return {n: part.reshape(inputs[0][n].shape) for n, part in zip(names, np.split(flat, ends))}


# ---- formulas ----

def arc(t: float, a: np.ndarray, b: np.ndarray, cosine: float, is_line: bool) -> np.ndarray:
    if is_line:
        return (1 - t) * a + t * b
    theta = np.arccos(cosine)
    return (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.sin(theta)


def slerp(t: float) -> Callable:
    def f(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        u, v = (x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-8 else x for x in (a, b))
        cosine = np.clip(u @ v, -1, 1)
        return arc(t, a, b, cosine, abs(cosine) > 0.9995)
    return f


def nuslerp(t: float, with_base: bool) -> Callable:
    def f(*x: np.ndarray) -> np.ndarray:
        base, a, b = x if with_base else (0 * x[0], *x)
        a, b = a - base, b - base
        u, v = (y / max(np.linalg.norm(y), 1e-7) for y in (a, b))
        cosine = np.clip(u @ v, -1, 1)
        return base + arc(t, a, b, cosine, 1 - cosine ** 2 < 1e-14)
    return f


def multislerp(w: list[float], with_base: bool, normalize: bool) -> Callable:
    def f(*x: np.ndarray) -> np.ndarray:
        base = x[0] if with_base else 0 * x[0]
        x = [y - base for y in x[with_base:]]
        share = np.array(w) / (sum(w) if normalize else 1)
        lengths = np.array([np.linalg.norm(y) for y in x])
        units = [y / (n + 1e-8) for y, n in zip(x, lengths)]
        mean = sum(s * u for s, u in zip(share, units))
        if np.linalg.norm(mean) < 1e-8:
            assert len(x) == 2 or not lengths.any()
            return base + sum(s * y for s, y in zip(share, x))
        # the reference's own way, through the tangent space
        mean = mean / np.linalg.norm(mean)
        tangent = sum(s * (u - (u @ mean) * mean) for s, u in zip(share, units))
        size = np.linalg.norm(tangent) + 1e-8
        point = mean * np.cos(size) + tangent * (np.sin(size) / size)
        return base + point * (share @ lengths)
    return f


def karcher(*x: np.ndarray) -> np.ndarray:
    lengths = np.array([np.linalg.norm(y) for y in x])
    units = [y / n for y, n in zip(x, lengths) if n > 1e-5]
    if not units:
        return 0 * x[0]
    mean = sum(units) / len(units)
    size = np.linalg.norm(mean)
    mean = mean / size if size >= 1e-5 else units[0]
    for _ in range(10):
        tangent = 0 * mean
        for u in units:
            cosine = np.clip(u @ mean, -1, 1)
            theta = np.arccos(cosine)
            if theta >= 1e-5 and np.sin(theta) > 1e-7:
                tangent = tangent + theta / np.sin(theta) * (u - cosine * mean) / len(units)
        size = np.linalg.norm(tangent)
        if size < 1e-5:
            break
        mean = np.cos(size) * mean + np.sin(size) * tangent / size
        mean = mean / np.linalg.norm(mean)
    return mean * lengths.mean()


def model_stock(semantics: str) -> Callable:
    def f(base: np.ndarray, *x: np.ndarray) -> np.ndarray:
        n, values = len(x), []
        for a, b in itertools.combinations([y - base for y in x], 2):
            product = np.linalg.norm(a) * np.linalg.norm(b)
            least = max(product, 1e-6) if semantics == "mergekit" else product or 1
            values.append(np.clip(a @ b / least, -1, 1))
        c = np.mean(values) if semantics == "mergekit" else np.cos(np.mean(np.arccos(values)))
        below = 1 + (n - 1) * c
        t = 0 if abs(below) < 1e-6 else n * c / below
        return t * sum(x) / n + (1 - t) * base
    return f


def metagpt(scale: float) -> Callable:
    def f(base: np.ndarray, *x: np.ndarray) -> np.ndarray:
        taus = [y - base for y in x]
        squares = [tau @ tau for tau in taus]
        return base + scale * sum(s * tau for s, tau in zip(squares, taus)) / (sum(squares) or 1)
    return f


def pcgrad(w: list[float], scale: float) -> Callable:
    def f(base: np.ndarray, *x: np.ndarray) -> np.ndarray:
        taus = [y - base for y in x]
        total = 0 * base
        for i, weight in enumerate(w):
            g = taus[i].copy()
            for j, tau in enumerate(taus):
                if j != i and g @ tau < 0:
                    g = g - (g @ tau) / (tau @ tau) * tau
            total = total + weight * g
        return base + scale * total
    return f


def gram_schmidt(w: list[float], scale: float) -> Callable:
    def f(base: np.ndarray, *x: np.ndarray) -> np.ndarray:
        total, basis = 0 * base, []
        for weight, y in zip(w, x):
            tau = y - base
            rest = tau - sum((q @ tau) * q for q in basis)
            if np.linalg.norm(rest) > 1e-6 * np.linalg.norm(tau):
                basis.append(rest / np.linalg.norm(rest))
                total = total + weight * rest
        return base + scale * total
    return f


def loewdin(w: list[float], scale: float) -> Callable:
    def f(base: np.ndarray, *x: np.ndarray) -> np.ndarray:
        taus = np.array([y - base for y in x])
        lengths = np.linalg.norm(taus, axis=1)
        units = taus / np.where(lengths > 0, lengths, 1)[:, None]
        u, s, v = np.linalg.svd(units, full_matrices=False)
        kept = s > 1e-6 * max(s.max(), 1e-30)
        q = u[:, kept] @ v[kept]  # the polar factor
        return base + scale * sum(a * (p @ tau) * p for a, p, tau in zip(w, q, taus))
    return f


def pca(w: list[float], scale: float, components: int = 0, energy: float = 0.9,
        center: bool = False) -> Callable:
    def f(base: np.ndarray, *x: np.ndarray) -> np.ndarray:
        taus = np.array([y - base for y in x])
        middle = center * taus.mean(axis=0)
        u, s, v = np.linalg.svd(taus - middle, full_matrices=False)
        share = np.cumsum(s ** 2) / max((s ** 2).sum(), 1e-300)
        kept = min(int(np.sum(share < energy * (1 - 1e-12))) + 1, components or len(s))
        while 0 < kept < len(s) and s[kept] >= s[kept - 1] * (1 - 1e-10):
            kept += 1
        kept = min(kept, int(np.sum(s > 1e-6 * max(s[0], 1e-300))))
        left = (taus - middle) @ v[:kept].T @ v[:kept] + middle
        return base + scale * sum(a * tau for a, tau in zip(w, left))
    return f


# ---- recipes ----

NAMES = ["base", *[f"m{i}" for i in range(MODELS)]]


def check_slerp(c: list[Tensors]) -> None:
    for t, scope in ((0.35, "tensor"), (0, "tensor"), (1.5, "global")):
        f = slerp(t)
        expected = everything(f, c[1:3]) if scope == "global" else each(f, c[1:3])
        check(recipe("slerp", ["m1", "m0"], "m0", t=t, scope=scope), expected)


def check_nuslerp(c: list[Tensors]) -> None:
    for weight in ([0.5, 0.3], [-0.2, 0.5], [1.0, -1.0]):
        t = 0.5 if sum(weight) == 0 else weight[1] / sum(weight)
        for base in (None, "base"):
            f = nuslerp(t, base is not None)
            inputs = c[0:3] if base else c[1:3]
            check(recipe("nuslerp", NAMES[1:3], base, weight=weight), each(f, inputs))
            if weight[0] < 0:
                check(recipe("nuslerp", NAMES[1:3], base, weight=weight, scope="global"),
                      everything(f, inputs))
            for row_wise, axis in ((True, 0), (False, -1)):
                check(recipe("nuslerp", NAMES[1:3], base, weight=weight, nuslerp_flatten=False,
                             nuslerp_row_wise=row_wise), along(f, axis, inputs))


def check_multislerp(c: list[Tensors]) -> None:
    for n, weight in ((4, [0.5, 0.3, 0.4, 0.1]), (3, [1.5, -0.2, 0.6]), (2, [2.0, 1.0])):
        for base in (None, "base"):
            for normalize in (True, False):
                f = multislerp(weight, base is not None, normalize)
                inputs = c[0:n + 1] if base else c[1:n + 1]
                check(recipe("multislerp", NAMES[1:n + 1], base, weight=weight,
                             normalize_weights=normalize), each(f, inputs))
    f = multislerp([0.5, 0.3, 0.4], False, True)
    check(recipe("multislerp", NAMES[1:4], None, weight=[0.5, 0.3, 0.4], scope="global"),
          everything(f, c[1:4]))
    check(recipe("multislerp", NAMES[1:2], "base", weight=[0.5]), c[1])
    check(recipe("multislerp", NAMES[1:3], None, weight=[0.5, 0.5]),
          each(multislerp([0.5, 0.5], False, True), c[1:3]))  # opposite ones cancel


def check_karcher(c: list[Tensors]) -> None:
    for n in (2, 3, 4):
        check(recipe("karcher", NAMES[1:n + 1], None), each(karcher, c[1:n + 1]))
    check(recipe("karcher", NAMES[1:5], None, scope="global"), everything(karcher, c[1:]))
    check(recipe("karcher", NAMES[1:2], None), c[1])


def check_model_stock(c: list[Tensors]) -> None:
    for n, semantics in itertools.product((2, 4), ("mergekit", "paper")):
        f, names = model_stock(semantics), NAMES[1:n + 1]
        # The paper's mean angle: one ulp of a cosine next to 1 moves its angle by 1.5e-8.
        tolerance = 1e-11 if semantics == "mergekit" else 1e-7
        check(recipe("model_stock", names, "base", semantics=semantics), each(f, c[:n + 1]),
              tolerance)
        check(recipe("model_stock", names, "base", semantics=semantics, filter_wise=True),
              along(f, -1, c[:n + 1]), tolerance)
    check(recipe("model_stock", NAMES[1:4], "base", scope="global"),
          everything(model_stock("mergekit"), c[:4]))


def check_sums(method: str, c: list[Tensors], cases: list[tuple[dict, Callable]]) -> None:
    """Methods on task vectors of all models, in both scopes; global is the default."""
    for keys, f in cases:
        check(recipe(method, NAMES[1:], "base", **keys), everything(f, c))
        check(recipe(method, NAMES[1:], "base", scope="tensor", **keys), each(f, c))


def check_metagpt(c: list[Tensors]) -> None:
    check_sums("metagpt", c, [({}, metagpt(1)), ({"lambda": 0.7}, metagpt(0.7))])


def check_pcgrad(c: list[Tensors]) -> None:
    weight = [0.5, 1.0, -0.3, 0.8]
    check_sums("pcgrad", c, [({"shuffle": False}, pcgrad([1] * 4, 1)),
                             ({"shuffle": False, "weight": weight, "lambda": 0.4},
                              pcgrad(weight, 0.4))])
    results = [run(recipe("pcgrad", NAMES[1:], "base", scope="tensor", seed=s)) for s in range(4)]
    assert any((r[name] != results[0][name]).any() for r in results for name in r), \
        "the seed does not change the order"


def check_orthogonalise(c: list[Tensors]) -> None:
    weight = [0.5, 1.0, -0.3, 0.8]
    check_sums("orthogonalise", c, [
        ({}, gram_schmidt([1] * 4, 1)),
        ({"weight": weight, "lambda": 0.4}, gram_schmidt(weight, 0.4)),
        ({"symmetric": True}, loewdin([1] * 4, 1)),
        ({"symmetric": True, "weight": weight, "lambda": 0.4}, loewdin(weight, 0.4))])


def check_pca(c: list[Tensors]) -> None:
    weight = [0.5, 1.0, -0.3, 0.8]
    check_sums("pca", c, [
        ({}, pca([1] * 4, 1)),
        ({"weight": weight, "lambda": 0.4, "components": 1}, pca(weight, 0.4, 1, 1)),
        ({"weight": weight, "energy": 0.5}, pca(weight, 1, 0, 0.5)),
        ({"weight": weight, "components": 2, "center": True}, pca(weight, 1, 2, 0.9, True)),
        ({"energy": 1}, pca([1] * 4, 1, 0, 1))])
    # components that are equally strong stay together
    square = np.linalg.qr(normal(4, 4))[0]
    base = {"w": np.zeros((2, 2))}
    save("o.safetensors", base)
    taus = [{"w": row.reshape(2, 2)} for row in square]
    for i, tau in enumerate(taus):
        save(f"o{i}.safetensors", tau)
    check(recipe("pca", [f"o{i}" for i in range(4)], "o", components=1, weight=weight),
          {"w": sum(a * tau["w"] for a, tau in zip(weight, taus))})


def check_lines(c: list[Tensors]) -> None:
    def scaled(alpha: float, beta: float, w: list[float]) -> Tensors:
        out = {}
        for name, base in c[0].items():
            depth = int(name.split(".")[2]) / (LAYERS - 1) if "layers" in name else 0
            out[name] = base + (alpha + beta * depth) * sum(
                a * (x[name] - base) for a, x in zip(w, c[1:]))
        return out
    check(recipe("lines", NAMES[1:], "base"), scaled(0.5, 0.5, [1] * 4))
    check(recipe("lines", NAMES[1:], "base", alpha=0.1, beta=-0.4, weight=[1, 2, -1, 0.5]),
          scaled(0.1, -0.4, [1, 2, -1, 0.5]))


def check_fisher(c: list[Tensors]) -> None:
    """Values from far below the floor to far above it, and zeros."""
    fisher = [{n: np.asarray(10 ** rng.uniform(-9, 1, x.shape) * (rng.random(x.shape) > 0.1))
               for n, x in c[0].items()} for _ in range(MODELS)]
    for i, f in enumerate(fisher):
        save(f"f{i}.safetensors", f)

    def mean(w: list[float], factor: list[float], floor: float) -> Callable:
        def g(*inputs: np.ndarray) -> np.ndarray:
            xs, fs = inputs[:MODELS], inputs[MODELS:]
            shares = [a * b * np.maximum(f, floor) for a, b, f in zip(w, factor, fs)]
            return sum(s * x for s, x in zip(shares, xs)) / sum(shares)
        return g

    everywhere = [1 / np.sqrt(sum((x ** 2).sum() for x in f.values())) for f in fisher]
    for normalize, w, floor in ((False, [1] * 4, 1e-6), (True, [1.0, 0.5, 0.0, 2.0], 1e-4)):
        text = recipe("fisher", NAMES[1:], None, normalize=normalize, weight=w, floor=floor)
        for i in range(MODELS):
            text = text.replace(f"- model: m{i}.safetensors",
                                f"- model: m{i}.safetensors\n  fisher: f{i}.safetensors")
        factor = everywhere if normalize else [1] * 4
        check(text, each(mean(w, factor, floor), [*c[1:], *fisher]))


CHECKS = {name[6:]: f for name, f in list(globals().items())
          if name.startswith("check_") and name != "check_sums"}


def main() -> int:
    assert set(sys.argv[1:]) <= set(CHECKS), f"methods: {' '.join(CHECKS)}"
    for edges in (True, False):
        checkpoints = draw(edges)
        for name, tensors in zip(NAMES, checkpoints):
            save(f"{name}.safetensors", tensors)
        for method in sys.argv[1:] or CHECKS:
            CHECKS[method](checkpoints)
            print(f"{method}: as numpy")
    return 0


sys.exit(main())
