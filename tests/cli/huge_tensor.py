#!/usr/bin/env python3
"""A tensor of 2^31 + 12345 bf16 elements: values as numpy has them, the same bytes for any ranks.

usage: huge_tensor.py [FORMAT:METHOD]...      default: safetensors and h5, task_arithmetic and ties
The inputs are files with holes; real data lies at the front, across element 2^31 and at the end. Needs
10 GB of disk for the outputs, which it removes.
SPDX-License-Identifier: BSD-3-Clause
"""
import filecmp
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
import sparse_ckpt as sparse  # noqa: E402
from safetensors import round_to  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
N = 2 ** 31 + 12345
PATCHES = ((0, 9000), (2 ** 31 - 5000, 10000), (N - 6000, 6000))  # first element, elements
PATCHED = sum(n for _, n in PATCHES)
KEPT = 4000  # of a task vector, by ties
WEIGHTS = (0.75, 0.5)
TENSORS = {"a.bias": ("BF16", (7,)), "big": ("BF16", (N,)), "z": ("BF16", ())}
NAMES = ("base", "m0", "m1")


def save_inputs(ending):
    """The patched elements of every input, widened."""
    values = []
    for seed, name in enumerate(NAMES):
        rng, patches = np.random.default_rng(seed), []
        for first, n in PATCHES:
            patches.append(("big", first, sparse.bf16(rng.standard_normal(n, dtype="f4"))))
        sparse.write(f"{name}{ending}", TENSORS, patches)
        values.append(sparse.widen(np.concatenate([p[2] for p in patches]), "BF16"))
    return values


def trim(delta):
    """The KEPT largest magnitudes; of equal ones those that come first."""
    mask = np.zeros(PATCHED)
    mask[np.argsort(-np.abs(delta).astype("f4"), kind="stable")[:KEPT]] = 1
    return delta * mask


def expected(method, values):
    base, deltas = values[0], [x - values[0] for x in values[1:]]
    if method == "task_arithmetic":
        return base + sum(w * d for w, d in zip(WEIGHTS, deltas))
    mass = [w * trim(d) for w, d in zip(WEIGHTS, deltas)]
    sign = np.where(sum(mass) >= 0, 1.0, -1.0)
    agree = [np.sign(m) == sign for m in mass]
    total = sum(w * a for w, a in zip(WEIGHTS, agree))
    return base + sum(m * a for m, a in zip(mass, agree)) / np.where(total == 0, 1, total)


def write_recipe(method, ending):
    lines = [f"merge_method: {method}", f"base_model: base{ending}", "dtype: float32",
             "out_dtype: bfloat16", "models:"]
    for name, weight in zip(NAMES[1:], WEIGHTS):
        density = f", density: {(KEPT + 0.5) / N!r}" if method == "ties" else ""
        lines.append(f"- {{model: {name}{ending}, parameters: {{weight: {weight}{density}}}}}")
    Path("recipe.yml").write_text("\n".join(lines) + "\n")


def check_values(path, want):
    wrong, at = [], 0
    for first, n in PATCHES:
        got = sparse.read(path, "big", "BF16", first, n)
        differing = int(np.sum(got != round_to("BF16", want[at:at + n])))
        if differing:
            wrong.append(f"{path}: {differing} of {n} elements from {first} on are wrong")
        at += n
    nonzero = sparse.count_nonzero(path, "big", "BF16", N)
    if nonzero != np.count_nonzero(want):
        wrong.append(f"{path}: {nonzero} elements are not zero, not {np.count_nonzero(want)}")
    return wrong


def run(kind, method, values):
    ending, wrong = f".{kind}", []
    write_recipe(method, ending)
    want = expected(method, values)
    for ranks in (1, 2, 3):
        out, start = f"out{ranks}{ending}", monotonic()
        done = subprocess.run([*RUN, "-n", str(ranks), BIN, "merge", "recipe.yml", "-o", out],
                              stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            wrong.append(f"{kind} {method} {ranks} ranks: exit code {done.returncode}")
            break
        peak = json.loads(done.stdout)["peak_bytes"] / 2 ** 20
        print(f"{kind} {method} {ranks} ranks: {monotonic() - start:.1f} s, {peak:.1f} MiB",
              flush=True)
        if ranks == 1:
            wrong += check_values(out, want)
        elif not filecmp.cmp(f"out1{ending}", out, shallow=False):
            wrong.append(f"{kind} {method}: other bytes on {ranks} ranks")
        if ranks > 1:
            Path(out).unlink()
            Path(f"{out}.manifest.json").unlink()
    for path in Path(".").glob(f"out*{ending}*"):
        path.unlink()
    return wrong


def main() -> int:
    wanted = sys.argv[1:] or [f"{kind}:{method}" for kind in ("safetensors", "h5")
                              for method in ("task_arithmetic", "ties")]
    wrong = []
    for kind in sorted({item.split(":")[0] for item in wanted}):
        values = save_inputs(f".{kind}")
        for item in wanted:
            if item.startswith(f"{kind}:"):
                wrong += run(kind, item.split(":")[1], values)
        for name in NAMES:
            Path(f"{name}.{kind}").unlink()
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
