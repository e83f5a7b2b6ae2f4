"""Read and write safetensors files in tests, as bytes and as float64.

SPDX-License-Identifier: BSD-3-Clause
"""
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RAW = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
       "I16": "<i2", "I8": "i1", "U16": "<u2", "U8": "u1", "BOOL": "u1"}


@dataclass
class Tensor:
    dtype: str
    shape: list[int]
    raw: np.ndarray  # flat, of dtype RAW[dtype]

    def f64(self) -> np.ndarray:
        if self.dtype == "BF16":
            return (self.raw.astype("<u4") << 16).view("<f4").astype("f8")
        return self.raw.astype("f8")


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file."""
    data = Path(path).read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    meta = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        lo, hi = (8 + n + at for at in t["data_offsets"])
        tensors[name] = Tensor(t["dtype"], t["shape"], np.frombuffer(data[lo:hi], RAW[t["dtype"]]))
    return tensors, meta


def write(path: str | Path, tensors: dict[str, Tensor]) -> None:
    header, parts, at = {}, [], 0
    for name in sorted(tensors):
        raw = tensors[name].raw.tobytes()
        header[name] = {"dtype": tensors[name].dtype, "shape": tensors[name].shape,
                        "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def round_to(dtype: str, x: np.ndarray) -> np.ndarray:
    """float64 to the raw array of `dtype`, one rounding to nearest even (bf16 by integers)."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return x.astype(RAW[dtype])
    # f64 bits to bf16 directly: 8 exponent bits are a subset, 45 bits are rounded away; values below
    # the normal range of f32 are scaled so that their last kept bit is the subnormal one.
    sign = (np.signbit(x).astype("<u2") << 15)
    a = np.abs(x)
    quantum = np.where(a >= 2.0 ** -126, 2.0 ** (np.floor(np.log2(np.where(a > 0, a, 1))) - 7),
                       2.0 ** -133)
    q = a / quantum  # exact: a power of two
    kept = np.rint(q) * quantum  # rint is to nearest even
    f = kept.astype("<f4")
    return sign | (f.view("<u4") >> 16).astype("<u2")
