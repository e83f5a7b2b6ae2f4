#!/usr/bin/env python3
"""A Hugging Face folder in, a folder out: shards, index, configuration, tokenizer, model card.

The output is read with json and numpy alone; the same bytes on 1 to 4 ranks; replacing it, and files in
it that are not ours.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

LAYERS, HIDDEN, VOCAB = 4, 8, 37
CONFIG = """{
  "architectures": ["LlamaForCausalLM"],
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "nested": {"torch_dtype": "float32", "num_hidden_layers": 4},
  "num_hidden_layers": 4,
  "torch_dtype" : "float32",
  "quoted \\"torch_dtype\\"": [1, {"torch_dtype": 2}],
  "vocab_size": 37
}
"""
COPIED = {"tokenizer.json": b'{"a": [1, 2]}', "tokenizer_config.json": b"{}", "merges.txt": b"a b\n",
          "tokenizer.model": bytes(range(256)) * 3000, "special_tokens_map.json": b"{}",
          "generation_config.json": b'{"do_sample": true}'}


def tensors(seed: int, rows: int = VOCAB) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": [rows, HIDDEN], "lm_head.weight": [rows, HIDDEN],
              "model.norm.weight": [HIDDEN]}
    for i in range(LAYERS):
        for part, shape in {"self_attn.q_proj": [HIDDEN, HIDDEN], "mlp.up_proj": [3, HIDDEN],
                            "input_layernorm": [HIDDEN]}.items():
            shapes[f"model.layers.{i}.{part}.weight"] = shape
    return {k: Tensor("F32", s, rng.standard_normal(int(np.prod(s))).astype("<f4"))
            for k, s in shapes.items()}


def write_folder(path: str, seed: int, rows: int = VOCAB) -> dict[str, Tensor]:
    """Two shards, an index and the files beside them."""
    all_tensors = tensors(seed, rows)
    folder = Path(path)
    folder.mkdir()
    names = sorted(all_tensors)
    shards = [names[:5], names[5:]]
    weight_map = {}
    for i, part in enumerate(shards):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        write(folder / file, {n: all_tensors[n] for n in part})
        weight_map |= {n: file for n in part}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    (folder / "config.json").write_text(CONFIG)
    for name, data in COPIED.items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("the card of the base")
    (folder / "training_args.bin").write_bytes(b"never copied")
    return all_tensors


def read_folder(path: Path) -> dict[str, Tensor]:
    index = path / "model.safetensors.index.json"
    if not index.exists():
        found, meta = read(path / "model.safetensors")
        assert meta["format"] == "pt", meta
        return found
    found = {}
    document = json.loads(index.read_text())
    for file in sorted(set(document["weight_map"].values())):
        shard, meta = read(path / file)
        assert meta["format"] == "pt", meta
        assert all(document["weight_map"][n] == file for n in shard)
        found |= shard
    assert document["metadata"]["total_size"] == sum(t.raw.nbytes for t in found.values())
    return found


def run(*arguments: str, ranks: int = 0, code: int = 0) -> str:
    command = [os.environ["AM_BIN"], *arguments]
    if ranks > 0:
        command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stderr}"
    return done.stderr


def content(path: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(Path(path).iterdir())}


RECIPE = """
merge_method: task_arithmetic
base_model: base
models:
- {model: ft, parameters: {weight: 0.5}}
dtype: bfloat16
"""
SLICES = """
merge_method: passthrough
slices:
- sources: [{model: base, layer_range: [0, 3]}]
- sources: [{model: ft, layer_range: [1, 4]}]
"""


def check_merge(base: dict[str, Tensor], ft: dict[str, Tensor]) -> None:
    Path("r.yml").write_text(RECIPE)
    run("merge", "r.yml", "-o", "out", "--shard-size", "600")
    out = read_folder(Path("out"))
    assert set(out) == set(base)
    for name, tensor in out.items():
        wanted = round_to("BF16", base[name].f64() + 0.5 * (ft[name].f64() - base[name].f64()))
        assert tensor.dtype == "BF16" and (tensor.raw == wanted).all(), name
    shards = list(Path("out").glob("model-*"))
    assert len(shards) > 2
    names = {p.name for p in shards}
    assert set(content("out")) == names | set(COPIED) | {
        "config.json", "README.md", "manifest.json", "model.safetensors.index.json"}
    for name, data in COPIED.items():
        assert (Path("out") / name).read_bytes() == data, name
    config = (Path("out") / "config.json").read_text()
    wanted = CONFIG.replace('"torch_dtype" : "float32"', '"torch_dtype" : "bfloat16"')
    assert config == wanted, config
    card = (Path("out") / "README.md").read_text()
    assert "task_arithmetic" in card and "`ft`" in card and '"weight": 0.5' in card, card
    manifest = json.loads((Path("out") / "manifest.json").read_text())
    assert [f["name"] for f in manifest["files"]] == sorted([*COPIED, "config.json", "README.md"])
    run("verify", "out")
    for ranks in (1, 2, 3, 4):
        run("merge", "r.yml", "-o", f"np{ranks}", "--shard-size", "600", "--block=800", ranks=ranks)
        assert content(f"np{ranks}") == content("out"), f"other bytes on {ranks} ranks"


def check_overwrite() -> None:
    before = content("out")
    run("merge", "r.yml", "-o", "out", code=73)
    run("merge", "r.yml", "-o", "out", "--overwrite", "--shard-size", "600")
    assert content("out") == before
    run("merge", "r.yml", "-o", "out", "--overwrite", ranks=2)  # fewer shards
    assert (Path("out") / "model.safetensors").exists()
    assert len(list(Path("out").glob("model-*"))) == 0
    for foreign in ("notes.txt", "vocab.txt"):  # one with the name of a companion, not ours
        (Path("out") / foreign).write_text("mine")
        message = run("merge", "r.yml", "-o", "out", "--overwrite", code=73)
        assert foreign in message, message
        assert (Path("out") / foreign).read_text() == "mine"
        (Path("out") / foreign).unlink()
    # What a killed job left is no obstacle.
    shutil.copytree("out", "killed.partial")
    (Path("killed.partial") / "manifest.json").unlink()
    run("merge", "r.yml", "-o", "killed")
    assert content("killed") == content("out") and not Path("killed.partial").exists()
    (Path("out") / "tokenizer.json").write_text("changed")
    assert "tokenizer.json" in run("verify", "out", code=65)


def check_slices() -> None:
    Path("s.yml").write_text(SLICES)
    run("merge", "s.yml", "-o", "slices")
    config = (Path("slices") / "config.json").read_text()
    assert config == CONFIG.replace('"num_hidden_layers": 4,\n  "torch', '"num_hidden_layers": 6,\n  "torch')
    assert "layers 1 to 3" in (Path("slices") / "README.md").read_text()
    assert {int(n.split(".")[2]) for n in read_folder(Path("slices")) if ".layers." in n} == set(range(6))


def check_vocab() -> None:
    write_folder("wide", 5, VOCAB + 3)
    Path("v.yml").write_text(RECIPE.replace("model: ft", "model: wide") + "vocab: pad\n")
    run("merge", "v.yml", "-o", "vocab")
    assert json.loads((Path("vocab") / "config.json").read_text())["vocab_size"] == VOCAB + 3
    assert read_folder(Path("vocab"))["lm_head.weight"].shape == [VOCAB + 3, HIDDEN]


def check_odd_files() -> None:
    """Links are not followed; a broken configuration is named; no folder in, a card all the same."""
    shutil.copytree("base", "odd")
    shutil.copytree("ft", "odd_ft")
    (Path("odd") / "tokenizer.json").unlink()
    (Path("odd") / "tokenizer.json").symlink_to("/etc/passwd")
    Path("o.yml").write_text(RECIPE.replace("base_model: base", "base_model: odd"))
    message = run("merge", "o.yml", "-o", "odd_out")
    assert "odd/tokenizer.json is a link" in message, message
    assert not (Path("odd_out") / "tokenizer.json").exists()
    (Path("odd") / "config.json").write_text('{"a": 1')
    assert "odd/config.json, line 1" in run("merge", "o.yml", "-o", "odd_out2", code=65)
    assert not Path("odd_out2").exists() and not Path("odd_out2.partial").exists()
    write("one.safetensors", tensors(1))
    write("two.safetensors", tensors(2))
    Path("f.yml").write_text(
        RECIPE.replace("base_model: base", "base_model: one.safetensors").replace("model: ft", "model: two.safetensors"))
    run("merge", "f.yml", "-o", "files")
    assert set(content("files")) == {"README.md", "manifest.json", "model.safetensors"}


def main() -> int:
    base, ft = write_folder("base", 1), write_folder("ft", 2)
    check_merge(base, ft)
    check_overwrite()
    check_slices()
    check_vocab()
    check_odd_files()
    return 0


sys.exit(main())
