#!/usr/bin/env python3
"""Rows of embeddings that follow their tokens (`tokenizer_source`, `tokenizer`), against numpy.

Models with vocabularies of other tokens, orders and sizes, from tokenizer.json or vocab.json; union, base,
a model's own, tokens of the recipe's, padding. Outputs are equal bit for bit on 1, 2 and 3 ranks, and
their tokenizer names every row. A large vocabulary fits the budget that `plan` names.
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(os.environ["AM_SOURCE"]) / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

BIN = os.environ["AM_BIN"]
RUN = shlex.split(os.environ["AM_MPIRUN"])
WIDTH = 1500  # rows end within tiles
WORDS = [*"abcdefgh", "ab", "<s>"]
TOKENS = {"base": WORDS, "a": [*WORDS, "<one>", "<two>"],
          "b": ["<two>", "new", *reversed(WORDS), "<three>"], "c": ["<one>", *WORDS[2:8], "<s>"]}
PADDING = {"base": 0, "a": 3, "b": 0, "c": 1}  # rows behind the tokens
MAPPED = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")
rng = np.random.default_rng(5)


# ---- inputs ----

def write_vocabulary(folder, tokens, as_map):
    added = {t: i for i, t in enumerate(tokens) if t[0] == "<"}
    plain = {t: i for i, t in enumerate(tokens) if t not in added}
    if as_map:
        (folder / "vocab.json").write_text(json.dumps(plain))
        (folder / "added_tokens.json").write_text(json.dumps(added))
    else:
        (folder / "tokenizer.json").write_text(json.dumps(
            {"added_tokens": [{"id": i, "content": t, "special": True} for t, i in added.items()],
             "model": {"type": "BPE", "vocab": plain, "merges": []}}, indent=1))


def write_model(name, tokens, padding, width):
    """A folder; its tensors as [rows, columns] f64."""
    folder, rows = Path(name), len(tokens) + padding
    folder.mkdir()
    shapes = {"embed_tokens.weight": [rows, width], "lm_head.weight": [rows, width],
              "lm_head.bias": [rows], "norm.weight": [width], "layers.0.up.weight": [10, 7],
              "wpe.weight": [10, 3]}  # as many rows as the base has tokens: they stay where they are
    tensors = {k: Tensor("F32", s, rng.standard_normal(int(np.prod(s))).astype("<f4"))
               for k, s in shapes.items()}
    write(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows, "torch_dtype": "float32"}))
    write_vocabulary(folder, tokens, as_map=name == "c")
    return {k: t.f64().reshape(shapes[k][0], -1) for k, t in tensors.items()}


# ---- the rules ----

def unite(files):
    """Tokens of the first, then of each other one those that are new: plain ones, added ones."""
    out = list(TOKENS[files[0]])
    for f in files[1:]:
        new = [t for t in TOKENS[f] if t not in out]
        out += [t for t in new if t[0] != "<"] + [t for t in new if t[0] == "<"]
    return out


def row_of(models, files, base, f, tensor, token, special):
    """Row of a token in input f, as the merge sees it."""
    source, force = special.get(token, (None, False))
    has = [g for g in files if token in TOKENS[g]]
    if f in has and not force:
        return models[f][tensor][TOKENS[f].index(token)]
    if source == "zero":
        return np.zeros_like(models[f][tensor][0])
    if source is not None:
        model, row = source
        return models[model][tensor][row]
    if base in has:
        return models[base][tensor][TOKENS[base].index(token)]
    total = np.zeros_like(models[f][tensor][0])
    for g in has:
        total = total + models[g][tensor][TOKENS[g].index(token)]
    return total / max(len(has), 1)


def mapped(models, files, base, f, tensor, tokens, special, rows):
    out = [row_of(models, files, base, f, tensor, t, special) for t in tokens]
    total = np.zeros_like(out[0])
    for row in out:
        total = total + row
    return np.array(out + [total / len(tokens)] * (rows - len(tokens)))


def expected(models, case, tensor):
    files, base = case["files"], case.get("base")
    tokens, special = case["tokens"], case.get("special", {})
    rows = -(-len(tokens) // case.get("multiple", 1)) * case.get("multiple", 1)
    view = {f: mapped(models, files, base, f, tensor, tokens, special, rows)
            if tensor in MAPPED else models[f][tensor] for f in files}
    mixed = np.zeros_like(view[files[0]])
    start = view[base] if case["method"] == "task_arithmetic" else np.zeros_like(mixed)
    total = 0.0
    for f, weight in case["weights"].items():
        mixed = mixed + weight * (view[f] - start)
        total += weight
    return mixed / total if case["method"] == "linear" else start + mixed


WEIGHTS = {"a": 0.5, "b": 0.25, "c": 0.75}
CASES = {
    "union": dict(method="linear", weights=WEIGHTS, files=["a", "b", "c"],
                  tokens=unite(["a", "b", "c"]), text="tokenizer_source: union"),
    "union_base": dict(method="task_arithmetic", weights=WEIGHTS, files=["base", "a", "b", "c"],
                       base="base", tokens=unite(["base", "a", "b", "c"]),
                       text="tokenizer: {source: union, pad_to_multiple_of: 8}", multiple=8),
    "base": dict(method="task_arithmetic", weights=WEIGHTS, files=["base", "a", "b", "c"],
                 base="base", tokens=WORDS, text="tokenizer_source: base"),
    "of_model": dict(method="task_arithmetic", weights=WEIGHTS, files=["base", "a", "b", "c"],
                     base="base", tokens=TOKENS["b"], text="tokenizer_source: b"),
    "tokens": dict(
        method="linear", weights=WEIGHTS, files=["a", "b", "c"],
        tokens=[*unite(["a", "b", "c"]), "<made>"],
        special={"<three>": ("zero", False), "a": (("b", TOKENS["b"].index("a")), True),
                 "<made>": (("b", 4), False), "<two>": (("a", TOKENS["a"].index("ab")), True)},
        text="tokenizer:\n  source: union\n  tokens:\n    <three>: {source: {kind: zero}}\n"
             "    a: {source: b, force: true}\n"
             "    <made>: {source: {kind: model_token, model: b, token_id: 4}}\n"
             "    <two>: {source: {kind: model_token, model: a, token: ab}, force: true}\n"),
}


# ---- runs ----

def run(*command, ranks=0):
    start = [*RUN, "-n", str(ranks)] if ranks else []
    done = subprocess.run([*start, BIN, *command, "--quiet"], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def write_recipe(path, case):
    lines = [f"merge_method: {case['method']}", "dtype: float32", case["text"]]
    lines += [f"base_model: {case['base']}"] if "base" in case else []
    lines += ["models:"] + [f"- {{model: {m}, parameters: {{weight: {w}}}}}"
                            for m, w in case["weights"].items()]
    Path(path).write_text("\n".join(lines) + "\n")


def vocabulary(folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    return {**data["model"]["vocab"], **{t["content"]: t["id"] for t in data["added_tokens"]}}


def check_case(name, case, models):
    write_recipe(f"{name}.yml", case)
    contents = []
    for ranks, more in ((1, []), (2, ["--block", "40000"]), (3, ["--memory", "40MiB"])):
        out = Path(f"{name}.{ranks}")
        code, _, err = run("merge", f"{name}.yml", "-o", str(out), *more, ranks=ranks)
        assert code == 0, f"{name}, {ranks} ranks: {err}"
        contents.append({p.name: p.read_bytes() for p in out.iterdir() if p.name != "manifest.json"})
    assert contents[0] == contents[1] == contents[2], f"{name}: other bytes on more ranks"
    got, _ = read(out / "model.safetensors")
    for tensor in got:
        want = expected(models, case, tensor)
        assert got[tensor].shape[0] == want.shape[0], f"{name}: {tensor} {got[tensor].shape}"
        assert (got[tensor].raw == round_to("F32", want.ravel())).all(), f"{name}: {tensor}"
    rows = got["embed_tokens.weight"].shape[0]
    assert json.loads((out / "config.json").read_text())["vocab_size"] == rows, name
    assert vocabulary(out) == {t: i for i, t in enumerate(case["tokens"])}, name


def check_plan():
    """Maps of 150,000 rows for three inputs, in order of other tokens: the smallest budget is kept."""
    tokens = [f"t{i}" for i in range(150000)]
    for m, order in enumerate((tokens, tokens[::-1], [*tokens[1000:], "<x>"])):
        write_model(f"large{m}", order, 0, 4)
    Path("large.yml").write_text(
        "merge_method: task_arithmetic\nbase_model: large0\ntokenizer_source: union\nmodels:\n"
        "- {model: large1, parameters: {weight: 0.5}}\n- {model: large2, parameters: {weight: 0.5}}\n")
    code, _, err = run("plan", "large.yml", "--ranks", "2", "--memory", "4MiB")
    smallest = re.search(r"give it (\d+) MiB or more", err)
    assert code == 2 and smallest, err
    budget = f"{smallest[1]}MiB"
    code, out, err = run("plan", "large.yml", "--ranks", "2", "--memory", budget, "--json")
    assert code == 0, err
    guess = json.loads(out)["peak_bytes"]
    code, out, err = run("merge", "large.yml", "-o", "large.out", "--memory", budget, ranks=2)
    assert code == 0, err
    peak = json.loads(out)["peak_bytes"]
    print(f"150,000 tokens: budget {budget}, plan {guess >> 20} MiB, peak {peak >> 20} MiB")
    assert peak <= int(smallest[1]) << 20, "over the budget"
    assert abs(guess / peak - 1) <= 0.1, "the plan is off by more than a tenth"


def main() -> int:
    models = {m: write_model(m, TOKENS[m], PADDING[m], WIDTH) for m in TOKENS}
    for name, case in CASES.items():
        check_case(name, case, models)
    check_plan()
    return 0


if __name__ == "__main__":
    sys.exit(main())
