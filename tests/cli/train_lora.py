#!/usr/bin/env python3
"""Low-rank adapters through the whole program, on tiny data: gpt on two texts and cnn on images. The same
bytes on any number of ranks and after a stop; the adapter that train writes, merged into the base, is the
trained trunk bit by bit; a round's task vectors have the rank of the adapters, and nothing else moves.
usage: train_lora.py [text] [image] [RANKS]...
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

import iterate_networks as networks
from iterate_networks import HERE, check, run
from checks import finish
import rankrun  # found by iterate_networks
import safetensors

RANK = 3
TEXT = networks.TEXT.replace("dropout: 0.1}", "dropout: 0.1, lora: {r: 3, lora_alpha: 6, lora_dropout: 0.1, "
                             "target_modules: [qkv, 'blocks.*.up', down], use_rslora: yes}}")
IMAGES = networks.IMAGES.replace("dropout: 0.1}", "dropout: 0.1, lora: {r: 3}}")
EPOCHS = {"text": 120, "image": 150}
TARGETS = {"text": ("qkv", "up", "down"), "image": ("conv.0", "conv.1", "hidden")}


def tensors(path: Path) -> dict:
    with h5py.File(path) as f:
        return {k: f[k][()] for k in f}


def check_moves(folder: Path, name: str, start: str, end: str, rank: int) -> None:
    """end - start: of the rank of an adapter where there is one, nothing elsewhere."""
    a, b = tensors(folder / start), tensors(folder / end)
    check(a.keys() == b.keys(), f"{end} has the tensors of {start}")
    for key in a:
        is_target = key.endswith(".weight") and any(key == f"{t}.weight" or key.endswith(f".{t}.weight")
                                                   for t in TARGETS[name])
        delta = (b[key].astype(np.float64) - a[key]).reshape(a[key].shape[0], -1)
        if not is_target:
            check(not delta.any(), f"{end}: {key} stays")
            continue
        s = np.linalg.svd(delta, compute_uv=False)
        check(s[0] > 1e-3, f"{end}: {key} moves: {s[:4]}")
        check(len(s) <= rank or s[rank] < 1e-5 * s[0], f"{end}: {key} moves by rank {rank}: {s[:rank + 2]}")


def check_adapter(folder: Path, out: str, name: str, ranks: int) -> None:
    config = json.loads((folder / out / "adapter/adapter_config.json").read_text())
    check(config["peft_type"] == "LORA" and config["r"] == RANK, f"{out}: {config}")
    factors, _ = safetensors.read(folder / out / "adapter/adapter_model.safetensors")
    check(len(factors) == 2 * len(config["target_modules"]), f"{out}: a pair a module: {sorted(factors)}")
    for module in config["target_modules"]:
        a, b = (factors[f"base_model.model.{module}.lora_{x}.weight"].shape for x in "AB")
        check(a[0] == RANK and b[1] == RANK and len(a) == len(b), f"{module}: {a} {b}")
    (folder / "merge.yml").write_text(f"merge_method: linear\nmodels: [{{model: {out}/base.h5+{out}/adapter, "
                                      "parameters: {weight: 1}}]\ndtype: float32\n")
    run("merge merge.yml -o merged.h5 --overwrite", ranks, folder)
    trunk, merged = tensors(folder / out / "trunk.h5"), tensors(folder / "merged.h5")
    check(trunk.keys() == merged.keys(), f"{out}: the same tensors")
    for key in trunk:
        check(trunk[key].tobytes() == merged[key].tobytes(), f"{out}: base + adapter is the trunk: {key}")


def check_stop(folder: Path, name: str, task: str, ranks: list[int]) -> None:
    """Stopped in the middle, gone on with on another number of ranks, the state of the optimiser sharded."""
    command = (f"train {name}.yml --task {task} -o OUT --set finetune.epochs={EPOCHS[name]} "
               f"--set finetune.shard_optimizer=yes")
    run(command.replace("OUT", "whole"), ranks[0], folder)
    stops = 0
    for n in (ranks[-1], ranks[0], ranks[-1]):
        result = rankrun.run(command.replace("OUT", "stopped").split(), n, folder, timeout=120,
                             **rankrun.stopped_at(folder / "stopped", 40))
        stops += result.code == 75
        check(result.code == 75, f"{name}: stopped: {result.code}", result)
    run(command.replace("OUT", "stopped"), ranks[0], folder)
    for file in ("trunk.h5", "result.json", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        check((folder / "whole" / file).read_bytes() == (folder / "stopped" / file).read_bytes(),
              f"{name}: {file} after {stops} stops")
    shutil.rmtree(folder / "whole")
    shutil.rmtree(folder / "stopped")


def check_suite(folder: Path, name: str, task: str, ranks: list[int]) -> None:
    networks.same_files(folder, name, ranks)
    networks.same_training(folder, name, task, ranks)
    first = f"{name}{ranks[0]}"
    check_moves(folder, name, f"{first}/base.h5", f"{first}/one-shot.h5", 2 * RANK)  # two tasks
    check_moves(folder, name, f"{task}{ranks[0]}/base.h5", f"{task}{ranks[0]}/trunk.h5", RANK)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        check((folder / f"{task}{ranks[0]}/adapter/{file}").read_bytes() ==
              (folder / f"{task}{ranks[-1]}/adapter/{file}").read_bytes(), f"{name}: {file}: the same bytes")
    check_adapter(folder, f"{task}{ranks[0]}", name, ranks[-1])
    check_stop(folder, name, task, ranks)


def check_linearised(folder: Path) -> None:
    """In the tangent space of the base, where only B matters."""
    run("train text.yml --task reference-en -o tangent --set model.linearised=yes", 2, folder)
    rows = networks.rows_of(folder, "tangent")
    check(rows["trained"]["task_loss_nats"][0] < rows["base"]["task_loss_nats"][0] - 0.1,
          f"linearised training lowers the loss: {rows}")
    check_moves(folder, "text", "tangent/base.h5", "tangent/trunk.h5", RANK)
    check_adapter(folder, "tangent", "text", 1)


def check_text(folder: Path, ranks: list[int]) -> None:
    networks.write_texts(folder / "sources")
    run("data prepare reference-en reference-fr -o texts --sources sources", 2, folder)
    (folder / "text.yml").write_text(TEXT)
    check_suite(folder, "text", "reference-en", ranks)
    check_linearised(folder)


def check_images(folder: Path, ranks: list[int]) -> None:
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "images",
                    "a:3:90", "b:3:80", "p:4:120"], check=True)
    (folder / "image.yml").write_text(IMAGES)
    check_suite(folder, "image", "a", ranks)


def main() -> None:
    parts = [a for a in sys.argv[1:] if not a.isdigit()] or ["text", "image"]
    ranks = [int(a) for a in sys.argv[1:] if a.isdigit()] or [1, 3]
    folder = Path(tempfile.mkdtemp(prefix="am_lora."))
    if "text" in parts:
        check_text(folder, ranks)
    if "image" in parts:
        check_images(folder, ranks)
    finish(folder, f"same bytes at {ranks} ranks")


if __name__ == "__main__":
    main()
