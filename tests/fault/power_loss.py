#!/usr/bin/env python3
"""Cut the power: what a job wrote and synced is recorded (record.c), and at a random moment everything
that was not synced is dropped, kept or torn, page by page and name by name, in any order. Then
  - what stands under a final name is right and whole, and a checkpoint has its manifest;
  - after the end of the job all of it is there;
  - the job run again gives the right bytes, whatever is there.
usage: power_loss.py STATES [SEED]           STATES: how many crash states of merge, train and iterate
       power_loss.py mutants STATES [SEED]   for each kind of sync, as if the program did not have it:
                                             the first two must then be violated in one of STATES states
Environment: AM_BIN, AM_MPIRUN, AM_PROGRAMS (libam_record.so).
SPDX-License-Identifier: BSD-3-Clause
"""
import glob
import hashlib
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"
sys.path.insert(0, str(SUPPORT))
import rankrun  # noqa: E402

CREATE, WRITE, SIZE, SYNC, RENAME, UNLINK, MKDIR, RMDIR = range(1, 9)
PAGE = 4096
HEAD = struct.Struct("6q")
MERGE = ["--block", "8000", "--shard-size", "60000"]
RUN = ["../in/suite.yml", "--set", "data.folder=../in/tasks", "--set", "data.limit.train=40"]
JOBS = {f"{recipe} {out}": ["merge", f"../in/{recipe}.yml", "-o", out, *MERGE]
        for recipe in ("linear", "ties") for out in ("out.h5", "out.safetensors", "out")}
JOBS["train"] = ["train", *RUN, "--set", "joint.epochs=3", "-o", "run"]
JOBS["iterate"] = ["iterate", *RUN, "--set", "iterate.rounds=2", "--set", "iterate.alphas=[0.5]", "-o", "run"]
# Not the same bytes after an interruption: the log, and states of what is under way.
LOOSE = re.compile(r"(^|/)events\.jsonl$|^run/\.lock$|/state/")
UNDER_WAY = re.compile(LOOSE.pattern + r"|/work(/|$)|\.(lock|partial|journal)(/|$|\.)")
GROWING = re.compile(r"manifest\.json$|/units/rounds-.*\.unit$")  # with the run: right at its end
# Syncs whose loss costs work, but nothing wrong can come of it: what a journal or a saved state says is
# believed only if the digests of the data agree, and what is missing is done again.
ONLY_WORK = re.compile(r"journal|/(state|work)(/|$)|: layout$|after (mkdir|create|unlink|start)|"
                       r"folder /run.* after rename (?!.*manifest|result)")


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


def crash(node: Node, chance: random.Random, kept: float, seen: dict[int, Node]) -> Node:
    """What the disk may hold: of what was not synced, each name and each page by chance."""
    if id(node) in seen:  # a rename of which only one half is on disk
        return seen[id(node)]
    left = seen[id(node)] = Node(node.is_folder)
    if node.is_folder:
        names = dict(node.names)
        for _, change in node.pending:
            if chance.random() < kept:
                apply_names(names, change)
        left.names = {name: crash(child, chance, kept, seen) for name, child in names.items()}
        return left
    left.data = bytearray(node.data)
    for what, *rest in node.pending:
        if what == "size":
            if chance.random() < kept:
                apply_size(left.data, *rest)
            continue
        offset, piece = rest
        for lo in range(0, len(piece), PAGE):
            if chance.random() < kept:
                apply_data(left.data, offset + lo, piece[lo:lo + PAGE])
    return left


def write_out(node: Node, path: Path, seen: dict[int, Path]) -> None:
    if node.is_folder:
        path.mkdir(exist_ok=True)
        for name, child in node.names.items():
            write_out(child, path / name, seen)
    elif id(node) in seen:
        os.link(seen[id(node)], path)
    else:
        path.write_bytes(node.data)
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
        subprocess.run([sys.executable, SUPPORT / "make_ckpt.py",
                        folder / f"{name}.safetensors", *[f"{s}:{seed}" for s in shapes]], check=True)
    for name, method in (("linear", "task_arithmetic"), ("ties", "ties")):
        (folder / f"{name}.yml").write_text(
            f"merge_method: {method}\nbase_model: ../in/base.safetensors\nmodels:\n"
            "  - model: ../in/ft0.safetensors\n    parameters: {weight: 0.5}\n"
            "  - model: ../in/ft1.safetensors\n    parameters: {weight: 0.25}\n")
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", folder / "tasks", "a:4:60", "b:3:60",
                    "c:5:60", "p:8:100"], check=True)
    shutil.copy(SUPPORT / "small_suite.yml", folder / "suite.yml")


def contents(node: Node) -> dict[str, str]:
    """What a crash left in memory, as rankrun.snapshot does it for a folder."""
    found: dict[str, str] = {}
    for name, child in node.names.items():
        if child.is_folder:
            found[name] = "folder"
            found.update({f"{name}/{n}": d for n, d in contents(child).items()})
        else:
            found[name] = hashlib.sha256(child.data).hexdigest()
    return found


class Campaign:
    def __init__(self, top: Path, seed: int):
        self.top, self.chance = top, random.Random(seed)
        self.work, self.log = top / "work", top / "log"
        self.failures: list[str] = []
        self.states = self.resumed = self.inner = 0
        (top / "in").mkdir()
        (top / "empty").mkdir()
        make_inputs(top / "in")
        self.known: dict[str, dict[str, str]] = {}

    def fresh_folder(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def run(self, job: str, ranks: int, record: bool = False, every: str = "") -> rankrun.Result:
        """Save at every chance, or only at the end: then nothing but the last sync is between."""
        every = every or self.chance.choice(("0", "3600"))
        env = {"AM_STALL_SECONDS": "60"}
        preload = None
        if record:
            env.update(AM_RECORD=str(self.log), AM_RECORD_PATH=str(self.work))
            preload = os.path.join(os.environ["AM_PROGRAMS"], "libam_record.so")
        result = rankrun.run([*JOBS[job], "--save-every", every], 0 if ranks == 1 else ranks, self.work,
                             env=env, preload=preload,
                             timeout=int(os.environ.get("AM_FAULT_TIMEOUT", "180")))
        if result.code != 0:
            self.fail(f"{job} on {ranks} ranks ends with {result.code}\n{result.err[-600:]}")
        self.resumed += "going on" in result.err
        return result

    def right(self, job: str) -> dict[str, str]:
        """What a run that was left alone leaves."""
        if job not in self.known:
            self.fresh_folder()
            self.run(job, 1)
            self.known[job] = without(LOOSE, rankrun.snapshot(self.work))
        return self.known[job]

    def fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAIL state {self.states}: {what}", flush=True)

    def violations(self, job: str, found: dict[str, str], has_ended: bool) -> list[str]:
        """What may not be so after a crash; with the end of the job behind it, all must be there."""
        right, found, bad = self.right(job), without(UNDER_WAY, found), []
        for name in sorted(right):
            is_new = name in found and not GROWING.search(name)
            if name in found and found[name] != right[name] and (is_new or has_ended):
                bad.append(f"wrong: {name}")
            if name not in found and has_ended:
                bad.append(f"gone: {name}")
        if JOBS[job][0] != "merge" and "run/job.json" not in found and any(n.endswith(".h5") for n in found):
            bad.append("models of a run without the job.json that says of what")
        for name in sorted(right):  # what a final name promises: its manifest, all in a folder
            belongs = [n for n in right if n == f"{name}.manifest.json"
                       or job.endswith(" out") and n.startswith(f"{name}/")]
            bad += [f"{name} without the right {n}" for n in belongs
                    if name in found and found.get(n) != right[n]]
        return bad

    def check(self, job: str) -> None:
        found = without(LOOSE, rankrun.snapshot(self.work))
        for line in rankrun.changes(self.right(job), found):
            self.fail(f"{job}: {line}")

    def cut(self, records: list[tuple], start: Path, near: list[int] | None = None,
            is_end: bool = False) -> tuple[Node, bool]:
        """The disk after a crash at a random moment, and whether the job had ended.  near: records after
        which the crash comes soon, mostly; is_end: right after the end, and all is lost that can be."""
        disk = Disk(start)
        disk.root = str(self.work)
        last = len(records) - 12 if self.chance.random() < 0.4 else 0  # the commit, or anywhere
        at = len(records) if self.chance.random() < 0.1 else self.chance.randint(max(last, 0), len(records))
        if near and self.chance.random() < 0.7:
            at = min(self.chance.choice(near) + self.chance.randint(0, 8), len(records))
        at = len(records) if is_end else at
        for r in records[:at]:
            disk.do(*r[1:])
        kept = 0.0 if is_end else self.chance.choice((0.0, 0.3, 0.7, 1.0))
        return crash(disk.top, self.chance, kept, {}), at == len(records)

    def crash_states(self, job: str, records: list[tuple], start: Path, n: int, depth: int) -> None:
        """Cut the power n times during what was recorded from the state in `start`; go on after each."""
        for i in range(n):
            left, has_ended = self.cut(records, start, is_end=depth == 0 and i == 0)
            self.states += 1
            for line in self.violations(job, contents(left), has_ended):
                self.fail(f"{job}: after a crash: {line}")
            self.fresh_folder()
            write_out(left, self.work, {})
            if has_ended and job.split()[0] in ("linear", "ties"):
                continue  # finished: nothing to go on with
            again = depth == 0 and self.chance.random() < 0.25
            before = self.top / "before"
            if again:
                shutil.rmtree(before, ignore_errors=True)
                shutil.copytree(self.work, before)
            self.run(job, self.chance.choice((1, 1, 1, 2)), record=again)
            self.check(job)
            inner = read_records(self.log) if again else []
            if inner:
                self.inner += 1
                self.crash_states(job, inner, before, 2, depth + 1)

    def campaign(self, states: int) -> None:
        while self.states < states or (self.resumed == 0 and self.states < 10 * states):
            job = self.chance.choice([j for j in JOBS for _ in range(2 if JOBS[j][0] == "merge" else 3)])
            self.right(job)
            self.fresh_folder()
            self.run(job, self.chance.choice((1, 2, 3)), record=True)
            records = read_records(self.log)
            if sum(r[1] == SYNC for r in records) < 5:
                sys.exit("hardly a sync was recorded: the test tests nothing")
            self.crash_states(job, records, self.top / "empty", min(20, max(states - self.states, 5)), 0)
            print(f"{self.states} of {states}, {self.resumed} gone on with: {len(self.failures)} failures",
                  flush=True)

    def first_violation(self, job: str, records: list[tuple], states: int,
                        near: list[int] | None = None) -> str:
        for state in range(1, states + 1):
            left, has_ended = self.cut(records, self.top / "empty", near)
            bad = self.violations(job, contents(left), has_ended)
            if bad:
                return f"state {state}{' after the end' if has_ended else ''}: {bad[0]}"
        return ""

    def mutants(self, states: int) -> None:
        """Leave out one kind of sync at a time: do the checks see it?"""
        caught = work = 0
        for job in ("linear out.h5", "linear out.safetensors", "linear out", "train", "iterate"):
            self.right(job)
            self.fresh_folder()
            # Of a run on 1 rank: groups that write into one folder sync it for each other.
            self.run(job, 2 if JOBS[job][0] == "merge" else 1, record=True, every="3600")
            records = read_records(self.log)
            kinds = kinds_of_syncs(records, str(self.work))
            seen = self.first_violation(job, records, states)
            if seen:
                self.fail(f"{job}: with all syncs: {seen}")
            for kind in sorted(set(kinds.values())):
                mutant = [r for i, r in enumerate(records) if kinds.get(i) != kind]
                gaps = [i for i in sorted(kinds) if kinds[i] == kind]
                only_work = bool(ONLY_WORK.search(kind))
                seen = self.first_violation(job, mutant, states // 5 if only_work else states,
                                            [i - n for n, i in enumerate(gaps)])
                print(f"{job}: without the sync of {kind}: {seen or 'not caught'}", flush=True)
                caught += bool(seen)
                if only_work:
                    work += not seen
                elif not seen:
                    self.fail(f"{job}: nobody misses the sync of {kind}")
        print(f"{caught} mutants caught, {work} that only cost work")


def without(names: re.Pattern, files: dict[str, str]) -> dict[str, str]:
    return {n: d for n, d in files.items() if not names.search(n)}


def kinds_of_syncs(records: list[tuple], root: str) -> dict[int, str]:
    """What each sync is for: the file, with the layout apart; of a folder what was done to it before."""
    kinds, last, has_data = {}, {}, set()
    folders = {path.rsplit("/", 1)[0] for _, op, path, *_ in records if op != SYNC}
    verbs = {CREATE: "create", RENAME: "rename", UNLINK: "unlink", MKDIR: "mkdir", RMDIR: "unlink"}
    for i, (_, op, path, second, *_) in enumerate(records):
        short = path[len(root):] or "/"
        if op in verbs:
            to = (second or path).rsplit("/", 1)
            last[to[0]] = f"{verbs[op]} {to[1]}" if op == RENAME else verbs[op]
        elif op == SYNC and path in folders:
            kinds[i] = re.sub(r"\d+", "#", f"folder {short} after {last.get(path, 'start')}")
        elif op == SYNC:
            is_layout = path.endswith((".h5.partial", ".safetensors.partial")) and path not in has_data
            kinds[i] = re.sub(r"\d+", "#", short) + (": layout" if is_layout else "")
            has_data.add(path)
    return kinds


def main() -> int:
    arguments = sys.argv[1:]
    is_mutants = arguments[:1] == ["mutants"]
    arguments = arguments[is_mutants:]
    states = int(arguments[0]) if arguments else 20
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="am_power.") as top:
        c = Campaign(Path(top), seed)
        if is_mutants:
            c.mutants(states)
            return 1 if c.failures else 0
        c.campaign(states)
        print(f"{c.states} crash states, {c.resumed} gone on with, {c.inner} with a second crash while "
              f"going on: {len(c.failures)} failures, {time.monotonic() - start:.0f} s")
        if c.resumed == 0:
            print("FAIL nothing was gone on with: the test tests nothing")
            return 1
        return 1 if c.failures else 0


if __name__ == "__main__":
    sys.exit(main())
