#!/usr/bin/env python3
"""analyze against numpy: norms, Gram matrices and cosines, global and per tensor, from every dtype
and format; the same bytes on any number of ranks.

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

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "5")))
SHAPES = {"a.weight": [300, 257], "a.bias": [300], "scalar": [], "none": [0, 4], "still": [10]}
MODELS = ["m0.safetensors", "m1.h5", "m0.safetensors", "base.safetensors"]


def checkpoint(path: str, dtype: str) -> None:
    tensors = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        x = np.ones(10) if name == "still" else \
            rng.standard_normal(int(np.prod(shape))) * 10.0 ** (4 * i - 6)
        tensors[name] = Tensor(dtype, shape, round_to(dtype, x))
    tensors["ids"] = Tensor("I64", [3], np.arange(3, dtype="<i8"))
    write(path, tensors)


def analyze(ranks: int) -> tuple[bytes, bytes]:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"],
               "analyze", "base.safetensors", *MODELS, "-o", "out.json", "--overwrite"]
    run = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert b"norm" in run.stderr and b"m1.h5" in run.stderr, run.stderr
    return run.stdout, Path("out.json").read_bytes()


def check(got: dict, taus: np.ndarray) -> None:
    """taus [T, n] in long double."""
    gram = taus @ taus.T
    norms = np.sqrt(np.diag(gram))
    size = np.outer(norms, norms)
    assert np.all(np.abs(np.array(got["norms"]) - norms) <= 1e-14 * norms)
    assert np.all(np.abs(np.array(got["gram"]) - gram) <= 1e-14 * size)
    for a in range(len(norms)):
        for b in range(len(norms)):
            cosine = got["cosines"][a][b]
            if size[a, b] == 0:
                assert cosine is None
            elif a == b or {a, b} == {0, 2}:  # the same file twice
                assert cosine == 1
            else:
                assert abs(cosine - gram[a, b] / size[a, b]) <= 1e-14


def main() -> int:
    checkpoint("base.safetensors", "F32")
    checkpoint("m0.safetensors", "BF16")
    checkpoint("m1.safetensors", "F64")
    subprocess.run([os.environ["AM_BIN"], "convert", "m1.safetensors", "m1.h5"], check=True,
                   capture_output=True, stdin=subprocess.DEVNULL)
    line, text = analyze(1)
    for ranks in (2, 5):
        assert analyze(ranks) == (line, text), f"other output on {ranks} ranks"
    whole, short = json.loads(text), json.loads(line)
    assert line.count(b"\n") == 1 and short["global"] == whole["global"]
    assert whole["base"] == "base.safetensors" and whole["models"] == MODELS
    assert set(whole["tensors"]) == set(SHAPES)
    base = read("base.safetensors")[0]
    models = [read(m.replace("h5", "safetensors"))[0] for m in MODELS]
    taus = {name: np.array([m[name].f64() - base[name].f64() for m in models], np.longdouble)
            for name in SHAPES}
    for name, tau in taus.items():
        check(whole["tensors"][name], tau)
    check(whole["global"], np.concatenate(list(taus.values()), axis=1))
    return 0


sys.exit(main())
