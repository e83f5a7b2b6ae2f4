#!/usr/bin/env python3
"""TSV of matrices of 2048 x 2048 with 8 tasks: ours on 1 and 2 ranks, each matrix whole on one rank; the same
work by LAPACK in one process (NumPy, and PyTorch if --torch names an interpreter that has it); and the memory
of a rank, whole and on grids, for more and more ranks.

usage: tsv.py [--matrices 24] [--side 2048] [--tasks 8] [--part time|memory|grid] [--torch PYTHON]
       from an empty folder; AM_BUILD: the build folder. One line of JSON a run. See README.md.
SPDX-License-Identifier: BSD-3-Clause
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("AM_BUILD", "build")).resolve()
sys.path.insert(0, str(ROOT / "tests" / "support"))
from safetensors import Tensor, read, write  # noqa: E402

RUN = (os.environ.get("AM_MPIRUN") or str(ROOT / "jobs" / "launch")).split()
# What TSV-M does to one matrix: T decompositions, cut and stacked, two polar factors of the stacks.
PEER = """
import sys, time
import numpy as np
{load}
folder, matrices, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base, models = tensors(f"{{folder}}/base.safetensors"), [tensors(f"{{folder}}/{{t}}.safetensors") for t in range(tasks)]
start = time.perf_counter()
for i in range(matrices):
    name = f"layers.{{i}}.weight"
    us, ss, vs = [], [], []
    for m in models:
        u, s, v = svd(m[name] - base[name])
        k = max(1, min(u.shape) // tasks)
        us.append(u[:, :k]); ss.append(s[:k]); vs.append(v[:k])
    u, _, v = svd(cat(us, 1)); left = u @ v
    u, _, v = svd(cat(vs, 0)); right = u @ v
    out = base[name] + (left * cat(ss, 0)) @ right
print(time.perf_counter() - start)
"""
NUMPY = """
sys.path.insert(0, {support!r})
from safetensors import read
def tensors(path): return {{k: t.f64().reshape(t.shape) for k, t in read(path)[0].items()}}
def svd(x): return np.linalg.svd(x, full_matrices=False)
cat = lambda parts, axis: np.concatenate(parts, axis)
"""
TORCH = NUMPY + """
import torch
torch.set_num_threads(1)
inner = tensors
def tensors(path): return {{k: torch.from_numpy(np.array(x)) for k, x in inner(path).items()}}
def svd(x): return torch.linalg.svd(x, full_matrices=False)
cat = lambda parts, axis: torch.cat(parts, axis)
"""


def make(o):
    """f32 inputs; task vectors of full rank with falling spectra, as finetuning gives."""
    names = [f"layers.{i}.weight" for i in range(o.matrices)]
    rng = np.random.default_rng(0)
    base = {n: rng.standard_normal((o.side, o.side), dtype="f4") for n in names}
    fall = np.linspace(1, 0.05, o.side, dtype="f4")
    shape = [o.side, o.side]
    for t in range(-1, o.tasks):
        path = "base.safetensors" if t < 0 else f"{t}.safetensors"
        if Path(path).exists() and sorted(read(path)[0]) == sorted(names):
            continue
        write(path, {n: Tensor("F32", shape, (x if t < 0 else x + 0.01 * fall * rng.standard_normal(
            (o.side, o.side), dtype="f4")).reshape(-1)) for n, x in base.items()})


def recipe(o, grid=None):
    lines = ["merge_method: tsv", "base_model: base.safetensors", "models:"]
    lines += [f"- model: {t}.safetensors" for t in range(o.tasks)]
    if grid:
        lines.append(f"grid: {{shape: {list(grid)}, above: {o.side}, block: 64}}")
    Path("recipe.yml").write_text("\n".join(lines) + "\n")


def ours(o, ranks, grid=None):
    recipe(o, grid)
    done = subprocess.run([*RUN, "-n", str(ranks), BUILD / "allmerge", "merge", "recipe.yml", "-o", "out.safetensors",
                           "--overwrite", "--quiet", "--memory", "64GiB"], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    print(json.dumps({"what": "ours", "ranks": ranks, "grid": grid, "matrices": o.matrices,
                      "seconds": round(said["seconds"], 2), "peak_MiB": round(said["peak_bytes"] / 2**20)}), flush=True)


def peer(o, name, python, load):
    source = PEER.format(load=load.format(support=sys.path[0]))
    start = time.perf_counter()
    done = subprocess.run([python, "-c", source, ".", str(o.matrices), str(o.tasks)], capture_output=True, text=True,
                          check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    print(json.dumps({"what": name, "matrices": o.matrices, "seconds": round(float(done.stdout), 2),
                      "with_reading": round(time.perf_counter() - start, 2)}), flush=True)


def plan(o, ranks, grid=None):
    """Memory of a rank, from the headers; `grid` runs show that it is kept."""
    recipe(o, grid)
    done = subprocess.run([BUILD / "allmerge", "plan", "recipe.yml", "--ranks", str(ranks), "--memory", "64GiB", "--json"],
                          capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    print(json.dumps({"what": "plan", "ranks": ranks, "grid": grid, "peak_MiB": round(said["peak_bytes"] / 2**20),
                      "read_MiB": round(said["read_bytes"] / 2**20)}), flush=True)


GRIDS = ((1, [1, 1]), (2, [2, 1]), (4, [2, 2]), (8, [4, 2]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--matrices", type=int, default=24)
    p.add_argument("--side", type=int, default=2048)
    p.add_argument("--tasks", type=int, default=8)
    p.add_argument("--part", choices=("time", "memory", "grid"), default="time")
    p.add_argument("--torch", metavar="PYTHON")
    o = p.parse_args()
    make(o)
    if o.part == "time":
        ours(o, 1)
        ours(o, 2)
        peer(o, "numpy", "/usr/bin/python3", NUMPY)
        if o.torch:
            peer(o, "torch", o.torch, TORCH)
    for ranks, grid in GRIDS:
        if o.part == "memory":
            plan(o, ranks)
            plan(o, ranks, grid)
        elif o.part == "grid":
            ours(o, ranks)
            ours(o, ranks, grid)


if __name__ == "__main__":
    main()
