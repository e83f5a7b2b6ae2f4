#!/usr/bin/env python3
"""Merging matrices on a process grid: as whole on one rank to 1e-11; the same bytes for one grid on any
number of ranks; what is refused; stopped, killed and gone on with; NaN; what `plan` says of memory.

usage: merge_grid.py PART    PART: methods, bytes, faults, memory
SPDX-License-Identifier: BSD-3-Clause
"""
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
from safetensors import Tensor, read, write  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
SHAPES = {"a.weight": [70, 33], "b.weight": [33, 70], "c.weight": [41, 41], "same.weight": [40, 40],
          "small.weight": [12, 50], "norm": [70]}
ON_GRID = ["a.weight", "b.weight", "c.weight", "same.weight"]
MODELS = 3
METHODS = {"tsv": {}, "iso_c": {}, "iso_cts": {"common_fraction": 0.5}, "subspace_boost": {},
           "wudi": {"closed_form": True}, "wudi-steps": {"iterations": 20}, "opcm": {},
           "regmean": {}, "regmean-whole": {"alpha": 1}}
wrong = []


def check(held, text):
    if not held:
        wrong.append(text)
        print("FINDING", text, flush=True)


def make_inputs(shapes, folder="."):
    """Task vectors of full rank, of rank 5 and with equal columns; one tensor is in all models alike."""
    base = {k: np.random.default_rng(7).standard_normal(s) for k, s in shapes.items()}
    for m in range(MODELS + 1):
        own = np.random.default_rng(100 + m)
        tensors, grams = {}, {}
        for name, shape in shapes.items():
            x = base[name].copy()
            if m > 0 and name != "same.weight":
                step = own.standard_normal(shape)
                if name.startswith("b"):
                    step = own.standard_normal((shape[0], 5)) @ own.standard_normal((5, shape[1]))
                if name.startswith("c"):
                    step[:, 20:] = step[:, :1]
                x += 0.01 * step
            if m > 0 and name.endswith(".weight"):
                # one row per 3 inputs is missing where regmean's sum is to be singular
                rows = own.standard_normal((shape[1] // 5, shape[1]))
                grams["gram." + name[:-7]] = Tensor("F64", [shape[1]] * 2, (rows.T @ rows).reshape(-1))
            tensors[name] = Tensor("F64", shape, x.reshape(-1))
        write(f"{folder}/{m}.safetensors", tensors)
        if grams:
            write(f"{folder}/stats{m}.safetensors", grams)


def recipe(name, method, values, grid=None, models=None):
    lines = [f"merge_method: {method}", "dtype: float64"]
    if method != "regmean":
        lines.append("base_model: 0.safetensors")
    if grid:
        lines.append(f"grid: {json.dumps(grid)}")
    lines += [f"parameters: {json.dumps(values)}", "models:"]
    for m in models or [f"{m}.safetensors" for m in range(1, MODELS + 1)]:
        beside = f", stats: stats{m[0]}.safetensors" if method == "regmean" else ""
        lines.append(f"- {{model: {m}{beside}}}")
    Path(f"{name}.yml").write_text("\n".join(lines) + "\n")
    return f"{name}.yml"


def merge(recipe_path, ranks, out="out.safetensors", more=(), start=None):
    args = [*(start or [*RUN, "-n", str(ranks)]), BIN, "merge", recipe_path, "-o", out, "--quiet", *more]
    return subprocess.run(args, capture_output=True, text=True, check=False, timeout=150)


def take(out="out.safetensors"):
    """The output's tensors, its digest and the manifest; it is gone afterwards."""
    values = {k: t.f64() for k, t in read(out)[0].items()}
    digest = hashlib.sha256(Path(out).read_bytes()).hexdigest()
    manifest = json.loads(Path(f"{out}.manifest.json").read_text())
    Path(out).unlink()
    Path(f"{out}.manifest.json").unlink()
    return values, digest, manifest


def run(recipe_path, ranks, more=()):
    done = merge(recipe_path, ranks, more=more)
    check(done.returncode == 0, f"{recipe_path} on {ranks} ranks: {done.returncode} {done.stderr}")
    return take() if done.returncode == 0 else (None, None, None)


def methods():
    """Every method on grids against the same recipe without one."""
    make_inputs(SHAPES)
    grids = [([1, 1], 7, 1), ([2, 1], 8, 2), ([1, 2], 16, 3), ([2, 2], 5, 4)]
    for i, (name, values) in enumerate(METHODS.items()):
        method = name.split("-")[0]
        whole, _, manifest = run(recipe(name, method, values), 1)
        check("grid" not in manifest, f"{name}: the manifest names a grid where there is none")
        for shape, block, ranks in [grids[i % 2], grids[2 + i % 2]]:
            grid = {"shape": shape, "above": 20, "block": block}
            got, _, manifest = run(recipe(f"{name}-grid", method, values, grid), ranks)
            if got is None:
                continue
            said = manifest.get("grid")
            check(said == {"shape": shape, "block": block, "tensors": ON_GRID},
                  f"{name}: the manifest says {said}")
            for tensor, x in whole.items():
                off = np.abs(got[tensor] - x).max() / np.abs(x).max()
                check(off <= 1e-11, f"{name} on {shape}: '{tensor}' is off by {off:.2g}")
                check(tensor in ON_GRID or off == 0, f"{name}: '{tensor}' is not on the grid but differs")
        print(name, flush=True)


def bytes_():
    """One grid, more and more ranks, and another budget: the same bytes. Methods that cannot: whole."""
    make_inputs(SHAPES)
    for method, values in (("tsv", {}), ("regmean", {"alpha": 1})):
        path = recipe(method, method, values, {"shape": [2, 1], "above": 20, "block": 8})
        _, first, _ = run(path, 2)
        for ranks, more in ((3, []), (4, ["--memory", "16GiB"]), (2, ["--block", "4096"])):
            check(run(path, ranks, more)[1] == first, f"{method}: other bytes on {ranks} ranks {more}")
    plain = run(recipe("knots", "knots", {}), 1)[0]
    done = merge(recipe("knots-grid", "knots", {}, {"shape": [2, 1], "above": 20}), 1)
    check(done.returncode == 0, f"knots with a grid: {done.stderr}")
    got, _, manifest = take()
    check("grid" not in manifest, "knots: the manifest names a grid")
    check(all(np.array_equal(got[k], x) for k, x in plain.items()), "knots: a grid changes its bits")


def make_large():
    """A matrix of more than one block (2^20 elements)."""
    make_inputs({"a.weight": [2600, 410], "b.weight": [410, 500], "small.weight": [12, 50]})


def faults():
    make_inputs(SHAPES)
    grid = {"shape": [2, 1], "above": 20, "block": 8}
    path = recipe("tsv", "tsv", {}, grid)
    expected = run(path, 2)[1]
    done = merge(path, 1)
    check(done.returncode == 2 and "'a.weight' is merged on a grid of 2 x 1 ranks, and there is 1: run on 2 or more"
          in done.stderr, f"too few ranks: {done.returncode} {done.stderr}")
    done = subprocess.run([BIN, "plan", path, "--ranks", "1"], capture_output=True, text=True, check=False)
    check(done.returncode == 2 and "run on 2 or more" in done.stderr, f"plan of too few ranks: {done.stderr}")
    # NaN: named where it is read; or allowed, and then refused before anything is factorised
    tensors = read("2.safetensors")[0]
    x = tensors["b.weight"].f64().copy()
    x[33 * 70 - 1] = np.nan
    tensors["b.weight"] = Tensor("F64", SHAPES["b.weight"], x)
    write("9.safetensors", tensors)
    bad = recipe("bad", "tsv", {}, grid, ["1.safetensors", "9.safetensors"])
    done = merge(bad, 3)
    check(done.returncode == 65 and re.search(r"9\.safetensors: tensor 'b\.weight': element 2309 is NaN", done.stderr),
          f"NaN: {done.returncode} {done.stderr}")
    done = merge(bad, 3, more=["--allow-nonfinite"])
    check(done.returncode == 76 and "tensor 'b.weight': singular values: element (32, 69) of the matrix is NaN"
          in done.stderr, f"NaN that is allowed: {done.returncode} {done.stderr}")
    stops()


def stops():
    """Asked to stop before it begins, and killed while it works; gone on with on other ranks."""
    make_large()
    path = recipe("large", "regmean", {}, {"shape": [2, 1], "above": 400, "block": 32})
    expected = run(path, 2)[1]
    for seconds in (0, 0.2, 0.6):
        for how in (signal.SIGUSR1, signal.SIGKILL):
            code = disturb(path, seconds, how)
            check(seconds > 0 or how == signal.SIGKILL or code == 75, f"asked to stop at once: exit code {code}")
            if not Path("out.safetensors").exists():
                done = merge(path, 3)
                check(done.returncode == 0, f"{how} after {seconds} s: {done.returncode} {done.stderr}")
            check(take()[1] == expected, f"{how} after {seconds} s: other bytes")


def disturb(path, seconds, how):
    """A signal so long after the output was begun; the exit code."""
    args = [*RUN, "-n", "2", BIN, "merge", path, "-o", "out.safetensors", "--quiet", "--save-every", "0"]
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while job.poll() is None and not list(Path().glob("out.safetensors.partial*")):
            time.sleep(0.01)
        time.sleep(seconds)
        job.send_signal(how)
        code = job.wait(timeout=60)
    if how == signal.SIGKILL:
        time.sleep(1.5)  # ranks of a killed mpirun live on for a second
    return code


def memory():
    """The peak is at most what `plan` says, and falls with the grid."""
    make_large()
    falls("regmean", {}, 2)
    make_inputs({"a.weight": [600, 500], "b.weight": [12, 50]})
    falls("tsv", {}, 1)


def falls(method, values, tensors):
    peaks = {}
    for shape, ranks in (None, 1), ([1, 1], 1), ([2, 1], 2), ([2, 2], 4):
        grid = {"shape": shape, "above": 400, "block": 32} if shape else None
        path = recipe("memory", method, values, grid)
        plan = subprocess.run([BIN, "plan", path, "--ranks", str(ranks), "--json", "--memory", "4GiB"],
                              capture_output=True, text=True, check=True)
        said = json.loads(plan.stdout)
        check(said.get("grid_tensors") == (tensors if shape else None), f"plan says {said}")
        done = merge(path, ranks, more=["--memory", "4GiB"])
        check(done.returncode == 0, f"{shape}: {done.stderr}")
        peaks[ranks, bool(shape)] = peak = json.loads(done.stdout)["peak_bytes"]
        take()
        print(f"{method}, {shape} on {ranks}: peak {peak / 2**20:.1f} MiB, plan {said['peak_bytes'] / 2**20:.1f} MiB", flush=True)
        check(peak <= said["peak_bytes"], f"{shape}: {peak} bytes, more than planned, {said['peak_bytes']}")
        check(said["peak_bytes"] <= 1.25 * peak + (8 << 20), f"{shape}: {said['peak_bytes']} planned, {peak} used")
    check(peaks[4, True] < peaks[2, True] < peaks[1, True], f"{method}: peaks {peaks}")


def main() -> int:
    {"methods": methods, "bytes": bytes_, "faults": faults, "memory": memory}[sys.argv[1]]()
    print(f"{len(wrong)} findings", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
