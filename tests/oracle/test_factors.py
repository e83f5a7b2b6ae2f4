#!/usr/bin/env python3
"""Task vectors as leading singular directions (TSV-C): `allmerge extract --max-rank ...` against
numpy, and merges that take them as inputs.

A matrix cut to r directions is off by the norm of the singular values that are left out, to 1e-9,
and the ranks by number, share, energy and size are numpy's. The randomised way is near that, and
tells what it leaves out. What takes fewer bytes otherwise is stored otherwise; a matrix that did not
change takes none. Same bytes for any number of ranks and block size.
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
from safetensors import Tensor, read, round_to, write  # noqa: E402

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "51")))
SHAPES = {"tall.weight": [90, 40], "wide.weight": [33, 120], "conv.weight": [24, 6, 3, 3],
          "few.weight": [64, 64], "still.weight": [50, 60], "zero.weight": [0, 7],
          "tiny.weight": [2, 2], "bias": [90], "large.weight": [560, 530]}
MATRICES = [n for n, s in SHAPES.items() if len(s) >= 2 and np.prod(s) > 4]


def run(ranks: int, *arguments: str) -> dict:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"],
               *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def spectrum(n: int, k: int) -> np.ndarray:
    return 0.8 ** np.arange(k) * (1 + rng.random(k) / 10) * (np.arange(k) < (7 if n == 64 else k))


def matrix(m: int, n: int) -> np.ndarray:
    """With singular values that fall; 7 of them for 64 x 64."""
    k = min(m, n)
    u = np.linalg.qr(rng.standard_normal((m, k)))[0]
    v = np.linalg.qr(rng.standard_normal((n, k)))[0]
    return u * spectrum(m, k) @ v.T


def make() -> tuple[dict, dict]:
    base, delta = {}, {}
    model = {}
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        base[name] = Tensor("F64", shape, rng.standard_normal(n))
        flat = np.zeros(n) if name in ("still.weight", "zero.weight") else \
            matrix(shape[0], n // shape[0]).ravel() if len(shape) > 1 else rng.standard_normal(n)
        model[name] = Tensor("F64", shape, base[name].raw + flat)
        delta[name] = (model[name].raw - base[name].raw).reshape(shape[0], n // max(1, shape[0]))
    for tensors in (base, model):
        tensors["ids"] = Tensor("I64", [3], np.arange(3, dtype="<i8"))
    write("base.safetensors", base)
    write("model.safetensors", model)
    return base, delta


def rank_of(s: np.ndarray, shape: tuple, rule: dict) -> int:
    """How many singular values stay."""
    s = s[s > max(shape) * np.finfo(float).eps * s[0]] if s[0] > 0 else s[:0]
    most = rule.get("max-rank", len(s))
    if "rank-fraction" in rule:
        most = min(most, max(1, int(rule["rank-fraction"] * min(shape))))
    s = s[s > rule.get("sv-epsilon", 0)]
    share = np.cumsum(s ** 2) / max(np.sum(s ** 2), 1e-300)
    if "energy" in rule and "sv-epsilon" not in rule:
        most = min(most, int(np.searchsorted(share, rule["energy"] * (1 - 1e-14)) + 1))
    return min(most, len(s))


def check(path: str, told: dict, delta: dict, rule: dict, dtype: str) -> dict:
    stored, decoded = read(path)[0], {}
    size = {"f64": 8, "f32": 4, "bf16": 2}[dtype]
    tail, total = 0.0, 0.0
    for name, d in delta.items():
        own = told["tensors"][name]
        s = np.linalg.svd(d, compute_uv=False) if d.size else np.zeros(1)
        r = rank_of(s, d.shape, rule) if d.size else 0
        left_out = float(np.sqrt(np.sum(s[r:] ** 2)))
        pays = r * (sum(d.shape) * size + 8) < d.size * size
        assert (f"{name}::u" in stored) == (name in MATRICES and pays), f"{path}: {name}: rank {r}"
        parts = [t for n, t in stored.items() if n == name or n.startswith(name + "::")]
        assert own["data_bytes"] == sum(t.raw.nbytes for t in parts), name
        if f"{name}::u" not in stored:
            decoded[name] = stored[name].f64().reshape(d.shape)
            assert np.abs(decoded[name] - d).max(initial=0) <= 2.0 ** -8 * np.abs(d).max(initial=0)
            assert own["kept_norm"] in (0, 1) and "rank" not in own, own
            total += np.sum(d ** 2)
            continue
        u, sv, vt = (stored[f"{name}::{p}"] for p in ("u", "s", "vt"))
        assert u.shape == [d.shape[0], r] and vt.shape == [r, d.shape[1]] and sv.dtype == "F64"
        decoded[name] = u.f64().reshape(u.shape) * sv.f64() @ vt.f64().reshape(vt.shape)
        error, norm = np.linalg.norm(d - decoded[name]), np.linalg.norm(d)
        assert own["rank"] == r and np.isclose(own["norm"], norm, rtol=1e-12), (name, own)
        if not own["is_random"]:
            kept = np.sqrt(max(0, norm ** 2 - left_out ** 2))
            assert np.isclose(own["kept_norm"], kept / norm if norm else 0, rtol=1e-9), (name, own)
            assert np.allclose(sv.f64(), s[:r], rtol=1e-9), name
            if dtype == "f64":
                assert abs(error - left_out) <= 1e-9 * norm, f"{name}: {error} {left_out}"
        else:
            assert left_out * (1 - 1e-9) - 1e-12 * norm <= error <= left_out * 1.02 + 1e-12 * norm, (name, error, left_out)
            kept = 1 - (error / norm) ** 2 if norm else 0
            assert np.isclose(own["kept_norm"] ** 2, kept, atol=1e-9), own
        best = (lambda f: f[0][:, :r] * f[1][:r] @ f[2][:r])(np.linalg.svd(d, full_matrices=False))
        if dtype != "f64" and r > 0 and not own["is_random"]:
            rounding = np.linalg.norm(decoded[name] - best)
            assert np.isclose(own["relative_l2"], rounding / np.linalg.norm(best), rtol=1e-6), name
            assert np.isclose(own["max_abs"], np.abs(decoded[name] - best).max(), rtol=1e-6), name
        tail, total = tail + norm ** 2 * (1 - own["kept_norm"] ** 2), total + norm ** 2
    assert np.isclose(told["global"]["kept_norm"] ** 2, 1 - tail / total, rtol=1e-9)
    assert told["data_bytes"] == sum(t.raw.nbytes for t in stored.values())
    assert told["factored"] == sum("::u" in n for n in stored)
    return decoded


RECIPE = """
merge_method: task_arithmetic
base_model: base.safetensors
models:
- model: {0}
  parameters: {{weight: 1}}
- model: {1}
  parameters: {{weight: -0.5}}
dtype: float64
"""


def main() -> None:
    base, delta = make()
    cases = [({"max-rank": 4}, "f64"), ({"max-rank": 3}, "bf16"), ({"rank-fraction": 0.25}, "f32"),
             ({"energy": 0.9}, "f64"), ({"sv-epsilon": 0.2}, "f64"),
             ({"max-rank": 6, "energy": 0.999, "svd": "exact"}, "f64"),
             ({"max-rank": 9, "svd": "random"}, "f64")]
    for number, (rule, dtype) in enumerate(cases):
        options = [part for k, v in rule.items() for part in (f"--{k}", str(v))]
        path, first = f"tv{number}.safetensors", None
        for ranks in (1 + number % 3, 4):
            told = run(ranks, "extract", "base.safetensors", "model.safetensors", "-o", path,
                       "--dtype", dtype, *options, "--overwrite")
            written = Path(path).read_bytes(), told
            assert first in (None, written), f"{path}: ranks matter"
            first = written
        random = {n for n, t in told["tensors"].items() if t.get("is_random")}
        expected = {"random": set(MATRICES), "exact": set()}.get(
            rule.get("svd"), {"large.weight"} if "max-rank" in rule else set())
        assert random == expected & {n for n in MATRICES if f"{n}::u" in read(path)[0]}, random
        decoded = check(path, told, delta, rule, dtype)
        Path("r.yml").write_text(RECIPE.format(path, "model.safetensors"))
        merged = set()
        for ranks, block in ((1, "8MiB"), (3, "80KiB"), (2, "1000")):
            run(ranks, "merge", "r.yml", "-o", "out.safetensors", "--block", block, "--overwrite")
            merged.add(Path("out.safetensors").read_bytes())
        assert len(merged) == 1, f"{path}: ranks or blocks matter"
        for name, t in read("out.safetensors")[0].items():
            if name in delta:
                want = base[name].raw + (decoded[name] - 0.5 * delta[name]).ravel()
                assert np.allclose(t.f64(), want, rtol=0, atol=1e-12), f"{path}: {name}"
    print(f"{len(cases)} rules: ranks, errors and sizes as numpy has them; merged like the models")


main()
