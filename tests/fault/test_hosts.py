#!/usr/bin/env python3
"""A merge over three hosts: network namespaces, each with a host name and a folder for temporary files of its
own, Open MPI over TCP between them. The same bytes as on one host; when the network of a host is cut in the
middle, all ranks end with a message within a bounded time, and the same command goes on afterwards.

usage: test_hosts.py                                                   SPDX-License-Identifier: BSD-3-Clause
"""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"
sys.path.insert(0, str(SUPPORT))
import rankrun  # noqa: E402
from proc import processes, tell, words  # noqa: E402

# mpirun itself notices a lost host after some 10 s; the limit of the ranks' own watchdog is far from that.
HOSTS, RANKS_PER_HOST, STALL_SECONDS = 3, 2, 40
TOKEN = f"am{os.getpid()}"
NETWORK = "10.77.{}.".format(os.getpid() % 250)
# mpirun's words for a lost host, the last ones where its daemon had not reported yet; or ours.
LOST = ("lost communication with a remote daemon", "stalled: rank", "unable to reliably start one or more daemons")
# Started by mpirun as `agent HOST COMMAND...`, in place of ssh; HOST is an address.
AGENT = """#!/bin/sh
i=${{1##*.}}
shift
exec ip netns exec {token}h$i unshare --uts sh -c "hostname host$i; export TMPDIR=$PWD/tmp$i; $*"
"""


def ip(*words_: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *words_], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(words_)}: {done.stdout.strip()}")
    return done.returncode == 0


class Hosts:
    """A switch and the hosts on it; nothing of it is in the namespace of the machine."""

    def __enter__(self) -> "Hosts":
        try:
            self.make()
        except OSError as error:
            self.__exit__()
            rankrun.skip(f"no network namespaces here: {error}")
        return self

    def make(self) -> None:
        switch = TOKEN + "s"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "name", "bridge0", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge0", "up")
        for i in range(1, HOSTS + 1):
            host = f"{TOKEN}h{i}"
            ip("netns", "add", host)
            ip("-n", switch, "link", "add", "name", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", switch, "link", "set", f"port{i}", "master", "bridge0", "up")
            ip("-n", host, "addr", "add", f"{NETWORK}{i}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", "eth0", "up")
            Path(f"tmp{i}").mkdir()
        subprocess.run(["unshare", "--uts", "true"], check=True)
        Path("agent").write_text(AGENT.format(token=TOKEN))
        Path("agent").chmod(0o755)

    def __exit__(self, *_) -> None:
        for pid, _, _ in list(processes()):
            if f"AM_HOSTS={TOKEN}" in words(pid, "environ"):
                tell(pid, signal.SIGKILL)
        for name in ["s", *(f"h{i}" for i in range(1, HOSTS + 1))]:
            ip("netns", "del", TOKEN + name, check=False)

    def plug(self, i: int, is_in: bool) -> None:
        ip("-n", TOKEN + "s", "link", "set", f"port{i}", "up" if is_in else "down")

    def start(self, out: str, hosts: int) -> subprocess.Popen:
        """mpirun on the first host."""
        place = ",".join(f"{NETWORK}{i}:{RANKS_PER_HOST}" for i in range(1, hosts + 1))
        settings = {"plm_rsh_agent": str(Path("agent").resolve()), "pml": "ob1", "btl": "tcp,self",
                    "btl_tcp_if_include": NETWORK + "0/24", "oob_tcp_if_include": NETWORK + "0/24",
                    "oob_tcp_keepalive_time": "3", "oob_tcp_keepalive_intvl": "1",
                    "oob_tcp_keepalive_probes": "3", "mpi_yield_when_idle": "1", "hwloc_base_binding_policy": "none"}
        mca = [w for key, value in settings.items() for w in ("--mca", key, value)]
        env = dict(os.environ, AM_HOSTS=TOKEN, AM_STALL_SECONDS=str(STALL_SECONDS),
                   OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        command = ["mpirun", "--host", place, "-x", "AM_HOSTS", "-x", "AM_STALL_SECONDS",
                   "--wdir", str(Path.cwd()), *mca, rankrun.binary(), "merge", "recipe.yml", "-o", out,
                   "--block", "512KiB", "--save-every", "0"]
        return subprocess.Popen([str(Path("agent").resolve()), f"{NETWORK}1", *command], env=env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=open(out + ".log", "w"))

    def ranks(self) -> dict:
        """{pid: network namespace} of the ranks."""
        return {pid: os.readlink(f"/proc/{pid}/ns/net") for pid, name, _ in processes()
                if name == "allmerge" and f"AM_HOSTS={TOKEN}" in words(pid, "environ")}


def wait_until(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAILED: waited {seconds} s for {what}")
        time.sleep(0.002)


def prepare() -> bytes:
    for seed in "123":
        subprocess.run([sys.executable, SUPPORT / "make_ckpt.py", f"m{seed}.safetensors",
                        f"a=1500x1000:f32:{seed}", f"b=700x1000:f32:{seed}"], check=True)
    Path("recipe.yml").write_text("merge_method: ties\nbase_model: m1.safetensors\nmodels:\n"
                                  "- {model: m2.safetensors, parameters: {weight: 1, density: 0.5}}\n"
                                  "- {model: m3.safetensors, parameters: {weight: 1, density: 0.5}}\n"
                                  "dtype: float32\n")
    alone = rankrun.run("merge recipe.yml -o alone.h5".split(), 1, Path.cwd(), timeout=60)
    if alone.code != 0:
        sys.exit(alone.report())
    return Path("alone.h5").read_bytes()


def cut_in_the_middle(hosts: Hosts, wanted: bytes) -> None:
    job = hosts.start("cut.h5", HOSTS)
    wait_until(lambda: len(hosts.ranks()) == HOSTS * RANKS_PER_HOST, 60, "all ranks to start")
    ranks = hosts.ranks()
    wait_until(lambda: Path("cut.h5.partial").exists(), 60, "the output to be laid out")
    for pid in ranks:
        tell(pid, signal.SIGSTOP)
    if Path("cut.h5").exists() or len(set(ranks.values())) != HOSTS:
        sys.exit(f"FAILED: nothing to cut: {len(set(ranks.values()))} hosts, finished {Path('cut.h5').exists()}")
    hosts.plug(HOSTS, False)
    for pid in ranks:
        tell(pid, signal.SIGCONT)
    start = time.monotonic()
    try:
        code = job.wait(STALL_SECONDS + 30)
    except subprocess.TimeoutExpired:
        sys.exit(f"FAILED: mpirun waits for the lost host\n{Path('cut.h5.log').read_text()}")
    ended = time.monotonic() - start
    wait_until(lambda: not hosts.ranks(), STALL_SECONDS + 30, "the ranks of the lost host to end")
    log = Path("cut.h5.log").read_text()
    print(f"host cut off: mpirun ended with {code} after {ended:.1f} s, its last rank after "
          f"{time.monotonic() - start:.1f} s")
    if code == 0 or Path("cut.h5").exists():
        sys.exit(f"FAILED: exit code {code}, output {Path('cut.h5').exists()}\n{log}")
    if not any(words in log for words in LOST):
        sys.exit(f"FAILED: no message about the lost host\n{log}")
    hosts.plug(HOSTS, True)
    again(hosts, "cut.h5", 2, wanted)


def again(hosts: Hosts, out: str, n: int, wanted: bytes) -> None:
    job = hosts.start(out, n)
    code = job.wait(60)
    log = Path(out + ".log").read_text()
    if code != 0 or Path(out).read_bytes() != wanted:
        sys.exit(f"FAILED: {out} over {n} hosts: exit code {code}, or other bytes than on one\n{log}")
    print(f"{out}: {n} hosts, the bytes of one\n{log}")


def main() -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        rankrun.skip("network namespaces need root, ip (iproute2) and unshare")
    wanted = prepare()
    with Hosts() as hosts:
        again(hosts, "whole.h5", HOSTS, wanted)
        cut_in_the_middle(hosts, wanted)


if __name__ == "__main__":
    main()
