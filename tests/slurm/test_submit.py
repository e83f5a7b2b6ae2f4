#!/usr/bin/env python3
"""allmerge submit with a stand-in for sbatch: what it would submit and with which numbers, and that --dry-run
prints what is run. A real Slurm: test_cluster.py.                   SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"
sys.path.insert(0, str(SUPPORT))
import rankrun  # noqa: E402

BIN = rankrun.binary()
STAND_IN = """#!/usr/bin/env bash
n=$(($(cat count 2>/dev/null || echo 0) + 1))
echo $n >count
if [ "$n" = "${FAIL_AT:-0}" ]; then echo 'sbatch: error: Invalid account' >&2; exit 1; fi
printf '%s\\n' "$*" >>sbatch.log
if env | grep -q '^PMIX_'; then echo 'PMIX_ variables reach the job' >&2; exit 1; fi
echo "$((100 + n));cluster"
"""
problems = []


def expect(what, seen, wanted) -> None:
    if seen != wanted:
        problems.append(f"{what}: {seen!r}, expected {wanted!r}")


def allmerge(*words, **environment):
    for name in ("count", "sbatch.log"):
        Path(name).unlink(missing_ok=True)
    env = dict(os.environ, PATH=f"{Path('bin').resolve()}:{os.environ['PATH']}", **environment)
    return subprocess.run([BIN, *words], text=True, capture_output=True, timeout=60, env=env)


def jobs(done) -> list:
    """Options and command of every sbatch that a script holds: ({option: value}, [word...])."""
    found = []
    for line in done.stdout.replace("\\\n", "").splitlines():
        if "$(sbatch" in line:
            words = shlex.split(line[line.index("$(sbatch") + 9:line.rindex(")")])
            at = next(i for i, w in enumerate(words) if w.endswith("/allmerge.sbatch"))
            found.append((dict(w.lstrip("-").partition("=")[::2] for w in words[:at]), words[at + 1:]))
    return found


def mib(text: str) -> int:
    return int(text.removesuffix("M").removesuffix("MiB"))


def prepare() -> None:
    Path("bin").mkdir()
    for name, text in (("sbatch", STAND_IN), ("scancel", '#!/bin/sh\necho "$@" >cancelled\n')):
        Path("bin", name).write_text(text)
        Path("bin", name).chmod(0o755)
    for seed in "12":
        subprocess.run([sys.executable, SUPPORT / "make_ckpt.py", f"m{seed}.safetensors",
                        f"a=3000x1000:f32:{seed}", f"b=10:f32:{seed}"], check=True)
    Path("merge.yml").write_text("merge_method: linear\nmodels:\n"
                                 "- {model: m1.safetensors, parameters: {weight: 0.5}}\n"
                                 "- {model: m2.safetensors, parameters: {weight: 0.5}}\n")
    subprocess.run([sys.executable, SUPPORT / "make_tasks.py", "tasks", "a:4:120", "b:3:90", "c:5:150",
                    "p:8:200"], check=True)
    shutil.copy(SUPPORT / "small_suite.yml", "suite.yml")


def merge() -> None:
    """Ranks and memory are those of the plan; the dry run prints what is run."""
    Path("site.yml").write_text("partition: short\naccount: it's mine\nsbatch_options: --exclusive --nice=3\n"
                                "time: 2-00:00:00\nsignal_seconds: 300\nbytes_per_rank: 7MB\nmax_ranks: 8\n"
                                "cpus_per_rank: 2\nranks_per_node: 4\nmemory: 100MiB\n")
    words = ("submit", "merge.yml", "-o", "out dir/merged.h5", "--site", "site.yml", "--set", "dtype=float16")
    dry = allmerge(*words, "--dry-run")
    expect("dry run", (dry.returncode, Path("count").exists()), (0, False))
    expect("shell syntax", subprocess.run(["bash", "-n"], input=dry.stdout, text=True).returncode, 0)
    [(options, command)] = jobs(dry)
    for key, value in {"ntasks": "4", "cpus-per-task": "2", "ntasks-per-node": "4", "partition": "short",
                       "account": "it's mine", "time": "2-00:00:00", "signal": "B:USR1@300", "nice": "3",
                       "exclusive": "", "output": "merge-%j.log"}.items():
        expect(f"sbatch --{key}", options.get(key), value)
    expect("command", command, ["--site", str(Path("site.yml").resolve()), "--program", BIN, "merge",
                                "merge.yml", "-o", "out dir/merged.h5", "--set", "dtype=float16",
                                "--memory", command[-1]])
    plan = allmerge("plan", "merge.yml", "--ranks", "4", "--memory", "100MiB", "--json", "--set",
                    "dtype=float16")
    peak = json.loads(plan.stdout)["peak_bytes"] / 2**20
    budget, given = mib(command[-1]), 2 * mib(options["mem-per-cpu"])
    if not peak <= budget <= 100 or not budget < given <= budget + 66:
        problems.append(f"plan {peak:.1f} MiB, --memory {budget} MiB, Slurm {given} MiB")
    for ranks, limit in ((1, "1GB"), (2, "17MB"), (4, "1MB")):
        again = allmerge(*words, "--dry-run", "--site", limit_site(limit))
        expect(f"ranks for {limit} each", jobs(again)[0][0]["ntasks"], str(ranks))

    real = allmerge(*words)
    expect("result", (real.returncode, real.stdout), (0, '{"jobs": {"merge": 101}}\n'))
    printed = shlex.join(["--parsable"]) # the same words reach sbatch
    expect("words", Path("sbatch.log").read_text().split("allmerge.sbatch")[1].split(), " ".join(command).split())
    expect("first option", Path("sbatch.log").read_text().split()[0], printed)


def limit_site(limit: str) -> str:
    Path(f"{limit}.yml").write_text(f"bytes_per_rank: {limit}\nmax_ranks: 8\n")
    return f"{limit}.yml"


def sweep() -> None:
    dry = allmerge("submit", "merge.yml", "-o", "out.safetensors", "--dry-run", "--sweep",
                   "models.0.parameters.weight=0.1,0.2,0.3 dtype=float32,bfloat16")
    [(options, command)] = jobs(dry)
    expect("array", options.get("array"), "0-5")
    expect("cases", command[command.index("--cases") + 1], "out.safetensors.cases.tsv")
    lines = dry.stdout.split("<<'END_OF_FILE'\n")[1].split("END_OF_FILE")[0].splitlines()
    expect("a case", lines[3].split("\t"), ["--set", "models.0.parameters.weight=0.2", "--set",
                                            "dtype=bfloat16", "-o", "out-3.safetensors"])
    expect("cases", len(set(lines)), 6)


def pipeline() -> None:
    words = ("submit", "suite.yml", "--as", "pipeline", "-o", "run", "--after", "7")
    dry = jobs(allmerge(*words, "--dry-run"))
    expect("jobs", [o["job-name"] for o, _ in dry], ["finetune", "merge", "evaluate"])
    expect("dependencies", [o["dependency"] for o, _ in dry],
           ["afterok:7", "afterok:$finetune", "afterok:$merge"])
    expect("arrays", [o.get("array") for o, _ in dry], ["0-2", None, "0-2"])
    real = allmerge(*words)
    expect("result", json.loads(real.stdout), {"jobs": {"finetune": 101, "merge": 102, "evaluate": 103}})
    log = Path("sbatch.log").read_text()
    for text in ("afterok:101 ", "afterok:102 "):
        if text not in log:
            problems.append(f"no {text} in {log}")
    failed = allmerge(*words, FAIL_AT="3")
    expect("the third sbatch fails", failed.returncode, 74)
    expect("the others are taken back", Path("cancelled").read_text().split(), ["101", "102"])
    if "Invalid account" not in failed.stderr:
        problems.append(f"sbatch's message is lost: {failed.stderr}")


def no_sbatch() -> None:
    Path("bin", "sbatch").unlink()
    bash = Path("bin", "bash")
    bash.symlink_to(shutil.which("bash"))
    done = subprocess.run([BIN, "submit", "merge.yml", "-o", "out.h5"], text=True, capture_output=True,
                          env=dict(os.environ, PATH=str(Path("bin").resolve()),
                                   OMPI_MCA_plm_rsh_agent=""))
    expect("no sbatch", done.returncode, 66)
    if "no sbatch here" not in done.stderr:
        problems.append(f"no sbatch: {done.stderr}")


def training_memory() -> None:
    """The estimate is above what a run takes, and not by much."""
    wide = ("suite.yml", "--set", "model.widths=[1024, 1024]", "--set", "iterate.rounds=1")
    [(options, command)] = jobs(allmerge("submit", *wide, "-o", "run", "--dry-run"))
    expect("command", command[command.index(BIN) + 1:], ["iterate", "suite.yml", "-o", "run", *wide[1:]])
    expect("ranks: tasks x micro-batches", options["ntasks"], "9")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([BIN, "iterate", *wide, "-o", "wide"], check=True, capture_output=True, timeout=120)
    taken, given = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, mib(options["mem-per-cpu"])
    if before / 1024 >= taken:
        problems.append("another child took more: this measures nothing")
    if not taken <= given <= 3 * taken:
        problems.append(f"estimate {given} MiB, taken {taken:.0f} MiB")
    print(f"training: estimate {given} MiB, taken {taken:.0f} MiB")


def main() -> None:
    prepare()
    for part in (merge, sweep, pipeline, training_memory, no_sbatch):
        part()
    for problem in problems:
        print(f"FAILED: {problem}")
    sys.exit(len(problems) > 0)


if __name__ == "__main__":
    main()
