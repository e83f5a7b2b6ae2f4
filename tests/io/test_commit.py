#!/usr/bin/env python3
"""An output appears whole or not at all: killed writers, a second writer, a full disk.
SPDX-License-Identifier: BSD-3-Clause"""
import os
import random
import signal
import struct
import subprocess
import sys
import time

import numpy as np

BIN, MPIRUN = os.environ["AM_BIN"], os.environ["AM_MPIRUN"].split()
ELEMENTS = 24 << 20  # 96 MiB: long enough to be met while it is written
failures = 0


def check(held, what):
    global failures
    if not held:
        failures += 1
        print("FAILED:", what)


def make_input(path):
    x = np.random.default_rng(1).standard_normal(1 << 20).astype("<f4").tobytes()
    header = b'{"w":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (ELEMENTS, 4 * ELEMENTS)
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header)
        for _ in range(ELEMENTS >> 20):
            f.write(x)


def convert(out, *options, ranks=0):
    command = (MPIRUN + ["-n", str(ranks)] if ranks else []) + [BIN, "convert", "in.safetensors", out, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def start_and_meet(out):
    """A writer that has laid out its output and is still at work (or already done)."""
    process = subprocess.Popen([BIN, "convert", "in.safetensors", out], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not os.path.exists(out + ".partial"):
        time.sleep(0.001)
    return process


def killed_writers():
    rng = random.Random(7)
    for name in ("k.h5", "k.safetensors", "k"):
        met = 0
        for _ in range(4):
            process = start_and_meet(name)
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                met += 1
                check(not os.path.exists(name), f"{name} after SIGKILL")
            else:
                check(subprocess.run([BIN, "verify", name], capture_output=True).returncode == 0, f"{name} is whole")
                subprocess.run(["rm", "-r", name], check=True)
        check(met > 0, f"{name}: no kill met the writer")
        done = convert(name)
        check(done.returncode == 0, f"{name} after kills: {done.stderr}")
        check(not os.path.exists(name + ".partial") and not os.path.exists(name + ".lock"), f"{name}: left-overs")
        verified = subprocess.run([BIN, "verify", name], capture_output=True, text=True)
        check(verified.returncode == 0, f"verify {name}: {verified.stderr}")


def second_writer():
    for _ in range(5):
        first = start_and_meet("s.h5")
        first.send_signal(signal.SIGSTOP)
        if os.path.exists("s.h5.partial") and not os.path.exists("s.h5"):
            break
        first.send_signal(signal.SIGCONT)
        first.wait()
        os.remove("s.h5")
    started = time.monotonic()
    second = convert("s.h5", ranks=2)
    check(second.returncode == 73, f"second writer: exit {second.returncode} {second.stderr}")
    check(f"process {first.pid} on" in second.stderr, f"names the holder: {second.stderr}")
    check(second.stderr.count("allmerge: error") == 1, f"one message: {second.stderr}")
    check(time.monotonic() - started < 30, "refused soon")
    first.send_signal(signal.SIGCONT)
    check(first.wait() == 0, "the first writer is not disturbed")
    check(subprocess.run([BIN, "verify", "s.h5"], capture_output=True).returncode == 0, "its output is whole")


def full_disk():
    os.mkdir("small")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "small"], capture_output=True)
    if mounted.returncode != 0:
        print("full disk: skipped, mounting a small tmpfs needs root")
        return
    try:
        for ranks in (0, 3):
            for name in ("f.h5", "f.safetensors", "f"):
                done = convert(f"small/{name}", ranks=ranks)
                check(done.returncode == 74, f"full disk, {name} on {ranks}: exit {done.returncode} {done.stderr}")
                check("no space" in done.stderr and done.stderr.count("allmerge: error") == 1, f"message: {done.stderr}")
                check(os.listdir("small") == [], f"left on the full disk: {os.listdir('small')}")
    finally:
        subprocess.run(["umount", "small"], check=True)


make_input("in.safetensors")
for part in (killed_writers, second_writer, full_disk):
    part()
    print(part.__name__, "done")
sys.exit(1 if failures else 0)
