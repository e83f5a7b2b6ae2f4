#!/usr/bin/env python3
"""`allmerge analyze --spectral` against numpy: spectra, effective and stable rank, overlaps of
leading subspaces and singular task interference, written from their formulas, to 1e-9; tall, wide,
folded, of low rank and zero matrices. The same bytes on any number of ranks.
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
from safetensors import Tensor, write  # noqa: E402

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "53")))
SHAPES = {"tall": [60, 25], "wide": [18, 70], "conv": [16, 4, 3, 3], "few": [30, 30],
          "still": [12, 9], "bias": [60], "none": [0, 4]}
TASKS = 3
COLUMNS = ("effective_rank", "stable_rank", "rank", "rank_90", "rank_95", "rank_99")


def make() -> dict[str, list[np.ndarray]]:
    base = {n: rng.standard_normal(int(np.prod(s))) for n, s in SHAPES.items()}
    write("base.safetensors", {n: Tensor("F64", SHAPES[n], x) for n, x in base.items()})
    taus: dict[str, list] = {n: [] for n in SHAPES}
    for t in range(TASKS):
        model = {}
        for name, shape in SHAPES.items():
            rows = max(1, shape[0])
            step = rng.standard_normal((rows, base[name].size // rows))
            step += 2 * np.outer(np.sin(np.arange(rows)), np.cos(np.arange(step.shape[1])))
            if name == "few" and t == 1:  # fewer directions than are compared
                step = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 30))
            if name == "still" and t == 2:
                step = 0 * step
            model[name] = base[name] + step.ravel()[:base[name].size]
            taus[name].append((model[name] - base[name]).reshape(rows, -1))
        write(f"m{t}.safetensors", {n: Tensor("F64", SHAPES[n], x) for n, x in model.items()})
    return taus


def analyze(ranks: int, *options: str) -> tuple[bytes, bytes]:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"],
               "analyze", "base.safetensors", *(f"m{t}.safetensors" for t in range(TASKS)),
               "-o", "out.json", "--overwrite", "--spectral", *options]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode()
    assert b"interference" in done.stderr
    return done.stdout, Path("out.json").read_bytes()


def close(got, want, what: str) -> None:
    got, want = np.array(got, float), np.array(want, float)
    assert got.shape == want.shape, f"{what}: {got.shape} {want.shape}"
    ok = np.isclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(np.nan_to_num(want)).max(initial=0),
                    equal_nan=True)
    assert np.all(ok), f"{what}: {got[~ok]} {want[~ok]}"


def check(own: dict, taus: list[np.ndarray], leading: int, directions: int, what: str) -> dict:
    m, n = taus[0].shape
    k = min(m, n)
    r = min(directions or max(k // TASKS, 1), k)
    u, s, v, told = [], [], [], {c: [] for c in COLUMNS}
    for t, tau in enumerate(taus):
        left, values, right = np.linalg.svd(tau, full_matrices=False)
        rank = int(np.sum(values > max(m, n) * np.finfo(float).eps * values[0])) if values[0] else 0
        close(own["singular_values"][t], values[:leading], f"{what}: singular values")
        close(own["quantiles"][t], np.quantile(values, [0, .25, .5, .75, 1]), f"{what}: quantiles")
        p = values / values.sum() if rank else np.ones(1)
        p = p[p > 0]
        share = np.cumsum(values ** 2) / max(np.sum(values ** 2), 1e-300)
        told["effective_rank"].append(np.exp(-np.sum(p * np.log(p))) if rank else 0)
        told["stable_rank"].append(np.sum(values ** 2) / values[0] ** 2 if rank else 0)
        told["rank"].append(rank)
        for e in (90, 95, 99):
            told[f"rank_{e}"].append(int(np.searchsorted(share, e / 100) + 1) if rank else 0)
        u.append(left[:, :min(r, rank)])
        s.append(values[:min(r, rank)])
        v.append(right[:min(r, rank)].T)
    for c in COLUMNS:
        close(own[c], told[c], f"{what}: {c}")
    for key, x in (("overlap_left", u), ("overlap_right", v)):
        told[key] = [[np.linalg.norm(a.T @ b) ** 2 / min(a.shape[1], b.shape[1])
                      if min(a.shape[1], b.shape[1]) else np.nan for b in x] for a in x]
        close(own[key], told[key], f"{what}: {key}")
    U, S, V = np.hstack(u), np.concatenate(s), np.hstack(v)
    told["interference"] = np.abs((U.T @ U - np.eye(len(S))) * S @ (V.T @ V - np.eye(len(S)))).sum()
    close(own["interference"], told["interference"], f"{what}: interference")
    return told


def main() -> None:
    taus = make()
    for leading, directions in ((8, 0), (40, 5)):
        options = ["--leading", str(leading), "--directions", str(directions)]
        first = analyze(1, *options)
        for ranks in (2, 5):
            assert analyze(ranks, *options) == first, f"other output on {ranks} ranks"
        line, whole = json.loads(first[0]), json.loads(first[1])
        matrices = [n for n in SHAPES if n not in ("bias", "none")]
        assert matrices and all(("spectral" in whole["tensors"][n]) == (n in matrices) for n in SHAPES)
        told = [check(whole["tensors"][n]["spectral"], taus[n], leading, directions, n)
                for n in matrices]
        assert line["spectral"] == whole["spectral"] and line["spectral"]["matrices"] == len(told)
        for key in (*COLUMNS, "overlap_left", "overlap_right", "interference"):
            close(line["spectral"][key], np.nanmean([t[key] for t in told], axis=0), f"mean {key}")
    print(f"{len(told)} matrices of {TASKS} tasks: as numpy has them")


main()
