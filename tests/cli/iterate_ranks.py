#!/usr/bin/env python3
"""iterate gives the same bytes for any number of ranks, recognises a finished run, and refuses another
recipe in its folder; train and eval agree with it.     usage: iterate_ranks.py [RANKS]...
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import rankrun  # noqa: E402
from checks import check, finish  # noqa: E402

FILES = ["final.h5", "base.h5", "heads.h5", "one-shot.h5", "joint.h5", "result.json", "table.txt",
         "rounds/alpha-0.5-round-003.h5"]


def run(arguments: str, ranks: int, folder: Path, code: int = 0) -> rankrun.Result:
    result = rankrun.run(arguments.split(), ranks, folder, timeout=120)
    result.expect_code(code)
    check(not result.problems, f"{arguments} on {ranks} ranks", result)
    return result


def main() -> None:
    ranks = [int(a) for a in sys.argv[1:]] or [1, 2, 3, 4, 8]
    folder = Path(tempfile.mkdtemp(prefix="am_iterate."))
    subprocess.run([sys.executable, HERE.parent / "support" / "make_tasks.py", folder / "tasks",
                    "a:4:120", "b:3:90", "c:5:150", "p:8:200"], check=True)
    shutil.copy(HERE.parent / "support" / "small_suite.yml", folder / "suite.yml")

    reference = None
    for n in ranks:
        run(f"iterate suite.yml -o run{n}", n, folder)
        files = {f: v for f, v in rankrun.snapshot(folder / f"run{n}").items() if f in FILES}
        check(sorted(files) == sorted(FILES), f"all files are there at {n} ranks: {sorted(files)}")
        reference = reference or files
        for name in FILES:
            check(files.get(name) == reference.get(name), f"{name} is the same at {n} ranks")

    matrices = None  # methods that want whole tensors
    for n in (ranks[0], 3):
        run(f"iterate suite.yml -o matrices{n} --set merge.merge_method=tsv "
            "--set iterate.methods=[{\"merge_method\":\"opcm\"},{\"merge_method\":\"tsv\"}]", n, folder)
        files = {f: v for f, v in rankrun.snapshot(folder / f"matrices{n}").items() if f in FILES}
        matrices = matrices or files
        check("final.h5" in files and files == matrices, f"tsv and opcm are the same at {n} ranks")
        check(files.get("final.h5") != reference.get("final.h5"), "tsv is another merge")

    first = folder / f"run{ranks[0]}"
    before = rankrun.snapshot(first)
    again = run(f"iterate suite.yml -o run{ranks[0]}", 2, folder)
    check("finished" in again.err, "a finished run says so", again)
    check(rankrun.snapshot(first) == before, "a finished run is not touched")
    check(json.loads(again.out) == json.loads((first / "result.json").read_text()),
          "a finished run prints its result again", again)

    other = run(f"iterate suite.yml -o run{ranks[0]} --set seed=8", 2, folder, code=73)
    check("another recipe" in other.err, "another recipe is refused", other)
    check(rankrun.snapshot(first) == before, "a refused run changes nothing")
    run(f"iterate suite.yml -o run{ranks[0]} --set seed=8 --overwrite", 2, folder)
    changed = rankrun.snapshot(first)
    check(changed["final.h5"] != before["final.h5"], "another seed gives another model")
    run(f"iterate suite.yml -o run{ranks[0]} --overwrite", 3, folder)
    check(rankrun.snapshot(first)["final.h5"] == before["final.h5"], "and the first one comes back")

    rows = {r["key"]: r for r in json.loads((first / "result.json").read_text())["rows"]}
    evaluated = run(f"eval suite.yml --heads run{ranks[0]}/heads.h5 --model run{ranks[0]}/final.h5 "
                    f"run{ranks[0]}/joint.h5", 3, folder)
    final, joint = json.loads(evaluated.out)["rows"]
    check(final["task_accuracy"] == rows["iterative"]["task_accuracy"], "eval repeats the table")
    check(joint["task_accuracy"] == rows["joint"]["task_accuracy"], "eval repeats the joint row")
    check(rows["iterative"]["test_accuracy"] > 0.6, f"the tasks are learnt: {rows['iterative']}")

    few = "--set data.limit.train=3 --set finetune.micro_batches=5 --set iterate.rounds=2"
    for n in (1, 8): # more ranks than tasks, samples, leaves and chunks: the idle ones take part
        run(f"iterate suite.yml -o few{n} {few}", n, folder)
    check((folder / "few1/final.h5").read_bytes() == (folder / "few8/final.h5").read_bytes(),
          "3 training samples on 8 ranks give the same model as on one")

    for task in ("a", "b"): # one-epoch models of two tasks, trained alone, merged by the merge command
        for n in (1, 4):
            run(f"train suite.yml --task {task} -o {task}{n} --set base.pretrain=null "
                f"--set base.checkpoint=run{ranks[0]}/base.h5 "
                f"--set heads.checkpoint=run{ranks[0]}/heads.h5", n, folder)
        check((folder / f"{task}1/trunk.h5").read_bytes() == (folder / f"{task}4/trunk.h5").read_bytes(),
              f"train --task {task} is the same at 1 and 4 ranks")
    (folder / "merge.yml").write_text(
        f"merge_method: task_arithmetic\nbase_model: run{ranks[0]}/base.h5\nmodels:\n"
        "- {model: a1/trunk.h5, parameters: {weight: 0.5}}\n"
        "- {model: b1/trunk.h5, parameters: {weight: 0.5}}\n")
    run("merge merge.yml -o merged.h5", 2, folder)
    run(f"eval suite.yml --heads run{ranks[0]}/heads.h5 --model merged.h5", 2, folder)

    finish(folder, f"same bytes at {ranks} ranks")


if __name__ == "__main__":
    main()
