#!/usr/bin/env python3
"""Inputs that do not match, under every policy of the recipe, against numpy; same bytes on 1 to 4 ranks.

SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

COLUMNS = 3
ROWS = {"base": 40000, "a": 40016, "b": 39990, "c": 40016}  # of the embedding: more than a chunk
WEIGHTS = {"a": 0.5, "b": 0.3, "c": -0.7}
LACKS = {"base": {"extra"}, "a": {"layers.0.w"}, "b": {"extra", "only_base"}, "c": {"only_base"}}
LACKS["a"] |= {"only_base"}
rng = np.random.default_rng(11)


def make(rows: bool, missing: bool, ids: bool, dtype: dict[str, str]) -> dict:
    models = {}
    for m, name in enumerate(ROWS):
        shapes = {"embed.weight": [ROWS[name] if rows else 300, COLUMNS], "layers.0.w": [5, 7],
                  "layers.1.w": [6], "extra": [4, 2], "only_base": [3], "scalar": []}
        kind = dtype.get(name, "F32")
        tensors = {k: Tensor(kind, s, round_to(kind, rng.standard_normal(int(np.prod(s)))))
                   for k, s in shapes.items() if not (missing and k in LACKS[name])}
        tensors["ids"] = Tensor("I64", [5], np.arange(5) + (m if ids else 0))
        write(f"{name}.safetensors", tensors)
        models[name] = tensors
    return models


def mix(method: str, base: np.ndarray | None, given: dict[str, np.ndarray]) -> np.ndarray:
    """The method over the models of `given`."""
    if method == "linear":
        total = sum(WEIGHTS[m] for m in given)
        return sum((WEIGHTS[m] * x for m, x in given.items()), 0.0) / total
    return base + sum((WEIGHTS[m] * (x - base) for m, x in given.items()), 0.0)


def embed_pad(method: str, names: list[str], models: dict) -> np.ndarray:
    """Row by row over the models that have the row."""
    out = np.zeros((max(ROWS[n] for n in names), COLUMNS))
    for lo, hi in ((0, 39990), (39990, 40000), (40000, 40016)):
        have = {n: models[n]["embed.weight"].f64().reshape(-1, COLUMNS)[lo:hi]
                for n in names if ROWS[n] >= hi}
        base = have.get("base", next(iter(have.values())))
        have.pop("base", None)
        out[lo:hi] = mix(method, base, have)
    return out.ravel()


def expected(method: str, policy: dict, models: dict) -> dict[str, np.ndarray]:
    names = [n for n in ROWS if n != "base" or method == "task_arithmetic"]
    missing, vocab = policy.get("missing"), policy.get("vocab")
    every = {k for n in names for k in models[n]}
    if missing == "base":
        every = set(models["base"])
    if missing == "intersection":
        every = {k for k in every if all(k in models[n] for n in names)}
    out = {}
    for k in every - {"ids"}:
        have = {n: models[n][k].f64() for n in names if k in models[n]}
        if k == "embed.weight" and vocab == "pad":
            out[k] = embed_pad(method, names, models)
            continue
        if k == "embed.weight":
            have = {n: x[:min(x.size for x in have.values())] for n, x in have.items()}
        if missing == "base":
            have = {n: have.get(n, have["base"]) for n in names}
        base = have.pop("base", None)
        if base is None and method == "task_arithmetic":
            base = next(iter(have.values()))  # its task vector is zero
        out[k] = base if not have else mix(method, base, have)
    return out


def merge(method: str, policy: dict, ranks: int, out: str, dtype: str | None) -> None:
    recipe = {"merge_method": method, **policy,
              "models": [{"model": f"{m}.safetensors", "parameters": {"weight": w}}
                         for m, w in WEIGHTS.items()]}
    recipe |= {"base_model": "base.safetensors"} if method == "task_arithmetic" else {}
    recipe |= {"dtype": dtype} if dtype else {}
    Path("r.yml").write_text(json.dumps(recipe))
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", out, "--overwrite", "--quiet",
               "--block=30000"]
    if ranks > 0:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def check(method: str, policy: dict, models: dict, dtype: str | None = None) -> None:
    merge(method, policy, 0, "out.safetensors", dtype)
    out, _ = read("out.safetensors")
    wanted = expected(method, policy, models)
    assert set(out) == set(wanted) | {"ids"}, (method, policy, sorted(out))
    first = "base" if method == "task_arithmetic" else "a"
    assert out["ids"].raw.tobytes() == models[first]["ids"].raw.tobytes(), "ids"
    for name, x in wanted.items():
        bits = round_to(out[name].dtype, x)
        ours = out[name].raw
        if dtype:
            assert out[name].dtype == {"bfloat16": "BF16"}[dtype], name
        same = bits.view(f"u{bits.itemsize}") == ours.view(f"u{ours.itemsize}")
        assert same.all(), f"{method} {policy} {name}: {np.argmin(same)} of {same.size}"
    for ranks in (2, 3, 4) if policy.get("vocab") == "pad" else (3,):
        merge(method, policy, ranks, f"np{ranks}.safetensors", dtype)
        assert Path(f"np{ranks}.safetensors").read_bytes() == \
            Path("out.safetensors").read_bytes(), f"{policy}: other bytes on {ranks} ranks"
    subprocess.run([os.environ["AM_BIN"], "verify", "out.safetensors"], check=True,
                   capture_output=True)


def main() -> int:
    models = make(False, True, False, {})
    for method in ("linear", "task_arithmetic"):
        for missing in ("union", "intersection", "base"):
            if method == "task_arithmetic" or missing != "base":
                check(method, {"missing": missing}, models)
    mixed = make(False, True, False, {"base": "BF16", "b": "F16"})
    check("task_arithmetic", {"missing": "union"}, mixed, "bfloat16")
    check("linear", {"missing": "union"}, mixed, "bfloat16")
    rows = make(True, False, False, {"c": "BF16"})
    for method in ("linear", "task_arithmetic"):
        check(method, {"vocab": "crop"}, rows)
        check(method, {"vocab": "pad"}, rows, "bfloat16" if method == "linear" else None)
    both = make(True, True, True, {})
    check("task_arithmetic", {"vocab": "pad", "missing": "base", "buffers": "base"}, both)
    return 0


sys.exit(main())
