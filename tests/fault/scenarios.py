"""The jobs that the fault tests disturb: small, but every rank reads and writes.
SPDX-License-Identifier: BSD-3-Clause
"""
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

SUPPORT = Path(__file__).resolve().parent.parent / "support"
MAKE_CKPT = SUPPORT / "make_ckpt.py"


@dataclass
class Scenario:
    prepare: Callable[[Path], None]  # writes the inputs into an empty folder
    arguments: list[str]             # of allmerge, run in that folder
    results: list[str]               # patterns of the final outputs: there if and only if it is done
    steady: list[str]                # patterns of files that are always whole, and the same bytes
    kept: list[str] = field(default_factory=list)  # patterns of files that a failed run may leave
    kept_at_75: list[str] = field(default_factory=list)  # ... that was stopped at a safe point
    must_leave: str = ""             # a pattern: some failed runs leave this, and all are gone on with
    must_strike: tuple[str, ...] = ("open", "pread", "pwrite", "fsync", "rename")
    timeout: float = 60.0            # seconds: longer is a hang
    seconds: float = 0.6             # a clean run lasts about so long: kills come within it


def merge_inputs(folder: Path) -> None:
    """Three checkpoints of 3.5 blocks, so that each of 3 ranks owns a slice, and a recipe."""
    shapes = ["embed=1024x1024:f16", "layer.0.weight=1100x1000:f16", "layer.1.weight=1500x1000:f16",
              "layer.1.bias=1000:f16", "scale=scalar:f16"]
    for seed, name in enumerate(("base", "ft0", "ft1"), start=1):
        subprocess.run([sys.executable, MAKE_CKPT, folder / f"{name}.safetensors",
                        *[f"{s}:{seed}" for s in shapes]], check=True)
    (folder / "recipe.yml").write_text(
        "merge_method: task_arithmetic\n"
        "base_model: base.safetensors\n"
        "models:\n"
        "  - model: ft0.safetensors\n"
        "    parameters: {weight: 0.5}\n"
        "  - model: ft1.safetensors\n"
        "    parameters: {weight: 0.25}\n"
        "dtype: float16\n")


def merge_into(out: str) -> Scenario:
    return Scenario(prepare=merge_inputs, arguments=["merge", "recipe.yml", "-o", out],
                    results=[out], steady=[out],
                    kept_at_75=[f"{out}.partial*", f"{out}.journal*"])


def grid_inputs(folder: Path) -> None:
    """Three checkpoints with matrices for a grid of two ranks, beside which the third idles, and a recipe."""
    for seed, name in enumerate(("base", "ft0", "ft1"), start=1):
        subprocess.run([sys.executable, MAKE_CKPT, folder / f"{name}.safetensors",
                        *[f"{s}:{seed}" for s in ("a=120x90:f32", "b=90x110:f32", "c=30x40:f32", "d=90:f32")]],
                       check=True)
    (folder / "recipe.yml").write_text(
        "merge_method: tsv\nbase_model: base.safetensors\nmodels: [{model: ft0.safetensors}, {model: ft1.safetensors}]\n"
        "grid: {shape: [2, 1], above: 50, block: 16}\n")


MERGE_GRID = Scenario(
    prepare=grid_inputs, arguments=["merge", "recipe.yml", "-o", "out.h5", "--save-every", "0"],
    results=["out.h5"], steady=["out.h5"], kept=["out.h5.partial*", "out.h5.journal*"], must_leave="out.h5.journal/*")


def merge_saving(out: str) -> Scenario:
    """Every block is saved as it is done: a failed run leaves its partial output and its journal."""
    return Scenario(prepare=merge_inputs,
                    arguments=["merge", "recipe.yml", "-o", out, "--save-every", "0"],
                    results=[out], steady=[out],
                    kept=[f"{out}.partial*", f"{out}.journal*"], must_leave=f"{out}.journal/*")


def iterate_inputs(folder: Path) -> None:
    """Two small tasks, a pretraining set and the recipe of one round."""
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", folder / "tasks", "a:3:60", "b:3:60",
                    "p:4:60"], check=True)
    (folder / "recipe.yml").write_text(
        "model: {widths: [12]}\ndata: {folder: tasks, tasks: [a, b]}\nbase: {pretrain: p}\n"
        "iterate: {rounds: 1, alphas: [0.5]}\none_shot: {alphas: [0.5]}\n")


# What a run has reached stays: checkpoints, whole, under their final names. No temporaries, no locks of them.
ITERATE = Scenario(
    prepare=iterate_inputs, arguments=["iterate", "recipe.yml", "-o", "run"],
    results=["run/result.json"], steady=["run/*.h5", "run/table.txt", "run/result.json"],
    kept=["run", "run/.lock", "run/recipe.yml", "run/job.json", "run/events.jsonl", "run/table.txt", "run/*.h5",
          "run/*.h5.manifest.json", "run/rounds", "run/units", "run/units/*.unit", "run/joint", "run/tuned"],
    kept_at_75=["run/work"], seconds=1.0)
# Every look at the clock saves what trains: a failed run leaves it, and is gone on with.
ITERATE_SAVING = replace(ITERATE, arguments=[*ITERATE.arguments, "--save-every", "0"],
                         kept=[*ITERATE.kept, "run/work"], must_leave="run/work/*.h5")


def theory_inputs(folder: Path) -> None:
    """Two small tasks and a recipe with norms and spectra."""
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", folder / "tasks", "a:3:60", "b:3:60"], check=True)
    (folder / "recipe.yml").write_text(
        "dtype: float64\nmodel: {widths: [6], activation: tanh}\ndata: {folder: tasks, tasks: [a, b]}\n"
        "heads: {random: yes}\ntheory: {k: [1, 2], eta: [1.0e-2, 5.0e-3], spectrum: 2}\n")


# A unit that is there is whole.
THEORY = Scenario(
    prepare=theory_inputs, arguments=["theory", "recipe.yml", "-o", "run"],
    results=["run/result.json"],
    steady=["run/*.h5", "run/table.txt", "run/result.json", "run/units/*.unit"],
    kept=["run", "run/.lock", "run/recipe.yml", "run/job.json", "run/events.jsonl", "run/table.txt", "run/*.h5",
          "run/*.h5.manifest.json", "run/units", "run/units/*.unit"], seconds=1.0)



def stats_inputs(folder: Path) -> None:
    """Two small tasks, a model and its heads."""
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", folder / "tasks", "a:3:60", "b:3:60"], check=True)
    (folder / "recipe.yml").write_text("model: {widths: [12]}\ndata: {folder: tasks, tasks: [a, b]}\n")
    subprocess.run([sys.executable, MAKE_CKPT, folder / "trunk.safetensors", "layers.0.weight=12x36",
                    "layers.0.bias=12"], check=True)
    subprocess.run([sys.executable, MAKE_CKPT, folder / "heads.safetensors",
                    *[f"{t}.head.{s}" for t in "ab" for s in ("weight=3x12", "bias=3")]], check=True)


# Sums are saved after every batch.
STATS = Scenario(
    prepare=stats_inputs,
    arguments=["stats", "recipe.yml", "--model", "trunk.safetensors", "--heads", "heads.safetensors", "-o", "out.h5",
               "--batch", "32", "--save-every", "0"],
    results=["out.h5"], steady=["out.h5"], kept=["out.h5.sums*"], must_leave="out.h5.sums-*.h5")


def align_inputs(folder: Path) -> None:
    """Two networks with their heads, as train leaves them, and a small task."""
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", folder / "tasks", "a:3:60"], check=True)
    (folder / "recipe.yml").write_text("model: {widths: [12]}\ndata: {folder: tasks, tasks: [a]}\n")
    for seed, name in enumerate(("one", "two"), start=1):
        rng = np.random.default_rng(seed)
        (folder / name).mkdir()
        for file, shapes in (("trunk", {"layers.0.weight": (12, 36), "layers.0.bias": (12,)}),
                             ("heads", {"a.head.weight": (3, 12), "a.head.bias": (3,)})):
            with h5py.File(folder / name / f"{file}.h5", "w") as out:
                for tensor, shape in shapes.items():
                    out[tensor] = rng.normal(size=shape).astype("f4")


# The heads are there before the trunk.
ALIGN = Scenario(
    prepare=align_inputs,
    arguments=["align", "recipe.yml", "two/trunk.h5", "--to", "one/trunk.h5", "-o", "out.h5", "--match", "both",
               "--batch", "32", "--heads", "two/heads.h5", "--heads-to", "one/heads.h5", "--heads-output",
               "heads.h5"],
    results=["out.h5"], steady=["out.h5", "heads.h5"], kept=["heads.h5", "heads.h5.manifest.json"])
PLEAS = Scenario(
    prepare=align_inputs,
    arguments=["pleas", "recipe.yml", "one", "two", "-o", "run", "--budget", "1.5", "--batch", "32"],
    results=["run/result.json"], steady=["run/*.h5", "run/result.json"],
    kept=["run", "run/.lock", "run/recipe.yml", "run/job.json", "run/events.jsonl", "run/*.h5",
          "run/*.h5.manifest.json"])


def tuned_inputs(folder: Path) -> None:
    """Two small tasks, a base, a model of each, their heads."""
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", folder / "tasks", "a:3:60", "b:3:60"], check=True)
    (folder / "recipe.yml").write_text(
        "model: {widths: [12]}\ndata: {folder: tasks, tasks: [a, b]}\nbase: {checkpoint: base.safetensors}\n"
        "heads: {checkpoint: heads.safetensors}\ntwin: {models: '{task}.safetensors', epochs: 2}\n"
        "regmean: {models: '{task}.safetensors', batch: 32}\n")
    for seed, name in enumerate(("base", "a", "b"), start=1):
        subprocess.run([sys.executable, MAKE_CKPT, folder / f"{name}.safetensors", f"layers.0.weight=12x36:f32:{seed}",
                        f"layers.0.bias=12:f32:{seed}"], check=True)
    subprocess.run([sys.executable, MAKE_CKPT, folder / "heads.safetensors",
                    *[f"{t}.head.{s}" for t in "ab" for s in ("weight=3x12", "bias=3")]], check=True)


# Twins that are there are whole, and gone on with.
TWIN = Scenario(
    prepare=tuned_inputs, arguments=["twin", "recipe.yml", "-o", "run"],
    results=["run/result.json"], steady=["run/*.h5", "run/twins/*.h5", "run/table.txt", "run/result.json",
            "run/units/*.unit"],
    kept=["run", "run/.lock", "run/recipe.yml", "run/job.json", "run/events.jsonl", "run/table.txt", "run/*.h5",
          "run/*.h5.manifest.json", "run/twins", "run/twins/*", "run/units", "run/units/*.unit"], seconds=1.0)

# A layer that is there is whole, and gone on after.
REGMEAN = Scenario(
    prepare=tuned_inputs, arguments=["regmean", "recipe.yml", "-o", "run"],
    results=["run/result.json"], steady=["run/*.h5", "run/layers/*.h5", "run/table.txt", "run/result.json"],
    kept=["run", "run/.lock", "run/recipe.yml", "run/job.json", "run/events.jsonl", "run/table.txt", "run/*.h5",
          "run/*.h5.manifest.json", "run/layers", "run/layers/*"], seconds=1.0)

SCENARIOS = {
    "align": ALIGN,
    "iterate": ITERATE,
    "iterate_saving": ITERATE_SAVING,
    "merge_grid": MERGE_GRID,
    "merge_h5": merge_into("out.h5"),
    "merge_safetensors": merge_into("out.safetensors"),
    "merge_saving": merge_saving("out.h5"),
    "pleas": PLEAS,
    "regmean": REGMEAN,
    "stats": STATS,
    "theory": THEORY,
    "twin": TWIN,
}
