#!/usr/bin/env python3
"""Recipes in bf16 and f16: mergekit decides by rounded task vectors and votes, values are not rounded.

What is kept and which sign wins come from numpy with the roundings that mergekit makes; sums are f64.
`out_dtype: float32` shows values that the recipe's dtype would hide. Written in float32, with
`semantics: paper` or `scope: global`, the same recipes round nothing.
SPDX-License-Identifier: BSD-3-Clause
"""
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

SHAPES = {"bias": [300], "conv": [6, 5, 3, 3], "small": [40, 30], "wide": [50, 120]}
WEIGHTS = [0.3, -0.45, 0.7]
DENSITIES = [0.3, 0.55, 0.8]
KINDS = {"bfloat16": "BF16", "float16": "F16", "float32": None}
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "6")))


def rounded(kind, x) -> np.ndarray:
    """f64 of the nearest numbers of a dtype; None: f32."""
    x = np.atleast_1d(np.asarray(x, "f8"))
    if kind == "F16":
        return x.astype("f2").astype("f8")
    if kind is None:
        return x.astype("f4").astype("f8")
    return Tensor(kind, [x.size], round_to(kind, x.ravel())).f64().reshape(x.shape)


def make_inputs(kind: str) -> list[dict]:
    """Base and models. Updates have few bits, so that rounded sums and products are often equal."""
    files = [{} for _ in range(len(WEIGHTS) + 1)]
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        base = rng.standard_normal(n)
        if name == "small":
            base *= 1e-4  # subnormal task vectors in f16
        for m, tensors in enumerate(files):
            steps = 1 + 0.1 * rng.integers(-3, 4, n)
            x = base if m == 0 else base * steps + 1e-3 * base.std() * rng.standard_normal(n)
            tensors[name] = rounded(kind, x)
    for m, tensors in enumerate(files):
        write(f"{m}.safetensors", {k: Tensor(kind, SHAPES[k], round_to(kind, v))
                                   for k, v in tensors.items()})
    return files


def keep(delta, key, density, gamma):
    """The largest; with gamma all but the very largest, as mergekit slices them."""
    n, mask = delta.size, np.zeros(delta.size)
    order = np.argsort(key, kind="stable")
    if gamma is None:
        mask[np.argsort(-key, kind="stable")[:int(density * n)]] = 1
        return delta * mask
    top = int(gamma * n)
    mask[order[n - int(density * n) - top:-top]] = 1
    return delta * mask


def family(base, models, kind, gamma, elects, normalize):
    deltas = [x - base for x in models]
    near = [rounded(kind, d) for d in deltas]
    kept = [keep(d, np.abs(r), q, gamma) for d, r, q in zip(deltas, near, DENSITIES)]
    votes = np.zeros(base.size, "f4")
    for r, k, w in zip(near, kept, WEIGHTS):
        votes += np.where(k != 0, rounded(kind, r * rounded(kind, w)), 0).astype("f4")
    sign = np.where(votes >= 0, 1, -1)
    agree = [(w * k * sign > 0) | (not elects) for w, k in zip(WEIGHTS, kept)]
    total = sum(w * a for w, a in zip(WEIGHTS, agree))
    by = np.where(np.abs(total) < 1e-8, 1, total) if normalize else 1
    return base + sum(w * k * a for w, k, a in zip(WEIGHTS, kept, agree)) / by


def sce(base, models, kind, topk):
    d = np.array([x - base for x in models])
    near = rounded(kind, d)
    var = rounded(kind, near.var(0).astype("f4"))
    k = int(np.float32(np.count_nonzero(var)) * np.float32(topk))
    mask = np.zeros(base.size)
    mask[np.argsort(-var, kind="stable")[:k]] = 1
    energy = ((d * mask) ** 2).mean(1)
    w = (energy / energy.sum() if energy.sum() >= 1e-6 else np.full(len(d), 1 / len(d)))[:, None]
    votes = np.zeros(base.size, "f4")
    for r in near:
        votes += r.astype("f4")
    m = (np.sign(d) == np.where(votes >= 0, 1, -1)) * mask
    return base + (w * d * m).sum(0) / np.maximum((w * m).sum(0), 1e-6)


CASES = {
    "ties": lambda b, x, kind: family(b, x, kind, None, True, True),
    "breadcrumbs": lambda b, x, kind: family(b, x, kind, 0.05, False, False),
    "breadcrumbs_ties": lambda b, x, kind: family(b, x, kind, 0.05, True, False),
    "sce": lambda b, x, kind: sce(b, x, kind, 0.4),
}


def arcee_fusion(base, x, cols, kind):
    """Every step rounded: divergences of rows may be negative, and so are what they weigh."""
    def near(v) -> np.ndarray:
        return rounded(kind, np.asarray(v, "f4")).astype("f4")

    def softmax(rows) -> np.ndarray:
        e = np.exp(rows - rows.max(1, keepdims=True))
        return near(near(e / e.sum(1, keepdims=True)) + np.float32(1e-8))
    b, v = (near(y).reshape(-1, cols) for y in (base, x))
    p, q = softmax(v), softmax(b)
    row = near(near(p * near(np.log(near(p / q)))).sum(1, keepdims=True, dtype="f4"))
    key = near(np.abs(near(v - b)) * row).ravel()
    q1, q2, q3 = (np.sort(key)[int(k * (x.size - 1) / 4)] for k in (1, 2, 3))
    limit = near(q2 + near(np.float32(1.5) * near(q3 - q1)))
    return np.where(key >= limit, x, base), int((row < 0).sum())


def check_arcee_fusion(files, kind, dtype) -> None:
    """Sums of rows are in another order here: up to 1 element in 200 may be decided otherwise."""
    got = merge("arcee_fusion", f"dtype: {dtype}\n", models=1)
    negative = 0
    for name, shape in SHAPES.items():
        pair = files[0][name], files[1][name]
        near, below = arcee_fusion(*pair, shape[-1], kind)
        wrong = np.count_nonzero(got[name] != near)
        assert wrong <= near.size / 200, f"arcee_fusion {dtype}, {name}: {wrong} differ"
        negative += below
    assert negative > 0 or kind == "F16", "no divergence is negative: the test shows nothing"


def merge(method: str, dtype: str, more: str = "", ranks: int = 0,
          models: int = len(WEIGHTS)) -> dict:
    own = "" if method in ("sce", "arcee_fusion") else ", parameters: {weight: %s, density: %s}"
    text = f"merge_method: {method}\nbase_model: 0.safetensors\nout_dtype: float32\n{dtype}{more}"
    text += "models:\n"
    for m, pair in enumerate(list(zip(WEIGHTS, DENSITIES))[:models]):
        text += f"- {{model: {m + 1}.safetensors{own % pair if own else ''}}}\n"
    text += "parameters: {%s}\n" % ("" if models == 1 else "select_topk: 0.4" if method == "sce" else
                                     "gamma: 0.05" if "bread" in method else "lambda: 1")
    Path("r.yml").write_text(text)
    start = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks)] if ranks else []
    run = subprocess.run([*start, os.environ["AM_BIN"], "merge", "r.yml", "-o", "out.safetensors",
                          "--overwrite", "--quiet", "--block", "4000"],
                         capture_output=True, text=True)
    assert run.returncode == 0, text + run.stderr
    return {k: v.f64() for k, v in read("out.safetensors")[0].items()}


def off(got: dict, want: dict) -> float:
    return max(np.abs(got[k] - want[k]).max() / np.abs(want[k]).max() for k in want)


def main() -> int:
    for kind, dtype in (("BF16", "bfloat16"), ("F16", "float16")):
        files = make_inputs(kind)
        check_arcee_fusion(files, kind, dtype)
        told = 0
        for method, expected in CASES.items():
            def of(kind_of):
                return {k: expected(files[0][k], [f[k] for f in files[1:]], kind_of) for k in SHAPES}
            wide, narrow = of(None), of(kind)
            told += off(wide, narrow) > 1e-5
            for ranks in (0, 3) if method in ("ties", "sce") else (0,):
                error = off(merge(method, f"dtype: {dtype}\n", "", ranks), narrow)
                assert error < 1e-6, f"{method} {dtype}, {ranks} ranks: differs by {error}"
            if method.startswith("breadcrumbs"):
                continue
            error = off(merge(method, ""), narrow)
            assert error < 1e-6, f"{method} of {kind} files, no dtype: differs by {error}"
            error = off(merge(method, "dtype: float32\n"), wide)
            assert error < 1e-6, f"{method} of {kind} files in float32: differs by {error}"
        assert told >= 2 or kind == "F16", "bf16: rounding decides nothing here"
        for more in ("semantics: paper\n", "scope: global\n"):
            both = [merge("ties", f"dtype: {d}\n", more) for d in ("float32", dtype)]
            assert off(*both) == 0, f"{dtype}, {more}: decided by rounded numbers"
    print("decisions are mergekit's")
    return 0


sys.exit(main())
