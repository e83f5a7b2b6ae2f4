#!/usr/bin/env python3
"""The threshold and random methods against numpy (tests/support/sparse_methods.py), in every reading
and scope: bit-equal masks, values to 1e-12 of a tensor's largest, same bytes on several ranks.

Tensors: larger than a tile, rows longer than a tile, one element, none, equal magnitudes, equal
models, models equal to the base. usage: test_sparse.py
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
import sparse_methods as sm  # noqa: E402
from safetensors import Tensor, read, write  # noqa: E402

MODELS, SEED = 4, 11
SHAPES = {"conv": [5, 4, 3, 3], "column": [40, 1], "cube": [6, 7, 50],
          "deep": [3, 600, 9], "flat": [30, 20], "long": [3, 5000], "none": [0, 3],
          "one": [1], "same": [9, 9], "scalar": [], "still": [8, 8], "vector": [130],
          "wide": [70, 90]}
WEIGHTS = [0.5, 0.3, -0.2, 0.4]
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "4")))


def checkpoints() -> list[dict[str, np.ndarray]]:
    """Base, then models, as float64; the files are f32."""
    inputs: list[dict[str, np.ndarray]] = [{} for _ in range(MODELS + 1)]
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        base = rng.standard_normal(n)
        change = rng.standard_normal(n) * 0.1
        for m in range(MODELS + 1):
            own = change if name == "same" else rng.standard_normal(n) * 0.1
            if name == "flat":  # many equal magnitudes, all exact
                base, own = np.round(base * 8) / 8, rng.integers(-3, 4, n) / 16
            if name == "still" or m == 0:
                own = np.zeros(n)
            own[rng.random(n) < 0.02] = 0
            inputs[m][name] = (base + own).astype("<f4")
    for m, tensors in enumerate(inputs):
        file = {k: Tensor("F32", SHAPES[k], v) for k, v in tensors.items()}
        write("base.safetensors" if m == 0 else f"m{m - 1}.safetensors", file)
    return [{k: v.astype("f8") for k, v in tensors.items()} for tensors in inputs]


class Unit:
    """One tensor, or all of them end to end."""

    def __init__(self, inputs: list[dict], names: list[str], models: int):
        self.names = names
        self.base = np.concatenate([inputs[0][k] for k in names])
        self.x = [np.concatenate([inputs[m][k] for k in names]) for m in range(1, models + 1)]
        self.deltas = [x - self.base for x in self.x]
        self.sizes = [inputs[0][k].size for k in names]
        shape = [self.base.size] if len(names) > 1 else SHAPES[names[0]]
        self.cols = shape[-1] if shape else 1
        self.shape = shape

    def words(self, method: str, model: int) -> np.ndarray:
        draw = sm.random_quads if method.startswith("dare") else sm.random_u32
        return np.concatenate([draw(SEED, method, model, k, n)
                               for k, n in zip(self.names, self.sizes)])


def sparse(method: str, u: Unit, t: int, p: dict, paper: bool) -> np.ndarray:
    d, density = u.deltas[t], p.get("density", 1)
    if method == "ties":
        return sm.top(d, density, paper)
    if method.startswith("breadcrumbs"):
        return sm.band(d, density, p.get("gamma", 0.01), u.cols, paper)
    if density >= 1 or density <= 0:
        return d * (density > 0)
    chance = np.full(d.size, density)
    if method.startswith("della"):
        chance = sm.rank_chances(d, density, p.get("epsilon", 0.15), u.shape)
    own = paper and p.get("rescale", True)
    return sm.by_chance(d, chance, u.words(method, t), own)


def family(method: str, u: Unit, p: dict, paper: bool) -> np.ndarray:
    """base + lambda * consensus of sparse task vectors."""
    elects = method in ("ties", "dare_ties", "della", "breadcrumbs_ties")
    rescales = p.get("rescale", method.startswith("d")) and not paper
    kept = []
    for t, d in enumerate(u.deltas):
        s = sparse(method, u, t, p, paper)
        kept.append(sm.restore_norm(s, d) if rescales else s)
    merged = sm.combine(kept, WEIGHTS[:len(kept)], elects,
                        p.get("normalize", method in ("ties", "della")), paper,
                        bool(p.get("merge_max", False)))
    return u.base + p.get("lambda", 1) * merged


def expected(method: str, u: Unit, p: dict, paper: bool) -> np.ndarray:
    if method == "sce":
        return u.base + sm.sce(u.deltas, p.get("select_topk", 1), paper)
    if method in ("ram", "ramplus_tl"):
        more = (p.get("r", 0.1), p.get("alpha", 0.2)) if method == "ramplus_tl" else ()
        return u.base + sm.ram(u.deltas, p.get("epsilon", 1e-5), *more)
    if method == "emr":
        return u.base + p.get("lambda", 1) * sm.emr(
            u.deltas, p.get("task", -1), u.sizes if p.get("tensor_means") else [])
    if method == "tall":
        masks = [p.get("mask_lambda", 0.4)] * len(u.deltas)
        return u.base + sm.tall(u.deltas, p.get("lambda", 0.3), masks, p.get("agree", 2),
                                p.get("task", -1))
    if method == "magmax":
        return u.base + p.get("lambda", 0.5) * sm.magmax(u.deltas)
    if method == "pcb":
        weights = WEIGHTS[:len(u.deltas)]
        return u.base + p.get("lambda", 1) * sm.pcb(u.deltas, weights, p.get("pcb_ratio", 0.1))
    if method == "arcee_fusion":
        return sm.arcee_fusion(u.base, u.x[0], u.cols)
    return family(method, u, p, paper)


def recipe(method: str, models: int, p: dict, scope: str, paper: bool) -> str:
    text = f"merge_method: {method}\nbase_model: base.safetensors\nmodels:\n"
    for m in range(models):
        text += f"- model: m{m}.safetensors\n  parameters: {{weight: {WEIGHTS[m]}"
        text += ", task: true}\n" if p.get("task") == m else "}\n"
    shared = ", ".join(f"{k}: {str(v).lower()}" for k, v in p.items() if k != "task")
    text += f"parameters: {{{shared}}}\ndtype: float64\nseed: {SEED}\n"
    return text + (f"scope: {scope}\n" if scope else "") + ("semantics: paper\n" if paper else "")


def merge(out: str, ranks: int, block: str) -> bytes:
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", out, "--overwrite", "--quiet",
               f"--block={block}"]
    if ranks > 0:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode != 0:
        sys.exit(f"{Path('r.yml').read_text()}exit {run.returncode}\n{run.stderr}")
    return Path(out).read_bytes()


def check(inputs: list, method: str, p: dict, scope: str, paper: bool, models: int) -> None:
    what = f"{method} {p} scope={scope} {'paper' if paper else 'mergekit'} models={models}"
    Path("r.yml").write_text(recipe(method, models, p, scope, paper))
    first = merge("out.safetensors", 0, "8MiB")
    names = sorted(k for k in SHAPES if k != "none")
    units = [names] if scope == "global" else [[k] for k in names]
    out, _ = read("out.safetensors")
    for unit_names in units:
        u = Unit(inputs, unit_names, models)
        want = np.split(expected(method, u, p, paper), np.cumsum(u.sizes)[:-1])
        for k, w in zip(unit_names, want):
            error = np.abs(out[k].f64() - w).max() / (np.abs(w).max() + 1e-300)
            assert error <= 1e-12, f"{what}: {k} differs by {error} of its largest value"
    for ranks, block in ((3, "1KiB"),) if models == MODELS else ():
        assert merge("other.safetensors", ranks, block) == first, f"{what}: other bytes"


GTA = ["ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs",
       "breadcrumbs_ties"]
OWN = {"breadcrumbs": {"gamma": 0.04}, "breadcrumbs_ties": {"gamma": 0.04},
       "della": {"epsilon": 0.2}, "della_linear": {"epsilon": 0.2}}


def main() -> int:
    inputs = checkpoints()
    n = 0

    def run(method, p, scope="", paper=False, models=MODELS):
        nonlocal n
        check(inputs, method, p, scope, paper, models)
        n += 1

    for method in GTA:
        own = OWN.get(method, {})
        for paper in (False, True):
            run(method, {"density": 0.3, "lambda": 0.7, **own}, "", paper)
            run(method, {"density": 0.6, "normalize": method not in ("ties", "della"),
                         "rescale": not method.startswith("d"), **own}, "", paper, 3)
        run(method, {"density": 0, **own}, "", False, 2)
        run(method, {"density": 1, **own}, "", False, 1)
    for method in ("ties", "breadcrumbs", "breadcrumbs_ties", "dare_ties"):
        for paper in (False, True):
            run(method, {"density": 0.2}, "global", paper)
    run("ties", {"density": 0.2, "merge_max": True}, "global", True, 2)
    for scope in ("tensor", "global"):
        for paper in (False, True):
            run("sce", {"select_topk": 0.3}, scope, paper)
        run("emr", {"lambda": 0.8}, scope)
        run("emr", {"task": 1}, scope, False, 3)
        run("emr", {"task": 2, "tensor_means": True}, scope)
        run("pcb", {"lambda": 1.2, "pcb_ratio": 0.15}, scope)
        run("pcb", {"pcb_ratio": 0.9}, scope, False, 2)
        run("ramplus_tl", {"epsilon": 0.12, "r": 0.3, "alpha": 0.5}, scope)
    run("sce", {}, "", False, 1)
    run("sce", {"select_topk": 0}, "", False, 2)
    run("ram", {"epsilon": 0.05})
    run("magmax", {})
    run("tall", {"mask_lambda": 0.5})
    run("tall", {"agree": 3, "lambda": 0.4}, "", False, 3)
    run("tall", {"task": 2}, "", False, 3)
    run("arcee_fusion", {}, "", True, 1)
    print(f"{n} merges equal numpy")
    return 0


sys.exit(main())
