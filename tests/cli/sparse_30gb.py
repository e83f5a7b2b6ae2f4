#!/usr/bin/env python3
"""30 GB of inputs under --memory 64MiB on 2 ranks: the peak of every process, values as numpy has them.

usage: sparse_30gb.py [--tenth] [METHOD[:SCOPE]]...
  --tenth: 3 GB; default: task_arithmetic, ties, ties:global, dare_linear, karcher, model_stock
Base and 4 models of 6 GB in f32: files with holes, and real data at the front, in the middle and at the
end of the largest tensor. The output is bf16, 3 GB. Peaks are VmHWM of every process of the job, of
mpirun's children while they run, and what allmerge says of itself.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
import sparse_ckpt as sparse  # noqa: E402
from safetensors import round_to  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
MIB = 1 << 20
BUDGET = 64
MODELS, WEIGHT, KEPT = 4, 0.25, 3000
PART = 10 if "--tenth" in sys.argv else 1
LARGE = (150_000 // PART, 4096)  # 614 million elements
TENSORS = {"layers.0.up.weight": ("F32", LARGE), "norm.weight": ("F32", (4096,)),
           **{f"layers.{k}.down.weight": ("F32", (4096, 11008)) for k in range(1, 1 + 20 // PART)},
           "scalar": ("F32", ())}
N = LARGE[0] * LARGE[1]
PATCHES = ((0, 8192), (N // 2 - 4096, 8192), (N - 4096, 4096))  # first element, elements


def save_inputs():
    values = []
    for seed in range(MODELS + 1):
        rng, patches = np.random.default_rng(seed), []
        for first, n in PATCHES:
            patches.append(("layers.0.up.weight", first, rng.standard_normal(n, dtype="f4")))
        sparse.write(f"in{seed}.safetensors", TENSORS, patches)
        values.append(np.concatenate([p[2] for p in patches]).astype("f8"))
    return values


def expected(method, values):
    """Of the patched elements; None: random, or checked by its own tests."""
    base, deltas = values[0], [x - values[0] for x in values[1:]]
    if method == "task_arithmetic":
        return base + sum(WEIGHT * d for d in deltas)
    if method == "ties":
        kept = []
        for d in deltas:
            mask = np.zeros(d.size)
            mask[np.argsort(-np.abs(d).astype("f4"), kind="stable")[:KEPT]] = 1
            kept.append(WEIGHT * d * mask)
        sign = np.where(sum(kept) >= 0, 1.0, -1.0)
        agree = [np.sign(m) == sign for m in kept]
        total = sum(WEIGHT * a for a in agree)
        return base + sum(m * a for m, a in zip(kept, agree)) / np.where(total == 0, 1, total)
    if method == "model_stock":
        unit = [d / np.linalg.norm(d) for d in deltas]
        c = np.mean([unit[i] @ unit[j] for i in range(MODELS) for j in range(i)])
        t = MODELS * c / (1 + (MODELS - 1) * c)
        return t * sum(values[1:]) / MODELS + (1 - t) * base
    return None


def write_recipe(method, scope):
    own = {"weight": WEIGHT} if method in ("task_arithmetic", "ties", "dare_linear") else {}
    if method == "ties":
        own["density"] = (KEPT + 0.5) / (N if scope != "global" else total_elements())
    if method == "dare_linear":
        own["density"] = 0.5
    lines = [f"merge_method: {method}", "dtype: float32", "out_dtype: bfloat16"]
    lines += [f"scope: {scope}"] if scope else []
    lines += [] if method == "karcher" else ["base_model: in0.safetensors"]
    models = range(MODELS + 1) if method == "karcher" else range(1, MODELS + 1)
    lines += ["models:"] + [
        f"- {{model: in{m}.safetensors, parameters: {json.dumps(own)}}}".replace('"', "")
        for m in models]
    Path("recipe.yml").write_text("\n".join(lines) + "\n")


def total_elements():
    return sum(int(np.prod(shape)) for _, shape in TENSORS.values())


def watch(job):
    """Largest VmHWM seen of every process below `job`, by name and pid."""
    peaks = {}
    while job.poll() is None:
        children = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                status = (entry / "status").read_text()
            except OSError:
                continue
            pid, parent = int(entry.name), int(re.search(r"PPid:\s+(\d+)", status)[1])
            children.setdefault(-1 if pid == job.pid else parent, []).append((pid, status))
        todo = [-1]
        while todo:
            for pid, status in children.get(todo.pop(), []):
                todo.append(pid)
                high = re.search(r"VmHWM:\s+(\d+)", status)
                name = re.search(r"Name:\s+(\S+)", status)[1]
                if high:
                    peaks[name, pid] = int(high[1]) / 1024
        sleep(0.2)
    return peaks


def check_values(method, values, wrong):
    want, at = expected(method, values), 0
    for first, n in PATCHES if want is not None else ():
        got = sparse.read("out.safetensors", "layers.0.up.weight", "BF16", first, n)
        off = np.abs(sparse.widen(got, "BF16") - sparse.widen(round_to("BF16", want[at:at + n]), "BF16"))
        near = off <= np.abs(want[at:at + n]) / 128  # a unit of bf16, where a sum falls on an edge
        if np.count_nonzero(off) > n // 500 or not near.all():
            wrong.append(f"{method}: {np.count_nonzero(off)} of {n} elements from {first} on differ")
        at += n


def run(item, values):
    method, _, scope = item.partition(":")
    wrong, start = [], monotonic()
    write_recipe(method, scope)
    plan = subprocess.run([BIN, "plan", "recipe.yml", "--ranks", "2", "--memory", f"{BUDGET}MiB", "--json",
                           "--quiet"], stdout=subprocess.PIPE, text=True, check=True)
    guess = json.loads(plan.stdout)
    job = subprocess.Popen([*RUN, "-n", "2", BIN, "merge", "recipe.yml", "-o", "out.safetensors",
                            "--memory", f"{BUDGET}MiB", "--quiet"], stdout=subprocess.PIPE, text=True)
    peaks = watch(job)
    text = job.stdout.read()
    if job.returncode != 0:
        return [f"{item}: exit code {job.returncode}"]
    done = json.loads(text)
    ranks = [mib for (name, _), mib in peaks.items() if name == Path(BIN).name[:15]]
    others = [f"{name} {mib:.1f}" for (name, _), mib in peaks.items()
              if name != Path(BIN).name[:15]]
    own = done["peak_bytes"] / MIB
    print(f"{item:16} {monotonic() - start:6.1f} s, plan {guess['peak_bytes'] / MIB:.1f} MiB, ranks "
          f"{', '.join(f'{mib:.1f}' for mib in ranks)} (say {own:.1f}); {', '.join(others)}; "
          f"read {done['read_bytes'] / 1e9:.1f} GB (plan {guess['total_read_bytes'] / 1e9:.1f})", flush=True)
    if len(ranks) != 2 or max(ranks + [own]) > BUDGET:
        wrong.append(f"{item}: a process is over {BUDGET} MiB")
    if abs(guess["peak_bytes"] / MIB - own) > 0.1 * own:
        wrong.append(f"{item}: the plan is off by more than a tenth")
    check_values(method, values, wrong)
    for path in Path(".").glob("out.safetensors*"):
        path.unlink()
    return wrong


def main() -> int:
    items = [a for a in sys.argv[1:] if a != "--tenth"] or ["task_arithmetic", "ties", "ties:global", "dare_linear", "karcher",
                             "model_stock"]
    values, wrong = save_inputs(), []
    total = sum(Path(f"in{m}.safetensors").stat().st_size for m in range(MODELS + 1))
    print(f"inputs: {total / 1e9:.1f} GB", flush=True)
    for item in items:
        wrong += run(item, values)
    for m in range(MODELS + 1):
        Path(f"in{m}.safetensors").unlink()
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
