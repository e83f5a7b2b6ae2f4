#!/usr/bin/env python3
"""Every command on 64 ranks, whatever the number of cores: the files and the JSON line of one rank. And a
checkpoint of 10,000 tensors: rank 0 reads its metadata, the other ranks read nothing.

Starting 64 processes is most of the time.                              SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"
sys.path.insert(0, str(SUPPORT))
import make_ckpt  # noqa: E402
import rankrun  # noqa: E402

BIN, RANKS, TENSORS = rankrun.binary(), 64, 10000
problems = []


def run(command: list, ranks: int) -> subprocess.CompletedProcess:
    launcher = [*rankrun.mpirun(), "-n", str(ranks)] if ranks > 1 else []
    try:
        return subprocess.run([*launcher, *command], text=True, capture_output=True, timeout=240)
    except subprocess.TimeoutExpired:
        sys.exit(f"FAILED: {' '.join(command)} on {ranks} ranks does not end")


def both(command: str, out: str = "", codes: tuple = (0,)) -> None:
    """The command on one rank and on RANKS: exit code, stdout and output are the same."""
    seen = []
    start = time.monotonic()
    for ranks in (1, RANKS):
        folder = out.replace("OUT", f"out{ranks}")
        done = run([BIN, *command.replace("OUT", f"out{ranks}").split()], ranks)
        if done.returncode not in codes:
            problems.append(f"{command} on {ranks} ranks: exit code {done.returncode}\n{done.stderr[-600:]}")
            return
        path = Path(folder)
        files = {} if not out else ({f: v for f, v in rankrun.snapshot(path).items() if f != "events.jsonl"}
                                    if path.is_dir() else path.read_bytes())
        told = "" if "submit" in command else comparable(done.stdout) # its memory is that of the process
        seen.append((done.returncode, told.replace(f"out{ranks}", "OUT") if "OUT" in command else told, files))
    print(f"{time.monotonic() - start:5.1f} s  {command}", flush=True)
    for what, one, many in zip(("exit code", "stdout", "output"), *seen):
        if one != many:
            problems.append(f"{command}: {what} differs between 1 and {RANKS} ranks\n{str(one)[:300]}\n{str(many)[:300]}")


def comparable(stdout: str) -> str:
    """Without what depends on the ranks: time and memory."""
    try:
        told = json.loads(stdout)
    except ValueError:
        return stdout
    return json.dumps({k: v for k, v in told.items() if k not in ("seconds", "peak_bytes")})


def prepare() -> None:
    for seed in "123":
        subprocess.run([sys.executable, SUPPORT / "make_ckpt.py", f"m{seed}.safetensors",
                        f"a=1300x1000:f32:{seed}", f"b=7:f32:{seed}", "ids=8:i64:one"], check=True)
    Path("recipe.yml").write_text("merge_method: ties\nbase_model: m1.safetensors\nmodels:\n"
                                  "- {model: m2.safetensors, parameters: {weight: 1, density: 0.5}}\n"
                                  "- {model: m3.safetensors, parameters: {weight: 1, density: 0.5}}\n")
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", "tasks", "a:4:120", "b:3:90", "c:5:150",
                    "p:8:200"], check=True)
    shutil.copy(SUPPORT / "small_suite.yml", "suite.yml")
    sys.argv = ["", "many.safetensors",
                *[f"model.layers.{i:05d}.weight=8x4:f32:{i % 7}" for i in range(TENSORS)]]
    make_ckpt.main()


def commands() -> None:
    small = "--set iterate.rounds=1 --set base.epochs=1 --set heads.epochs=1 --set one_shot.epochs=[1]"
    both("merge recipe.yml -o OUT.h5", "OUT.h5")
    both("convert m1.safetensors OUT-c.h5 --dtype bfloat16", "OUT-c.h5")
    both("extract m1.safetensors m2.safetensors -o OUT-tv.h5", "OUT-tv.h5")
    both("analyze m1.safetensors m2.safetensors m3.safetensors -o OUT.json", "OUT.json")
    both("verify out1.h5")
    both("inspect many.safetensors --json")
    both("diff m1.safetensors m2.safetensors --json", codes=(1,))
    both("plan recipe.yml --ranks 64")
    both("submit recipe.yml -o merged.h5 --ranks 2 --memory 1GiB --dry-run", codes=(0,))
    both("methods ties")
    both("data list")
    both(f"iterate suite.yml {small} -o OUT-run", "OUT-run")
    both(f"train suite.yml {small} --task b -o OUT-train", "OUT-train")
    both("eval suite.yml --model out1-run/final.h5 --heads out1-run/heads.h5")


def metadata() -> None:
    program = Path(os.environ.get("AM_PROGRAMS", "")) / "bench_open_ckpt"
    times = 3
    header = int.from_bytes(Path("many.safetensors").read_bytes()[:8], "little")
    done = run([str(program), "many.safetensors", str(times)], RANKS)
    if done.returncode != 0:
        problems.append(f"bench_open_ckpt: {done.returncode}\n{done.stderr[-600:]}")
        return
    seen = json.loads(done.stdout)
    print(f"open {seen['tensors']} tensors on {seen['ranks']} ranks: {done.stdout.strip()}")
    if (seen["tensors"], seen["ranks"]) != (TENSORS, RANKS):
        problems.append(f"{seen['tensors']} tensors on {seen['ranks']} ranks")
    if seen["root"]["read_bytes"] < times * header:
        problems.append(f"rank 0 read {seen['root']} of {times} headers of {header} bytes: what is measured?")
    if seen["others"]["read_bytes"] > header / 100:
        problems.append(f"another rank read {seen['others']}: the metadata was not broadcast")


def main() -> None:
    os.environ.update(OMPI_MCA_pml="ob1", OMPI_MCA_btl="self,vader") # no networks are looked for: a third less
    prepare()
    metadata()
    commands()
    for problem in problems:
        print(f"FAILED: {problem}")
    sys.exit(len(problems) > 0)


if __name__ == "__main__":
    main()
