#!/usr/bin/env python3
"""Training speed beside PyTorch: one run, the same cores, by turns.

usage: tests/bench/train_torch.py [-r ROUNDS] [-s SECONDS] [-t PYTHON]... [--json FILE] [MODEL]...
    MODEL   mlp cnn vit gpt; default: all
    -r      rounds; a round runs every program once and the best step counts (3)
    -s      seconds of a run, at least two steps, of gpt one, after the first (4)
    -t      a Python with PyTorch, may be repeated (/usr/bin/python3)

Each network is trained by plain SGD in f32 on batches of 128: forward, backward, step. Ours: one rank
on one core, two ranks on two. PyTorch: one thread on the same core, two threads on both, and there
also with one BLAS thread; convolutions in both memory layouts, attention as
scaled_dot_product_attention where it is there, a batch whole or in eight parts (gpt: in parts, which
was faster). The best of these is its number. Real-time priority where it is allowed. The table is README.md's.
SPDX-License-Identifier: BSD-3-Clause"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

BATCH = 128
BIN = Path(__file__).resolve().parents[2] / "build/tests/bin"
# preset, options, features, micro-batches on one and on two ranks
OURS = {
    "mlp": ("mlp:1024,1024", "", 784, 1, 2),
    "cnn": ("cnn", "", 784, 1, 2),
    "vit": ("vit", "", 784, 8, 8),
    "gpt": ("gpt", "", 256, 16, 16),
}


def flop(model):
    """Floating-point operations of the products of a sample's step: forward once, backward twice,
    without the gradient of the samples; all blocks of a causal mask are counted by half."""
    if model == "mlp":
        return 6 * (784 * 1024 + 1024 * 1024 + 1024 * 10) - 2 * 784 * 1024
    if model == "cnn":
        first, second = 784 * 25 * 32, 196 * 800 * 64
        return 4 * first + 6 * (second + 3136 * 512 + 512 * 10)
    T, F, causal = (50, 128, 1) if model == "vit" else (256, 256, 2)
    block = T * 12 * F * F + 2 * T * T * F / causal
    rest = 4 * 49 * 16 * F + 6 * F * 10 if model == "vit" else 6 * T * F * 256
    return 6 * 4 * block + rest


# ---- the side of PyTorch: runs under its own Python ----

def worker(model, threads, variant, seconds):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(1)

    class Block(nn.Module):
        def __init__(self, width, heads, causal, gelu):
            super().__init__()
            self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.heads, self.causal, self.gelu = heads, causal, gelu

        def attention(self, q, k, v):
            if "sdpa" in variant:
                return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            s = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            if self.causal:
                T = s.shape[-1]
                s = s.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))
            return s.softmax(-1) @ v

        def forward(self, x):
            B, T, W = x.shape
            q, k, v = self.qkv(self.n1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            x = x + self.proj(self.attention(q, k, v).transpose(1, 2).reshape(B, T, W))
            return x + self.down(F.gelu(self.up(self.n2(x)), approximate=self.gelu))

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(1, 128, 4, 4)
            self.first = nn.Parameter(torch.randn(1, 1, 128))
            self.position = nn.Parameter(torch.randn(50, 128))
            self.blocks = nn.Sequential(*(Block(128, 4, False, "none") for _ in range(4)))
            self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 10)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.first.expand(len(x), 1, -1), x], 1) + self.position
            return self.head(self.norm(self.blocks(x))[:, 0])

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = nn.Embedding(256, 256), nn.Parameter(torch.randn(256, 256))
            self.blocks = nn.Sequential(*(Block(256, 4, True, "tanh") for _ in range(4)))
            self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 256)

        def forward(self, x):
            return self.head(self.norm(self.blocks(self.token(x) + self.position))).flatten(0, 1)

    if model == "mlp":
        net = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(),
                            nn.Linear(1024, 10))
    elif model == "cnn":
        net = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10))
    else:
        net = Vit() if model == "vit" else Gpt()
    if model == "gpt":
        x, y = torch.randint(256, (BATCH, 256)), torch.randint(256, (BATCH, 256))
    else:
        x = torch.rand(BATCH, 784) if model == "mlp" else torch.rand(BATCH, 1, 28, 28)
        y = torch.randint(10, (BATCH,))
    if "channels_last" in variant:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    parts = 8 if "parts" in variant else 1

    def step():
        optimizer.zero_grad(set_to_none=True)
        for a, b in zip(x.chunk(parts), y.chunk(parts)):
            (F.cross_entropy(net(a), b.flatten()) / parts).backward()
        optimizer.step()

    start, best, steps = time.perf_counter(), float("inf"), 0
    step()
    while steps < (1 if model == "gpt" else 2) or time.perf_counter() - start < seconds:
        at = time.perf_counter()
        step()
        best, steps = min(best, time.perf_counter() - at), steps + 1
    print(json.dumps({"samples_per_second": BATCH / best, "torch": torch.__version__}))


# ---- the side that compares ----

def variants(model, is_old, threads):
    """(torch threads, BLAS threads, variant) to try."""
    names = {"mlp": [""], "cnn": ["", "channels_last"]}.get(model)
    if names is None:
        attention = "" if is_old else "sdpa "
        names = [attention + "parts"] if model == "gpt" else [attention, attention + "parts"]
    blas = [1] if threads == 1 else [2, 1] if is_old else [2]
    return [(threads, b, n) for b in blas for n in names]


def first_json(command, environment, cores):
    front = ["taskset", "-c", cores]
    if shutil.which("chrt") and subprocess.run(["chrt", "-f", "1", "true"], stderr=subprocess.DEVNULL).returncode == 0:
        front = ["chrt", "-f", "1"] + front
    run = subprocess.run(front + command, env={**os.environ, **environment}, capture_output=True, text=True,
                         timeout=300)
    for line in run.stdout.splitlines():
        if line.startswith("{"):
            return json.loads(line)
    sys.exit(f"{' '.join(command)} said nothing: {run.stderr[-2000:]}")


def ours(model, ranks, seconds):
    preset, options, features, one, two = OURS[model]
    command = [str(BIN / "bench_train_net"), preset, options, str(features), str(BATCH),
               str(one if ranks == 1 else two), str(seconds)]
    if ranks > 1:
        command = ["mpirun", "--bind-to", "core", "-n", str(ranks)] + command
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return first_json(command, environment, "0" if ranks == 1 else "0,1")


def theirs(python, model, setting, seconds):
    threads, blas, variant = setting
    environment = {"OPENBLAS_NUM_THREADS": str(blas), "OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true"}
    command = [python, __file__, "--worker", model, str(threads), variant, str(seconds)]
    return first_json(command, environment, "0" if threads == 1 else "0,1")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("-r", dest="rounds", type=int, default=3)
    p.add_argument("-s", dest="seconds", type=float, default=4)
    p.add_argument("-t", dest="pythons", action="append")
    p.add_argument("--json")
    p.add_argument("models", nargs="*", default=list(OURS))
    o = p.parse_args()
    table = []
    for model in o.models:
        for n in (1, 2):
            mine, best = {}, {}
            for _ in range(o.rounds):
                got = ours(model, n, o.seconds)
                mine["samples_per_second"] = max(mine.get("samples_per_second", 0), got["samples_per_second"])
                mine["sgemm_gflops"] = max(mine.get("sgemm_gflops", 0), got["sgemm_gflops"])
                for python in o.pythons or ["/usr/bin/python3"]:
                    for setting in variants(model, "venv" not in python, n):
                        got = theirs(python, model, setting, o.seconds)
                        name = got["torch"]
                        if got["samples_per_second"] > best.get(name, (0,))[0]:
                            best[name] = (got["samples_per_second"], setting)
            rate = mine["samples_per_second"]
            row = {"model": model, "cores": n, "ours": round(rate, 1),
                   "fraction_of_sgemm": round(rate * flop(model) * 1e-9 / mine["sgemm_gflops"], 3),
                   "sgemm_gflops": round(mine["sgemm_gflops"], 1)}
            for name, (value, setting) in sorted(best.items()):
                row[name] = {"samples_per_second": round(value, 1), "ratio": round(rate / value, 2),
                             "threads": setting[0], "blas_threads": setting[1], "variant": setting[2]}
            print(json.dumps(row), flush=True)
            table.append(row)
    if o.json:
        Path(o.json).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
    else:
        main()
