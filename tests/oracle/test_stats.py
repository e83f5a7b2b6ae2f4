#!/usr/bin/env python3
"""allmerge stats against numpy: Gram matrices, means and Fisher information of an mlp and a small cnn from
forward and backward passes of our own, f64 to 1e-12 and f32 to 1e-6; what attention networks get at their
first product, and their Fisher information from steps of training on single samples; a fisher merge of two
tasks with the files as they are, but not of other models; the same bytes on any number of ranks.
SPDX-License-Identifier: BSD-3-Clause
"""
import itertools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import make_tasks  # noqa: E402
import rankrun  # noqa: E402
from checks import check, failures  # noqa: E402

TEXT_POSITIONS = 12
SIZE = "features: 12, depth: 2, heads: 2, hidden: 10"


def run(command: str, ranks: int, folder: Path) -> dict:
    result = rankrun.run(command.split(), ranks, folder)
    result.expect_code(0)
    if result.problems:
        print(result.report())
        sys.exit(1)
    return json.loads(result.out)


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][...].astype(float) for name in file}


def attributes(path: Path) -> dict[str, str]:
    with h5py.File(path) as file:
        return {name: bytes(value).decode() for name, value in file.attrs.items()}


def samples(path: Path, split: str, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as the program sees them, f32 values of [0, 1], and labels."""
    with h5py.File(path) as file:
        x, y = file[f"{split}/x"][:n], file[f"{split}/y"][:n]
    return (x.astype("f4") / np.float32(255)).astype(float).reshape(len(y), -1), y


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-300)
    check(found.shape == wanted.shape and error <= tolerance, f"{what}: relative error {error:.2e}")


# ---- networks ----

def windows(x: np.ndarray, k: int) -> np.ndarray:
    """[B,C,H,W] to windows [B,H,W,C,k,k] with zeros around the image, by shifts of the whole."""
    pad = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    H, W = x.shape[2:]
    out = np.empty((len(x), H, W, x.shape[1], k, k))
    for i in range(k):
        for j in range(k):
            out[..., i, j] = pad[:, :, i:i + H, j:j + W].transpose(0, 2, 3, 1)
    return out


class Mlp:
    """Products by layer, forward; gradients of sum_k coefficient_k logit_k for each sample, backward."""

    def __init__(self, model, head):
        self.model, self.head = model, head
        self.depth = len([n for n in model if n.endswith("weight")])

    def forward(self, x):
        self.inputs = {}
        for i in range(self.depth):
            self.inputs[f"layers.{i}"] = x
            x = np.maximum(x @ self.model[f"layers.{i}.weight"].T + self.model[f"layers.{i}.bias"], 0)
        self.inputs["head"] = x
        return x @ self.head["weight"].T + self.head["bias"]

    def rows(self):
        return self.inputs

    def squares(self, dz):
        """Squared gradients of each sample for dz = d log p / d logits [B,K], summed over the samples."""
        out, d, x = {}, dz @ self.head["weight"], self.inputs["head"]
        for i in reversed(range(self.depth)):
            d = d * (x > 0)
            x = self.inputs[f"layers.{i}"]
            out[f"layers.{i}.weight"] = np.einsum("bk,bc->bkc", d, x) ** 2
            out[f"layers.{i}.bias"] = d ** 2
            d = d @ self.model[f"layers.{i}.weight"]
        return out


class Cnn:
    """A convolution with relu, a 2x2 pool of the largest, a hidden layer with relu; two colours of 6x3 pixels."""

    def __init__(self, model, head):
        self.model, self.head = model, head

    def forward(self, x):
        m = self.model
        image = x.reshape(len(x), 6, 3, 2).transpose(0, 3, 1, 2)
        self.windows = windows(image, 3)
        y = np.einsum("bhwcij,kcij->bhwk", self.windows, m["conv.0.weight"]) + m["conv.0.bias"]
        self.y = np.maximum(y, 0)
        part = self.y[:, :, :2].reshape(len(x), 3, 2, 1, 2, -1) # [B,h,2,w,2,K]: the last column has no window
        self.best = part == part.max(axis=(2, 4), keepdims=True)
        self.best &= np.cumsum(np.cumsum(self.best, axis=4).clip(0, 1), axis=4) == 1 # first of a line
        first = np.cumsum(self.best.any(axis=4, keepdims=True), axis=2) == 1
        self.best &= first
        self.flat = part.max(axis=(2, 4)).reshape(len(x), -1)
        self.hidden = np.maximum(self.flat @ m["hidden.weight"].T + m["hidden.bias"], 0)
        return self.hidden @ self.head["weight"].T + self.head["bias"]

    def rows(self):
        return {"conv.0": self.windows.reshape(-1, 18), "hidden": self.flat, "head": self.hidden}

    def squares(self, dz):
        m, out = self.model, {}
        d = (dz @ self.head["weight"]) * (self.hidden > 0)
        out["hidden.weight"], out["hidden.bias"] = np.einsum("bk,bc->bkc", d, self.flat) ** 2, d ** 2
        d = (d @ m["hidden.weight"]).reshape(len(dz), 3, 1, 1, 1, -1) * self.best
        dy = np.zeros_like(self.y)
        dy[:, :, :2] = d.reshape(len(dz), 6, 2, -1)
        dy *= self.y > 0
        out["conv.0.weight"] = np.einsum("bhwk,bhwcij->bkcij", dy, self.windows) ** 2
        out["conv.0.bias"] = dy.sum(axis=(1, 2)) ** 2
        return out


def probabilities(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def oracle(network, x, y, kind):
    p = probabilities(network.forward(x))
    wanted = {}
    for name, rows in network.rows().items():
        wanted[f"gram.{name}"] = rows.T @ rows / len(rows)
        wanted[f"mean.{name}"] = rows.mean(axis=0)
    classes = [(y, np.ones(len(y)))] if kind == "empirical" else \
        [(np.full(len(y), k), p[:, k]) for k in range(p.shape[1])]
    for label, weight in classes:
        for name, g in network.squares(np.eye(p.shape[1])[label] - p).items():
            share = np.tensordot(weight, g, axes=(0, 0)) / len(y)
            wanted[f"fisher.{name}"] = wanted.get(f"fisher.{name}", 0) + share
    return wanted


# ---- checks ----

def recipe(folder: Path, name: str, model: str, dtype: str, tasks: str, more: str = "") -> None:
    (folder / f"{name}.yml").write_text(
        f"seed: 3\ndtype: {dtype}\nmodel: {model}\ndata: {{folder: tasks, tasks: [{tasks}]}}\n"
        f"heads: {{random: yes}}\nfinetune: {{lr: 0.1, epochs: 2, batch: 32}}\n{more}")


def head_of(path: Path, task: str) -> dict[str, np.ndarray]:
    heads = read(path)
    return {name: heads[f"{task}.head.{name}"] for name in ("weight", "bias")}


def check_network(folder: Path, name: str, model: str, network, dtype: str, tolerance: float) -> None:
    recipe(folder, name, model, dtype, "a, b")
    run(f"train {name}.yml --task a -o {name}", 2, folder)
    model_file, heads = folder / name / "trunk.h5", folder / name / "heads.h5"
    command = f"stats {name}.yml --task a --model {model_file} --heads {heads}"
    net = network(read(model_file), head_of(heads, "a"))
    every = dtype == "float64"
    for kind, split, more, n in (("empirical", "train", "--batch 64 --micro-batches 3", None),
                                 ("exact", "validation", "", 70), ("empirical", "train", "", 1))[:3 if every else 1]:
        number = f" --samples {n}" if n is not None else ""
        out = f"{name}-{kind}-{n}"
        line = run(f"{command} --fisher {kind} --split {split} {more}{number} -o {out}.h5", 0, folder)
        x, y = samples(folder / "tasks" / "a.h5", split, n)
        wanted, found = oracle(net, x, y, kind), read(folder / f"{out}.h5")
        check(set(found) == set(wanted), f"{out}: {sorted(set(found) ^ set(wanted))}")
        for tensor in sorted(set(found) & set(wanted)):
            close(found[tensor], wanted[tensor], tolerance, f"{out}: {tensor}")
        for tensor in found:
            check(not tensor.startswith("gram") or np.array_equal(found[tensor], found[tensor].T),
                  f"{out}: {tensor} is symmetric")
        check(line["samples"] == len(y), f"{out}: {line['samples']} of {len(y)} samples")
        said = attributes(folder / f"{out}.h5")
        check(said["stats.samples"] == str(len(y)) and said["stats.fisher"] == kind, f"{out}: {said}")
        check(json.loads(said["stats.rows"]) == {k: len(v) for k, v in net.rows().items()}, f"{out}: rows {said}")
        for ranks in (1, 2, 3) if n is None and every else (3,) if every else ():
            run(f"{command} --fisher {kind} --split {split} {more}{number} -o {out}-{ranks}.h5", ranks, folder)
            same = (folder / f"{out}-{ranks}.h5").read_bytes() == (folder / f"{out}.h5").read_bytes()
            check(same, f"{out}: the same bytes on {ranks} ranks")


def check_sampled(folder: Path) -> None:
    """Labels that were drawn: of three samples one choice explains everything; of many the mean is the exact one."""
    command = f"stats mlp.yml --task a --model {folder}/mlp/trunk.h5 --heads {folder}/mlp/heads.h5 --no-grams --fisher"
    net = Mlp(read(folder / "mlp" / "trunk.h5"), head_of(folder / "mlp" / "heads.h5", "a"))
    run(f"{command} sampled --samples 3 -o drawn.h5", 2, folder)
    found = read(folder / "drawn.h5")
    check(set(found) == {f"fisher.{n}" for n in net.model}, f"--no-grams: {sorted(found)}")
    x, _ = samples(folder / "tasks" / "a.h5", "train", 3)
    hits = 0
    for labels in itertools.product(range(4), repeat=3):
        wanted = oracle(net, x, np.array(labels), "empirical")
        hits += all(np.allclose(found[n], wanted[n], rtol=1e-12, atol=0) for n in found)
    check(hits == 1, f"{hits} choices of labels explain the sampled Fisher information")
    run(f"{command} sampled -o sampled.h5", 2, folder)
    run(f"{command} sampled -o other-seed.h5 --set seed=4", 2, folder)
    run(f"{command} exact -o exact.h5", 2, folder)
    sampled, other, exact = (read(folder / f"{n}.h5") for n in ("sampled", "other-seed", "exact"))
    for a in sampled, other:
        ratio = sum(v.sum() for v in a.values()) / sum(v.sum() for v in exact.values())
        check(0.9 < ratio < 1.1, f"sampled over exact Fisher information: {ratio}")
    check(any(not np.array_equal(sampled[n], other[n]) for n in sampled), "labels are drawn by the seed")


def check_joint(folder: Path) -> None:
    """Without --task: all samples of all tasks, each with its own head."""
    run(f"stats mlp.yml --model {folder}/mlp-ab/trunk.h5 --heads {folder}/mlp-ab/heads.h5 -o both.h5", 2, folder)
    found, weight, wanted = read(folder / "both.h5"), {}, {}
    for task in "ab":
        x, y = samples(folder / "tasks" / f"{task}.h5", "train")
        net = Mlp(read(folder / "mlp-ab" / "trunk.h5"), head_of(folder / "mlp-ab" / "heads.h5", task))
        for name, value in oracle(net, x, y, "empirical").items():
            wanted[name] = wanted.get(name, 0) + value * len(y)
            weight[name] = weight.get(name, 0) + len(y)
    for name in found:
        close(found[name], wanted[name] / weight[name], 1e-12, f"two tasks: {name}")


def check_merge(folder: Path) -> None:
    """Two tasks from one base, their statistics, the merge; the formula of the method here."""
    for task in "ab":
        run(f"train mlp.yml --task {task} -o fine-{task} --set base.checkpoint={folder}/mlp-ab/base.h5", 2, folder)
        run(f"stats mlp.yml --task {task} --model fine-{task}/trunk.h5 --heads fine-{task}/heads.h5 -o fisher-{task}.h5",
            2, folder)
    (folder / "merge.yml").write_text("merge_method: fisher\nparameters: {floor: 1.0e-9}\nmodels:\n" + "".join(
        f"- {{model: fine-{t}/trunk.h5, fisher: fisher-{t}.h5, parameters: {{weight: {w}}}}}\n"
        for t, w in (("a", 1), ("b", 2))))
    run("merge merge.yml -o merged.h5", 3, folder)
    merged = read(folder / "merged.h5")
    for name, value in merged.items():
        f = [w * np.maximum(read(folder / f"fisher-{t}.h5")[f"fisher.{name}"], 1e-9) for t, w in (("a", 1), ("b", 2))]
        x = [read(folder / f"fine-{t}" / "trunk.h5")[name] for t in "ab"]
        close(value, (f[0] * x[0] + f[1] * x[1]) / (f[0] + f[1]), 1e-13, f"fisher merge: {name}")
        check(not np.allclose(value, (x[0] + 2 * x[1]) / 3, rtol=1e-3), f"fisher merge: {name} is not the mean")


def regmean(x: list, grams: list, weight: list, alpha: float) -> np.ndarray:
    """[out, in] matrices: their least squares; where that leaves freedom, nearest to their mean."""
    shape, x = x[0].shape, [w.reshape(len(w), -1) for w in x]
    mean = sum(w * m for w, m in zip(weight, x)) / sum(weight)
    grams = [w * np.where(np.eye(len(g)) > 0, g, alpha * g) for w, g in zip(weight, grams)]
    total, right = sum(grams), sum((m - mean) @ g for m, g in zip(x, grams))
    scale = 1 / np.sqrt(np.where(total.diagonal() > 0, total.diagonal(), 1)) if alpha < 1 else np.ones(len(total))
    inverse = np.linalg.pinv(total * scale[:, None] * scale, rcond=len(total) * np.finfo(float).eps, hermitian=True)
    out = mean + right * scale @ inverse * scale
    if np.linalg.cond(total) < 1e10: # the formula as it is printed
        plain = np.linalg.solve(total, sum(g @ m.T for m, g in zip(x, grams))).T
        close(out, plain, 1e-9, "two ways to write regmean")
    return out.reshape(shape)


def check_regmean(folder: Path, name: str, model: str) -> None:
    """Two tasks from one base, their Gram matrices, the merge on 1 to 3 ranks."""
    recipe(folder, name, model, "float64", "a, b")
    for task in "ab":
        run(f"train {name}.yml --task {task} -o {name}-{task}", 2, folder)
        run(f"stats {name}.yml --task {task} --model {name}-{task}/trunk.h5 --fisher none -o {name}-{task}.h5", 2, folder)
    x, stats = ([read(folder / f"{name}-{t}{end}") for t in "ab"] for end in ("/trunk.h5", ".h5"))
    for alpha, weight in (0.95, (1, 1)), (1, (1, 3)), (0, (2, 0)):
        (folder / "r.yml").write_text(f"merge_method: regmean\nparameters: {{alpha: {alpha}}}\nmodels:\n" + "".join(
            f"- {{model: {name}-{t}/trunk.h5, stats: {name}-{t}.h5, parameters: {{weight: {w}}}}}\n"
            for t, w in zip("ab", weight)))
        for ranks in (1, 2, 3) if alpha == 0.95 else (2,):
            run(f"merge r.yml -o merged-{ranks}.h5 --overwrite --memory 256MiB", ranks, folder)
        merged = read(folder / "merged-2.h5")
        for tensor in merged:
            gram = "gram." + tensor.removesuffix(".weight")
            of = [m[tensor] for m in x]
            mean = sum(w * m for w, m in zip(weight, of)) / sum(weight)
            has = tensor.endswith(".weight") and gram in stats[0]
            wanted = regmean(of, [s[gram] for s in stats], weight, alpha) if has else mean
            close(merged[tensor], wanted, 1e-9 if has else 1e-14, f"regmean {name}, alpha {alpha}: {tensor}")
            check(not has or 0 in weight or np.abs(merged[tensor] - mean).max() > 1e-4 * np.abs(mean).max(),
                  f"regmean {name}, alpha {alpha}: {tensor} is not the mean")
        if alpha == 0.95:
            bytes_of = {(folder / f"merged-{n}.h5").read_bytes() for n in (1, 2, 3)}
            check(len(bytes_of) == 1, f"regmean {name}: the same bytes on any number of ranks")


def check_origin(folder: Path) -> None:
    """Statistics go with the model that they were made of, wherever it lies and whatever wider type it is in."""
    recipe(folder, "mlp", "{widths: [12, 8]}", "float64", "a, b")
    for t in "ab":
        run(f"train mlp.yml --task {t} -o mlp-{t}", 0, folder)
        run(f"stats mlp.yml --task {t} --model mlp-{t}/trunk.h5 --heads mlp-{t}/heads.h5 -o mlp-{t}.h5", 0, folder)
        for kind, name in (("other", f"mlp-{t}.safetensors"), ("bf16", f"mlp-{t}-bf16.h5")):
            run(f"convert mlp-{t}/trunk.h5 {name}" + (" --dtype bfloat16" if kind == "bf16" else ""), 0, folder)
        run(f"stats mlp.yml --task {t} --model mlp-{t}-bf16.h5 --heads mlp-{t}/heads.h5 -o bf16-{t}.h5 --set dtype=float32",
            0, folder)
    models = {"h5": ("mlp-{}/trunk.h5", "mlp-{}.h5"), "safetensors": ("mlp-{}.safetensors", "mlp-{}.h5"),
              "rounded": ("mlp-{}-bf16.h5", "mlp-{}.h5"), "of the rounded one": ("mlp-{}-bf16.h5", "bf16-{}.h5")}
    for method, key in (("regmean", "stats"), ("fisher", "fisher")):
        for what, (model, stats) in models.items():
            for order in ("ab", "ba"):
                (folder / "r.yml").write_text(f"merge_method: {method}\nmodels:\n" + "".join(
                    f"- {{model: {model.format(t)}, {key}: {stats.format(s)}}}\n" for t, s in zip("ab", order)))
                wrong = order == "ba" or what == "rounded"
                ranks = 3 if what == "h5" else 0
                for command in ("merge r.yml -o of.h5 --overwrite", "plan r.yml --ranks 2")[:2 if ranks else 1]:
                    result = rankrun.run(command.split(), ranks if "merge" in command else 0, folder)
                    result.expect_code(65 if wrong else 0)
                    named = f"{stats.format(order[0])} was made of another model than {model.format('a')}"
                    check(not result.problems and (named in result.err) == wrong, f"{method}, {what}, {order}", result)
            run("merge r.yml -o of.h5 --overwrite --set stats_of=any", 0, folder)
    os.remove(folder / "of.h5")
    for t in "ab": # one number of one tensor, in the middle
        shutil.copy(folder / f"mlp-{t}/trunk.h5", folder / f"moved-{t}.h5")
        with h5py.File(folder / f"moved-{t}.h5", "r+") as file:
            file["layers.1.weight"][4, 6] += 1e-3
    (folder / "r.yml").write_text("merge_method: regmean\nmodels:\n" + "".join(
        f"- {{model: moved-{t}.h5, stats: mlp-{t}.h5}}\n" for t in "ab"))
    result = rankrun.run("merge r.yml -o of.h5".split(), 2, folder)
    result.expect_code(65)
    check(not result.problems and not (folder / "of.h5").exists(), "a model that was moved a little", result)


# ---- networks whose passes are not written here ----

def single(folder: Path, task: str, index: int, source: str, is_text: bool) -> None:
    """A task with one sample of another one."""
    with h5py.File(folder / "tasks" / f"{source}.h5") as old, h5py.File(folder / "tasks" / f"{task}.h5", "w") as new:
        for split in ("train", "validation", "test"):
            for part in ("tokens",) if is_text else ("x", "y"):
                new[f"{split}/{part}"] = old[f"train/{part}"][index:index + 1]
        for key, value in old.attrs.items():
            new.attrs[key] = value
        new.attrs["name"] = task


def check_gradients(folder: Path, name: str, model: str, source: str, n: int, more: str = "") -> None:
    """The Fisher information of n samples is the mean of the squared steps that training takes on each alone
    (plain gradient descent with lr 1 on one sample: the step is minus the gradient of its mean loss)."""
    is_text = source == "text"
    singles = [f"one{i}" for i in range(n)]
    for i, task in enumerate(singles):
        single(folder, task, i, source, is_text)
    step = "lr: 1, epochs: 1, batch: 1, micro_batches: 1, momentum: 0"
    recipe(folder, name, model, "float64", ", ".join([source, *singles]))
    text = (folder / f"{name}.yml").read_text()
    (folder / f"{name}.yml").write_text(text.replace("lr: 0.1, epochs: 2, batch: 32", step))
    run(f"train {name}.yml -o {name} --set joint.epochs=0 --set joint.lr=0.01 --set joint.batch=16", 2, folder)
    start = f"{more} --set base.checkpoint={name}/trunk.h5 --set heads.random=no --set heads.checkpoint={name}/heads.h5"
    base, wanted = read(folder / name / "trunk.h5"), {}
    # The head of `source` for all: the single ones have heads of their own.
    with h5py.File(folder / name / "heads.h5") as heads:
        values = {k: heads[f"{source}.head.{k}"][...] for k in ("weight", "bias")}
    with h5py.File(folder / f"{name}-heads.h5", "w") as heads:
        for task in [source, *singles]:
            for k, v in values.items():
                heads[f"{task}.head.{k}"] = v
    start = start.replace(f"{name}/heads.h5", f"{name}-heads.h5")
    labels = TEXT_POSITIONS if is_text else 1
    for task in singles:
        run(f"train {name}.yml --task {task} -o {name}-{task} {start}", 0, folder)
        after = read(folder / f"{name}-{task}" / "trunk.h5")
        for k in base:
            wanted[k] = wanted.get(k, 0) + (labels * (after[k] - base[k])) ** 2 / n
    run(f"stats {name}.yml --task {source} --model {name}/trunk.h5 --heads {name}-heads.h5 --samples {n} -o {name}-f.h5",
        2, folder)
    found = read(folder / f"{name}-f.h5")
    for k in base:
        if "running" in k:
            check(not found[f"fisher.{k}"].any(), f"{name}: {k} is a statistic and has no Fisher information")
        elif base[k].any():
            scale = np.sqrt(np.abs(wanted[k]).max())
            error = np.abs(np.sqrt(found[f"fisher.{k}"]) - np.sqrt(wanted[k])).max() / max(scale, 1e-12)
            check(error < 1e-7 and scale > 0, f"{name}: {k}: {error:.2e} of the largest gradient {scale:.2e}")


def check_first_product(folder: Path, name: str, model: dict, kind: str) -> None:
    """What the first block's qkv gets: normalised embeddings, from the tokens."""
    n = 5
    with h5py.File(folder / "tasks" / "text.h5") as file:
        tokens = file["train/tokens"][:n, :TEXT_POSITIONS]
    x = model["token.weight"][tokens]
    if kind == "gpt":
        x = x + model["position.weight"]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * model["blocks.0.norm1.weight"] + model["blocks.0.norm1.bias"]
    else:
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * model["blocks.0.norm1.weight"]
    rows = x.reshape(-1, x.shape[-1])
    run(f"stats {name}.yml --task text --model {name}/trunk.h5 --fisher none --samples {n} -o {name}-g.h5", 3, folder)
    found = read(folder / f"{name}-g.h5")
    close(found["gram.blocks.0.qkv"], rows.T @ rows / len(rows), 1e-12, f"{name}: first Gram matrix")
    close(found["mean.blocks.0.qkv"], rows.mean(axis=0), 1e-12, f"{name}: first mean")
    products = {k[:-len(".weight")] for k, v in model.items() if v.ndim == 2 and k.startswith("blocks")}
    check(set(found) == {f"{s}.{p}" for s in ("gram", "mean") for p in products | {"head"}}, f"{name}: {sorted(found)}")


def write_text(folder: Path) -> None:
    rng = np.random.default_rng(5)
    with h5py.File(folder / "tasks" / "text.h5", "w") as file:
        for split in ("train", "validation", "test"):
            file[f"{split}/tokens"] = rng.integers(0, 255, (16, TEXT_POSITIONS + 1)).astype("u1")
        file.attrs["name"] = "text"


def main() -> int:
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        (folder / "tasks").mkdir()
        for task, classes, n in (("a", 4, 200), ("b", 3, 130)):
            make_tasks.write_task(folder / "tasks" / f"{task}.h5", task, classes, n)
        part = sys.argv[1]
        if part == "mlp":
            model = "{widths: [12, 8], freeze: [layers.0.*], label_smoothing: 0.1}"
            check_network(folder, "mlp32", model, Mlp, "float32", 1e-6)
            check_network(folder, "mlp", model, Mlp, "float64", 1e-12)
        elif part == "merge":
            recipe(folder, "mlp", "{widths: [12, 8]}", "float64", "a, b")
            run("train mlp.yml --task a -o mlp", 2, folder)
            run("train mlp.yml -o mlp-ab --set joint.epochs=2", 2, folder)
            check_sampled(folder)
            check_joint(folder)
            check_merge(folder)
        elif part == "cnn":
            model = "{preset: cnn, channels: [5], kernel: 3, hidden: 7, height: 6, width: 3, colours: 2}"
            check_network(folder, "cnn", model, Cnn, "float64", 1e-12)
            check_network(folder, "cnn32", model, Cnn, "float32", 1e-6)
        elif part == "regmean":
            check_regmean(folder, "mlp", "{widths: [12, 8]}")
            check_regmean(folder, "cnn", "{preset: cnn, channels: [5], kernel: 3, hidden: 7, height: 6, width: 6, batch_norm: yes}")
        elif part == "origin":
            check_origin(folder)
        elif part == "norm":
            model = "{preset: cnn, channels: [5], kernel: 3, hidden: 7, height: 6, width: 6, batch_norm: yes}"
            # Frozen statistics are those of evaluation, which the likelihood is of.
            check_gradients(folder, "norm", model, "a", 3, "--set model.freeze=['*.running_*']")
            check_gradients(folder, "vit", f"{{preset: vit, patch: 3, {SIZE}}}", "a", 2)
        else:
            write_text(folder)
            check_gradients(folder, "gpt", f"{{preset: gpt, {SIZE}}}", "text", 2)
            check_first_product(folder, "gpt", read(folder / "gpt" / "trunk.h5"), "gpt")
            check_gradients(folder, "llama", f"{{preset: llama, {SIZE}, groups: 1}}", "text", 2)
            check_first_product(folder, "llama", read(folder / "llama" / "trunk.h5"), "llama")
    print("ok" if failures() == 0 else f"{failures()} checks failed")
    return failures() != 0


if __name__ == "__main__":
    sys.exit(main())
