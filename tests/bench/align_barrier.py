#!/usr/bin/env python3
"""Train a recipe from two seeds, align one network with the other, and measure the loss on the straight line
between them: as trained, and aligned by weights, by activations, by both.

usage: align_barrier.py FOLDER [--recipe R] [--task T] [--steps N] [--set KEY=VALUE]...
The recipe is jobs/recipes/align.yml, the data sets data/suite (jobs/quickstart makes them). Networks that are
trained in FOLDER are only read. The barrier is the largest loss above the line between the losses of the ends.
SPDX-License-Identifier: BSD-3-Clause
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
SEEDS = 1, 2
LINE = """
merge_method: linear
models:
- {{model: {a}, parameters: {{weight: {wa}}}}}
- {{model: {b}, parameters: {{weight: {wb}}}}}
parameters: {{normalize: false}}
dtype: float32
"""
Model = tuple[Path, Path]  # trunk, heads


def run(*arguments) -> dict:
    done = subprocess.run([TOP / "build/allmerge", *map(str, arguments)], cwd=TOP, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def between(a: Path, b: Path, t: float, out: Path) -> Path:
    recipe = out.with_suffix(".yml")
    recipe.write_text(LINE.format(a=a, b=b, wa=1 - t, wb=t))
    run("merge", recipe, "-o", out, "--overwrite")
    return out


def curve(given, a: Model, b: Model) -> list[tuple[float, float, float]]:
    """(t, test loss, test accuracy) of (1 - t) a + t b."""
    points = []
    for k in range(given.steps + 1):
        t = k / given.steps
        trunk, heads = (between(x, y, t, given.folder / f"{name}.h5")
                        for x, y, name in zip(a, b, ("between", "between_heads")))
        row = run("eval", given.recipe, "--model", trunk, "--heads", heads, *given.sets)["rows"][0]
        points.append((t, row["task_loss_nats"][0], row["task_accuracy"][0]))
    return points


def barrier(points: list) -> float:
    first, last = points[0][1], points[-1][1]
    return max(loss - (1 - t) * first - t * last for t, loss, _ in points)


def train(given) -> list[Model]:
    """The two networks, trained if they are not there."""
    models = []
    for seed in SEEDS:
        out = given.folder / f"seed-{seed}"
        if not (out / "heads.h5").exists() or not (out / "trunk.h5").exists():
            run("train", given.recipe, "--task", given.task, *given.sets, "--set", f"seed={seed}", "-o", out)
        models.append((out / "trunk.h5", out / "heads.h5"))
    return models


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, default=TOP / "jobs/recipes/align.yml")
    parser.add_argument("--task", default="fashion")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    given.folder, given.recipe = given.folder.resolve(), given.recipe.resolve()
    given.sets = [x for s in given.set for x in ("--set", s)]
    given.folder.mkdir(parents=True, exist_ok=True)
    one, two = train(given)
    lines = [("as trained", two)]
    for match in "weights", "activations", "both":
        moved = given.folder / f"{match}.h5", given.folder / f"{match}_heads.h5"
        told = run("align", given.recipe, two[0], "--to", one[0], "-o", moved[0], "--heads", two[1], "--heads-to", one[1],
                   "--heads-output", moved[1], "--match", match, "--task", given.task, "--overwrite", *given.sets)
        print(f"{match}: cosine {told['cosine_before']:.4f}, aligned {told['cosine_after']:.4f}; {told['sweeps']} sweeps")
        lines.append((match, moved))
    print(f"{'t':>12} " + " ".join(f"{k / given.steps:7.2f}" for k in range(given.steps + 1)) + "  barrier")
    for name, other in lines:
        points = curve(given, one, other)
        print(f"{name:>12} " + " ".join(f"{loss:7.4f}" for _, loss, _ in points) + f"  {barrier(points):.4f} nats")
        print(f"{'accuracy':>12} " + " ".join(f"{accuracy:7.4f}" for *_, accuracy in points))


if __name__ == "__main__":
    main()
