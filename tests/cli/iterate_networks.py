#!/usr/bin/env python3
"""Networks other than mlp through the whole program, on tiny data: gpt on texts in two languages, from
the gzipped source to bits per byte, and cnn on augmented images. The same bytes on any number of ranks.
usage: iterate_networks.py [RANKS]...
SPDX-License-Identifier: BSD-3-Clause
"""
import gzip
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from checks import check, finish  # noqa: E402

TEXT = """
seed: 3
model: {preset: gpt, features: 16, depth: 1, heads: 2, dropout: 0.1}
data: {folder: texts, tasks: [reference-en, reference-fr], limit: {train: 24, validation: 6, test: 6}}
heads: {epochs: 3}
finetune: {optimizer: adamw, lr: 0.01, batch: 8, micro_batches: 3, epochs: 3}
one_shot: {epochs: [1], alphas: [0.5]}
iterate: {rounds: 4, alphas: [2.5]}
joint: {run: no}
"""
IMAGES = """
seed: 4
model: {preset: cnn, channels: [4, 6], kernel: 3, hidden: 12, batch_norm: yes, dropout: 0.1}
data: {folder: images, tasks: [a, b]}
base: {pretrain: p, epochs: 8}
heads: {epochs: 12}
finetune: {lr: 0.1, momentum: 0.8, batch: 24, micro_batches: 3, epochs: 4,
           augment_shift: 1, augment_flip: 0.1, augment_crop: 0.2, augment_noise: 0.02}
one_shot: {epochs: [4], alphas: [0.5]}
iterate: {rounds: 2, alphas: [0.5]}
joint: {epochs: 1}
"""


def run(arguments: str, ranks: int, folder: Path) -> rankrun.Result:
    result = rankrun.run(arguments.split(), ranks, folder, timeout=120)
    result.expect_code(0)
    check(not result.problems, f"{arguments} on {ranks} ranks", result)
    return result


def write_texts(folder: Path) -> None:
    """Sources as the packages lay them out: sentences of random words, each language with its own."""
    for language, seed in (("en", 1), ("fr", 2)):
        rng = np.random.default_rng(seed)
        letters = rng.permutation(np.arange(97, 123))[:12]
        words = ["".join(map(chr, rng.choice(letters, k))) for k in rng.integers(2, 7, 20)]
        text = " ".join(rng.choice(words, 9000))[:30000].encode()
        package = folder / f"debian-reference-{language}"
        (package / "usr/share/debian-reference").mkdir(parents=True)
        (package / "VERSION").write_text("1.0\n")
        name = package / f"usr/share/debian-reference/debian-reference.{language}.txt.gz"
        name.write_bytes(gzip.compress(text))


def same_files(folder: Path, name: str, ranks: list[int]) -> None:
    """iterate on each number of ranks: all files but the log are the same."""
    reference = None
    for n in ranks:
        run(f"iterate {name}.yml -o {name}{n}", n, folder)
        files = {f: v for f, v in rankrun.snapshot(folder / f"{name}{n}").items()
                 if not f.startswith(("events.jsonl", "job.json", ".lock"))}
        reference = reference or files
        for f in ("final.h5", "one-shot.h5", "base.h5", "heads.h5", "result.json"):
            check(f in files, f"{name}: {f} is there at {n} ranks")
        for f in reference:
            check(files.get(f) == reference[f], f"{name}: {f} is the same at {n} ranks")
        check(files.keys() == reference.keys(), f"{name}: the same files at {n} ranks")


def epochs_of(folder: Path) -> list[dict]:
    """Events of trained epochs without what the clock says."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    epochs = [e for e in events if e["event"] == "epoch"]
    for e in epochs:
        tokens = e["samples"] / e["train_seconds"] * 256
        check(abs(e["samples_per_second"] * e["train_seconds"] - e["samples"]) < 1e-6 * e["samples"]
              and abs(e.get("tokens_per_second", tokens) - tokens) < 1e-6 * tokens, f"rates of {e}")
        check(0 < e["gradient_norm_mean"] <= e["gradient_norm_most"] >= e["gradient_norm_last"],
              f"norms of {e}")
        by_tensor = sum(e.get("tensor_update_energy", {}).values())
        check(math.isclose(by_tensor, e.get("update_energy", 0), rel_tol=1e-12), f"energy of {e}")
        check((by_tensor > 0) == (e["phase"] != "probe"), f"the trunk moves but in probes: {e}")
    clock = ("seconds", "train_seconds", "samples_per_second", "tokens_per_second")
    return [{k: v for k, v in e.items() if k not in clock} for e in epochs]


def check_events(folder: Path, name: str, ranks: list[int], trained: dict[str, int], tokens: bool) -> None:
    reference = epochs_of(folder / f"{name}{ranks[0]}")
    for n in ranks[1:]:
        check(epochs_of(folder / f"{name}{n}") == reference, f"{name}: epochs measured on {n} ranks")
    count = {phase: sum(e["phase"] == phase for e in reference) for phase in trained}
    check(count == trained, f"{name}: {count} epochs in the log, not {trained}")
    lines = (folder / f"{name}{ranks[0]}" / "events.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    check(all(("tokens_per_second" in e) == tokens for e in told if e["event"] == "epoch"), "tokens of text")
    for e in told:
        if e["event"] == "validation":
            keys = ("loss_nats", "perplexity", "top5_accuracy", "balanced_accuracy", "class_accuracy",
                    "calibration_error")
            check(all(len(e["task_" + k]) == 2 for k in keys), f"{name}: qualities in {e}")


def rows_of(folder: Path, run_name: str) -> dict:
    return {r["key"]: r for r in json.loads((folder / run_name / "result.json").read_text())["rows"]}


def chosen(folder: Path, by: str = "loss") -> tuple:
    """Alpha and round of the best validation among those in the log of a run."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    rounds = [e for e in events if e["event"] == "validation" and e["phase"] == "iterate"]
    best = (min(rounds, key=lambda e: e["validation_loss_nats"]) if by == "loss" else
            max(rounds, key=lambda e: e["validation_accuracy"]))
    return best["alpha"], best["round"]


def same_training(folder: Path, name: str, task: str, ranks: list[int]) -> Path:
    for n in (ranks[0], ranks[-1]):
        run(f"train {name}.yml --task {task} -o {task}{n}", n, folder)
    trunks = [folder / f"{task}{n}" / "trunk.h5" for n in (ranks[0], ranks[-1])]
    check(trunks[0].read_bytes() == trunks[1].read_bytes(), f"train --task {task}: the same bytes")
    return trunks[0]


def check_text(folder: Path, ranks: list[int]) -> None:
    write_texts(folder / "sources")
    run("data prepare reference-en reference-fr -o texts --sources sources", 2, folder)
    (folder / "text.yml").write_text(TEXT)
    same_files(folder, "text", ranks)
    check_events(folder, "text", ranks, {"probe": 6, "one_shot": 2, "iterate": 24}, True)
    trunk = same_training(folder, "text", "reference-en", ranks)
    rows = rows_of(folder, f"text{ranks[0]}")
    told = run(f"eval text.yml --heads text{ranks[0]}/heads.h5 --model text{ranks[0]}/final.h5 {trunk}",
               2, folder)
    final, tuned = json.loads(told.out)["rows"]
    for bits, nats in zip(final["task_loss_bits"], final["task_loss_nats"]):
        check(abs(bits - nats / math.log(2)) < 1e-12, "bits are nats / ln 2")
    check(final["task_loss_bits"] == rows["iterative"]["task_loss_bits"], "eval repeats bits per byte")
    table = (folder / f"text{ranks[0]}" / "table.txt").read_text().splitlines()
    check(table[0].startswith("test loss, bits"), f"the table of text is in bits: {table[0]}")
    mean = sum(final["task_loss_bits"]) / 2
    check(any(line.startswith("iterative") and line.endswith(f" {mean:.4f}") for line in table),
          f"the table holds {mean:.4f} bits")
    by_loss = chosen(folder / f"text{ranks[0]}")
    check((rows["iterative"]["alpha"], rows["iterative"]["round"]) == by_loss, f"chosen by loss: {by_loss}")
    run("iterate text.yml -o by_accuracy --set choose_by=accuracy", 2, folder)
    row = rows_of(folder, "by_accuracy")["iterative"]
    check((row["alpha"], row["round"]) == chosen(folder / "by_accuracy", "accuracy"), "chosen by accuracy")
    check((row["alpha"], row["round"]) != by_loss, "the two choices differ on these texts")
    base = rows["base"]["task_loss_bits"]
    check(max(base) < 8, f"probed heads predict better than chance: {base}")
    check(all(b < a - 0.3 for a, b in zip(base, final["task_loss_bits"])),
          f"merging lowers bits per byte: {base} to {final['task_loss_bits']}")
    check(tuned["task_loss_bits"][0] < base[0] - 0.3, "finetuning lowers bits per byte")


def check_images(folder: Path, ranks: list[int]) -> None:
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "images",
                    "a:3:90", "b:3:80", "p:4:120"], check=True)
    (folder / "image.yml").write_text(IMAGES)
    same_files(folder, "image", ranks)
    check_events(folder, "image", ranks, {"pretrain": 8, "probe": 24, "one_shot": 8, "iterate": 16, "joint": 1},
                 False)
    same_training(folder, "image", "a", ranks)
    check(len(epochs_of(folder / "a1")) == 8 + 12 + 4, "train logs its epochs")
    rows = rows_of(folder, f"image{ranks[0]}")
    check(rows["iterative"]["test_accuracy"] > 0.5, f"the tasks are learnt: {rows['iterative']}")


def main() -> None:
    ranks = [int(a) for a in sys.argv[1:]] or [1, 2, 3]
    folder = Path(tempfile.mkdtemp(prefix="am_networks."))
    check_text(folder, ranks)
    check_images(folder, ranks)
    finish(folder, f"same bytes at {ranks} ranks")


if __name__ == "__main__":
    main()
