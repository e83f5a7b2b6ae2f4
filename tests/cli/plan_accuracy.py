#!/usr/bin/env python3
"""`allmerge plan` against what merges take: for every method, its memory, bytes read and written.

usage: plan_accuracy.py quick|matrices|long [METHOD]...
quick, matrices: the smallest budget that plan names, one merge of every method on 2 ranks (matrices:
  of those that factorise whole matrices, which takes minutes; quick: of the others): it works, keeps the
  budget, and the peak is within a tenth of the plan's. long: other budgets and ranks, scope global,
  f32 and mixed types, adapters, task vectors, slices, accounting, folders, HDF5; a table.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
from safetensors import Tensor, round_to, write  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
MIB = 1 << 20
MODELS = 4
SHAPES = {"layers.0.up.weight": (1500, 1000), "layers.1.up.weight": (3000, 1000), "norm.weight": (1000,),
          "layers.2.up.weight": (1200, 1000), "layers.3.up.weight": (700, 1000)}
VALUES = {"weight": 0.25, "t": 0.4, "select_topk": 0.2, "density": 0.4, "gamma": 0.05}
lock = threading.Lock()
wrong = []


def say(text):
    with lock:
        print(text, flush=True)


def fail(text):
    with lock:
        wrong.append(text)


# ---- inputs ----

def tensors(seed, kinds):
    base, own = np.random.default_rng(99), np.random.default_rng(seed)
    out = {}
    for k, (name, shape) in enumerate(SHAPES.items()):
        n = int(np.prod(shape))
        x = base.standard_normal(n, "f4") + (0 if seed == 0 else 0.01) * own.standard_normal(n, "f4")
        kind = kinds[k % len(kinds)]
        out[name] = Tensor(kind, list(shape), round_to(kind, x.astype("f8")))
    return out


def make_models(prefix, kinds):
    for m in range(MODELS + 1):
        write(f"{prefix}{'base' if m == 0 else m}.safetensors", tensors(m, kinds))
    for m in range(1, MODELS + 1):
        square = {k: Tensor(t.dtype, t.shape, np.where(t.raw > 0x7fff, t.raw ^ 0x8000, t.raw))
                  for k, t in tensors(10 + m, ["BF16"]).items()}
        if prefix == "p":
            write(f"fisher{m}.safetensors", square)
            rows = np.random.default_rng(20 + m).standard_normal((1500, 1000))
            gram = (rows.T @ rows).reshape(-1)
            write(f"stats{m}.safetensors", {f"gram.layers.{layer}.up": Tensor("F64", [1000, 1000], gram)
                                            for layer in range(4)})


def run_alone(*command):
    subprocess.run([BIN, *map(str, command)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def make_adapter(m):
    rng, folder = np.random.default_rng(50 + m), Path(f"lora{m}")
    folder.mkdir()
    factors = {}
    for name, shape in SHAPES.items():
        if len(shape) == 2:
            stem = "base_model.model." + name.removesuffix(".weight")
            for part, size in ((".lora_A.weight", (64, shape[1])), (".lora_B.weight", (shape[0], 64))):
                x = 0.01 * rng.standard_normal(size)
                factors[stem + part] = Tensor("F32", list(size), round_to("F32", x.ravel()))
    write(folder / "adapter_model.safetensors", factors)
    (folder / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "bias": "none", "use_dora": False, "r": 64, "lora_alpha": 64,
         "target_modules": ["up"]}))


def make_variants():
    make_models("f", ["F32"])
    make_models("x", ["BF16", "BF16", "F32", "F16", "F32"])
    for m in range(1, MODELS + 1):
        make_adapter(m)
        run_alone("extract", "pbase.safetensors", f"p{m}.safetensors", "-o", f"int8{m}.h5",
                  "--dtype", "int8")
        run_alone("extract", "pbase.safetensors", f"p{m}.safetensors", "-o",
                  f"sparse{m}.safetensors", "--density", "0.1")
    for m in range(MODELS + 1):
        name = "base" if m == 0 else m
        run_alone("convert", f"p{name}.safetensors", f"h{name}.h5")
        run_alone("convert", f"p{name}.safetensors", f"d{name}")
        Path(f"d{name}", "config.json").write_text('{"torch_dtype": "bfloat16"}')


# ---- recipes ----

# What stands for base and models, and whether the output is a folder.
KINDS = {"bf16": ("pbase.safetensors", "p{}.safetensors"), "f32": ("fbase.safetensors", "f{}.safetensors"),
         "mixed": ("xbase.safetensors", "x{}.safetensors"), "h5": ("hbase.h5", "h{}.h5"),
         "folder": ("dbase", "d{}"), "lora": ("pbase.safetensors", "pbase.safetensors+lora{}"),
         "int8": ("pbase.safetensors", "int8{}.h5"),
         "sparse": ("pbase.safetensors", "sparse{}.safetensors"),
         "slices": ("pbase.safetensors", "p{}.safetensors")}


def models_of(method):
    return min(method["max_models"] or MODELS, MODELS)


def write_recipe(path, method, kind, scope):
    base, model = KINDS[kind]
    keys = {p["key"]: p["per_model"] for p in method["parameters"]}
    own = {k: VALUES[k] for k, each in keys.items() if each and k in VALUES}
    lines = [f"merge_method: {method['name']}"] + ([f"scope: {scope}"] if scope else [])
    if method["needs_base"] or method["takes_base"] or kind in ("int8", "sparse"):
        lines.append(f"base_model: {base}")
    shared = {k: VALUES[k] for k, each in keys.items() if not each and k in VALUES}
    if shared:
        lines.append("parameters: " + json.dumps(shared).replace('"', ""))
    beside = method["beside_models"]
    items = [f"model: {model.format(m + 1)}" +
             (f", {beside}: {beside}{m + 1}.safetensors" if beside else "") +
             (", parameters: " + json.dumps(own).replace('"', "") if own else "")
             for m in range(models_of(method))]
    if kind == "slices":
        for lo, hi in ((0, 2), (1, 4)):
            lines += ["slices:"] * (lo == 0) + ["- sources:"]
            lines += [f"  - {{{item}, layer_range: [{lo}, {hi}]}}" for item in items]
    else:
        lines += ["models:"] + [f"- {{{item}}}" for item in items]
    Path(path).write_text("\n".join(lines) + "\n")


# ---- runs ----

def plan(recipe, memory, ranks, *more):
    done = subprocess.run([BIN, "plan", recipe, "--ranks", str(ranks), "--memory", memory, "--json",
                           "--quiet", *more], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout), None
    found = re.search(r"give it (\d+) MiB or more", done.stderr)
    return None, int(found[1]) if found and done.returncode == 2 else -1


def merge(recipe, out, memory, ranks, *more):
    done = subprocess.run([*RUN, "-n", str(ranks), BIN, "merge", recipe, "-o", out, "--overwrite",
                           "--quiet", "--memory", memory, *more], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        fail(f"{recipe} --memory {memory}, {ranks} ranks: exit code {done.returncode}, {done.stderr}")
        return None
    return json.loads(done.stdout)


def check(method, kind, scope, memory, ranks, *more):
    """memory: MiB; 0: the smallest that plan names, which also is refused below."""
    what = "-".join(filter(None, (method["name"], kind, scope, str(memory), str(ranks))))
    recipe, out = f"{what}.yml", f"{what}.out" + ("" if kind == "folder" else
                                                 ".h5" if kind == "h5" else ".safetensors")
    write_recipe(recipe, method, kind, scope)
    if memory == 0:
        _, memory = plan(recipe, "4MiB", ranks, *more)
        if memory is None or memory < 0:
            fail(f"{what}: --memory 4MiB is not refused with a budget that does")
            return
    budget = f"{memory}MiB"
    foretold, smallest = plan(recipe, budget, ranks)
    if foretold is None:
        fail(f"{what}: --memory {budget} is refused: {smallest} MiB")
        return
    if more:
        more = [*more[:1], f"{what}.accounting"]
    done = merge(recipe, out, budget, ranks, *more)
    if done is None:
        return
    peak, guess = done["peak_bytes"] / MIB, foretold["peak_bytes"] / MIB
    off = guess / peak - 1
    line = (f"{what:42} budget {memory:4} MiB, plan {guess:6.1f}, peak {peak:6.1f} ({100 * off:+5.1f} "
            f"%), read {foretold['total_read_bytes'] / MIB:6.1f} {done['read_bytes'] / MIB:6.1f}, "
            f"written {done['written_bytes'] / MIB:5.1f}")
    say(line)
    if peak > memory:
        fail(f"{what}: over the budget\n  {line}")
    if abs(off) > 0.1:
        fail(f"{what}: plan is off by more than a tenth\n  {line}")
    if foretold["total_written_bytes"] != done["written_bytes"]:
        fail(f"{what}: bytes written are not those of the plan\n  {line}")
    # Of int8 many keys are equal, and a sample may miss the threshold: then it takes a visit more.
    visit = sum(os.path.getsize(KINDS[kind][1].format(m + 1)) for m in range(models_of(method))) + \
        os.path.getsize(KINDS[kind][0]) if kind == "int8" else 0
    off = done["read_bytes"] - foretold["total_read_bytes"]
    if min(abs(off), abs(off - visit)) > 0.01 * done["read_bytes"]:
        fail(f"{what}: bytes read are not those of the plan\n  {line}")
    subprocess.run(["rm", "-rf", out, f"{out}.manifest.json"], check=True)


def cases(mode, methods):
    for method in methods:
        yield (method, "bf16", "", 0, 2)
        if mode != "long":
            continue
        for memory, ranks in ((40, 1), (64, 2), (128, 3), (256, 1)):
            yield (method, "bf16", "", memory, ranks)
        if "global" in method["scopes"]:
            yield (method, "bf16", "global", 0, 2)
            yield (method, "bf16", "global", 64, 3)
        for kind in ("f32", "mixed", "slices", "folder", "h5", "lora"):
            if kind != "slices" or not method["beside_models"]:
                yield (method, kind, "", 64, 2)
        yield (method, "bf16", "", 64, 2, "--accounting", "A")
        if method["needs_base"]:
            yield (method, "int8", "", 64, 2)
            yield (method, "sparse", "", 64, 2)


def is_of_matrices(method) -> bool:
    return method["beside_models"] == "stats" or any(p["key"] == "spectral" for p in method["parameters"])


def main() -> int:
    mode, names = sys.argv[1], sys.argv[2:]
    make_models("p", ["BF16"])
    if mode == "long":
        make_variants()
    listed = subprocess.run([BIN, "methods", "--json"], capture_output=True, text=True, check=True)
    methods = [m for m in json.loads(listed.stdout)["methods"] if m["name"] in names or
               not names and (mode == "long" or is_of_matrices(m) == (mode == "matrices"))]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda case: check(*case), cases(mode, methods)))
    print(f"\n{len(wrong)} findings", *wrong, sep="\n")
    return 1 if wrong or not methods else 0


if __name__ == "__main__":
    sys.exit(main())
