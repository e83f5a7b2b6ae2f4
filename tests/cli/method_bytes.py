#!/usr/bin/env python3
"""Every method, in every scope and semantics that it offers: the same bytes for any number of ranks,
any budget from the smallest that `plan` names, and any block.

usage: method_bytes.py quick|long [METHOD]...
quick: each method twice, on ranks, budget and block that go round so that all of them occur. long:
  every scope and semantics, with more parameters, on all ranks with all budgets and blocks.
Inputs are tensors of all forms, of f32, bf16 and f16, which differ from input to input; one tensor is
larger than what a small budget holds. Outputs are f64, so that no difference is rounded away.
SPDX-License-Identifier: BSD-3-Clause
"""
import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
from safetensors import Tensor, round_to, write  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
MODELS = 3
DTYPES = ["F32", "BF16", "F16"]
SHAPES = {"embed.weight": [9001, 1], "layers.0.empty": [0], "layers.0.none": [3, 0], "layers.0.scale": [],
          "layers.0.one": [1], "layers.1.bias": [4097], "layers.1.wide": [3, 5000],
          "layers.1.row": [1, 9001], "layers.2.up": [120, 129], "layers.2.conv": [5, 70, 33],
          "layers.3.large": [500, 400], "layers.4.down.weight": [90, 70], "norm.weight": [129]}
VALUES = {"weight": 0.25, "t": 0.4, "select_topk": 0.2, "density": 0.4, "gamma": 0.05, "epsilon": 0.002}
# Further parameters of the long test: branches that the defaults do not take.
MORE = {"nuslerp": [{"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}],
        "model_stock": [{"filter_wise": True}], "orthogonalise": [{"symmetric": True}],
        "pca": [{"components": 1, "center": True}], "pcgrad": [{"shuffle": True}], "ties": [{"rescale": True}, {"merge_max": True, "normalize": False}],
        "dare_ties": [{"rescale": False}], "della": [{"rescale": False}], "emr": [{"task": 1}, {"task": 1, "tensor_means": True}],
        "tall": [{"task": 1}, {"agree": 2}], "incremental": [{"from_base": True}],
        "breadcrumbs": [{"rescale": True}], "multislerp": [{"normalize_weights": False}],
        "fisher": [{"normalize": True}], "wudi": [{"closed_form": True}, {"fold": True}], "tsv": [{"fold": True}],
        "knots": [{"elect": False, "density": 1}], "opcm": [{"rescale": False}]}
TENSOR_ONLY = {"nuslerp_flatten", "filter_wise"}  # refused with scope: global
RANKS = (2, 3, 5, 8, 1)
BUDGETS = ("smallest", "middle", "none")
BLOCKS = ("32KiB", "0", "40000", "1MiB")
NONE = "16GiB"
wrong, seen = [], set()
expected, budgets, locks = {}, defaultdict(dict), defaultdict(threading.Lock)  # by recipe


def found(text):
    wrong.append(text)
    print("FINDING", text, flush=True)


# ---- inputs ----

def make_inputs():
    base = {k: np.random.default_rng(99).standard_normal(int(np.prod(s))) for k, s in SHAPES.items()}
    for m in range(MODELS + 1):
        own = np.random.default_rng(m)
        tensors, fisher = {}, {}
        for k, (name, shape) in enumerate(SHAPES.items()):
            kind = DTYPES[(k + m) % len(DTYPES)]
            step = own.standard_normal(base[name].size)
            x = base[name] + (m > 0) * 0.01 * step
            tensors[name] = Tensor(kind, shape, round_to(kind, x))
            fisher[name] = Tensor("F32", shape, round_to("F32", step ** 2))
        rows = own.standard_normal((100, 70))
        grams = {"gram.layers.4.down": Tensor("F64", [70, 70], (rows.T @ rows).reshape(-1)),
                 "gram.embed": Tensor("F64", [1, 1], np.array([2.0]))}
        write(f"stats{m}.safetensors", grams)
        write(f"{m}.safetensors", tensors)
        write(f"fisher{m}.safetensors", fisher)


def write_recipe(path, method, scope, semantics, more):
    keys = {p["key"]: p["per_model"] for p in method["parameters"]}
    values = {k: more.get(k, VALUES.get(k)) for k in keys if k in VALUES or k in more}
    if "task" in more:
        values["task"] = None
    lines = [f"merge_method: {method['name']}", "dtype: float64", "seed: 11"]
    lines += [f"scope: {scope}"] if scope else []
    lines += [f"semantics: {semantics}"] if semantics else []
    if method["needs_base"] or method["takes_base"]:
        lines.append("base_model: 0.safetensors")
    shared = {k: v for k, v in values.items() if not keys[k]}
    lines += [f"parameters: {json.dumps(shared)}"] if shared else []
    lines.append("models:")
    for m in range(1, min(method["max_models"], MODELS) + 1):
        own = {k: v if v is not None else m == 2 for k, v in values.items() if keys[k]}
        key = method["beside_models"]
        beside = f", {key}: {key}{m}.safetensors" if key else ""
        lines.append(f"- {{model: {m}.safetensors{beside}, parameters: {json.dumps(own)}}}")
    Path(path).write_text("\n".join(lines) + "\n")


# ---- runs ----

def budgets_of(recipe, ranks):
    """Budget by its name: the smallest is the one that a refused plan asks for."""
    done = subprocess.run([BIN, "plan", recipe, "--ranks", str(ranks), "--memory", "4MiB", "--quiet"],
                          capture_output=True, text=True, check=False)
    needed = re.search(r"give it (\d+) MiB or more", done.stderr)
    if done.returncode != 2 or needed is None:
        found(f"{recipe}: 4 MiB are not refused with a budget that does: {done.stderr}")
        return dict.fromkeys(BUDGETS, NONE)
    smallest = int(needed[1])
    return {"smallest": f"{smallest}MiB", "middle": f"{smallest + 3}MiB", "none": NONE}


def digest(recipe, out, ranks, memory, block):
    """Of the output; None: the merge failed. ranks 0: without mpirun."""
    start = [*RUN, "-n", str(ranks)] if ranks > 0 else []
    done = subprocess.run([*start, BIN, "merge", recipe, "-o", out, "--quiet", "--memory", memory,
                           "--block", block], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        found(f"{recipe}, {ranks} ranks, --memory {memory} --block {block}: exit code "
              f"{done.returncode}, {done.stderr}")
        return None
    content = hashlib.sha256(Path(out).read_bytes()).hexdigest()
    for path in (out, f"{out}.manifest.json"):
        Path(path).unlink(missing_ok=True)
    return content


def check(number, name, recipe, run):
    """One run of a recipe against the run without mpirun, which is made once."""
    ranks, budget, block = run
    with locks[recipe]:
        if recipe not in expected:
            expected[recipe] = digest(recipe, f"{name}.safetensors", 0, NONE, "0")
        if ranks not in budgets[recipe]:
            budgets[recipe][ranks] = budgets_of(recipe, ranks)
    memory = budgets[recipe][ranks][budget]
    got = expected[recipe] and digest(recipe, f"{name}.{number}.safetensors", ranks, memory, block)
    if got is not None and got != expected[recipe]:
        found(f"{recipe}, {ranks} ranks, --memory {memory} --block {block}: other bytes")
    seen.update([ranks, budget, block])
    print(number, name, f"{ranks} ranks --memory {memory} --block {block}", flush=True)


# ---- which ----

def variants(method):
    """Scope and semantics, in an order that changes both at once."""
    scopes, semantics = method["scopes"] or [""], method["semantics"] or [""]
    pairs = list(itertools.product(scopes, semantics))
    return [pairs[0], pairs[-1], *pairs[1:-1]] if len(pairs) > 1 else pairs


def recipes(methods, mode):
    """Names of all cases, whose recipes are written."""
    for method in methods:
        further = MORE.get(method["name"], []) if mode == "long" else []
        for k, more in enumerate([{}, *further]):
            for scope, semantics in variants(method)[:2 if mode == "quick" else None]:
                if scope == "global" and more.keys() & TENSOR_ONLY:
                    continue
                parts = (method["name"], scope, semantics, str(k) if k else "")
                name = "-".join(filter(None, parts))
                write_recipe(f"{name}.yml", method, scope, semantics, more)
                yield name


def quick_runs(names):
    for i, name in enumerate(names):
        budget, block = BUDGETS[i % len(BUDGETS)], BLOCKS[i % len(BLOCKS)]
        yield name, (RANKS[i % len(RANKS)], budget, "0" if budget == "smallest" else block)


def long_runs(names):
    """All of them in rounds with one run of each case, so that a part of the test has seen all."""
    runs = [(r, b, "0") for b in BUDGETS for r in RANKS]
    runs += [(r, "none", b) for b in BLOCKS if b != "0" for r in RANKS]
    for shift in range(len(runs)):
        for i, name in enumerate(names):
            yield name, runs[(7 * i + shift) % len(runs)]


def main() -> int:
    mode, names = sys.argv[1], sys.argv[2:]
    make_inputs()
    listed = subprocess.run([BIN, "methods", "--json"], capture_output=True, text=True, check=True)
    methods = [m for m in json.loads(listed.stdout)["methods"] if not names or m["name"] in names]
    cases = list(recipes(methods, mode))
    runs = quick_runs(cases) if mode == "quick" else long_runs(cases)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda job: check(job[0], job[1][0], f"{job[1][0]}.yml", job[1][1]),
                      enumerate(runs)))
    missing = {*RANKS, *BUDGETS, *BLOCKS} - seen if not names else set()
    if missing or not methods:
        found(f"not covered: {missing or names}")
    print(f"\n{len(wrong)} findings", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
