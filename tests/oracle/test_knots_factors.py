#!/usr/bin/env python3
"""knots of models that are known as products on top of the base: LoRA adapters, and task vectors that
are stored as singular directions.

They are merged by QR of their factors, without forming a task vector, and the result is that of the
whole models to 1e-9: linear layers, transposed ones (embeddings), convolutions with `fold`, ranks of
each tensor and model, an untouched tensor, one that has more directions than the matrix, one that is
replaced whole; slices that take other layers of the base than of the adapters. The plan reads less, and the output is the same for any number of ranks and blocks.
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

rng = np.random.default_rng(int(os.environ.get("AM_SEED", "54")))
PREFIX = "base_model.model."
SHAPES = {"embed.weight": [60, 24], "a.weight": [50, 40], "b.weight": [31, 70], "c.weight": [20, 6, 3, 3],
          "few.weight": [8, 30], "still.weight": [25, 35], "own.weight": [22, 18], "a.bias": [50]}
RANKS = [{"embed": 3, "a": 4, "b": 2, "c": 3, "few": 3}, {"embed": 1, "a": 5, "b": 4, "c": 2, "few": 3},
         {"embed": 2, "a": 3, "b": 3, "c": 1, "few": 3}]


def run(ranks: int, *arguments: str) -> str:
    command = [*shlex.split(os.environ["AM_MPIRUN"]), "-n", str(ranks), os.environ["AM_BIN"],
               *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.returncode}\n{done.stderr}"
    return done.stdout


def adapter(number: int, base: dict) -> None:
    """aN, an adapter, and mN.safetensors, the model with it."""
    model, stored, ranks = dict(base), {}, RANKS[number]
    for module, r in ranks.items():
        name = module + ".weight"
        shape = SHAPES[name]
        flat = module == "embed"
        b = rng.standard_normal((int(np.prod(shape[1:])) if flat else shape[0], r))
        a = rng.standard_normal((r, shape[0] if flat else int(np.prod(shape[1:]))))
        stem = PREFIX + module
        stored[stem + (".lora_embedding_A" if flat else ".lora_A.weight")] = \
            Tensor("F64", [r, shape[0]] if flat else [r, *shape[1:]], a.ravel())
        stored[stem + (".lora_embedding_B" if flat else ".lora_B.weight")] = \
            Tensor("F64", [b.shape[0], r] + [1] * (len(shape) - 2), b.ravel())
        delta = 2 / r * (b @ a)
        model[name] = Tensor("F64", shape, base[name].raw + (delta.T if flat else delta).ravel())
    for name in ("own.weight", "a.bias"):
        model[name] = Tensor("F64", SHAPES[name], rng.standard_normal(base[name].raw.size))
        stored[PREFIX + name] = model[name]
    Path(f"a{number}").mkdir()
    write(f"a{number}/adapter_model.safetensors", stored)
    Path(f"a{number}/adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "rank_pattern": ranks}))
    write(f"m{number}.safetensors", model)


RECIPE = """
merge_method: knots
base_model: base.safetensors
models:
{models}
parameters: {{{parameters}}}
dtype: float64
"""


def merge(models: list[str], parameters: str, out: str, ranks: int = 1, block: str = "8MiB") -> dict:
    Path("r.yml").write_text(RECIPE.format(
        models="\n".join(f"- model: {m}" for m in models), parameters=parameters))
    run(ranks, "merge", "r.yml", "-o", out, "--block", block, "--overwrite")
    return read(out)[0]


def planned(models: list[str], parameters: str) -> dict:
    Path("r.yml").write_text(RECIPE.format(
        models="\n".join(f"- model: {m}" for m in models), parameters=parameters))
    return json.loads(run(1, "plan", "r.yml", "--ranks", 2, "--json"))


def compare(got: dict, want: dict, base: dict, what: str) -> None:
    for name, t in want.items():
        delta, other = (x.f64() - base[name].raw for x in (t, got[name]))
        error = np.abs(delta - other).max() / max(np.abs(delta).max(), 1e-30)
        assert error <= 1e-9, f"{what}: {name} is off by {error}"


SLICES = """
merge_method: knots
base_model: base.safetensors
slices:
- sources:
  - {{model: base.safetensors, layer_range: [0, 2]}}
{sources}
parameters: {{}}
dtype: float64
"""


def check_slices() -> None:
    """Layers 0 and 1 of the base, 1 and 2 of the adapters: their factors lie over other tensors than
    those that the task vectors are taken from. And the same layers of all: there they do."""
    shapes = {f"model.layers.{i}.w.weight": [30, 26] for i in range(3)}
    base = {n: Tensor("F64", s, rng.standard_normal(int(np.prod(s)))) for n, s in shapes.items()}
    write("base.safetensors", base)
    for number in range(2):
        stored, model = {}, {}
        for name in shapes:
            b, a = rng.standard_normal((30, 2)), rng.standard_normal((2, 26))
            stem = PREFIX + name.removesuffix(".weight")
            stored[stem + ".lora_A.weight"] = Tensor("F64", [2, 26], a.ravel())
            stored[stem + ".lora_B.weight"] = Tensor("F64", [30, 2], b.ravel())
            model[name] = Tensor("F64", [30, 26], base[name].raw + (b @ a).ravel())
        Path(f"s{number}").mkdir()
        write(f"s{number}/adapter_model.safetensors", stored)
        Path(f"s{number}/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
        write(f"w{number}.safetensors", model)
    for lo in (0, 1):
        outputs, plans = [], []
        for models in (["w0.safetensors", "w1.safetensors"], ["base.safetensors+s0", "base.safetensors+s1"]):
            Path("r.yml").write_text(SLICES.format(sources="\n".join(
                f"  - {{model: {m}, layer_range: [{lo}, {lo + 2}]}}" for m in models)))
            run(2, "merge", "r.yml", "-o", "out.safetensors", "--overwrite")
            outputs.append(read("out.safetensors")[0])
            plans.append(json.loads(run(1, "plan", "r.yml", "--json"))["total_read_bytes"])
        assert len(outputs[0]) == 2, list(outputs[0])
        compare(outputs[1], outputs[0], base, f"slices from layer {lo}")
        assert (plans[1] < plans[0]) == (lo == 0), f"slices from layer {lo}: {plans}"


def main() -> None:
    base = {n: Tensor("F64", s, rng.standard_normal(int(np.prod(s)))) for n, s in SHAPES.items()}
    write("base.safetensors", base)
    for number in range(3):
        adapter(number, base)
        run(2, "extract", "base.safetensors", f"m{number}.safetensors", "-o", f"t{number}.safetensors",
            "--dtype", "f64", "--energy", "0.999999999999")
    whole = [f"m{n}.safetensors" for n in range(3)]
    adapters = [f"base.safetensors+a{n}" for n in range(3)]
    stored = [f"t{n}.safetensors" for n in range(3)]
    assert "a.weight::u" in read("t0.safetensors")[0]
    for parameters in ("", "fold: true, density: 0.6, lambda: 0.7", "elect: false, density: 1"):
        want = merge(whole, parameters, "want.safetensors")
        for kind, models in (("adapters", adapters), ("directions", stored),
                             ("both", [adapters[0], stored[1], adapters[2]]),
                             ("some whole", [adapters[0], whole[1], stored[2]])):
            outputs = set()
            for ranks, block in ((1, "8MiB"), (3, "8000"), (2, "100")):
                got = merge(models, parameters, "got.safetensors", ranks, block)
                outputs.add(Path("got.safetensors").read_bytes())
            assert len(outputs) == 1, f"{kind}: ranks or blocks matter"
            compare(got, want, base, f"{kind}: {parameters}")
    read_bytes = [planned(m, "")["total_read_bytes"] for m in (whole, adapters)]
    sizes = {n: int(np.prod(s)) * 8 for n, s in SHAPES.items()}
    products = 3 * sum(sizes[n] for n in ("embed.weight", "a.weight", "b.weight", "still.weight"))
    assert read_bytes[0] - read_bytes[1] == products, (read_bytes, products)
    check_slices()
    print("knots of adapters and stored directions: as of whole models, and read less")


main()
