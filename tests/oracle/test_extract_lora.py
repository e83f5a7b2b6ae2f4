#!/usr/bin/env python3
"""`allmerge extract-lora` against numpy: the adapter is the best approximation of its rank, and
merges read it back.

Each matrix of the adapter is off by the norm of the singular values that are left out, to 1e-9; with
all directions base + adapter is the model. Linear layers, convolutions, embeddings, Conv1D layouts,
biases beside factors, whole modules; patterns where ranks differ; what is left out is told. The same
bytes on any number of ranks.
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
from safetensors import Tensor, read, write  # noqa: E402

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "52")))
PREFIX = "base_model.model."
SHAPES = {"model.embed_tokens.weight": [70, 20], "model.layers.0.q.weight": [40, 20],
          "model.layers.0.q.bias": [40], "model.layers.0.up.weight": [33, 20],
          "model.layers.1.q.weight": [40, 20], "model.layers.1.q.bias": [40],
          "model.layers.1.up.weight": [33, 20], "model.conv.weight": [12, 5, 3, 3],
          "model.norm.weight": [20], "cls": [1, 20], "lm_head.weight": [70, 20]}
STILL = {"model.layers.1.q.bias", "model.layers.1.up.weight"}


def run(ranks: int, *arguments: str, code: int = 0) -> subprocess.CompletedProcess:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"],
               *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, f"{shlex.join(command)}: {done.returncode}\n{done.stderr}"
    return done


def best(d: np.ndarray, r: int) -> np.ndarray:
    u, s, vt = np.linalg.svd(d, full_matrices=False)
    return u[:, :r] * s[:r] @ vt[:r]


def make() -> tuple[dict, dict]:
    base, model, delta = {}, {}, {}
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        base[name] = Tensor("F64", shape, rng.standard_normal(n))
        step = 0.0 if name in STILL else rng.standard_normal(n) / 8
        if name == "model.layers.1.q.weight":  # of rank 2
            step = (rng.standard_normal((40, 2)) @ rng.standard_normal((2, 20))).ravel()
        model[name] = Tensor("F64", shape, base[name].raw + step)
        delta[name] = (model[name].raw - base[name].raw).reshape(shape[0], -1)
    for tensors in (base, model):
        tensors["ids"] = Tensor("I64", [3], np.arange(3, dtype="<i8"))
    write("base.safetensors", base)
    write("model.safetensors", model)
    return base, delta


def factors(stored: dict, name: str, flip: bool) -> np.ndarray:
    """B A as the tensor has it."""
    stem = PREFIX + name.removesuffix(".weight")
    embedding = f"{stem}.lora_embedding_A" in stored
    a, b = (stored.pop(f"{stem}.lora_embedding_{k}" if embedding else f"{stem}.lora_{k}.weight")
            for k in "AB")
    rank = a.shape[0]
    assert b.shape[1:] == [rank] + [1] * (len(SHAPES[name]) - 2), b.shape
    assert a.shape[1:] == ([SHAPES[name][0]] if embedding or flip else SHAPES[name][1:]), a.shape
    product = b.f64().reshape(-1, rank) @ a.f64().reshape(rank, -1)
    return product.T if embedding or flip else product


MERGE = """
merge_method: task_arithmetic
base_model: base.safetensors
models:
- model: {0}
  parameters: {{weight: 1}}
dtype: float64
"""


def merged(model: str, ranks: int = 2) -> dict:
    Path("r.yml").write_text(MERGE.format(model))
    run(ranks, "merge", "r.yml", "-o", "out.safetensors", "--overwrite", "--block", "8000")
    return read("out.safetensors")[0]


def check(out: str, base: dict, delta: dict, want: dict, options: list[str], dtype: str = "f64"):
    """want: tensor -> rank, "whole" or None (left out); others are unchanged."""
    first = None
    for ranks in (1, 3):
        told = run(ranks, "extract-lora", "base.safetensors", "model.safetensors", "-o", out,
                   "--dtype", dtype, *options, "--overwrite")
        written = Path(out, "adapter_model.safetensors").read_bytes(), \
            Path(out, "adapter_config.json").read_bytes(), told.stdout
        assert first in (None, written), f"{out}: ranks matter"
        first = written
    told, config = json.loads(told.stdout), json.loads(Path(out, "adapter_config.json").read_text())
    stored, lost, total = read(f"{out}/adapter_model.safetensors")[0], 0.0, 0.0
    result = {}
    ranks = {n.removesuffix(".weight"): r for n, r in want.items() if isinstance(r, int)}
    for name, d in delta.items():
        own, fate = told["tensors"][name], want.get(name, "unchanged")
        norm = np.linalg.norm(d)
        assert np.isclose(own["norm"], norm, rtol=1e-12), name
        total += norm ** 2
        if isinstance(fate, int):
            got = factors(stored, name, config["fan_in_fan_out"] and len(SHAPES[name]) == 2)
            tail = np.sqrt(np.sum(np.linalg.svd(d, compute_uv=False)[fate:] ** 2))
            error = np.linalg.norm(d - got)
            if dtype == "f64":
                assert abs(error - tail) <= 1e-9 * norm, f"{out}: {name}: {error} {tail}"
                assert np.isclose(own["energy"], 1 - (tail / norm) ** 2, rtol=1e-9), own
            assert own["rank"] == fate and own["how"] in ("factors", "embedding"), own
            result[name], lost = got, lost + tail ** 2
        elif fate == "whole":
            wrapped = name.endswith(".bias") and name.removesuffix(".bias") in ranks
            key = PREFIX + (name.replace(".bias", ".base_layer.bias") if wrapped else name)
            got = stored.pop(key)
            assert np.array_equal(got.f64(), base[name].raw + d.ravel()) or \
                np.allclose(got.f64(), base[name].raw + d.ravel(), atol=1e-15), name
            assert own["how"] == "whole" and own["energy"] == 1
            result[name] = d
        else:
            assert own["how"] == ("unchanged" if norm == 0 else "left out"), own
            result[name], lost = 0 * d, lost + norm ** 2
    assert not stored, f"{out}: not expected: {sorted(stored)}"
    assert np.isclose(told["global"]["energy"], 1 - lost / total, rtol=1e-9)
    assert config["r"] == config["lora_alpha"] == max(ranks.values()) == told["r"]
    assert sorted(config["target_modules"]) == sorted(ranks)
    assert (config.get("rank_pattern") or ranks) == (config.get("alpha_pattern") or ranks) == ranks
    assert ("rank_pattern" in config) == (len(set(ranks.values())) > 1)
    slack = {"f64": 1e-12, "bf16": 0.1}[dtype]
    for name, t in merged(f"base.safetensors+{out}").items():
        if name in delta:
            expected = base[name].raw + result[name].ravel()
            assert np.allclose(t.f64(), expected, rtol=0, atol=slack), f"{out}: merge: {name}"
    return config


def check_embeddings(base: dict, delta: dict, whole: dict, plain: dict) -> None:
    """By name there is a guess; an expression says which they are, and only those."""
    linear = plain | {"model.embed_tokens.weight": 3}
    linear.pop("lm_head.weight")
    check("h", base, delta, whole | linear, ["--max-rank", "3", "--embedding-regex", "^lm_head$"])
    stored = read("h/adapter_model.safetensors")[0]
    assert PREFIX + "model.embed_tokens.lora_A.weight" in stored, sorted(stored)
    done = run(1, "extract-lora", "base.safetensors", "model.safetensors", "-o", "h", "--overwrite", "--embed-lora",
               "--embedding-regex", "^lm_head$")
    stored = read("h/adapter_model.safetensors")[0]
    assert PREFIX + "lm_head.lora_embedding_A" in stored, sorted(stored)
    assert "taken for an embedding, embedding: lm_head.weight" in done.stderr, done.stderr
    told = json.loads(done.stdout)["tensors"]
    assert [n for n in told if told[n]["is_embedding"]] == ["lm_head.weight"]


def check_epsilon(base: dict, delta: dict, whole: dict, plain: dict) -> None:
    """A matrix of which no singular value is large enough is left out; others stay."""
    s = {n: np.linalg.svd(delta[n], compute_uv=False) for n in plain}
    weakest = min(s, key=lambda n: s[n][0])
    epsilon = s[weakest][0] * 1.0000001
    want = {n: int(np.sum(v > epsilon)) or None for n, v in s.items()}
    assert want[weakest] is None and any(want.values())
    check("i", base, delta, whole | want, ["--max-rank", "0", "--sv-epsilon", repr(float(epsilon))])


def check_random(delta: dict) -> None:
    """By random directions nearly the best of that rank, and what is lost is told as it is; the same bytes."""
    written = set()
    for ranks in 1, 3:
        done = run(ranks, "extract-lora", "base.safetensors", "model.safetensors", "-o", "j", "--dtype", "f64", "--overwrite",
                   "--svd", "random", "--max-rank", "3")
        written.add(Path("j/adapter_model.safetensors").read_bytes())
    assert len(written) == 1, "random directions: ranks matter"
    stored, told = read("j/adapter_model.safetensors")[0], json.loads(done.stdout)["tensors"]
    for name in ("model.layers.0.q.weight", "model.conv.weight", "lm_head.weight"):
        d = delta[name]
        error, s = np.linalg.norm(d - factors(stored, name, False)), np.linalg.svd(d, compute_uv=False)
        tail = np.sqrt(np.sum(s[3:] ** 2))
        assert told[name]["is_random"] and tail * (1 - 1e-12) <= error <= 1.05 * tail, (name, error, tail)
        kept = 1 - (error / np.linalg.norm(d)) ** 2
        assert np.isclose(told[name]["energy"], kept, rtol=1e-9), (name, told[name]["energy"], kept)


def main() -> None:
    base, delta = make()
    changed = [n for n in SHAPES if n not in STILL]
    whole = {n: "whole" for n in changed}
    plain = {"model.layers.0.q.weight": 3, "model.layers.0.up.weight": 3,
             "model.layers.1.q.weight": 2, "model.conv.weight": 3, "lm_head.weight": 3}
    config = check("a", base, delta, whole | plain, ["--max-rank", "3"])
    assert config["bias"] == "all" and config["modules_to_save"] == ["model.embed_tokens",
                                                                     "model.norm"], config
    full = {n: int(np.linalg.matrix_rank(delta[n])) for n in plain | {"model.embed_tokens.weight": 0}}
    check("full", base, delta, whole | full, ["--max-rank", "0", "--embed-lora"])
    for name, t in merged("base.safetensors+full").items():  # the model, to rounding
        want = read("model.safetensors")[0][name].f64()
        assert np.allclose(t.f64(), want, rtol=0, atol=1e-13 * 8), name
    check("b", base, delta, {"model.layers.0.q.weight": 4, "model.embed_tokens.weight": 4},
          ["--max-rank", "4", "--embed-lora", "--skip-undecomposable", "--include-regex",
           r"embed|layers\.0", "--exclude-regex", "up$"])
    s = np.linalg.svd(delta["model.layers.0.q.weight"], compute_uv=False)
    r = int(np.searchsorted(np.cumsum(s ** 2) / np.sum(s ** 2), 0.8) + 1)
    check("c", base, delta, {"model.layers.0.q.weight": r, "model.layers.0.q.bias": "whole",
                             "model.layers.0.up.weight": "whole"},
          ["--energy", "0.8", "--include-regex", "layers.0", "--save-module", "up", "--max-rank", "99"])
    flat = {n: r for n, r in plain.items() if "conv" not in n}
    config = check("d", base, delta, whole | flat, ["--max-rank", "3", "--fan-in-fan-out",
                                                    "--no-distribute-scale"])
    assert config["fan_in_fan_out"]
    check("e", base, delta, whole | plain, ["--max-rank", "3"], dtype="bf16")
    check_embeddings(base, delta, whole, plain)
    check_epsilon(base, delta, whole, plain)
    check_random(delta)
    # rows of A are orthonormal where the left factor has all singular values, and as long as B's else
    run(2, "extract-lora", "base.safetensors", "model.safetensors", "-o", "g", "--max-rank", "3",
        "--no-distribute-scale", "--dtype", "f64")
    stem = PREFIX + "model.layers.0.q.lora_"
    for out, power in (("g", 0), ("a", 0.5)):
        stored = read(f"{out}/adapter_model.safetensors")[0]
        a = stored[stem + "A.weight"].f64().reshape(3, -1)
        assert np.allclose(a @ a.T, np.diag(s[:3] ** (2 * power)), atol=1e-12), out
    done = run(2, "extract-lora", "base.safetensors", "model.safetensors", "-o", "a", code=73)
    assert "--overwrite" in done.stderr and not Path("a/adapter_config.json.partial").exists()
    print("adapters: the best of their rank, and read back as numpy has them")


main()
