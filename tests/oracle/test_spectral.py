#!/usr/bin/env python3
"""Methods on matrices against numpy in float64, straight from their definitions.

Matrices: square, tall, wide, of one row or column, rank-deficient, zero, equal models, models that cancel,
several batches; convolutions, vectors and scalars beside them. Every recipe runs on 1, 2, 3 and 5 ranks, and
all of these give the same bytes. Inputs are multiples of 2^-20, so that task vectors have the rank that they
were made with.
usage: test_spectral.py [METHOD...]     SPDX-License-Identifier: BSD-3-Clause
"""
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
Matrices = list[np.ndarray]
RANKS = (1, 2, 3, 5)
EPSILON = np.finfo(float).eps
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "21")))


# ---- inputs ----

def grid(x: np.ndarray) -> np.ndarray:
    return np.round(x * 2 ** 20) / 2 ** 20


def normal(*shape: int) -> np.ndarray:
    return grid(rng.standard_normal(shape))


def low_rank(m: int, n: int, rank: int) -> np.ndarray:
    """Exactly, and without rounding."""
    return rng.integers(-999, 1000, (m, rank)) @ rng.integers(-999, 1000, (rank, n)) / 2 ** 20


def draw(count: int) -> list[Tensors]:
    """Base and `count` models."""
    shapes = {"square": (12, 12), "tall": (31, 7), "wide": (6, 29), "row": (1, 9), "column": (9, 1),
              "large": (70, 90), "conv": (5, 4, 3, 2), "cube": (4, 3, 5), "vector": (17,), "one": (1,),
              "scalar": (), "embed": (20, 8)}
    base = {name: normal(*shape) for name, shape in shapes.items()}
    models = [{name: base[name] + grid(0.3 * normal(*shape)) for name, shape in shapes.items()}
              for _ in range(count)]
    special = {"deficient": lambda t: low_rank(14, 10, 3), "none": lambda t: np.zeros((7, 5)),
               "some_zero": lambda t: normal(8, 9) * (t % 2), "thin": lambda t: low_rank(9, 11, 1),
               "scaled": lambda t: normal(9, 8) * 2.0 ** (3 * t - 8),
               "shared": lambda t: shared + 2.0 ** -6 * normal(10, 10)}
    shared = low_rank(10, 10, 2)
    for name, make in special.items():
        deltas = [make(t) for t in range(count)]
        base[name] = normal(*deltas[0].shape)
        for model, delta in zip(models, deltas):
            model[name] = base[name] + delta
    return [base, *models]


def save(path: str, tensors: Tensors) -> None:
    write(path, {name: Tensor("F64", list(x.shape), x.reshape(-1)) for name, x in tensors.items()})


# ---- formulas: of the task vectors of one matrix ----

def svd(a: np.ndarray, of: float = 0, least: float = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without the directions that are rounding."""
    u, s, v = np.linalg.svd(a, full_matrices=False)
    r = int((s > max(max(a.shape) * EPSILON * max(s[0], of), least * s[0])).sum())
    return u[:, :r], s[:r], v[:r]


def polar(a: np.ndarray) -> np.ndarray:
    if a.size == 0:
        return a
    u, _, v = svd(a, least=1e-8)  # directions of several matrices: equal ones differ by rounding
    return u @ v


def tsv(d: Matrices, rank_fraction: float = 0) -> np.ndarray:
    k = min(d[0].shape)
    r = max(1, int((rank_fraction or 1 / len(d)) * k + 1e-9))
    parts = [svd(x) for x in d]
    u = np.hstack([p[0][:, :r] for p in parts])
    v = np.vstack([p[2][:r] for p in parts])
    return polar(u) * np.concatenate([p[1][:r] for p in parts]) @ polar(v)


def iso_c(d: Matrices) -> np.ndarray:
    u, s, v = svd(sum(d))
    return s.sum() / min(d[0].shape) * u @ v


def iso_cts(d: Matrices, common_fraction: float = 0.8) -> np.ndarray:
    k = min(d[0].shape)
    each = min(round((k - int(common_fraction * k + 1e-9)) / len(d)), k // len(d))
    u, s, v = (x[..., :k - each * len(d)] if i < 2 else x[:k - each * len(d)]
               for i, x in enumerate(svd(sum(d))))
    us, ss, vs = [u], [s], [v]
    for x in d:
        p, q, w = svd(x - u @ (u.T @ x), np.linalg.norm(x))
        us, ss, vs = [*us, p[:, :each]], [*ss, q[:each]], [*vs, w[:each]]
    return np.concatenate(ss).sum() / k * polar(np.hstack(us)) @ polar(np.vstack(vs))


def subspace_boost(d: Matrices, beta: float = 0.01) -> np.ndarray:
    u, s, v = svd(sum(d))
    if s.size == 0:
        return 0 * d[0]
    cut = min(int((np.cumsum(s) < beta * s.sum()).sum()), s.size - 1)
    return u * np.maximum(s, s[cut]) @ v


def opcm(d: Matrices, alpha: float = 0.5, rescale: bool = True) -> np.ndarray:
    total = d[0].copy()
    for x in d[1:]:
        u, s, v = np.linalg.svd(total)
        rank = int((s > max(total.shape) * EPSILON * s[0]).sum())
        running = np.cumsum(s[:rank])
        split = int((running <= alpha * running[-1]).sum()) if rank > 0 else 0
        inner = u.T @ x @ v.T
        inner[:split, :split] = 0
        for i in range(rank):
            inner[i, i] = 0
        total = total + u @ inner @ v
    length = np.linalg.norm(total)
    mean = np.mean([np.linalg.norm(x) for x in d])
    return total * (mean / length if rescale and length > 0 else 1)


def wudi(d: Matrices, closed_form: bool = False, iterations: int = 300,
         learning_rate: float = 1e-5) -> np.ndarray:
    d = [x for x in d if x.any()] or d[:1]
    square = [max(np.linalg.norm(x) ** 2, 1e-300) for x in d]
    if closed_form:
        a = np.vstack([x / np.sqrt(q) for x, q in zip(d, square)])
        b = np.vstack([x @ x.T / np.sqrt(q) for x, q in zip(d, square)])
        u, s, v = svd(a)
        return ((u.T @ b) / s[:, None]).T @ v
    m = sum(d)
    mean, var = 0 * m, 0 * m
    for step in range(1, iterations + 1):
        g = sum(2 * (m - x) @ x.T @ x / q for x, q in zip(d, square))
        mean, var = 0.9 * mean + 0.1 * g, 0.999 * var + 0.001 * g * g
        m = m - learning_rate * (mean / (1 - 0.9 ** step)) / (np.sqrt(var / (1 - 0.999 ** step)) + 1e-8)
    return m


def knots(d: Matrices, density: float = 0.2, elect: bool = True, smallest: float = 1e-5) -> np.ndarray:
    u, s, v = svd(np.hstack(d))
    r = int((s > smallest).sum())
    blocks = np.array(np.split(s[:r, None] * v[:r], len(d), axis=1))
    blocks[np.abs(blocks) <= max(u.shape[0], v.shape[1]) * EPSILON * s.max(initial=0)] = 0
    for block in blocks:
        flat, n = np.abs(block).ravel(), block.size
        keep = np.argsort(-flat, kind="stable")[:max(1, int(density * n + 1e-9))]
        mask = np.zeros(n)
        mask[keep] = 1
        block *= mask.reshape(block.shape)
    sign = np.where(blocks.sum(0) >= 0, 1, -1)
    agree = np.sign(blocks) == sign
    merged = (blocks * agree).sum(0) / np.maximum(agree.sum(0), 1) if elect else blocks.sum(0)
    return u[:, :r] @ merged


OTHERS = {"wudi": 0}
FORMULAS = {f.__name__: f for f in (tsv, iso_c, iso_cts, subspace_boost, opcm, wudi, knots)}
# Cases of a method: its own parameters; "model" ones are those of every matrix method.
CASES: dict[str, list[dict]] = {
    "tsv": [{}, {"rank_fraction": 0.5}, {"rank_fraction": 1}],
    "iso_c": [{}],
    "iso_cts": [{}, {"common_fraction": 0.3}, {"common_fraction": 0}, {"common_fraction": 1}],
    "subspace_boost": [{}, {"beta": 0.4}, {"beta": 0}, {"beta": 1}],
    "opcm": [{}, {"alpha": 0.2, "rescale": False}, {"alpha": 1}],
    "wudi": [{}, {"closed_form": True}, {"iterations": 20, "learning_rate": 0.01}, {"iterations": 0}],
    "knots": [{}, {"density": 1}, {"density": 0.6, "elect": False}, {"smallest": 0.5}],
}


def merge(name: str, inputs: list[Tensors], own: dict, lam: float, others: float, fold: bool,
          spared: str) -> Tensors:
    base, out = inputs[0], {}
    for tensor, theta in base.items():
        deltas = [x[tensor] - theta for x in inputs[1:]]
        is_matrix = (theta.ndim == 2 or (fold and theta.ndim > 2)) and tensor != spared
        if is_matrix:
            flat = [x.reshape(theta.shape[0], -1) for x in deltas]
            out[tensor] = lam * FORMULAS[name](flat, **own).reshape(theta.shape)
        else:
            out[tensor] = lam * others * np.mean(deltas, axis=0)
    return out


# ---- runs ----

def run(ranks: int, block: int) -> bytes:
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", "out.safetensors", "--overwrite",
               "--quiet", f"--block={block}"]
    if ranks > 1:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, Path("r.yml").read_text() + done.stderr
    return Path("out.safetensors").read_bytes()


def recipe(name: str, models: int, params: dict, spared: str) -> str:
    lines = [f"merge_method: {name}", "base_model: m0.safetensors", "models:"]
    lines += [f"- model: m{t + 1}.safetensors" for t in range(models)]
    rest = "".join(f"  {k}: {str(v).lower()}\n" for k, v in params.items())
    return "\n".join([*lines, "parameters:", rest + "  spectral:", f"  - {{filter: {spared}, value: false}}",
                      "  - value: true", ""])


def check(name: str, inputs: list[Tensors], own: dict, common: dict) -> None:
    fold, lam = common.get("fold", False), common.get("lambda", 1)
    others = common.get("others", OTHERS.get(name, 1))
    Path("r.yml").write_text(recipe(name, len(inputs) - 1, own | common, "embed"))
    outputs = {run(ranks, block) for ranks, block in zip(RANKS, (0, 40000, 3000, 0))}
    assert len(outputs) == 1, f"{name}: the bytes depend on the ranks\n" + Path("r.yml").read_text()
    got, _ = read("out.safetensors")
    expected = merge(name, inputs, own, lam, others, fold, "embed")
    for tensor, delta in expected.items():
        value = got[tensor].raw.reshape(got[tensor].shape) - inputs[0][tensor]
        # the sum with the base rounds too
        scale = max(np.abs(delta).max(initial=0), 1e-6 * np.abs(inputs[0][tensor]).max(initial=0))
        error = np.abs(value - delta).max(initial=0) / scale
        assert error < 1e-9, f"{name}: {tensor} is off by {error}\n" + Path("r.yml").read_text()


def main() -> None:
    names = sys.argv[1:] or list(FORMULAS)
    for count in (3, 1, 5):
        inputs = draw(count)
        for i, tensors in enumerate(inputs):
            save(f"m{i}.safetensors", tensors)
        for name in names:
            cases = CASES[name] if count == 3 else CASES[name][:2]
            for own in cases:
                check(name, inputs, own, {})
            if count == 3:
                check(name, inputs, {}, {"lambda": -0.7, "others": 0.25, "fold": True})
            print(name, count, "models", flush=True)


if __name__ == "__main__":
    main()
