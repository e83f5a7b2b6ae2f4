#!/usr/bin/env python3
"""Generated recipes in mergekit's form against a reading of its rules of its own, in numpy.

Whole models, slices and modules; parameters as scalars, gradients over the layers of a slice and
lists of {filter, value}, at every level of precedence; outputs must be equal bit for bit.

usage: test_recipes.py [COUNT]
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

SEED = int(os.environ.get("AM_SEED", "3"))
LAYERS = {"base": 6, "a": 6, "b": 8, "c": 4}
EMBED, HEAD = ["embed_tokens.weight"], ["lm_head.weight", "norm.weight"]
INSIDE = ["attn.q.weight", "mlp.up.weight", "ln.bias"]
rng = np.random.default_rng(SEED)


def layer_name(i: int, part: str) -> str:
    return f"model.layers.{i}.{part}"


def make_models() -> dict[str, dict[str, np.ndarray]]:
    models = {}
    for m, (name, layers) in enumerate(LAYERS.items()):
        shapes = {"embed_tokens.weight": [11, 4], "lm_head.weight": [11, 4], "norm.weight": [4]}
        for i in range(layers):
            for p, part in enumerate(INSIDE):
                shapes[layer_name(i, part)] = [[4, 4], [7, 4], [3]][p]
        tensors = {k: Tensor("F32", s, rng.standard_normal(int(np.prod(s))).astype("<f4"))
                   for k, s in shapes.items()}
        write(f"{name}.safetensors", tensors)
        models[name] = {k: t.f64() for k, t in tensors.items()}
    return models


# ---- the rules: what mergekit makes of a recipe ----

def evaluate(setting, tensor: str, t: float):
    """Value of a setting; None when no filter fits."""
    if not isinstance(setting, list):
        return setting
    if not isinstance(setting[0], dict):
        at = t * (len(setting) - 1)
        lo = int(at)
        hi = min(lo + 1, len(setting) - 1)
        return (1 - (at - lo)) * setting[lo] + (at - lo) * setting[hi]
    for entry in setting:
        if entry.get("filter") in (None, "*") or entry["filter"] in tensor:
            return evaluate(entry["value"], tensor, t)
    return None


def value(key: str, levels: list, tensor: str, t: float, fallback):
    for level in levels:
        if level and key in level:
            found = evaluate(level[key], tensor, t)
            if found is not None:
                return found
    return fallback


def combine(recipe: dict, levels: list, sources: list, names: list, out: str, t: float,
            models: dict, base: str | None, base_tensor: str | None) -> np.ndarray:
    """One tensor of the output: `names` are those of its tensors in the sources."""
    method = recipe["merge_method"]
    xs, ws = [], []
    key = "scale" if method == "passthrough" else "weight"
    for source, name in zip(sources, names):
        if base is not None and source["model"] == base:
            continue
        own = [source.get("parameters"), *levels]
        xs.append(models[source["model"].split(".")[0]][name])
        ws.append(float(value(key, own, name, t, 1.0)))
    if method == "passthrough":
        return ws[0] * xs[0]
    normalize = value("normalize", levels, out, t, method == "linear")
    total = 0.0
    for w in ws:
        total += w
    if method == "linear":
        mixed = np.zeros_like(xs[0])
        for w, x in zip(ws, xs):
            mixed = mixed + w * x
        return mixed / total if normalize else mixed
    start = models[base.split(".")[0]][base_tensor]
    mixed = np.zeros_like(start)
    for w, x in zip(ws, xs):
        mixed = mixed + w * (x - start)
    scale = float(value("lambda", levels, out, t, 1.0))
    return start + (scale / total if normalize else scale) * mixed


def expected(recipe: dict, models: dict) -> dict[str, np.ndarray]:
    """Every tensor of the output by its name."""
    module = {}
    slices = recipe.get("slices")
    if "modules" in recipe:
        module = next(iter(recipe["modules"].values()))
        slices = module["slices"]
    needs_base = recipe["merge_method"] == "task_arithmetic"
    if slices is None:
        n = min(LAYERS[s["model"].split(".")[0]] for s in recipe["models"])
        slices = [{"sources": [dict(s, layer_range=[0, n]) for s in recipe["models"]]}]
    out, at = {}, 0
    for s, piece in enumerate(slices):
        base = piece.get("base_model", recipe.get("base_model")) if needs_base else None
        levels = [piece.get("parameters"), module.get("parameters"), recipe.get("parameters")]
        sources = piece["sources"]
        n = sources[0]["layer_range"][1] - sources[0]["layer_range"][0]
        base_lo = next((x["layer_range"][0] for x in sources if x["model"] == base),
                       sources[0]["layer_range"][0])
        for name in EMBED if s == 0 else []:
            out[name] = combine(recipe, levels, sources, [name] * len(sources), name, 0.0, models,
                                base, name)
        behind = sources[:len(slices[0]["sources"])]  # as many as the first slice has
        for name in HEAD if s == len(slices) - 1 else []:
            out[name] = combine(recipe, levels, behind, [name] * len(behind), name, 0.0, models,
                                base, name)
        for i in range(n):
            for part in INSIDE:
                name = layer_name(at + i, part)
                names = [layer_name(x["layer_range"][0] + i, part) for x in sources]
                out[name] = combine(recipe, levels, sources, names, name,
                                    i / (n - 1) if n > 1 else 1.0, models, base,
                                    layer_name(base_lo + i, part))
        at += n
    return out


# ---- generated recipes ----

def number() -> float:
    return round(float(rng.uniform(0.1, 1.5)), 3)


def setting():
    """A value in one of its forms."""
    form = rng.integers(4)
    if form == 0:
        return number()
    if form == 1:
        return [number() for _ in range(rng.integers(1, 5))]
    filters = ["attn", "mlp", "layers.1.", "embed", "weight", "ln"]
    entries = [{"filter": str(f), "value": number() if rng.random() < 0.5 else [number(), number()]}
               for f in rng.choice(filters, rng.integers(1, 4), replace=False)]
    if form == 2:
        last = {"value": number()} if rng.random() < 0.5 else {"filter": "*", "value": number()}
        entries.append(last)
    return entries


def settings(method: str, is_whole: bool) -> dict:
    keys = {"passthrough": ["scale"], "linear": ["weight"], "task_arithmetic": ["weight"]}[method]
    if is_whole:
        keys = keys + {"passthrough": [], "linear": ["normalize"],
                       "task_arithmetic": ["lambda", "normalize"]}[method]
    chosen = {}
    for key in keys:
        if rng.random() < 0.6:
            chosen[key] = bool(rng.integers(2)) if key == "normalize" else setting()
    return chosen


def make_source(model: str, method: str, layers: int) -> dict:
    lo = int(rng.integers(0, LAYERS[model] - layers + 1))
    source = {"model": f"{model}.safetensors", "layer_range": [lo, lo + layers]}
    if rng.random() < 0.6:
        source["parameters"] = settings(method, False)
    return source


def make_slice(method: str) -> dict:
    layers = int(rng.integers(1, 4))
    n = 1 if method == "passthrough" else int(rng.integers(1, 4))
    picked = [str(m) for m in rng.choice(["a", "b", "c"], n, replace=False)]
    sources = [make_source(m, method, layers) for m in picked]
    piece = {"sources": sources}
    if method == "task_arithmetic":
        if rng.random() < 0.3:
            piece["base_model"] = "b.safetensors"
            sources[:] = [s for s in sources if s["model"] != "b.safetensors"] or \
                [make_source("a", method, layers)]
        base = piece.get("base_model", "base.safetensors").split(".")[0]
        sources.insert(int(rng.integers(len(sources) + 1)), make_source(base, method, layers))
    if rng.random() < 0.5:
        piece["parameters"] = settings(method, True)
    return piece


def make_recipe() -> dict:
    method = str(rng.choice(["passthrough", "linear", "task_arithmetic"]))
    recipe = {"merge_method": method, "dtype": str(rng.choice(["float32", "bfloat16"]))}
    if method == "task_arithmetic":
        recipe["base_model"] = "base.safetensors"
    # The last level gives everything that a method requires.
    recipe["parameters"] = {**settings(method, True)}
    key = "scale" if method == "passthrough" else "weight"
    recipe["parameters"][key] = number() if rng.random() < 0.5 else [number(), number()]
    form = rng.integers(4)
    if form == 0 and method != "passthrough":
        recipe["models"] = [{"model": "a.safetensors", "parameters": settings(method, False)},
                            {"model": "base.safetensors"} if method == "task_arithmetic" else
                            {"model": "a.safetensors"}]
    elif form == 1:
        recipe["modules"] = {"text": {"slices": [make_slice(method) for _ in range(2)],
                                      "parameters": settings(method, True)}}
    else:
        recipe["slices"] = [make_slice(method) for _ in range(rng.integers(1, 5))]
    return recipe


def check(recipe: dict, models: dict, ranks: int) -> None:
    Path("r.yml").write_text(json.dumps(recipe, indent=1))
    command = [os.environ["AM_BIN"], "merge", "r.yml", "-o", "out.safetensors", "--overwrite",
               "--quiet", f"--block={int(rng.integers(1, 60)) * 8}"]
    if ranks > 0:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    out, _ = read("out.safetensors")
    wanted = expected(recipe, models)
    assert set(out) == set(wanted), sorted(set(out) ^ set(wanted))
    dtype = {"float32": "F32", "bfloat16": "BF16"}[recipe["dtype"]]
    for name, tensor in out.items():
        bits = round_to(dtype, wanted[name])
        assert tensor.dtype == dtype, name
        same = bits.view(f"u{bits.itemsize}") == tensor.raw.view(f"u{bits.itemsize}")
        assert same.all(), f"{name}: {tensor.f64()[~same][:3]} is not {wanted[name][~same][:3]}"


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    models = make_models()
    for i in range(count):
        recipe = make_recipe()
        try:
            check(recipe, models, [0, 0, 0, 2, 3][i % 5])
        except (AssertionError, subprocess.CalledProcessError):
            print(f"recipe {i} of AM_SEED={SEED}:\n{Path('r.yml').read_text()}")
            raise
    print(f"{count} recipes")
    return 0


sys.exit(main())
