"""Checkpoints of any size that take little space: holes but for patches of real data.

A tensor is (dtype, shape), a patch (tensor's name, first element, flat array of the raw type); what is
not patched reads as zeros. `.h5` makes one contiguous dataset a tensor, other names safetensors.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import math
import os
import struct
from pathlib import Path

import h5py
import numpy as np
from safetensors import RAW


def element_bytes(dtype: str) -> int:
    return np.dtype(RAW[dtype]).itemsize


def bf16(x: np.ndarray) -> np.ndarray:
    """Raw bf16 of f32 numbers, cut off: the numbers that the file holds are what counts."""
    return (np.asarray(x, "<f4").view("<u4") >> 16).astype("<u2")


def widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    return (raw.astype("<u4") << 16).view("<f4").astype("f8") if dtype == "BF16" else raw.astype("f8")


def h5_type(dtype: str):
    kind = h5py.h5t.py_create(np.dtype("<f2" if dtype == "BF16" else RAW[dtype]))
    if dtype == "BF16":
        kind = kind.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_ebias(127)
    return kind


def write_safetensors(path: Path, tensors: dict) -> dict:
    """Where each tensor starts."""
    header, at = {}, 0
    for name, (dtype, shape) in sorted(tensors.items()):
        size = math.prod(shape) * element_bytes(dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + at)
    return {name: 8 + len(text) + t["data_offsets"][0] for name, t in header.items()}


def write_h5(path: Path, tensors: dict) -> dict:
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_layout(h5py.h5d.CONTIGUOUS)
    create.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    start = {}
    with h5py.File(path, "w") as file:
        for name, (dtype, shape) in sorted(tensors.items()):
            space = (h5py.h5s.create_simple(tuple(shape)) if shape
                     else h5py.h5s.create(h5py.h5s.SCALAR))
            data = h5py.h5d.create(file.id, name.encode(), h5_type(dtype), space, create)
            start[name] = data.get_offset()
    return start


def write(path: str | Path, tensors: dict, patches: list = ()) -> None:
    path = Path(path)
    start = (write_h5 if path.suffix == ".h5" else write_safetensors)(path, tensors)
    with open(path, "r+b") as file:
        for name, first, raw in patches:
            dtype = tensors[name][0]
            file.seek(start[name] + first * element_bytes(dtype))
            file.write(np.ascontiguousarray(raw, RAW[dtype]).tobytes())


def offset(path: str | Path, name: str) -> int:
    """First byte of a tensor in a file."""
    if Path(path).suffix == ".h5":
        with h5py.File(path, "r") as file:
            return file[name].id.get_offset()
    with open(path, "rb") as file:
        n = struct.unpack("<Q", file.read(8))[0]
        return 8 + n + json.loads(file.read(n))[name]["data_offsets"][0]


def read(path: str | Path, name: str, dtype: str, first: int, n: int) -> np.ndarray:
    """Raw elements of a tensor."""
    at = offset(path, name) + first * element_bytes(dtype)
    return np.fromfile(path, RAW[dtype], n, offset=at)


def count_nonzero(path: str | Path, name: str, dtype: str, n: int, step: int = 1 << 24) -> int:
    at, size = offset(path, name), element_bytes(dtype)
    return sum(int(np.count_nonzero(np.fromfile(path, RAW[dtype], min(step, n - lo),
                                                offset=at + lo * size)))
               for lo in range(0, n, step))
