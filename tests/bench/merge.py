#!/usr/bin/env python3
"""Speed and memory of `allmerge merge`, beside the floor: the time of moving the bytes alone.

usage: merge.py FOLDER [--size 0.5GB] [--models 4] [--ranks 2] [--repeat 5] [--build DIR]
                [--option=--block=8MiB]... [RECIPE]...
  FOLDER   where files of (models + 2) * size go; made, and what was made is removed at the end
  RECIPE   method, or method:key=value,key=value for keys at the top of the recipe
           (default: every method below that this allmerge has)

Base and models are bf16 checkpoints in the shape of Llama, models are the base with small noise. The
floor reads all inputs and writes one output of the same size in 8 MiB pieces on as many processes,
fsync included; it is measured by turns with the merges. Seconds of a merge are allmerge's own, from
the recipe to the published output; `wall` adds mpirun. One JSON line a recipe, then a table.
SPDX-License-Identifier: BSD-3-Clause
"""
import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ["linear", "task_arithmetic", "dare_linear", "dare_ties", "ties", "breadcrumbs", "sce",
           "ties:scope=global", "model_stock", "karcher"]
PARAMETERS = {"linear": {}, "task_arithmetic": {}, "dare_linear": {"density": 0.5},
              "dare_ties": {"density": 0.5}, "ties": {"density": 0.2},
              "breadcrumbs": {"density": 0.9, "gamma": 0.01}, "sce": {"select_topk": 0.1},
              "model_stock": {}, "karcher": {}}
UNWEIGHTED = {"sce", "model_stock"}


def size(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)([KMGT]?)(i?)B?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is no size (0.5GB, 512MiB)")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** "_KMGT".index(match[2] or "_"))


def write_recipe(path: Path, name: str, folder: Path, models: int) -> None:
    """`method:key=value,...` to a file; every model has the same weight."""
    method, _, extra = name.partition(":")
    lines = [f"merge_method: {method}"]
    if method != "linear":
        lines.append(f"base_model: {folder}/base.safetensors")
    lines.append("models:")
    inputs = [f"m{m}" for m in range(models)] + (["base"] if method == "linear" else [])
    for model in inputs:
        lines.append(f"- model: {folder}/{model}.safetensors")
        if method not in UNWEIGHTED:
            lines.append("  parameters: {weight: %g}" % (1 / models))
    if PARAMETERS.get(method):
        lines.append("parameters: " + json.dumps(PARAMETERS[method]).replace('"', ""))
    lines += [item.replace("=", ": ", 1) for item in extra.split(",") if item]
    path.write_text("\n".join(lines + ["dtype: bfloat16", ""]))


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.o = options
        self.folder = Path(options.folder).resolve()
        self.program = options.build / "allmerge"
        self.io = options.build / "tests" / "bin" / "bench_merge_io"
        launcher = os.environ.get("AM_MPIRUN") or str(ROOT / "jobs" / "launch")
        self.launcher = [*shlex.split(launcher), "-n", str(options.ranks)]
        self.inputs = [self.folder / "base.safetensors"] + [
            self.folder / f"m{m}.safetensors" for m in range(options.models)]

    def run(self, command: list) -> dict:
        """The last JSON line that a parallel program prints."""
        done = subprocess.run([*self.launcher, *map(str, command)], text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{shlex.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def floor(self) -> float:
        return self.run([self.io, "floor", self.folder / "floor.bin", *self.inputs])["seconds"]

    def merge(self, recipe: Path) -> tuple[float, float, int]:
        """Seconds, seconds with mpirun, largest peak of a rank in bytes."""
        out, peak = self.folder / "out.safetensors", self.folder / "peak"
        start = monotonic()
        result = self.run([self.io, "peak", peak, self.program, "merge", recipe, "-o", out,
                           *self.o.option])
        wall = monotonic() - start
        peaks = [int(path.read_text()) for path in self.folder.glob("peak.*")]
        for path in [out, *self.folder.glob("out.*"), *self.folder.glob("peak.*")]:
            path.unlink(missing_ok=True)
        if len(peaks) != self.o.ranks:
            sys.exit(f"{len(peaks)} of {self.o.ranks} ranks told their peak")
        return result["seconds"], wall, max(peaks)

    def compare(self, name: str, data_bytes: int) -> dict:
        recipe = self.folder / "recipe.yml"
        write_recipe(recipe, name, self.folder, self.o.models)
        floors, merges = [], []
        for _ in range(self.o.repeat):
            floors.append(self.floor())
            merges.append(self.merge(recipe))
        recipe.unlink()
        seconds = [m[0] for m in merges]
        moved = data_bytes * (self.o.models + 2)
        return {"recipe": name, "ranks": self.o.ranks, "models": self.o.models,
                "model_bytes": data_bytes, "repeat": self.o.repeat,
                "seconds_min": min(seconds), "seconds_median": statistics.median(seconds),
                "wall_seconds_min": min(m[1] for m in merges),
                "floor_seconds_min": min(floors),
                "floor_seconds_median": statistics.median(floors),
                "gbytes_per_second": moved / min(seconds) / 1e9,
                "ratio_min": min(seconds) / min(floors),
                "ratio_median": statistics.median(seconds) / statistics.median(floors),
                "peak_bytes": max(m[2] for m in merges)}

    def known(self) -> list[str]:
        done = subprocess.run([str(self.program), "methods"], capture_output=True, text=True,
                              check=True)
        return [name for name in RECIPES
                if re.search(rf"\b{name.partition(':')[0]}\b", done.stdout + done.stderr)]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("folder")
    parser.add_argument("recipe", nargs="*")
    parser.add_argument("--size", type=size, default=500_000_000)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--option", action="append", default=[])
    bench = Bench(parser.parse_intermixed_args())
    made = not bench.folder.exists()
    bench.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        data = bench.run([bench.io, "make", bench.folder, bench.o.models, bench.o.size])
        for name in bench.o.recipe or bench.known():
            rows.append(bench.compare(name, data["data_bytes"]))
            print(json.dumps(rows[-1]), flush=True)
    finally:
        for path in [*bench.inputs, *bench.folder.glob("floor.bin"), *bench.folder.glob("out.*"),
                     *bench.folder.glob("peak.*"), *bench.folder.glob("recipe.yml")]:
            path.unlink(missing_ok=True)
        if made:
            bench.folder.rmdir()
    print(f"\n{'recipe':24} {'seconds':>8} {'floor':>7} {'ratio':>6} {'median':>7} {'GB/s':>6} "
          f"{'MiB a rank':>11}")
    for r in rows:
        print(f"{r['recipe']:24} {r['seconds_min']:8.2f} {r['floor_seconds_min']:7.2f} "
              f"{r['ratio_min']:6.2f} {r['ratio_median']:7.2f} {r['gbytes_per_second']:6.2f} "
              f"{r['peak_bytes'] / 2 ** 20:11.0f}")


main()
