#!/usr/bin/env python3
"""Conversions through the program: other tools see what we wrote, foreign bytes survive, and the
number of ranks does not matter. Arguments: rank counts to compare.
SPDX-License-Identifier: BSD-3-Clause"""
import json
import os
import shutil
import struct
import subprocess
import sys

import h5py
import numpy as np

BIN, MPIRUN = os.environ["AM_BIN"], os.environ["AM_MPIRUN"].split()
DATA = os.path.join(os.environ["AM_SOURCE"], "tests", "data")
RANKS = [int(n) for n in sys.argv[1:]]
failures = 0


def check(held, what):
    global failures
    if not held:
        failures += 1
        print("FAILED:", what)


def run(*args, ranks=0, expect=0):
    command = (MPIRUN + ["-n", str(ranks)] if ranks else []) + [BIN, *args]
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == expect, f"{args} on {ranks}: {done.returncode}\n{done.stderr}")
    return done.stdout


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write_safetensors(path, tensors, metadata=None, order=None, **style):
    """As the reference writes, or in another order and with other blanks (style: json.dumps)."""
    header, blob = ({"__metadata__": metadata} if metadata else {}), b""
    for name in order or tensors:
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header, ensure_ascii=False, **style).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)


def all_kinds():
    rng = np.random.default_rng(1)
    t = {}
    for dtype, kind in [("U64", "u8"), ("I64", "i8"), ("F64", "f8"), ("F32", "f4"), ("U32", "u4"),
                        ("I32", "i4"), ("BF16", "u2"), ("F16", "u2"), ("U16", "u2"), ("I16", "i2"),
                        ("I8", "i1"), ("U8", "u1")]:
        for i, shape in enumerate(([3, 5], [7])):
            raw = rng.bytes(int(np.prod(shape)) * np.dtype(kind).itemsize)
            t[f"{dtype.lower()}.{i}"] = (dtype, shape, raw)
    t["flag"] = ("BOOL", [4], b"\0\1\1\0")
    t["gr\u00f6\u00dfe"] = ("U8", [], b"\7")
    t["none"] = ("U8", [0, 2], b"")
    order = {d: i for i, d in enumerate("U64 I64 F64 F32 U32 I32 BF16 F16 U16 I16 I8 U8 BOOL".split())}
    names = sorted(t, key=lambda n: (order[t[n][0]], n.encode()))
    return {n: t[n] for n in names}


def round_trips():
    """safetensors -> HDF5 -> safetensors, and through a folder, byte for byte."""
    kinds = all_kinds()
    write_safetensors("canonical.safetensors", kinds, {"format": "pt", "k\u00e9y": "a\nb\"\\"},
                      separators=(",", ":"))
    write_safetensors("odd.safetensors", kinds, {"z": "1", "a": "2"}, order=sorted(kinds, reverse=True), indent=1)
    write_safetensors("plain.safetensors", kinds, separators=(",", ":"))
    write_safetensors("big.safetensors", kinds, {"long": "x" * 300000}, separators=(",", ":"))
    sources = [os.path.join(DATA, f) for f in os.listdir(DATA) if f.endswith(".safetensors")]
    for source in sources + ["canonical.safetensors", "odd.safetensors", "plain.safetensors", "big.safetensors"]:
        run("convert", source, "t.h5")
        run("convert", "t.h5", "t.safetensors")
        check(read(source) == read("t.safetensors"), f"{source} -> HDF5 -> safetensors")
        run("verify", "t.h5")
        run("convert", "t.h5", "folder")
        run("convert", "folder", "u.h5")
        check(read("t.h5") == read("u.h5"), f"{source}: HDF5 -> folder -> HDF5")
        check(read(source) == read("folder/model.safetensors"), f"{source} -> folder")
        check(not os.path.exists("folder/model.safetensors.index.json"), "a single shard has no index")
        with h5py.File("t.h5") as f:
            marks = "allmerge.safetensors.header" in f.attrs
        check(marks == (source not in ("canonical.safetensors", "plain.safetensors", "big.safetensors")),
              f"{source}: only headers that are not canonical are kept")
        for f in ("t.h5", "u.h5", "t.safetensors"):
            os.remove(f)
        shutil.rmtree("folder")


def other_tools():
    """h5py and h5dump see names, shapes, dtypes and values."""
    kinds = all_kinds()
    run("convert", "canonical.safetensors", "k.h5")
    with h5py.File("k.h5") as f:
        check(sorted(f) == sorted(kinds), f"names in h5py: {sorted(f)}")
        for name, (dtype, shape, data) in kinds.items():
            d = f[name]
            check(list(d.shape) == shape, f"{name}: shape {d.shape}")
            check(d.chunks is None and d.compression is None, f"{name} is contiguous")
            if dtype == "BF16":
                wide = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
                got = d.astype("f4")[...]
                check(np.array_equal(np.isnan(got), np.isnan(wide)), f"{name}: NaN")
                check(np.array_equal(got[~np.isnan(got)], wide[~np.isnan(wide)]), f"{name}: values")
                continue
            kind = {"BOOL": "?"}.get(dtype, dtype[0].lower() + str(int(dtype[1:] or 8) // 8) if dtype != "BOOL" else "?")
            check(d.dtype == np.dtype(kind), f"{name}: dtype {d.dtype}")
            if d.size:
                check(d[...].tobytes() == data, f"{name}: values")
        check(f.attrs["format"] == b"pt" or f.attrs["format"] == "pt", "metadata as an attribute")
    dump = subprocess.run(["h5dump", "-H", "k.h5"], capture_output=True, text=True)
    check(dump.returncode == 0 and all(f'DATASET "{n}"' in dump.stdout for n in kinds if n.isascii()),
          "h5dump lists the tensors")
    values = subprocess.run(["h5dump", "-d", "/flag", "k.h5"], capture_output=True, text=True)
    check("FALSE, TRUE, TRUE, FALSE" in values.stdout, "h5dump prints values")


def foreign_hdf5():
    """Groups, chunks, compression, big-endian, compact: what h5py users have."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((50, 33, 7)).astype("f4")
    with h5py.File("foreign.h5", "w") as f:
        f["enc/0/w"] = x
        f.create_dataset("enc/0/z", data=x, chunks=(7, 10, 3), compression="gzip", shuffle=True, fletcher32=True)
        f.create_dataset("big_endian", data=x.astype(">f4"))
        f.create_dataset("big_chunked", data=x.astype(">f8"), chunks=(50, 1, 7))
        f.create_dataset("a%2Fb", data=np.arange(5, dtype="i2"))
        f.create_dataset("scalar", data=np.float64(2.5), dtype="f8")
        f.create_dataset("half", data=x[:, 0].astype("f2"))
        f.create_dataset("fill", shape=(4,), dtype="f4", fillvalue=3.0)
        f.attrs["note"] = np.bytes_("hello")
    for ranks in (0, 3):
        run("convert", "foreign.h5", f"f{ranks}.safetensors", ranks=ranks)
    blob = read("f0.safetensors")
    check(blob == read("f3.safetensors"), "foreign HDF5: same bytes on 1 and 3 ranks")
    n = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + n])
    check(header.pop("__metadata__") == {"note": "hello"}, "fixed-length attributes are metadata")

    def get(name, kind):
        lo, hi = header[name]["data_offsets"]
        return np.frombuffer(blob[8 + n + lo:8 + n + hi], kind).reshape(header[name]["shape"])
    check(sorted(header) == ["a%2Fb", "big_chunked", "big_endian", "enc/0/w", "enc/0/z", "fill", "half", "scalar"],
          f"foreign names: {sorted(header)}")
    check(np.array_equal(get("enc/0/w", "<f4"), x), "group")
    check(np.array_equal(get("enc/0/z", "<f4"), x), "compressed")
    check(np.array_equal(get("big_endian", "<f4"), x), "big-endian")
    check(np.array_equal(get("big_chunked", "<f8"), x.astype("f8")), "big-endian, chunked")
    check(np.array_equal(get("half", "<f2"), x[:, 0].astype("f2")), "f16")
    check(get("scalar", "<f8") == 2.5 and list(get("fill", "<f4")) == [3.0] * 4, "scalar, fill value")
    run("convert", "f0.safetensors", "own.h5")
    with h5py.File("own.h5") as f:
        check("enc%2F0%2Fw" in f and "a%252Fb" in f, f"escaped names: {list(f)}")
    run("diff", "own.h5", "foreign.h5")


def ranks():
    """Same bytes on any number of ranks, converted dtypes and shards included."""
    rng = np.random.default_rng(5)
    big = rng.standard_normal(2_500_003).astype("<f4")
    tensors = {"big": ("F32", [2_500_003], big.tobytes())}
    for i in range(20):
        tensors[f"s{i:02}"] = ("F32", [100 + i], rng.standard_normal(100 + i).astype("<f4").tobytes())
    write_safetensors("r.safetensors", tensors, separators=(",", ":"))
    cases = [("h5", []), ("safetensors", ["--dtype", "bf16"]), ("", ["--shard-size", "1kB", "--dtype", "f64"])]
    for ending, options in cases:
        first = None
        for n in RANKS:
            out = f"r.out.{ending}" if ending else "r.out"
            run("convert", "r.safetensors", out, "--overwrite", *options, ranks=n)
            files = {}
            for f in sorted(os.listdir(out)) if os.path.isdir(out) else [""]:
                files[f] = read(os.path.join(out, f) if f else out)
            if ending:
                files["manifest"] = read(out + ".manifest.json")
            first = first or files
            check(files == first, f"{out} on {n} ranks")
        run("verify", out, ranks=RANKS[-1])
        check(ending != "" or len(first) > 10, "several shards")
    outputs = {run("inspect", "r.safetensors", "--json", "--stats", ranks=n) for n in RANKS}
    check(len(outputs) == 1, "inspect says the same on any number of ranks")
    stats = {t["name"]: t for t in json.loads(outputs.pop())["tensors"]}
    check(abs(stats["big"]["norm"] - np.linalg.norm(big.astype("f8"))) < 1e-9, "norm")
    check(stats["big"]["min"] == float(big.min()) and stats["big"]["max"] == float(big.max()), "min, max")
    diffs = {run("diff", "r.safetensors", "r.out.safetensors", "--json", ranks=n, expect=1) for n in RANKS}
    check(len(diffs) == 1, "diff says the same on any number of ranks")


def diffs():
    a = {"w": ("F32", [4], np.array([1, 2, 3, np.nan], "<f4").tobytes()), "v": ("F32", [2], bytes(8))}
    b = dict(a, w=("F32", [4], np.array([1, np.nextafter(np.float32(2), np.float32(3)), 3.5, np.nan], "<f4").tobytes()))
    write_safetensors("a.safetensors", a)
    write_safetensors("b.safetensors", b)
    write_safetensors("c.safetensors", dict(a, v=("F32", [1, 2], bytes(8)), x=("U8", [1], b"\0")))
    d = json.loads(run("diff", "a.safetensors", "b.safetensors", "--json", expect=1))
    check(d["tensors"] == [{"name": "w", "dtype_a": "F32", "dtype_b": "F32", "different_elements": 2,
                            "max_abs": 0.5, "max_ulp": 2097152}], f"diff: {d['tensors']}")
    d = json.loads(run("diff", "a.safetensors", "c.safetensors", "--json", expect=1))
    check(d["structure"] == [{"name": "v", "fault": "another shape"}, {"name": "x", "fault": "only in B"}],
          f"diff: {d['structure']}")
    check(json.loads(run("diff", "a.safetensors", "a.safetensors", "--json"))["equal"], "equal to itself")


def verify_finds():
    """Every flipped bit of the data, the manifest, the names and the metadata is found."""
    run("convert", os.path.join(DATA, "peer_ft0.safetensors"), "v.h5")
    good, manifest = read("v.h5"), read("v.h5.manifest.json")
    with h5py.File("v.h5") as f:
        at = f["conv.weight"].id.get_offset()
    flips = [("v.h5", at), ("v.h5", at + 500), ("v.h5", good.index(b"conv.weight")),
             ("v.h5.manifest.json", manifest.index(b'"xxh3":"') + 9)]
    for path, offset in flips:
        data = bytearray(read(path))
        data[offset] ^= 4
        with open(path, "wb") as f:
            f.write(data)
        run("verify", "v.h5", expect=65)
        with open("v.h5", "wb") as f:
            f.write(good)
        with open("v.h5.manifest.json", "wb") as f:
            f.write(manifest)
    run("verify", "v.h5", ranks=2)
    os.remove("v.h5.manifest.json")
    check(json.loads(run("verify", "v.h5"))["checksums"] is False, "no manifest: no checksums")
    run("verify", "a.safetensors", expect=65)  # holds a NaN and has no manifest


for part in (round_trips, other_tools, foreign_hdf5, ranks, diffs, verify_finds):
    part()
    print(part.__name__, "done")
sys.exit(1 if failures else 0)
