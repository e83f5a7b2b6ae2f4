#!/usr/bin/env python3
"""Merge two networks of other seeds at several budgets of width (PLeaS), and tell the loss beside that of the plain
average, of the average after alignment, and of the two networks.

usage: pleas.py FOLDER [--recipe R] [--task T] [--budgets B,B,...] [--matches M,M,...] [--ridge X] [--samples N] [--set KEY=VALUE]...
The networks are those of align_barrier.py, and are trained if they are not in FOLDER.
SPDX-License-Identifier: BSD-3-Clause
"""
import argparse
from pathlib import Path

from align_barrier import TOP, between, run, train


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, default=TOP / "jobs/recipes/align.yml")
    parser.add_argument("--task", default="fashion")
    parser.add_argument("--budgets", default="1,1.25,1.5,2")
    parser.add_argument("--matches", default="activations,weights,both")
    parser.add_argument("--ridge", default="1e-4")
    parser.add_argument("--samples", default="0")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    given.folder, given.recipe = given.folder.resolve(), given.recipe.resolve()
    given.sets = [x for s in given.set for x in ("--set", s)]
    one, two = train(given)

    def tell(name: str, recipe: Path, trunk: Path, heads: Path) -> None:
        row = run("eval", recipe, "--model", trunk, "--heads", heads, *given.sets)["rows"][0]
        print(f"{name:>26}  {row['task_loss_nats'][0]:.4f} nats  {row['task_accuracy'][0]:.4f}", flush=True)

    def average(name: str, other: tuple) -> None:
        trunk, heads = (between(x, y, 0.5, given.folder / f"{part}.h5")
                        for x, y, part in zip(one, other, ("average", "average_heads")))
        tell(name, given.recipe, trunk, heads)

    tell("one", given.recipe, *one)
    tell("two", given.recipe, *two)
    average("average", two)
    for match in given.matches.split(","):
        moved = given.folder / "aligned.h5", given.folder / "aligned_heads.h5"
        run("align", given.recipe, two[0], "--to", one[0], "-o", moved[0], "--heads", two[1], "--heads-to", one[1],
            "--heads-output", moved[1], "--match", match, "--task", given.task, "--overwrite", *given.sets)
        average(f"average, {match}", moved)
        for budget in given.budgets.split(","):
            out = given.folder / "pleas"
            told = run("pleas", given.recipe, one[0].parent, two[0].parent, "-o", out, "--budget", budget, "--match", match,
                       "--ridge", given.ridge, "--samples", given.samples, "--task", given.task, "--overwrite", *given.sets)
            share = told["merged_parameters"] / told["parameters"]
            # The recipe that it leaves has the settings already.
            row = run("eval", out / "recipe.yml", "--model", out / "trunk.h5", "--heads", out / "heads.h5")["rows"][0]
            print(f"{f'pleas {budget}, {match}':>26}  {row['task_loss_nats'][0]:.4f} nats  {row['task_accuracy'][0]:.4f}"
                  f"  {share:.2f} times the parameters", flush=True)


if __name__ == "__main__":
    main()
