"""Prepared data sets against the packages, read again with code of its own.

Needs the packages that jobs/fetch-data unpacks: folder $AM_DATA, default data/packages of the
source tree. Without them the test is skipped.
"""

import collections
import gzip
import hashlib
import json
import os
import pathlib
import shlex
import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np

SPLITS = ("train", "validation", "test")
SOURCES = pathlib.Path(os.environ.get("AM_DATA") or os.environ["AM_SOURCE"] + "/data/packages")
failures = []


def check(held, text):
    if not held:
        failures.append(text)
        print("FAILED:", text)


def prepare(folder, ranks, *more):
    command = shlex.split(os.environ["AM_MPIRUN"]) + ["-n", str(ranks), os.environ["AM_BIN"]]
    command += ["data", "prepare", "suite", "scripts", "-o", folder, "--sources", str(SOURCES), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).iterdir()}


def load(folder, task):
    with h5py.File(f"{folder}/{task}.h5") as f:
        data = {s: {k: f[s][k][...] for k in f[s]} for s in SPLITS}
        return data, dict(f.attrs)


def idx(name):
    path = SOURCES / "dataset-fashion-mnist/usr/share/datasets/fashion-mnist" / name
    raw = gzip.decompress(path.read_bytes())
    dims = raw[3]
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def pairs(x, y):
    """Multiset of (image, label)."""
    return collections.Counter((a.tobytes(), int(b)) for a, b in zip(x, y))


def check_fashion(folder):
    data, _ = load(folder, "fashion")
    raw = {p: pairs(idx(f"{p}-images-idx3-ubyte.gz"), idx(f"{p}-labels-idx1-ubyte.gz")) for p in ("train", "t10k")}
    got = {s: pairs(data[s]["x"], data[s]["y"]) for s in SPLITS}
    check([sum(got[s].values()) for s in SPLITS] == [4000, 1000, 2000], "fashion: sizes")
    # Counter subtraction keeps what the source does not have (often enough)
    check(not (got["train"] + got["validation"]) - raw["train"], "fashion: train, validation from the train part")
    check(not got["test"] - raw["t10k"], "fashion: test from the test part")
    for s in SPLITS:
        counts = np.bincount(data[s]["y"], minlength=10)
        expected = len(data[s]["y"]) / 10
        check(abs(counts - expected).max() < 5 * expected**0.5, f"fashion: {s} is balanced to chance")


def png_grey(path):
    """A small PNG reader: 8 bits, one channel, not interlaced."""
    raw = path.read_bytes()
    at, packed = 8, b""
    while at < len(raw):
        n, kind = struct.unpack(">I4s", raw[at : at + 8])
        if kind == b"IHDR":
            w, h, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", raw[at + 8 : at + 8 + n])
            assert (bits, colour, interlace) == (8, 0, 0)
        elif kind == b"IDAT":
            packed += raw[at + 8 : at + 8 + n]
        at += 12 + n
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(h, w + 1)
    out = np.zeros((h + 1, w + 1), np.int64)  # a zero row above, a zero column to the left
    for r in range(h):
        kind, line = rows[r, 0], rows[r, 1:].astype(np.int64)
        for c in range(w):
            left, up, corner = out[r + 1, c], out[r, c + 1], out[r, c]
            if kind == 4:
                p = left + up - corner
                near = min((abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner))[2]
            else:
                near = (0, left, up, (left + up) // 2)[kind]
            out[r + 1, c + 1] = (line[c] + near) & 255
    return out[1:, 1:].astype(np.uint8)


def check_mnist5k(folder):
    data, _ = load(folder, "mnist5k")
    sheet = png_grey(SOURCES / "opencv-doc/usr/share/doc/opencv-doc/examples/data/digits.png")
    raw = collections.Counter()
    for row in range(50):
        for column in range(100):
            cell = sheet[20 * row : 20 * row + 20, 20 * column : 20 * column + 20]
            raw[(np.pad(cell, 4).tobytes(), row // 5)] += 1
    got = [pairs(data[s]["x"], data[s]["y"]) for s in SPLITS]
    check(got[0] + got[1] + got[2] == raw, "mnist5k: the splits are the 5,000 cells, each once")
    for s, n in zip(SPLITS, (300, 50, 150)):
        check((np.bincount(data[s]["y"], minlength=10) == n).all(), f"mnist5k: {n} of each digit in {s}")


def check_texture(folder):
    data, attributes = load(folder, "texture")
    names = json.loads(attributes["classes"])
    for k, name in enumerate(names):
        (path,) = (SOURCES / "gimp-data").rglob(name + ".pat")
        raw = path.read_bytes()
        header, _, w, h, depth = struct.unpack(">5I", raw[:20])
        image = np.frombuffer(raw, np.uint8, offset=header).reshape(h, w, depth).astype(int)
        grey = image[..., 0] if depth < 3 else (image[..., :3] @ [299, 587, 114] + 500) // 1000
        half = (grey // 2).astype(np.uint8)
        places = collections.defaultdict(list)  # crop -> left columns
        for r in range(h - 27):
            for c in range(w - 27):
                places[half[r : r + 28, c : c + 28].tobytes()].append(c)
        spans = []
        for s in SPLITS:
            crops = data[s]["x"][data[s]["y"] == k]
            check(len(crops) == {"train": 400, "validation": 100, "test": 200}[s], f"texture {name}: crops in {s}")
            found = [places.get(c.tobytes()) for c in crops]
            check(all(found), f"texture {name}: every crop of {s} is in the pattern")
            unique = [f[0] for f in found if f and len(f) == 1]
            spans.append((min(unique), max(unique) + 28))
        check(spans[0][1] <= spans[1][0] and spans[1][1] <= spans[2][0], f"texture {name}: {spans} overlap")


def check_groups(folder):
    for task in ("latin", "cyrillic", "greek", "hebrew", "arabic", "street", "scripts"):
        data, attributes = load(folder, task)
        names = json.loads(attributes["groups"])
        classes = json.loads(attributes["classes"])
        check(len(set(names)) == len(names), f"{task}: a family is named twice")
        sets = [set(data[s]["group"].tolist()) for s in SPLITS]
        check(all(sets) and max(max(s) for s in sets) < len(names), f"{task}: groups are indices")
        check(not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2]), f"{task}: a family in two splits")
        for s in SPLITS:
            y = data[s]["y"]
            check(y.min() >= 0 and y.max() < len(classes), f"{task}: labels of {s}")
            check(data[s]["x"].shape == (len(y), 28, 28), f"{task}: shape of {s}")
        check(set(data["train"]["y"].tolist()) == set(range(len(classes))), f"{task}: every class in train")
        if task not in ("street", "scripts"):
            check(set(data["test"]["y"].tolist()) == set(range(len(classes))), f"{task}: every class in test")
    latin, attributes = load(folder, "latin")
    check(json.loads(attributes["classes"]) == [chr(c) for c in range(65, 91)], "latin: class names")
    # what a picture is: the ink of each letter reaches both ends of 26 pixels one way or the other
    ink = latin["train"]["x"] > 0
    extent = np.maximum(*(28 - line.argmax(1) - line[:, ::-1].argmax(1) for line in (ink.any(1), ink.any(2))))
    check(extent.min() == 26 and extent.max() <= 27, "latin: the longer side of a letter is 26 pixels")


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def check_attributes(folder):
    for path in pathlib.Path(folder).iterdir():
        _, a = load(folder, path.stem)
        check(text(a["name"]) == path.stem, f"{path}: name")
        check(a["features"] == 784 and a["allmerge"] == 1 and a["seed"] == 0, f"{path}: numbers")
        for part in text(a["source"]).split(", "):
            name, version = part.split(" ")
            check((SOURCES / name / "VERSION").read_text().strip() == version, f"{path}: version of {name}")


def main():
    wanted = subprocess.run([os.environ["AM_SOURCE"] + "/jobs/fetch-data", "--list"], capture_output=True, text=True, check=True)
    absent = [p for p in wanted.stdout.split() if not p.startswith("debian-reference") and not (SOURCES / p / "VERSION").exists()]
    if absent:
        print(f"skipped: {len(absent)} packages are not in {SOURCES} (jobs/fetch-data fetches them; AM_DATA names the folder)")
        sys.exit(77)
    report = prepare("one", 1)
    prepare("three", 3)
    check(digests("one") == digests("three"), "the same bytes from 1 and 3 ranks")
    again = prepare("one", 2)
    check(all(t["kept"] for t in again["tasks"]) and len(again["tasks"]) == 10, "a second run keeps the files")
    prepare("seed", 2, "--seed", "1")
    check(not set(digests("one").values()) & set(digests("seed").values()), "another seed, other samples")
    for task in report["tasks"]:
        data, attributes = load("one", task["name"])
        check([len(data[s]["y"]) for s in SPLITS] == [task[s] for s in SPLITS], f"{task['name']}: reported sizes")
        check(len(json.loads(attributes["classes"])) == task["classes"], f"{task['name']}: reported classes")
    check_fashion("one")
    check_mnist5k("one")
    check_texture("one")
    check_groups("one")
    check_attributes("one")
    if failures:
        sys.exit(f"{len(failures)} checks failed")


main()
