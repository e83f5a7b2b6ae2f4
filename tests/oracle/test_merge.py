#!/usr/bin/env python3
"""Merges of mixed dtypes against numpy: computed in float64 in the order of the recipe, rounded once.

Every input and output dtype, gradients over layers, filters, integer tensors, scalars and empty
tensors; the result must be equal bit for bit.
SPDX-License-Identifier: BSD-3-Clause
"""
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import RAW, Tensor, read, round_to, write  # noqa: E402

LAYERS, MODELS = 4, 3
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "20")))


def floats(dtype: str, shape: list[int], scale: float) -> Tensor:
    n = int(np.prod(shape))
    x = rng.standard_normal(n) * scale
    x[rng.random(n) < 0.05] = 0.0
    return Tensor(dtype, shape, round_to(dtype, x))


def checkpoints(kinds: list[str]) -> None:
    """base and m0..: all dtypes of `kinds` in turn, some integer tensors that are equal in all."""
    shapes = {f"model.layers.{i}.w": [37, 53] for i in range(LAYERS)}
    shapes |= {"embed": [301, 7], "scalar": [], "none": [0, 5], "head.bias": [11]}
    ids = Tensor("I64", [9], np.arange(9, dtype="<i8") * 10 ** 12)
    mask = Tensor("BOOL", [5], np.array([0, 1, 1, 0, 1], "u1"))
    for m in range(-1, MODELS):
        tensors = {"ids": ids, "mask": mask}
        for i, (name, shape) in enumerate(shapes.items()):
            kind = kinds[(i + m + 1) % len(kinds)]
            tensors[name] = floats(kind, shape, 10.0 ** ((i * 3 + m) % 7 - 5))
        write("base.safetensors" if m < 0 else f"m{m}.safetensors", tensors)


RECIPE = """
merge_method: {method}
base_model: base.safetensors
models:
- model: m0.safetensors
  parameters: {{weight: [0.1, 0.9, 0.4]}}
- model: m1.safetensors
  parameters:
    weight:
    - {{filter: embed, value: 1e-1}}
    - {{filter: layers, value: [-0.25, 0.75]}}
- model: m2.safetensors
parameters: {{weight: 0.35, normalize: {normalize}{more}}}
"""


def weights(name: str) -> list[float]:
    """What the recipe says, worked out by hand for each kind of tensor."""
    layer = int(name.split(".")[2]) if "layers" in name else -1
    t = layer / (LAYERS - 1) if layer >= 0 else 0.0
    at = t * 2
    lo = int(np.floor(at))
    nodes = [0.1, 0.9, 0.4]
    first = (1 - (at - lo)) * nodes[lo] + (at - lo) * nodes[min(lo + 1, 2)]
    second = 1e-1 if "embed" in name else (1 - t) * -0.25 + t * 0.75 if layer >= 0 else 0.35
    return [first, second, 0.35, 0.35]  # the last one is the base's, where it is a model


def expected(method: str, normalize: bool, scale: float, name: str, xs: list) -> np.ndarray:
    xs = [xs[0], *xs[1:], xs[0]] if method == "linear" else xs
    w = weights(name)[:len(xs) - 1]
    total = 0.0
    for value in w:
        total += value
    base = xs[0]
    out = np.zeros_like(base)
    for value, x in zip(w, xs[1:]):
        out = out + value * (x - base if method == "task_arithmetic" else x)
    if method == "linear":
        return out / total if normalize else out
    return base + (scale / total if normalize else scale) * out


def check(method: str, normalize: bool, dtype: str, ranks: int) -> None:
    scale = 0.7
    more = f", lambda: {scale}" if method == "task_arithmetic" else ""
    text = RECIPE.format(method=method, normalize=str(normalize).lower(), more=more)
    Path("r.yml").write_text(text + (f"dtype: {dtype}\n" if dtype else ""))
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", "out.safetensors", "--overwrite",
               "--quiet", "--block=3000"]
    subprocess.run([*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command], check=True,
                   stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    out, _ = read("out.safetensors")
    inputs = [read(p)[0] for p in ["base.safetensors", *[f"m{m}.safetensors" for m in range(MODELS)]]]
    reference = inputs[0] if method == "task_arithmetic" else inputs[1]
    wanted = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
    assert set(out) == set(reference)
    for name, tensor in out.items():
        if tensor.dtype in ("I64", "BOOL"):
            assert tensor.raw.tobytes() == reference[name].raw.tobytes(), name
            continue
        assert tensor.dtype == (wanted[dtype] if dtype else reference[name].dtype), name
        value = expected(method, normalize, scale, name, [i[name].f64() for i in inputs])
        bits = round_to(tensor.dtype, value)
        same = bits.view(f"u{bits.itemsize}") == tensor.raw.view(f"u{bits.itemsize}")
        assert same.all(), f"{method} to {dtype or 'own dtype'}: {name}: {np.argmin(same)}"


def main() -> int:
    assert set(RAW) >= {"F64", "F32", "F16", "BF16"}
    for kinds in (["BF16"], ["F16"], ["F32", "BF16", "F64", "F16"]):
        checkpoints(kinds)
        for method, normalize in (("linear", True), ("task_arithmetic", False)):
            for dtype in ("", "bfloat16", "float16"):
                check(method, normalize, dtype, 2)
    check("linear", False, "float64", 1)
    check("task_arithmetic", True, "float32", 3)
    return 0


sys.exit(main())
