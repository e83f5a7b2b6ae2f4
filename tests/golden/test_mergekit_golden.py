#!/usr/bin/env python3
"""Recipes in every form that mergekit reads give what mergekit 0.1.4 gave, from f32 and bf16 models.

tests/data/mergekit holds models, recipes and a few elements of every output tensor; make_mergekit.py in this folder
made them. Elements of equal magnitude were sorted by index there, as here.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, write  # noqa: E402

DATA = SOURCE / "tests" / "data" / "mergekit"
TAKEN = 6
# Of a tensor's largest value: mergekit computes in float32; half a unit in the last place of the output's.
DTYPES = {"F32": 1e-6, "F16": 2.0 ** -10, "BF16": 2.0 ** -7}


def sample(name: str, x: np.ndarray) -> np.ndarray:
    """A few elements, at places that the name chooses, and the largest magnitude."""
    first = zlib.crc32(name.encode())
    return np.append(x[(first + np.arange(TAKEN) * 7919) % x.size], np.abs(x).max())


def write_models(config: dict) -> None:
    tensors, _ = read(DATA / "models.safetensors")
    for model in {key.split("/")[0] for key in tensors}:
        Path(model).mkdir()
        write(Path(model) / "model.safetensors",
              {k.split("/")[1]: t for k, t in tensors.items() if k.startswith(model + "/")})
        (Path(model) / "config.json").write_text(json.dumps(config))


def check(name: str, recipe: dict, names: list, shapes: list, expected: Tensor) -> float:
    Path(f"{name}.yml").write_text(recipe["text"])
    subprocess.run([os.environ["AM_BIN"], "merge", f"{name}.yml", "-o", f"{name}.safetensors",
                    "--quiet"], check=True, stdout=subprocess.DEVNULL)
    got, _ = read(f"{name}.safetensors")
    assert list(got) == names, f"{name}: {set(got) ^ set(names)}"
    assert [t.shape for t in got.values()] == shapes, name
    assert {t.dtype for t in got.values()} == {recipe["dtype"]}, name
    wanted = expected.f64().reshape(len(names), TAKEN + 1)
    worst = 0.0
    for key, row in zip(names, wanted):
        error = np.abs(sample(key, got[key].f64()) - row).max() / max(row[-1], 1e-30)
        assert error <= DTYPES[recipe["dtype"]], f"{name}: {key} differs by {error}"
        worst = max(worst, error)
    return worst


def main() -> int:
    data = json.loads((DATA / "recipes.json").read_text())
    expected, _ = read(DATA / "expected.safetensors")
    write_models(data["config"])
    with ThreadPoolExecutor(4) as pool:  # starting and syncing takes longer than merging
        runs = [(recipe["dtype"], pool.submit(check, name, recipe, data["names"][recipe["names"]],
                                              data["shapes"][recipe["shapes"]], expected[name]))
                for name, recipe in data["recipes"].items()]
    worst = {}
    for dtype, run in runs:
        worst[dtype] = max(worst.get(dtype, 0.0), run.result())
    print(f"{len(data['recipes'])} recipes, largest deviations {worst}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
