#!/usr/bin/env python3
"""PEFT reads an adapter that allmerge wrote: peft_merge.py MODEL ADAPTER MERGED

The adapter loads without missing or unexpected tensors, and the model that PEFT merges it into is
MERGED to rounding. Needs peft and transformers. SPDX-License-Identifier: BSD-3-Clause
"""
import json
import sys
import warnings
from pathlib import Path

import peft
import transformers
from safetensors.torch import load_file

CLASSES = {"gpt2": transformers.GPT2LMHeadModel, "llama": transformers.LlamaForCausalLM,
           "vit": transformers.ViTForImageClassification}


def main(model: str, adapter: str, merged: str) -> None:
    warnings.simplefilter("error", UserWarning)  # PEFT warns of keys that it misses
    kind = json.loads(Path(model, "config.json").read_text())["model_type"]
    if kind == "vit" and int(transformers.__version__.split(".")[0]) >= 5:
        print(f"vit: not compared, transformers {transformers.__version__} names its modules otherwise than files do")
        return
    net = peft.PeftModel.from_pretrained(CLASSES[kind].from_pretrained(model), adapter)
    # With bias: all PEFT lists the biases of whole modules once more, by other names.
    loaded = {k for k in peft.get_peft_model_state_dict(net)
              if ".modules_to_save." not in k and ".original_module." not in k}
    stored = load_file(Path(adapter, "adapter_model.safetensors"))
    assert loaded == stored.keys(), loaded ^ stored.keys()
    assert any(t.abs().max() > 1e-3 for k, t in stored.items() if "lora_B" in k)
    state = net.merge_and_unload().state_dict()
    expected = load_file(Path(merged, "model.safetensors"))
    worst = max(float((state[k] - t).abs().max() / max(1.0, float(t.abs().max()))) for k, t in expected.items())
    print(f"{kind}: PEFT {peft.__version__} merges the adapter to the same tensors within {worst:.1e}")
    assert worst <= 1e-6, worst


main(*sys.argv[1:])
