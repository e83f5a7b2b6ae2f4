#!/usr/bin/env python3
"""Write small classification tasks in the layout of io/dataset/dataset.h, for tests of the training jobs.

usage: make_tasks.py FOLDER NAME[:CLASSES[:TRAIN]]...
Each task is its own mixture of Gaussians in 36 features (6x6 u8), keyed by its name: 'a:4:120' has 4
classes and 120 training samples (half as many for validation and for test).
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import sys
from pathlib import Path

import h5py
import numpy as np

SIDE = 6


def write_task(path: Path, name: str, classes: int, train: int) -> None:
    rng = np.random.default_rng(list(name.encode()))
    centre = rng.uniform(60, 190, (classes, SIDE * SIDE))
    with h5py.File(path, "w") as file:
        for split, n in (("train", train), ("validation", train // 2), ("test", train // 2)):
            y = rng.integers(0, classes, n)
            x = centre[y] + rng.normal(0, 45, (n, SIDE * SIDE))
            file[f"{split}/x"] = np.clip(x, 0, 255).astype("u1").reshape(n, SIDE, SIDE)
            file[f"{split}/y"] = y.astype("<i4")
        file.attrs["name"] = name
        file.attrs["classes"] = json.dumps([f"c{i}" for i in range(classes)])
        file.attrs["source"] = "tests/support/make_tasks.py"
        file.attrs["licence"] = "BSD-3-Clause"


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for task in sys.argv[2:]:
        name, classes, train = (task.split(":") + ["4", "120"][task.count(":"):])[:3]
        write_task(folder / f"{name}.h5", name, int(classes), int(train))


if __name__ == "__main__":
    main()
