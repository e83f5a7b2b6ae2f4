#!/usr/bin/env python3
"""LoRA adapters as inputs (CHECKPOINT+ADAPTER) against numpy.

The oracle applies each adapter in float64, products summed over the rank from first to last, and
writes a whole f64 model; merging that model must give the same bytes as merging base + adapter, for
linear and task arithmetic, for any number of ranks and block size. Linear, Conv1D (fan_in_fan_out),
convolution and embedding adapters, rank and alpha patterns, rsLoRA, modules_to_save and biases.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "33")))
PREFIX = "base_model.model."
SHAPES = {"model.embed_tokens.weight": [301, 24], "model.layers.0.q_proj.weight": [70, 24],
          "model.layers.0.q_proj.bias": [70], "model.layers.1.q_proj.weight": [1100, 24],
          "model.layers.1.up.weight": [24, 1500], "model.conv.weight": [6, 5, 3, 3],
          "model.norm.weight": [24], "lm_head.weight": [301, 24]}


def floats(dtype: str, shape: list[int]) -> Tensor:
    return Tensor(dtype, shape, round_to(dtype, rng.standard_normal(int(np.prod(shape)))))


def product(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """[out, in] from [out, r] and [r, in]: one rank-one term after the other, no fused products."""
    total = np.zeros((b.shape[0], a.shape[1]))
    for k in range(a.shape[0]):
        total += b[:, k:k + 1] * a[k]
    return total


def adapter(folder: str, model: dict, pairs: dict, whole: list[str], config: dict, dtype: str,
            scale) -> dict:
    """Write an adapter; give the model with it applied. pairs: tensor -> rank."""
    Path(folder).mkdir()
    flip = config.get("fan_in_fan_out", False)
    tensors, out = {}, dict(model)
    for name, rank in pairs.items():
        shape, stem = model[name].shape, PREFIX + name.removesuffix(".weight")
        rows, cols = shape[0], int(np.prod(shape[1:]))
        is_embedding = "embed" in name
        is_transposed = is_embedding or flip
        a = floats(dtype, [rank, *(shape[:1] if is_transposed else shape[1:])])
        b = floats(dtype, [cols if is_transposed else rows, rank] + [1] * (len(shape) - 2))
        kinds = [".lora_embedding_A", ".lora_embedding_B"] if is_embedding else \
            [".lora_A.weight", ".lora_B.weight"]
        tensors[stem + kinds[0]], tensors[stem + kinds[1]] = a, b
        delta = product(b.f64().reshape(-1, rank), a.f64().reshape(rank, -1))
        delta = delta.T if is_transposed else delta
        w = model[name].f64() + scale(name, rank) * delta.ravel()
        out[name] = Tensor("F64", shape, w)
    for name in whole:
        own = floats("F32", model[name].shape)
        wrapped = name.replace("lm_head.", "lm_head.modules_to_save.") if folder == "b" else name
        tensors[PREFIX + wrapped] = own
        out[name] = Tensor("F64", own.shape, own.f64())
    write(f"{folder}/adapter_model.safetensors", tensors)
    Path(folder, "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "bias": "none", "use_dora": False, **config}))
    return out


RECIPE = """
merge_method: {method}
{base}models:
- model: {one}
  parameters: {{weight: 0.3}}
- model: {two}
  parameters: {{weight: 0.5}}
- model: {three}
  parameters: {{weight: -0.25}}
parameters: {{normalize: false}}
dtype: float64
"""


def merge(ranks: int, recipe: str, out: str, block: str) -> dict:
    command = shlex.split(os.environ["AM_MPIRUN"]) + ["-n", str(ranks), os.environ["AM_BIN"],
                                                      "merge", recipe, "-o", out, "--block", block]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stderr}")
    return read(out)[0]


def compare(got: dict, want: dict, what: str) -> None:
    assert got.keys() == want.keys(), what
    for name in want:
        same = got[name].raw.tobytes() == want[name].raw.tobytes()
        assert same, f"{what}: {name}: {np.sum(got[name].raw != want[name].raw)} elements differ"


def main() -> None:
    base = {name: floats("BF16", shape) for name, shape in SHAPES.items()}
    base["ids"] = Tensor("I64", [3], np.arange(3, dtype="<i8"))
    write("base.safetensors", base)
    one = adapter("a", base, {"model.embed_tokens.weight": 4, "model.layers.0.q_proj.weight": 4,
                              "model.layers.1.q_proj.weight": 7, "model.layers.1.up.weight": 4,
                              "model.conv.weight": 4},
                  ["model.layers.0.q_proj.bias"],
                  {"r": 4, "lora_alpha": 6, "rank_pattern": {"1.q_proj": 7},
                   "alpha_pattern": {"model.layers.1.up": 10.5}}, "F32",
                  lambda name, rank: (10.5 if ".up" in name else 6) / rank)
    two = adapter("b", base, {"model.layers.0.q_proj.weight": 65, "model.layers.1.up.weight": 65},
                  ["lm_head.weight", "model.norm.weight"],
                  {"r": 65, "lora_alpha": 16, "use_rslora": True, "fan_in_fan_out": True}, "BF16",
                  lambda name, rank: 16 / np.sqrt(rank))
    write("one.safetensors", one)
    write("two.safetensors", two)
    Path("sub").mkdir()
    for method in ("linear", "task_arithmetic"):
        head = "base_model: base.safetensors\n" if method == "task_arithmetic" else ""
        models = {"one": "base.safetensors+a", "two": "base.safetensors+b",
                  "three": "base.safetensors+a"}
        Path("lora.yml").write_text(RECIPE.format(method=method, base=head, **models))
        Path("whole.yml").write_text(RECIPE.format(
            method=method, base=head, one="one.safetensors", two="two.safetensors",
            three="one.safetensors"))
        want = merge(1, "whole.yml", f"{method}.safetensors", "8MiB")
        plain = merge(1, "whole.yml", f"{method}-again.safetensors", "400")
        compare(plain, want, "the oracle's own model")
        first = None
        for ranks, block in ((1, "8MiB"), (2, "1000"), (3, "80KiB"), (4, "8MiB"), (2, "200")):
            out = f"{method}-{ranks}-{block}.safetensors"
            compare(merge(ranks, "lora.yml", out, block), want, out)
            first = first or Path(out).read_bytes()
            assert Path(out).read_bytes() == first, out
        # a recipe elsewhere: both halves of a path are taken from its folder
    os.chdir("sub")
    got = merge(2, "../lora.yml", "there.safetensors", "8MiB")
    compare(got, want, "from another folder")
    print("8 tensors, 2 adapters: same bytes as the models with the adapters applied")


main()
