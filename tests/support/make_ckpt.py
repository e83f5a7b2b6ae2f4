#!/usr/bin/python3
"""Write a small safetensors checkpoint for a test.

usage: make_ckpt.py OUT.safetensors NAME=SHAPE[:DTYPE[:FILL]]...
  SHAPE   64x32, 7, or 'scalar'
  DTYPE   f64 f32 f16 bf16 i64 i32 u8        (default f32)
  FILL    SEED of normal numbers (default 1), 'zero', 'one', 'nan' (one NaN in the middle), 'inf'
Example: make_ckpt.py base.safetensors layer.weight=64x32 layer.bias=64:bf16:2
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import math
import struct
import sys

import numpy as np

KINDS = {"f64": ("F64", "<f8"), "f32": ("F32", "<f4"), "f16": ("F16", "<f2"),
         "bf16": ("BF16", "<u2"), "i64": ("I64", "<i8"), "i32": ("I32", "<i4"), "u8": ("U8", "u1")}


def values(name: str, n: int, kind: str, fill: str) -> np.ndarray:
    """n numbers of one tensor in the bytes of its dtype."""
    if fill == "zero":
        x = np.zeros(n)
    elif fill == "one":
        x = np.ones(n)
    else:
        seed = int(fill) if fill.isdigit() else 1
        x = np.random.default_rng([seed, *name.encode()]).standard_normal(n)
        if kind[0] in "iu":
            x = np.abs(x) * 10
        if fill in ("nan", "inf") and n > 0:
            x[n // 2] = float(fill)
    if kind == "bf16":
        bits = x.astype("<f4").view("<u4")
        return (bits >> 16).astype("<u2")
    return x.astype(KINDS[kind][1])


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    header, data, offset = {}, [], 0
    for item in sorted(sys.argv[2:]):
        name, _, text = item.partition("=")
        shape_text, kind, fill = (text.split(":") + ["", ""])[:3]
        kind, fill = kind or "f32", fill or "1"
        shape = [] if shape_text == "scalar" else [int(d) for d in shape_text.split("x")]
        raw = values(name, math.prod(shape), kind, fill).tobytes()
        header[name] = {"dtype": KINDS[kind][0], "shape": shape,
                        "data_offsets": [offset, offset + len(raw)]}
        data.append(raw)
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(sys.argv[1], "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
