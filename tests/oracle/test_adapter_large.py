#!/usr/bin/env python3
"""Adapters of thousands of modules with ranks of their own: extract-lora writes more than 1 MiB of
configuration, and a merge reads it in no time (each key of a pattern against each module), with dots
and expressions in keys as PEFT reads them.
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
from safetensors import Tensor, read, write  # noqa: E402

N = 4000
CONFIG = Path("a/adapter_config.json")
MERGE = """
merge_method: task_arithmetic
base_model: base.safetensors
models: [{model: base.safetensors+a, parameters: {weight: 1}}]
dtype: float64
"""


def run(*arguments: str, code: int = 0) -> str:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", "2", os.environ["AM_BIN"], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200)
    assert done.returncode == code, f"{shlex.join(command)}: {done.returncode}\n{done.stderr[-2000:]}"
    return done.stderr


def merged() -> dict:
    run("merge", "r.yml", "-o", "out.safetensors", "--overwrite")
    return read("out.safetensors")[0]


def main() -> None:
    rng = np.random.default_rng(8)
    stem = "model.a_long_name_of_a_block_" + "x" * 60
    names = [f"{stem}.{i}.proj.weight" for i in range(N)]
    base = {n: Tensor("F64", [3, 2], rng.standard_normal(6)) for n in names}
    model = {}
    for i, name in enumerate(names):  # of rank 1 or 2
        step = rng.standard_normal((3, 2)) if i % 2 else np.outer(rng.standard_normal(3), rng.standard_normal(2))
        model[name] = Tensor("F64", [3, 2], base[name].raw + step.ravel())
    write("base.safetensors", base)
    write("model.safetensors", model)
    Path("r.yml").write_text(MERGE)
    run("extract-lora", "base.safetensors", "model.safetensors", "-o", "a", "--dtype", "f64")
    config = json.loads(CONFIG.read_text())
    assert CONFIG.stat().st_size > 1 << 20 and len(config["rank_pattern"]) == N
    for name, t in merged().items():
        assert np.allclose(t.f64(), model[name].raw, rtol=0, atol=1e-13), name
    # the first key that matches: a dot is any character, a module's name begins at a dot; expressions
    ranks = config["rank_pattern"]
    config["alpha_pattern"] = {"7.pro": 9, "7.pr.j": 4, r"\.(1|3)\.proj": 99, "(1|3)\\.proj": 6, **ranks}
    CONFIG.write_text(json.dumps(config))
    got = merged()
    for i in range(20):
        name = names[i]
        alpha = 4 if i == 7 else 6 if i in (1, 3) else ranks[name.removesuffix(".weight")]
        step = (model[name].raw - base[name].raw) * alpha / ranks[name.removesuffix(".weight")]
        assert np.allclose(got[name].f64(), base[name].raw + step, rtol=0, atol=1e-12), name
    # a name that a pattern would read otherwise
    odd = {"a+.weight": 1, "b.weight": 2}
    write("base.safetensors", {n: Tensor("F64", [3, 2], np.zeros(6)) for n in odd})
    write("model.safetensors", {n: Tensor("F64", [3, 2], np.eye(3, 2)[:, :].ravel() if r == 2 else np.ones(6))
                                for n, r in odd.items()})
    err = run("extract-lora", "base.safetensors", "model.safetensors", "-o", "b", code=65)
    assert "tensor 'a+.weight': an adapter of several ranks cannot name it" in err, err
    print(f"{N} modules with ranks of their own: written, and read")


main()
