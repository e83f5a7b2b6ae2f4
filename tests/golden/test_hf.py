#!/usr/bin/env python3
"""Folders in Hugging Face layout: import, logits, export, finetune, merge and back.

The models and their logits are made by tests/golden/make_hf.py with the transformers library. Logits
agree to 1e-5; a folder that is imported and exported has the same tensors byte for byte, in f32 and
bf16, with a prefix and without, on 1 and 3 ranks; a finetuned and merged one has the tensors that
the task vector says. SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from rankrun import binary, mpirun  # noqa: E402
from safetensors import Tensor, read, round_to, write  # noqa: E402

DATA = SOURCE / "tests" / "data" / "hf"
LOGITS = json.loads((DATA / "logits.json").read_text())
CONTEXT = {"gpt2": 9, "llama": 9, "vit": 0}


def allmerge(command: str, ranks: int = 1) -> dict:
    done = subprocess.run([*([*mpirun(), "-n", str(ranks)] if ranks > 1 else []), binary(), *shlex.split(command)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (command, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def same_tensors(a: str | Path, b: str | Path) -> None:
    one, other = (read(Path(f) / "model.safetensors")[0] for f in (a, b))
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (other[name].dtype, other[name].shape), name
        assert one[name].raw.tobytes() == other[name].raw.tobytes(), name


def import_it(model: str, folder: str | Path, ranks: int = 1) -> dict:
    return allmerge(f"import {folder} {model}.h5 --heads {model}-heads.h5 --task t --overwrite "
                    f"--context {CONTEXT[model]}", ranks)


def logits(model: str, made: dict) -> float:
    """Largest difference from transformers."""
    options = {k: v for k, v in made["model"].items() if k not in ("preset", "freeze")}
    golden = LOGITS[model]
    done = subprocess.run(
        [os.environ["AM_PROGRAMS"] + "/hf_logits", made["model"]["preset"],
         " ".join(f"{k}={v}" for k, v in options.items()), str(len(golden["inputs"][0])),
         str(made["classes"]), f"{model}.h5", f"{model}-heads.h5"],
        input=" ".join(str(x) for row in golden["inputs"] for x in row), capture_output=True,
        text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ours, theirs = np.array(done.stdout.split(), "f8"), np.array(golden["logits"])
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0.1
    return float(np.abs(ours - theirs).max())


def round_trip(model: str) -> None:
    bytes_of = []
    for ranks in (1, 3):
        made = import_it(model, DATA / model, ranks)
        bytes_of.append(Path(f"{model}.h5").read_bytes())
        allmerge(f"export {model}.h5 out-{ranks} --like {DATA / model} --overwrite", ranks)
        same_tensors(DATA / model, f"out-{ranks}")
    allmerge(f"export {model}.h5 out-1 --like {DATA / model} --heads {model}-heads.h5 --task t "
             "--overwrite")
    same_tensors(DATA / model, "out-1")
    config = (DATA / model / "config.json").read_bytes()
    assert Path("out-1/config.json").read_bytes() == config
    assert bytes_of[0] == bytes_of[1]
    error = logits(model, made)
    print(f"{model}: logits differ by {error:.2g}")
    assert error <= 1e-5


def other_forms(model: str, prefix: str) -> None:
    """bfloat16; no prefix; a buffer that no result depends on."""
    buffers = {"gpt2": "h.1.attn.bias", "llama": "layers.1.self_attn.rotary_emb.inv_freq",
               "vit": "pooler.dense.weight"}
    tensors, _ = read(DATA / model / "model.safetensors")
    changed = {n.removeprefix(prefix): Tensor("BF16", t.shape, round_to("BF16", t.f64()))
               for n, t in tensors.items()}
    changed[buffers[model]] = Tensor("U8", [3], np.array([1, 0, 255], "u1"))
    shutil.copytree(DATA / model, f"{model}-other")
    write(f"{model}-other/model.safetensors", changed)
    import_it(model, f"{model}-other")
    allmerge(f"export {model}.h5 {model}-back --like {model}-other", 2)
    same_tensors(f"{model}-other", f"{model}-back")


def make_task(model: str, vocabulary: int) -> None:
    rng = np.random.default_rng(3)
    n, features = 24, len(LOGITS[model]["inputs"][0])
    with h5py.File("data/t.h5", "w") as file:
        file.attrs["classes"] = json.dumps([str(k) for k in range(vocabulary)])
        for split in ("train", "validation", "test"):
            if model == "vit":
                file[f"{split}/x"] = rng.standard_normal((n, features)).astype("f4")
                file[f"{split}/y"] = rng.integers(0, vocabulary, n).astype("i4")
            else:
                tokens = rng.integers(0, vocabulary, (n, features + 1))
                file[f"{split}/tokens"] = tokens.astype("u1")


def finetune(model: str, made: dict) -> None:
    """train from the imported base, export both, merge the folders: base + 0.5 (tuned - base)."""
    Path("data").mkdir(exist_ok=True)
    make_task(model, made["classes"])
    recipe = {"seed": 1, "model": made["model"], "data": {"folder": "data", "tasks": ["t"]},
              "finetune": {"lr": 0.05, "batch": 8, "epochs": 2},
              "base": {"checkpoint": f"{model}.h5"}, "heads": {"checkpoint": f"{model}-heads.h5"}}
    Path(f"{model}.yml").write_text(json.dumps(recipe))
    allmerge(f"train {model}.yml --task t -o {model}-run", 2)
    tuned = f"{model}-tuned"
    allmerge(f"export {model}-run/trunk.h5 {tuned} --like {DATA / model}")
    Path("merge.yml").write_text(json.dumps({
        "merge_method": "task_arithmetic", "base_model": str(DATA / model), "dtype": "float32",
        "models": [{"model": tuned, "parameters": {"weight": 0.5}}]}))
    allmerge(f"merge merge.yml -o {model}-merged", 2)
    base, after, merged = (read(Path(f) / "model.safetensors")[0]
                           for f in (DATA / model, tuned, f"{model}-merged"))
    moved = 0
    for name in base:
        b, a, m = (t[name].f64() for t in (base, after, merged))
        assert np.abs(m - (b + 0.5 * (a - b))).max() <= 1e-6, name
        moved += bool(np.any(a != b))
    assert moved > len(base) / 2
    head = {"gpt2": "transformer.wte.weight", "llama": "lm_head.weight", "vit": "classifier.weight"}
    assert np.array_equal(base[head[model]].raw, after[head[model]].raw)
    allmerge(f"import {model}-merged again.h5 --overwrite")


def adapt(model: str, made: dict) -> None:
    """train adapters from the imported base and export them: FOLDER + adapter is the exported trunk."""
    recipe = json.loads(Path(f"{model}.yml").read_text())
    recipe["model"] = {**made["model"], "lora": {"r": 2, "lora_alpha": 3, "lora_dropout": 0.1}}
    recipe["finetune"] = {"optimizer": "adamw", "lr": 0.02, "batch": 8, "epochs": 3}
    Path(f"{model}-lora.yml").write_text(json.dumps(recipe))
    allmerge(f"train {model}-lora.yml --task t -o {model}-lora", 2)
    allmerge(f"export {model}-lora/trunk.h5 {model}-whole --like {DATA / model}")
    for ranks in (1, 3):
        told = allmerge(f"export {model}-lora/adapter {model}-adapter{ranks} --like {DATA / model}", ranks)
        factors = read(Path(f"{model}-adapter{ranks}/adapter_model.safetensors"))[0]
        assert told["peft_type"] == "LORA" and told["tensors"] == len(factors), told
        assert told["data_bytes"] == sum(len(f.raw.tobytes()) for f in factors.values()), told
    files = [Path(f"{model}-adapter{r}/{f}").read_bytes() for r in (1, 3)
             for f in ("adapter_model.safetensors", "adapter_config.json")]
    assert files[:2] == files[2:]
    again = subprocess.run([binary(), "export", f"{model}-lora/adapter", f"{model}-adapter1", "--like", DATA / model],
                           capture_output=True, text=True)
    assert again.returncode == 73 and "--overwrite" in again.stderr, again.stderr
    allmerge(f"export {model}-lora/adapter {model}-adapter1 --like {DATA / model} --overwrite")
    Path("adapt.yml").write_text(json.dumps({
        "merge_method": "linear", "dtype": "float32",
        "models": [{"model": f"{DATA / model}+{model}-adapter1", "parameters": {"weight": 1}}]}))
    allmerge(f"merge adapt.yml -o {model}-adapted", 2)
    same_tensors(f"{model}-whole", f"{model}-adapted")
    base, after = (read(Path(f) / "model.safetensors")[0] for f in (DATA / model, f"{model}-adapted"))
    moved = sum(base[n].raw.tobytes() != after[n].raw.tobytes() for n in base)
    config = json.loads(files[1])
    assert moved == len(config["target_modules"]) and moved > 7, (moved, config)
    assert config["fan_in_fan_out"] == (model == "gpt2")
    with_peft(model, f"{model}-adapter1", f"{model}-whole")


def extract_lora(model: str) -> None:
    """A model whose matrices moved by rank 2, and whose vectors moved, to an adapter: all of it comes back."""
    rng, changed = np.random.default_rng(2), {}
    for name, t in read(DATA / model / "model.safetensors")[0].items():
        values = t.f64().reshape(t.shape)
        if len(t.shape) == 1:
            values = values + 0.05 * rng.standard_normal(t.shape)
        elif not any(part in name for part in ("emb", "wte", "wpe", "head", "classifier")):
            values = values + 0.1 * rng.standard_normal((t.shape[0], 2)) @ rng.standard_normal((2, t.shape[1]))
        changed[name] = Tensor("F32", t.shape, values.astype("f4").reshape(-1))
    shutil.copytree(DATA / model, f"{model}-moved")
    write(f"{model}-moved/model.safetensors", changed)
    conv1d = "--fan-in-fan-out" if model == "gpt2" else ""
    told = allmerge(f"extract-lora {DATA / model} {model}-moved -o {model}-extracted --max-rank 0 {conv1d}")
    ways = [t["how"] for t in told["tensors"].values()]
    assert ways.count("factors") > 7 and ways.count("whole") > 4, told
    with_peft(model, f"{model}-extracted", f"{model}-moved")


def with_peft(model: str, adapter: str, merged: str) -> None:
    """PEFT reads an adapter: its merged model has the tensors of `merged`."""
    python = os.environ.get("AM_PEFT_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import peft, transformers"], capture_output=True).returncode != 0:
        print(f"{model}: not compared with PEFT: {python} has no peft and transformers (AM_PEFT_PYTHON)")
        return
    done = subprocess.run([python, SOURCE / "tests/golden/peft_merge.py", DATA / model, adapter, merged],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout.strip())


for name, prefix in (("gpt2", "transformer."), ("llama", "model."), ("vit", "vit.")):
    round_trip(name)
    finetune(name, import_it(name, DATA / name))
    adapt(name, import_it(name, DATA / name))
    extract_lora(name)
    other_forms(name, prefix)
