#!/usr/bin/env python3
"""Recipes written for mergekit give its results, and the same bytes on any number of ranks.

usage: test_peer.py RANKS [BLOCK_BYTES]...      RANKS: 1,2,3
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
import safetensors  # noqa: E402

DATA = SOURCE / "tests" / "data" / "peer_f32"
RECIPES = sorted(path.stem for path in DATA.glob("*.yml"))
TOLERANCE = 1e-6  # of the tensor's largest value: mergekit computes in float32


def merge(recipe: str, out: str, ranks: int, block: str) -> bytes:
    """Run one merge and return the output's bytes."""
    command = [os.environ["AM_BIN"], "merge", str(DATA / f"{recipe}.yml"), "-o", out,
               f"--block={block}", "--quiet"]
    if ranks > 0:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode != 0 or run.stderr:
        sys.exit(f"{recipe} on {ranks} ranks: exit {run.returncode}\n{run.stderr}")
    result = json.loads(run.stdout)
    assert result["tensors"] == 19 and result["parameters"] == 5106, result
    assert result["written_bytes"] == 4 * 5106, result
    return Path(out).read_bytes()


def check_values(recipe: str, out: str) -> None:
    got, _ = safetensors.read(out)
    expected, _ = safetensors.read(DATA / f"{recipe}.expected.safetensors")
    assert list(got) == sorted(expected), "tensor names differ"
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == ("F32", tensor.shape), name
        error = np.abs(got[name].f64() - tensor.f64()).max() / np.abs(tensor.f64()).max()
        assert error <= TOLERANCE, f"{recipe}: {name} differs by {error}"


def main() -> int:
    ranks = [int(r) for r in sys.argv[1].split(",")]
    blocks = sys.argv[2:] or ["8MiB"]
    for recipe in RECIPES:
        reference = merge(recipe, f"{recipe}.safetensors", 0, "8MiB")
        check_values(recipe, f"{recipe}.safetensors")
        for i, r in enumerate(ranks):
            block = blocks[i % len(blocks)]
            out = f"{recipe}.{r}.safetensors"
            assert merge(recipe, out, r, block) == reference, \
                f"{recipe}: other bytes on {r} ranks with blocks of {block} bytes"
        print(f"{recipe}: {len(ranks)} rank counts, same bytes")
    return 0


sys.exit(main())
