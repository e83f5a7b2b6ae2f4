#!/usr/bin/env python3
"""An adapter is its factors and its configuration: a killed job never leaves those of one with those of
another, and a second job on the same folder takes nothing from the first.

`extract-lora --overwrite` over an adapter with another scale dies at each of its renames, and at calls
between: what stands there then is the old adapter, the new one, or none that a merge would read; the
same command then gives the right bytes, without --overwrite too where there is none.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, write  # noqa: E402

SHIM = os.path.join(os.environ["AM_PROGRAMS"], "libam_shim.so")
COMMAND = ["extract-lora", "base.safetensors", "model.safetensors", "-o", "a", "--max-rank", "2"]
MERGE = """
merge_method: task_arithmetic
base_model: base.safetensors
models: [{model: base.safetensors+a, parameters: {weight: 1}}]
dtype: float64
"""


def start(*arguments: str, shim: str = "", ranks: int = 1) -> subprocess.Popen:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"], *arguments]
    if shim:
        command[-len(arguments) - 1:-len(arguments) - 1] = ["-x", f"LD_PRELOAD={SHIM}", "-x", f"AM_SHIM={shim}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def run(*arguments: str, **how) -> tuple[int, str]:
    job = start(*arguments, **how)
    _, err = job.communicate(timeout=120)
    return job.returncode, err


def state() -> tuple:
    return tuple(Path("a", n).read_bytes() if Path("a", n).exists() else None
                 for n in ("adapter_model.safetensors", "adapter_config.json"))


def put(pair: tuple) -> None:
    shutil.rmtree("a", ignore_errors=True)
    Path("a").mkdir()
    for name, data in zip(("adapter_model.safetensors", "adapter_config.json"), pair):
        if data is not None:
            Path("a", name).write_bytes(data)


def whole(pair: tuple, what: str) -> None:
    assert state() == pair, f"{what}: not the right bytes"
    left = sorted(p.name for p in Path("a").iterdir())
    assert left == ["adapter_config.json", "adapter_model.safetensors", "adapter_model.safetensors.manifest.json"], \
        f"{what}: {left}"


def kills(old: tuple, new: tuple) -> None:
    deaths = 0
    for call in ("rename", "fsync"):
        for nth in range(1, 40):
            put(old)
            code, err = run(*COMMAND, "--overwrite", shim=f"call={call},nth={nth},rank=0,path={os.getcwd()}/a,do=kill")
            if code == 0:
                break
            deaths += call == "rename"
            found = state()
            what = f"killed at {call} {nth}"
            assert found in (old, new) or found[0] is None, f"{what}: factors of one, configuration of another"
            if found[0] is None:
                code, err = run("merge", "r.yml", "-o", "out.safetensors")
                assert code == 66, f"{what}: a merge reads it: {code} {err}"
            code, err = run(*COMMAND, *([] if found[0] is None else ["--overwrite"]))
            assert code == 0, f"{what}: again: {code} {err}"
            whole(new, what)
    assert deaths >= 3, deaths


def fails(old: tuple, new: tuple) -> None:
    """The factors cannot get their name: there is no adapter, nor a configuration that would wait for one."""
    shutil.rmtree("a")
    for nth in range(1, 9):
        code, _ = run(*COMMAND, shim=f"call=rename,nth={nth},rank=0,path={os.getcwd()}/a,do=EIO")
        if code == 0:
            break
        assert code == 74 and not Path("a").exists(), (nth, code, list(Path("a").iterdir()))
    assert nth > 2, nth
    whole(new, "after failures")


def second(old: tuple, new: tuple) -> None:
    """Another job on the folder, with another rank, while the first writes."""
    shutil.rmtree("a")
    first = start(*COMMAND, shim=f"call=fsync,nth=1,times=always,rank=-1,path={os.getcwd()}/a,do=delay:2500")
    end = time.monotonic() + 60
    while not Path("a/adapter_model.safetensors.lock").exists() and time.monotonic() < end:
        time.sleep(0.02)
    code, err = run(*COMMAND[:-1], "1")
    assert code == 73, f"{code} {err}"
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    whole(new, "two jobs")


def main() -> None:
    rng = np.random.default_rng(5)
    base = {f"{k}.weight": Tensor("F64", [6, 5], rng.standard_normal(30)) for k in "ab"}
    write("base.safetensors", base)
    write("model.safetensors", {k: Tensor("F64", [6, 5], t.raw + rng.standard_normal(30)) for k, t in base.items()})
    Path("r.yml").write_text(MERGE)
    assert run(*COMMAND)[0] == 0
    new = state()
    config = json.loads(new[1])
    config["lora_alpha"] = 2 * config["r"]  # another scale
    old = (new[0][:-8] + bytes(8), json.dumps(config).encode())
    kills(old, new)
    fails(old, new)
    second(old, new)
    print("adapters: factors and configuration of one job, or none")


main()
