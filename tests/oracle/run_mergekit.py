"""Run recipes through mergekit, all in one process: part of tests/oracle/test_mergekit.py.

usage: run_mergekit.py JOBS.json      [{"recipe": FILE, "out": FOLDER}, ...]; writes OUT/failed if it cannot
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import logging
import sys
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

logging.disable(logging.ERROR)

# mergekit sorts with an order of equal elements that depends on the processor; ours is by index.
_sort = torch.sort
torch.sort = lambda x, dim=-1, descending=False: _sort(x, dim=dim, descending=descending, stable=True)
torch.argsort = lambda x, dim=-1, descending=False: torch.sort(x, dim, descending).indices


def first_largest(x: torch.Tensor, k: int, largest: bool = True) -> tuple:
    found = torch.sort(x, descending=largest)
    return found.values[:k], found.indices[:k]


torch.topk = first_largest
torch.set_num_threads(1)
for job in json.loads(Path(sys.argv[1]).read_text()):
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    try:
        config = MergeConfiguration.model_validate(yaml.safe_load(Path(job["recipe"]).read_text()))
        run_merge(config, str(out), MergeOptions(write_model_card=False, quiet=True))
    except Exception as error:  # its own errors are of every kind
        (out / "failed").write_text(f"{type(error).__name__}: {error}\n")
print(torch.__version__)
