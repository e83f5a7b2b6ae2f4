#!/usr/bin/env python3
"""HDF5 files made to mislead: each is refused with exit 65, one message, and nothing is read from any
other file. SPDX-License-Identifier: BSD-3-Clause"""
import os
import shutil
import subprocess
import sys
import zlib

import h5py
import numpy as np

BIN = os.environ["AM_BIN"]
failures = 0


def virtual(f):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("secret.h5", "w", shape=(4,))
    f.create_virtual_dataset("w", layout)


def external_storage(f):
    f.create_dataset("w", shape=(4,), dtype="f4", external=[("secret.bin", 0, 16)])


def huge_chunked(f):
    f.create_dataset("w", shape=(1 << 20, 1 << 14), dtype="f4", chunks=(64, 64))


def huge_contiguous(f):
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple((1 << 40,))
    h5py.h5d.create(f.id, b"w", h5py.h5t.IEEE_F32LE, space, dcpl)


def loop_of_groups(f):
    f.create_group("a")["b"] = f["/"]


def deep(f):
    f["/".join("g" * 40) + "/w"] = np.zeros(2, "f4")


CASES = {
    "external link": (lambda f: f.__setitem__("w", h5py.ExternalLink("secret.h5", "/w")), "link to another file"),
    "soft link": (lambda f: f.__setitem__("w", h5py.SoftLink("/v")), "soft link"),
    "soft link loop": (lambda f: f.__setitem__("w", h5py.SoftLink("/w")), "soft link"),
    "group loop": (loop_of_groups, "linked twice"),
    "deep groups": (deep, "deeper than 32"),
    "external storage": (external_storage, "external storage"),
    "virtual dataset": (virtual, "virtual dataset"),
    "variable-length numbers": (lambda f: f.create_dataset("w", (3,), h5py.vlen_dtype("f4")), "element type"),
    "strings": (lambda f: f.create_dataset("w", data=["a", "b"]), "element type"),
    "references": (lambda f: f.create_dataset("w", (1,), h5py.ref_dtype), "element type"),
    "compound": (lambda f: f.create_dataset("w", data=np.zeros(2, [("a", "f4"), ("b", "i4")])), "element type"),
    "complex": (lambda f: f.create_dataset("w", data=np.zeros(2, "c8")), "element type"),
    "long double": (lambda f: f.create_dataset("w", data=np.zeros(2, "g")), "element type"),
    "enumeration": (lambda f: f.create_dataset("w", (2,), h5py.enum_dtype({"A": 0, "B": 7})), "element type"),
    "named type": (lambda f: f.__setitem__("t", np.dtype("f4")), "neither a group nor a dataset"),
    "lzf filter": (lambda f: f.create_dataset("w", data=np.zeros(99, "f4"), chunks=(9,), compression="lzf"), "filter"),
    "scale-offset filter": (lambda f: f.create_dataset("w", data=np.zeros(9, "i4"), chunks=(9,), scaleoffset=0), "filter"),
    "huge chunked shape": (huge_chunked, "1000 times"),
    "huge contiguous shape": (huge_contiguous, "stores none"),
    "huge chunks": (lambda f: f.create_dataset("w", (1 << 25,), "f4", chunks=(1 << 25,)), "chunks above"),
    "null dataspace": (lambda f: f.create_dataset("w", data=h5py.Empty("f4")), "dataspace"),
}


def patched(name, change):
    """A sound file with some bytes changed (superblock version 0: no checksums)."""
    with h5py.File(name, "w", libver=("earliest", "v108")) as f:
        f["w"] = np.arange(1000, dtype="f4")
        at = f["w"].id.get_offset()
    with open(name, "rb") as f:
        data = f.read()
    with open(name, "wb") as f:
        f.write(change(data, at))


def point_outside(data, at):
    """The dataset's address in its object header -> beyond the end."""
    i = data.index(at.to_bytes(8, "little") + (4000).to_bytes(8, "little"))
    return data[:i] + (1 << 40).to_bytes(8, "little") + data[i + 8:]


def short_chunk(pack):
    """A chunk that unpacks to less than its shape says: HDF5 1.10 would read past its end."""
    def make(f):
        d = f.create_dataset("w", (64, 64), "f4", chunks=(64, 64), compression="gzip", shuffle=pack)
        d.id.write_direct_chunk((0, 0), zlib.compress(bytes(100)))
    return make


CASES["short chunk"] = (short_chunk(False), "does not unpack to its size")
CASES["short shuffled chunk"] = (short_chunk(True), "does not unpack to its size")


def reason_to_fail(name, message):
    command = [BIN, "convert", name, "out.safetensors"]
    trace = shutil.which("strace")
    env = dict(os.environ)
    if trace: # the leak sanitizer does not work under ptrace
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        command = [trace, "-f", "-e", "trace=open,openat", "-o", "trace.txt", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    if done.returncode != 65:
        return f"exit {done.returncode}"
    if message not in done.stderr or name not in done.stderr:
        return f"message {done.stderr!r}"
    if any(f.startswith("out.") for f in os.listdir(".")):
        return "something was written"
    if trace:
        with open("trace.txt") as f:
            if "secret" in f.read():
                return "another file was opened"
    return None


def expect(title, name, message):
    global failures
    reason = reason_to_fail(name, message)
    if reason:
        failures += 1
        print(f"FAILED: {title}: {reason}")


with h5py.File("secret.h5", "w") as secret:
    secret["w"] = np.arange(4, dtype="f4")
with open("secret.bin", "wb") as secret:
    secret.write(bytes(16))
for title, (make, message) in CASES.items():
    name = title.replace(" ", "_") + ".h5"
    with h5py.File(name, "w") as f:
        make(f)
    expect(title, name, message)
patched("outside.h5", point_outside)
expect("data outside the file", "outside.h5", "outside the file")
print(len(CASES) + 1, "files,", failures, "not refused as they should be")
sys.exit(1 if failures else 0)
