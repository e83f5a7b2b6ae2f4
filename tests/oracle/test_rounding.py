#!/usr/bin/env python3
"""Ten million elements: bf16 results of linear and task_arithmetic are the f64 result, rounded once.

Random values over most of the range, subnormal ones, ties to even, sums that cancel to a few units
in the last place of one model; from bf16 and f32 models. The f64 result is the recipe's sum in the recipe's order.
SPDX-License-Identifier: BSD-3-Clause
"""
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

N, WEIGHTS, LAMBDA = 10_000_000 // 5, [0.3, -0.7, 1.0, 0.5], 0.9
rng = np.random.default_rng(int(os.environ.get("AM_SEED", "5")))


def finite_bits(lo: int, hi: int) -> np.ndarray:
    """bf16 patterns of either sign with exponents lo to hi - 1."""
    bits = rng.integers(lo << 7, hi << 7, N, dtype=np.uint16)
    return bits | (rng.integers(0, 2, N, dtype=np.uint16) << 15)


def inputs() -> dict[str, list[np.ndarray]]:
    """Five tensors: [base, models...] as f64."""
    def wide(bits: np.ndarray) -> np.ndarray:
        return (bits.astype("<u4") << 16).view("<f4").astype("f8")

    near = wide(finite_bits(120, 130))
    steps = near[None, :] * (1 + rng.integers(-3, 4, (len(WEIGHTS), N)) / 128)
    return {
        "any": [wide(finite_bits(0, 250)) for _ in range(len(WEIGHTS) + 1)],
        "tuned": [near, *[wide(round_to("BF16", s)) for s in steps]],
        "subnormal": [wide(finite_bits(0, 3)) for _ in range(len(WEIGHTS) + 1)],
        "ties": [wide(finite_bits(124, 128)), *[wide(finite_bits(115, 128)) for _ in WEIGHTS]],
        "cancelling": [near, 7 * near, 3 * near, np.zeros(N), -near / 64],
    }


def expected(method: str, xs: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(N)
    for w, x in zip(WEIGHTS, xs[1:]):
        total = total + w * (x if method == "linear" else x - xs[0])
    return total if method == "linear" else xs[0] + LAMBDA * total


def main() -> int:
    tensors = inputs()
    for k in range(len(WEIGHTS) + 1):
        kind = ["BF16", "BF16", "F32", "BF16", "BF16"][k]
        write(f"m{k}.safetensors",
              {name: Tensor(kind, [N], round_to(kind, xs[k])) for name, xs in tensors.items()})
    stored = [read(f"m{k}.safetensors")[0] for k in range(len(WEIGHTS) + 1)]
    for method in ("linear", "task_arithmetic"):
        lines = [f"merge_method: {method}", "dtype: bfloat16", "models:"]
        for k, w in enumerate(WEIGHTS):
            lines += [f"- model: m{k + 1}.safetensors", f"  parameters: {{weight: {w}}}"]
        lines += ["parameters: {normalize: false}"] if method == "linear" else \
            ["base_model: m0.safetensors", f"parameters: {{lambda: {LAMBDA}}}"]
        Path("r.yml").write_text("\n".join(lines) + "\n")
        subprocess.run([*shlex.split(os.environ["AM_MPIRUN"]), "-n", "2", os.environ["AM_BIN"],
                        "merge", "r.yml", "-o", "out.safetensors", "--overwrite", "--quiet"],
                       check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        out, _ = read("out.safetensors")
        for name in tensors:
            wanted = round_to("BF16", expected(method, [s[name].f64() for s in stored]))
            same = out[name].raw == wanted
            assert same.all(), f"{method}, {name}: {np.count_nonzero(~same)} of {N} elements, first " \
                f"{np.argmin(same)}: {out[name].raw[~same][0]:04x}, not {wanted[~same][0]:04x}"
        print(f"{method}: {N * len(tensors)} elements")
    return 0


sys.exit(main())
