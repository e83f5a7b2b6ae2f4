#!/usr/bin/env python3
"""Task vectors: `allmerge extract` against numpy, and merges that take them as inputs.

Every dtype, whole and trimmed, in HDF5 (read with h5py) and safetensors: the stored numbers are
decoded here as io/checkpoint/taskvec.h says, compared with the differences (int8: at most half a scale off),
and the kept elements with the largest ones, ties by position. A merge of task vectors must give the
same bytes as a merge of base + the decoded numbers; with exact f32 differences, as the models
themselves. Same bytes for any number of ranks and block size.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "34")))
CHUNK, DENSE, SPARSE = 65536, 128, 2048
SHAPES = {"layers.0.w": [310, 401], "layers.1.w": [1100, 1021], "bias": [129], "scalar": [],
          "none": [0, 5], "flat": [7, 300], "a/b": [3, 3]}
NAMES = {"f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "int8": "I8"}


def run(ranks: int, *arguments: str) -> dict:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"],
               *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def stored(path: str) -> dict[str, np.ndarray]:
    """All arrays of a task vector; bf16 as float64."""
    if path.endswith(".safetensors"):
        return {name: t.f64().reshape(t.shape) if t.dtype == "BF16" else t.raw.reshape(t.shape)
                for name, t in read(path)[0].items()}
    out = {}
    with h5py.File(path) as f:
        assert f.attrs["allmerge.task_vector"] in ("1", b"1")
        for name, d in f.items():
            bits = None
            if d.dtype.itemsize == 2 and d.dtype.kind == "f" and kind(path) == "BF16":
                bits = np.empty(d.shape, "<u2")
                d.id.read(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=d.id.get_type())
                bits = (bits.astype("<u4") << 16).view("<f4").astype("f8")
            out[name.replace("%2F", "/").replace("%25", "%")] = d[()] if bits is None else bits
    return out


def kind(path: str) -> str:
    with h5py.File(path) as f:
        value = f.attrs["allmerge.task_vector.dtype"]
    return value.decode() if isinstance(value, bytes) else str(value)


def decode(parts: dict[str, np.ndarray], name: str, shape: list[int]) -> tuple:
    """Differences as float64 and, with int8, the scale of every element."""
    n = int(np.prod(shape))
    if name in parts:
        x = parts[name].astype("f8").ravel()
        assert list(parts[name].shape) == shape, name
        if parts[name].dtype != np.int8:
            return x, None
        scale = np.repeat(parts[f"{name}::scale"].astype("f8"), DENSE)[:n]
        return x * scale, scale
    start, index = parts[f"{name}::start"], parts[f"{name}::index"].astype("i8")
    value = parts[f"{name}::value"]
    assert parts[f"{name}::shape"].tolist() == shape and start[-1] == len(index) == len(value)
    at = index + CHUNK * np.repeat(np.arange(len(start) - 1), np.diff(start))
    assert np.all(np.diff(at) > 0)
    x, scale = np.zeros(n), None
    if value.dtype == np.int8:
        scale = np.repeat(parts[f"{name}::scale"].astype("f8"), SPARSE)[:n]
        x[at] = value.astype("f8") * scale[at]
    else:
        x[at] = value.astype("f8")
    return x, scale


def trim(x: np.ndarray, density: float) -> np.ndarray:
    """The largest elements by |x| as f32, ties by position; others 0."""
    k = min(len(x), max(1, int(density * len(x)))) if len(x) else 0
    order = np.argsort(-np.abs(x).astype("<f4"), kind="stable")
    out = np.zeros_like(x)
    out[order[:k]] = x[order[:k]]
    return out


def check(path: str, report: dict, delta: dict, density: float, dtype: str) -> dict:
    parts, decoded, squares = stored(path), {}, np.zeros(2)
    for name, shape in SHAPES.items():
        x, scale = decode(parts, name, shape)
        want = trim(delta[name], density)
        if scale is not None:
            assert np.all(np.abs(x - want) <= scale / 2), f"{path}: {name}: error above scale / 2"
            block = SPARSE if f"{name}::index" in parts else DENSE
            for lo in range(0, len(x), block):  # a scale is no larger than it must be
                largest, s = np.abs(want[lo:lo + block]).max(), scale[lo]
                assert 127 * s >= largest and np.nextafter(np.float32(s), np.float32(0)) <= largest / 127
        else:
            exact = np.asarray(Tensor(NAMES[dtype], [], round_to(NAMES[dtype], want)).f64())
            assert np.array_equal(x, exact), f"{path}: {name}"
        told, error = report["tensors"][name], np.linalg.norm(x - want)
        norm = np.linalg.norm(want)
        assert np.isclose(told["relative_l2"], error / norm if norm else 0, rtol=1e-9), name
        assert told["max_abs"] == (np.abs(x - want).max() if len(x) else 0), name
        squares += error ** 2, norm ** 2
        decoded[name] = x
    assert np.isclose(report["global"]["relative_l2"], np.sqrt(squares[0] / squares[1]), rtol=1e-9)
    sparse = {n for n in SHAPES if f"{n}::index" in parts}
    assert bool(sparse) == (density < 0.5), f"{path}: sparse {sparse}"
    return decoded


RECIPE = """
merge_method: task_arithmetic
base_model: base.safetensors
models:
- model: {0}
  parameters: {{weight: 0.3}}
- model: {1}
  parameters: {{weight: [0.5, 0.9]}}
dtype: {2}
"""


def merge(ranks: int, models: list[str], out: str, block: str, dtype: str = "float32") -> dict:
    Path("r.yml").write_text(RECIPE.format(*models, dtype))
    run(ranks, "merge", "r.yml", "-o", out, "--block", block, "--overwrite")
    return read(out)[0]


def same(got: dict, want: dict, what: str) -> None:
    assert got.keys() == want.keys(), what
    for name in want:
        assert got[name].raw.tobytes() == want[name].raw.tobytes(), f"{what}: {name}"


def main() -> None:
    base, models, delta = {}, [{}, {}], [{}, {}]
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        start = np.clip(np.rint(64 * rng.standard_normal(n)), -255, 255) / 64  # exact in bf16
        base[name] = Tensor("BF16", shape, round_to("BF16", start))
        for m in range(2):  # few values, so that there are ties; differences exact in f32
            step = rng.integers(-40, 41, n) * 2.0 ** -6
            step[rng.random(n) < 0.001] *= 4096
            x = np.asarray(base[name].f64() + step, "<f4")
            models[m][name] = Tensor("F32", shape, x.ravel())
            delta[m][name] = x.ravel().astype("f8") - base[name].f64()
    for tensors in (base, *models):
        tensors["ids"] = Tensor("I64", [3], np.arange(3, dtype="<i8"))
    write("base.safetensors", base)
    write("m0.safetensors", models[0])
    write("m1.safetensors", models[1])
    direct = merge(2, ["m0.safetensors", "m1.safetensors"], "direct.safetensors", "8MiB")

    for dtype in NAMES:
        for density in (1.0, 0.9, 0.15):
            paths, whole = [], []
            for m in range(2):
                path = f"tv{m}-{dtype}-{density}" + (".h5", ".safetensors")[m]
                told = run(2 + m, "extract", "base.safetensors", f"m{m}.safetensors", "-o", path,
                           "--dtype", dtype, "--density", density)
                decoded = check(path, told, delta[m], density, dtype)
                as_model = {n: Tensor("F64", SHAPES[n], base[n].f64() + d)
                            for n, d in decoded.items()}
                write(f"whole{m}.safetensors", as_model | {"ids": base["ids"]})
                paths.append(path)
                whole.append(f"whole{m}.safetensors")
            want = merge(1, whole, "want.safetensors", "8MiB")
            what = f"{dtype} {density}"
            same(merge(2, paths, "got.safetensors", "8MiB"), want, what)
            if dtype in ("f32", "f64") and density == 1.0:
                same(want, direct, f"{what}: the models themselves")
    ranks()
    print(f"{len(NAMES)} dtypes, 3 densities: as numpy has them, and merged like the models")


def ranks() -> None:
    """Files and merges are the same bytes for 1 to 4 ranks and any block."""
    for dtype, density in (("int8", "1"), ("int8", "0.15"), ("bf16", "0.15"), ("f32", "1")):
        files, merged = set(), set()
        for n, block in ((1, "8MiB"), (2, "80KiB"), (3, "1000000"), (4, "520000")):
            out = f"n{n}.h5"
            run(n, "extract", "base.safetensors", "m0.safetensors", "-o", out, "--dtype", dtype,
                "--density", density, "--overwrite")
            run(1, "verify", out)
            files.add(Path(out).read_bytes())
            Path("tv.h5").write_bytes(Path(out).read_bytes())
            merge(n, ["tv.h5", "m1.safetensors"], "out.safetensors", block)
            merged.add(Path("out.safetensors").read_bytes())
        assert len(files) == 1 and len(merged) == 1, f"{dtype} {density}: ranks matter"
    told = run(2, "analyze", "base.safetensors", "tv.h5", "m0.safetensors")
    assert np.isclose(told["global"]["cosines"][0][1], 1, atol=1e-12)


main()
