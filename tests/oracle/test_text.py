"""Text and table data sets against code of its own, from sources that the test makes.

A tiny Debian Reference in two languages: samples lie inside their part of the text, and no byte is
in two splits. A table with quotes: rows, classes, splits and scaling."""

import csv
import gzip
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

import h5py
import numpy as np

SPLITS = ("train", "validation", "test")
T = 256
failures = []


def check(held, text):
    if not held:
        failures.append(text)
        print("FAILED:", text)


def run(ranks, *words):
    command = shlex.split(os.environ["AM_MPIRUN"]) + ["-n", str(ranks), os.environ["AM_BIN"], *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def part_of(start, n):
    """Part (of 100, sizes differing by at most one) of byte `start` of n."""
    share, more = divmod(n, 100)
    return start // (share + 1) if start < more * (share + 1) else more + (start - more * (share + 1)) // share


def texts():
    made = {}
    for language, n in (("en", 100 * 1030 + 17), ("fr", 100 * 700 + 3)):
        # every four bytes are a number of their own: a sample tells where it comes from
        text = np.arange(n // 4 + 1, dtype=">u4").tobytes()[:n]
        folder = pathlib.Path(f"src/debian-reference-{language}/usr/share/debian-reference")
        folder.mkdir(parents=True)
        (folder / f"debian-reference.{language}.txt.gz").write_bytes(gzip.compress(text))
        (folder.parents[2] / "VERSION").write_text("1.0\n")
        made[language] = text
    return made


def check_texts():
    made = texts()
    for ranks in (1, 2):
        run(ranks, "data", "prepare", "reference-en", "reference-fr", "-o", f"out{ranks}", "--sources", "src")
    for language, text in made.items():
        check(digest(f"out1/reference-{language}.h5") == digest(f"out2/reference-{language}.h5"), f"{language}: bytes on two ranks")
        seen = {}
        with h5py.File(f"out1/reference-{language}.h5") as f:
            check(f.attrs["features"] == T, "features")
            for split in SPLITS:
                tokens = f[split]["tokens"][...]
                check(tokens.dtype == np.uint8 and tokens.shape[1] == T + 1, f"{split}: shape")
                check(list(f[split]) == ["tokens"], f"{split}: only tokens")
                for row in tokens:
                    start = text.find(row.tobytes())
                    check(start >= 0, f"{language} {split}: a sample that is not in the text")
                    part = part_of(start, len(text))
                    check(part == part_of(start + T, len(text)), "a sample crosses its part")
                    wanted = {4: "validation", 9: "test"}.get(part % 10, "train")
                    check(wanted == split, f"{language}: a sample of part {part} is in {split}")
                    check(start not in seen, "a sample twice")
                    seen[start] = split
        per_part = ((len(text) // 100) - 1) // T
        check(len(seen) >= 100 * per_part, f"{language}: {len(seen)} samples of {100 * per_part}")


def check_table():
    rng = np.random.default_rng(2)
    rows = [[f"{a:.6g}", name, f"{b:.6g}", "7"] for a, b, name in
            zip(rng.normal(3, 5, 73), rng.normal(-1, 0.1, 73), rng.choice(["cat", "a, \"b\"", "dog"], 73))]
    with open("pets.csv", "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["height", "kind", "weight", "same"])
        out.writerows(rows)
    told = run(2, "data", "csv", "pets.csv", "--label", "kind", "-o", "raw")["tasks"][0]
    check(told == {"name": "pets", "classes": 3, "features": 3, "train": 59, "validation": 7, "test": 7}, f"told {told}")
    run(1, "data", "csv", "pets.csv", "--label", "kind", "-o", "scaled", "--standardize")
    names = sorted({r[1] for r in rows})
    wanted = sorted((np.float32(r[0]), np.float32(r[2]), np.float32(r[3]), names.index(r[1])) for r in rows)
    got, data = [], {}
    with h5py.File("raw/pets.h5") as f, h5py.File("scaled/pets.h5") as g:
        check(json.loads(f.attrs["classes"]) == names, "class names")
        for split in SPLITS:
            x, y = f[split]["x"][...], f[split]["y"][...]
            got += [(*row, int(k)) for row, k in zip(x, y)]
            data[split] = x, g[split]["x"][...]
            check((y == g[split]["y"][...]).all(), "labels of the scaled table")
    check(sorted(got) == wanted, "rows and labels")
    mean, deviation = data["train"][0].astype(float).mean(0), data["train"][0].astype(float).std(0)
    for split in SPLITS:
        raw, scaled = data[split]
        want = np.where(deviation > 1e-9, (raw - mean) / np.where(deviation > 1e-9, deviation, 1), 0)
        check(np.abs(scaled - want).max() < 1e-5, f"{split}: scaling")


check_texts()
check_table()
sys.exit(1 if failures else 0)
