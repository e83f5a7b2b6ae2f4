#!/usr/bin/env python3
"""Cut the power: what a merge wrote and synced is recorded (record.c), and at a random moment everything
that was not synced is dropped, kept or torn, page by page and name by name, in any order. The merge run
again must give the right bytes, whatever is there; nothing wrong may stand under the final name before.
usage: power_loss.py STATES [SEED]         STATES: how many crash states
Environment: AM_BIN, AM_MPIRUN, AM_PROGRAMS (libam_record.so).
SPDX-License-Identifier: BSD-3-Clause
"""
import glob
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402

CREATE, WRITE, SIZE, SYNC, RENAME, UNLINK, MKDIR, RMDIR = range(1, 9)
PAGE = 4096
HEAD = struct.Struct("6q")
OUTPUTS = ("out.h5", "out.safetensors", "out")


class Node:
    """A file or folder: what is on disk for sure, and what was done to it since its last sync."""

    def __init__(self, is_folder: bool):
        self.is_folder = is_folder
        self.data = bytearray()
        self.names: dict[str, "Node"] = {}  # of a folder: its entries on disk
        self.now: dict[str, "Node"] = {}    # ... and as the programs see them
        self.pending: list[tuple] = []


class Disk:
    """The folder of a job as a disk sees it."""

    def __init__(self, root: Path):
        self.root = str(root)
        self.top = self.load(root)

    def load(self, path: Path) -> Node:
        node = Node(path.is_dir())
        if node.is_folder:
            node.names = {p.name: self.load(p) for p in path.iterdir()}
            node.now = dict(node.names)
        else:
            node.data = bytearray(path.read_bytes())
        return node

    def find(self, path: str) -> Node | None:
        node = self.top
        for part in [p for p in path[len(self.root):].split("/") if p]:
            node = node.now.get(part) if node is not None else None
        return node

    def parent(self, path: str) -> tuple[Node | None, str]:
        folder, name = path.rsplit("/", 1)
        return self.find(folder), name

    def change(self, folder: Node, change: dict[str, Node | None]) -> None:
        """Entries that appear or (None) go, in one step."""
        folder.pending.append(("names", change))
        apply_names(folder.now, change)

    def do(self, op: int, path: str, second: str, offset: int, n: int, data: bytes) -> None:
        folder, name = self.parent(path)
        if folder is None:
            return
        node = self.find(path)
        if op in (CREATE, MKDIR):
            self.change(folder, {name: Node(op == MKDIR)})
        elif op in (UNLINK, RMDIR):
            self.change(folder, {name: None})
        elif op == RENAME:
            to_folder, to = self.parent(second)
            assert to_folder is folder, "all renames stay in their folder"
            self.change(folder, {name: folder.now.get(to) if n else None, to: node})
        elif node is not None and op == SYNC:
            sync(node)
        elif node is not None:
            node.pending.append(("write", offset, data) if op == WRITE else ("size", offset, n))


def apply_names(names: dict[str, Node], change: dict[str, Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def apply_data(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset + len(piece):
        data.extend(bytes(offset + len(piece) - len(data)))
    data[offset:offset + len(piece)] = piece


def apply_size(data: bytearray, size: int, cut: int) -> None:
    if len(data) < size:
        data.extend(bytes(size - len(data)))
    elif cut:
        del data[size:]


def sync(node: Node) -> None:
    for what, *rest in node.pending:
        if what == "names":
            apply_names(node.names, rest[0])
        elif what == "write":
            apply_data(node.data, *rest)
        else:
            apply_size(node.data, *rest)
    node.pending.clear()


def crash(node: Node, path: Path, chance: random.Random, kept: float, seen: dict[int, Path]) -> None:
    """Write out what the disk may hold: of what was not synced, each name and each page by chance."""
    if node.is_folder:
        names = dict(node.names)
        for _, change in node.pending:
            if chance.random() < kept:
                apply_names(names, change)
        path.mkdir(exist_ok=True)
        for name, child in names.items():
            crash(child, path / name, chance, kept, seen)
        return
    if id(node) in seen:  # a rename of which only one half is on disk
        os.link(seen[id(node)], path)
        return
    data = bytearray(node.data)
    for what, *rest in node.pending:
        if what == "size":
            if chance.random() < kept:
                apply_size(data, *rest)
            continue
        offset, piece = rest
        for lo in range(0, len(piece), PAGE):
            if chance.random() < kept:
                apply_data(data, offset + lo, piece[lo:lo + PAGE])
    path.write_bytes(data)
    seen[id(node)] = path


def read_records(prefix: Path) -> list[tuple]:
    records = []
    for name in glob.glob(f"{prefix}.*"):
        text = Path(name).read_bytes()
        at = 0
        while at + HEAD.size <= len(text):
            ns, op, offset, n, a, b = HEAD.unpack_from(text, at)
            at += HEAD.size
            path, second = text[at:at + a].decode(), text[at + a:at + a + b].decode()
            at += a + b
            data = text[at:at + n] if op == WRITE else b""
            at += len(data)
            records.append((ns, op, path, second, offset, n, data))
        os.unlink(name)
    return sorted(records, key=lambda r: r[0])


def make_inputs(folder: Path) -> None:
    shapes = [f"layer.{i}.weight={37 * i + 5}x{41 + i}:f32" for i in range(9)]
    for seed, name in enumerate(("base", "ft0", "ft1"), start=1):
        subprocess.run([sys.executable, HERE.parent / "support" / "make_ckpt.py",
                        folder / f"{name}.safetensors", *[f"{s}:{seed}" for s in shapes]], check=True)
    for name, method in (("linear", "task_arithmetic"), ("ties", "ties")):
        (folder / f"{name}.yml").write_text(
            f"merge_method: {method}\nbase_model: ../in/base.safetensors\nmodels:\n"
            "  - model: ../in/ft0.safetensors\n    parameters: {weight: 0.5}\n"
            "  - model: ../in/ft1.safetensors\n    parameters: {weight: 0.25}\n")


def command(recipe: str, out: str, every: str) -> list[str]:
    return ["merge", f"../in/{recipe}.yml", "-o", out, "--save-every", every, "--block", "8000",
            "--shard-size", "60000"]


class Campaign:
    def __init__(self, top: Path, seed: int):
        self.top, self.chance = top, random.Random(seed)
        self.work, self.log = top / "work", top / "log"
        self.failures: list[str] = []
        self.states = self.resumed = self.inner = 0
        (top / "in").mkdir()
        make_inputs(top / "in")
        self.right = {}
        for recipe in ("linear", "ties"):
            for out in OUTPUTS:
                self.fresh_folder()
                self.run(recipe, out, 1)
                self.right[recipe, out] = rankrun.snapshot(self.work)

    def fresh_folder(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def run(self, recipe: str, out: str, ranks: int, record: bool = False) -> rankrun.Result:
        """Save at every chance, or only at the end: then nothing but the last sync is between."""
        every = self.chance.choice(("0", "3600"))
        env = {"AM_STALL_SECONDS": "60"}
        preload = None
        if record:
            env.update(AM_RECORD=str(self.log), AM_RECORD_PATH=str(self.work))
            preload = os.path.join(os.environ["AM_PROGRAMS"], "libam_record.so")
        result = rankrun.run(command(recipe, out, every), 0 if ranks == 1 else ranks, self.work, env=env,
                             preload=preload, timeout=180)
        if result.code != 0:
            self.fail(f"merge on {ranks} ranks ends with {result.code}\n{result.err[-600:]}")
        self.resumed += "going on" in result.err
        return result

    def fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAIL state {self.states}: {what}", flush=True)

    def check(self, recipe: str, out: str) -> None:
        found = rankrun.snapshot(self.work)
        for line in rankrun.changes(self.right[recipe, out], found):
            self.fail(f"{recipe} {out}: {line}")

    def crash_states(self, recipe: str, out: str, records: list[tuple], start: Path, n: int,
                     depth: int) -> None:
        """Cut the power n times during what was recorded from the state in `start`; go on after each."""
        for _ in range(n):
            disk = Disk(start)
            disk.root = str(self.work)
            last = len(records) - 12 if self.chance.random() < 0.4 else 0  # the commit, or anywhere
            for r in records[:self.chance.randint(max(last, 0), len(records))]:
                disk.do(*r[1:])
            self.fresh_folder()
            crash(disk.top, self.work, self.chance, self.chance.choice((0.0, 0.3, 0.7, 1.0)), {})
            self.states += 1
            final = self.work / out
            is_there = out + "/" if final.is_dir() else out
            wrong = [f for f, d in rankrun.snapshot(self.work).items()
                     if (f + "/").startswith(is_there if final.is_dir() else out + "/")
                     and self.right[recipe, out].get(f) != d]
            if wrong:
                self.fail(f"{recipe} {out}: wrong under its final name after a crash: {wrong}")
            again = depth == 0 and self.chance.random() < 0.25
            before = self.top / "before"
            if again:
                shutil.rmtree(before, ignore_errors=True)
                shutil.copytree(self.work, before)
            self.run(recipe, out, self.chance.choice((1, 1, 1, 2)), record=again)
            self.check(recipe, out)
            inner = read_records(self.log) if again else []
            if inner:
                self.inner += 1
                self.crash_states(recipe, out, inner, before, 2, depth + 1)

    def campaign(self, states: int) -> None:
        empty = self.top / "empty"
        empty.mkdir()
        while self.states < states:
            recipe, out = self.chance.choice(("linear", "ties")), self.chance.choice(OUTPUTS)
            self.fresh_folder()
            self.run(recipe, out, self.chance.choice((1, 2, 3)), record=True)
            records = read_records(self.log)
            if sum(r[1] == SYNC for r in records) < 5:
                sys.exit("hardly a sync was recorded: the test tests nothing")
            self.crash_states(recipe, out, records, empty, min(20, states - self.states), 0)
            print(f"{self.states} of {states}, {self.resumed} gone on with: {len(self.failures)} failures",
                  flush=True)


def main() -> int:
    states = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="am_power.") as top:
        c = Campaign(Path(top), seed)
        c.campaign(states)
        print(f"{c.states} crash states, {c.resumed} gone on with, {c.inner} with a second crash while "
              f"going on: {len(c.failures)} failures, {time.monotonic() - start:.0f} s")
        if c.resumed == 0:
            print("FAIL nothing was gone on with: the test tests nothing")
            return 1
        return 1 if c.failures else 0


if __name__ == "__main__":
    sys.exit(main())
