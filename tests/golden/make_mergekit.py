#!/usr/bin/env python3
"""Make tests/data/mergekit from a run of mergekit: how the goldens of test_mergekit_golden.py came about.

    AM_SOURCE=. AM_BIN=build/allmerge AM_MERGEKIT_PYTHON=V/bin/python tests/oracle/test_mergekit.py llama   (in FOLDER)
    tests/golden/make_mergekit.py FOLDER

Of mergekit 0.1.4 with torch 2.5.1: the input models, the recipes, and of every tensor of every output a few
elements and the largest magnitude.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests" / name) for name in ("support", "golden")]
from safetensors import Tensor, read, write  # noqa: E402
from test_mergekit_golden import DATA, DTYPES, sample  # noqa: E402

run = Path(sys.argv[1])
models, expected, recipes = {}, {}, {}
for folder in sorted(run.glob("llama.*.*")):
    if folder.is_dir():
        for name, tensor in read(folder / "model.safetensors")[0].items():
            models[f"{folder.name}/{name}"] = tensor
config = json.loads((run / "llama.F32.base" / "config.json").read_text())
for job in json.loads((run / "jobs.json").read_text()):
    out = run / job["out"] / "model.safetensors"
    if not job["name"].startswith("llama.") or not job["name"].endswith(".float32") or not out.exists():
        continue
    tensors, _ = read(out)
    recipes[job["name"]] = {"text": (run / job["recipe"]).read_text(), "names": sorted(tensors),
                            "shapes": [tensors[k].shape for k in sorted(tensors)],
                            "dtype": sorted({t.dtype for t in tensors.values()})}
    values = np.concatenate([sample(k, tensors[k].f64()) for k in sorted(tensors)])
    expected[job["name"]] = Tensor("F32", [values.size], values.astype("<f4"))
DATA.mkdir(exist_ok=True)
write(DATA / "models.safetensors", models)
write(DATA / "expected.safetensors", expected)
names = sorted({tuple(r["names"]) for r in recipes.values()})
shapes = sorted({json.dumps(r["shapes"]) for r in recipes.values()})
for r in recipes.values():
    r["names"] = names.index(tuple(r["names"]))
    r["shapes"] = shapes.index(json.dumps(r["shapes"]))
    assert len(r["dtype"]) == 1 and r["dtype"][0] in DTYPES
    r["dtype"] = r["dtype"][0]
(DATA / "recipes.json").write_text(json.dumps(
    {"config": config, "names": names, "shapes": [json.loads(s) for s in shapes],
     "recipes": recipes}, indent=0))
print(f"{len(recipes)} recipes")
