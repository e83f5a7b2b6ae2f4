#!/usr/bin/env python3
"""Tiny random models of three architectures in Hugging Face layout, with the logits that
transformers computes: python3 make_hf.py OUT

OUT/gpt2, OUT/llama, OUT/vit hold config.json and model.safetensors, OUT/logits.json the inputs and
logits (f32). Norms, biases and class token are random too: a constant would hide a mistake. Made
with torch 2.5 and transformers 4.49. SPDX-License-Identifier: BSD-3-Clause
"""
import json
import sys
from pathlib import Path

import torch
import transformers

SAMPLES = 2
torch.manual_seed(7)
torch.set_num_threads(1)


def randomise(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            near = 1.0 if "norm" in name or "ln_" in name else 0.0
            p.copy_(near * (p.ndim == 1 and name.endswith("weight")) + 0.2 * torch.randn(p.shape))
    return model.eval()


def texts(vocabulary, length):
    return torch.randint(0, vocabulary, (SAMPLES, length))


def cases():
    gpt2 = transformers.GPT2Config(vocab_size=19, n_positions=12, n_embd=8, n_layer=2, n_head=2,
                                   bos_token_id=0, eos_token_id=0)
    yield "gpt2", transformers.GPT2LMHeadModel(gpt2), texts(19, 9)
    llama = transformers.LlamaConfig(vocab_size=19, hidden_size=16, intermediate_size=10,
                                     num_hidden_layers=2, num_attention_heads=4,
                                     num_key_value_heads=2, rope_theta=500.0, rms_norm_eps=1e-5,
                                     max_position_embeddings=32)
    yield "llama", transformers.LlamaForCausalLM(llama), texts(19, 9)
    vit = transformers.ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                 intermediate_size=12, image_size=8, patch_size=4, num_channels=3,
                                 num_labels=5, hidden_dropout_prob=0.0)
    yield "vit", transformers.ViTForImageClassification(vit), torch.randn(SAMPLES, 3, 8, 8)


def main(out):
    logits = {}
    for name, model, x in cases():
        randomise(model).save_pretrained(out / name, safe_serialization=True)
        for extra in ("generation_config.json", "README.md"):
            (out / name / extra).unlink(missing_ok=True)
        with torch.no_grad():
            y = model(x).logits
        rows = x.permute(0, 2, 3, 1) if x.ndim == 4 else x  # our pixels have the colours last
        logits[name] = {"inputs": rows.flatten(1).tolist(), "logits": y.flatten().tolist()}
    (out / "logits.json").write_text(json.dumps(logits) + "\n")


main(Path(sys.argv[1]))
