#!/usr/bin/env python3
"""merge --accounting against numpy: elements of the update that rounding lost, per tensor.

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
from safetensors import Tensor, round_to, write  # noqa: E402

SHAPES = {"layers.0.w": [70000], "b": [31, 7], "none": [0], "same": [50]}
RECIPE = """
merge_method: task_arithmetic
base_model: base.safetensors
models: [{model: m.safetensors, parameters: {weight: 0.75}}]
dtype: bfloat16
"""
rng = np.random.default_rng(6)


def make() -> tuple[dict, dict]:
    """Fine-tuned by far less than a step of bf16, by about one, and not at all."""
    base, model = {}, {}
    for name, shape in SHAPES.items():
        x = rng.standard_normal(int(np.prod(shape)))
        step = 0.0 if name == "same" else 10.0 ** rng.uniform(-6, -1, x.size)
        base[name] = Tensor("F32", shape, x.astype("<f4"))
        model[name] = Tensor("F32", shape, (x * (1 + step)).astype("<f4"))
    for path, tensors in (("base", base), ("m", model)):
        write(f"{path}.safetensors", {**tensors, "ids": Tensor("I64", [3], np.arange(3))})
    return base, model


def run(ranks: int, *options: str, code: int = 0) -> dict:
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", f"out{ranks}.safetensors", "--quiet",
               "--block=4000", "--overwrite", *options]
    if ranks > 0:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else {}


def main() -> int:
    base, model = make()
    Path("r.yml").write_text(RECIPE)
    plain = run(0)
    assert "accounting" not in plain
    bytes_before = Path("out0.safetensors").read_bytes()
    total = run(0, "--accounting", "a.json")["accounting"]
    assert Path("out0.safetensors").read_bytes() == bytes_before
    found = json.loads(Path("a.json").read_text())
    assert set(found) == set(SHAPES), found.keys()
    lost = 0
    for name, shape in SHAPES.items():
        b = base[name].f64()
        exact = b + 0.75 * (model[name].f64() - b)
        updated = exact != b
        same = round_to("BF16", exact) == round_to("BF16", b)
        t = found[name]
        assert t["dtype"] == "BF16" and t["elements"] == exact.size, t
        assert t["updated"] == updated.sum() and t["lost"] == (updated & same).sum(), (name, t)
        assert t["largest_update"] == (np.abs(exact - b).max() if exact.size else 0), (name, t)
        assert t["nan"] == t["infinite"] == 0
        lost += t["lost"]
    assert total["lost"] == lost and 0 < lost < total["updated"], total
    for ranks in (1, 3):
        assert run(ranks, "--accounting", f"a{ranks}.json")["accounting"] == total
        assert Path(f"a{ranks}.json").read_bytes() == Path("a.json").read_bytes()
    bad = base["b"].raw.copy()
    bad[[3, 9]] = np.nan, np.inf
    write("m.safetensors", {**model, "b": Tensor("F32", SHAPES["b"], bad), "ids": Tensor("I64", [3], np.arange(3))})
    total = run(2, "--accounting", "n.json", "--allow-nonfinite")["accounting"]
    assert (total["nan"], total["infinite"]) == (1, 1), total
    done = subprocess.run([os.environ["AM_BIN"], "merge", "r.yml", "-o", "x.h5", "--accounting", "a.json"],
                          capture_output=True, text=True)
    assert done.returncode == 73 and "a.json exists" in done.stderr, done.stderr
    without_base = RECIPE.replace("base_model: base.safetensors\n", "")
    Path("l.yml").write_text(without_base.replace("task_arithmetic", "linear"))
    done = subprocess.run([os.environ["AM_BIN"], "merge", "l.yml", "-o", "l.h5", "--accounting", "l.json",
                           "--allow-nonfinite"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["accounting"]["lost"] is None
    return 0


sys.exit(main())
