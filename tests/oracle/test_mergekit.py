#!/usr/bin/env python3
"""Recipes through mergekit itself and through allmerge; needs a Python that has mergekit.

AM_MERGEKIT_PYTHON names its interpreter (skipped when unset), for example of
    python3 -m venv V && V/bin/pip install mergekit==0.1.4         (also 0.1.5)

Random methods are left out. float32: equal to 1e-6 of the tensor's largest value. bfloat16: allmerge's
is the rounded wide result, mergekit's may be off by its own rounding.

usage: test_mergekit.py [FAMILY,... [DTYPE,... [PREFIX]]]     of the inputs; recipes whose names begin with PREFIX
SPDX-License-Identifier: BSD-3-Clause
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(os.environ["AM_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from safetensors import Tensor, read, round_to, write  # noqa: E402

PYTHON = os.environ.get("AM_MERGEKIT_PYTHON", "")
SEED = int(os.environ.get("AM_SEED", "1"))
rng = np.random.default_rng(SEED)
LAYERS, WIDTH, INNER, VOCAB = 5, 12, 20, 29

# ---- models ----

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
         "intermediate_size": INNER, "num_attention_heads": 2, "num_key_value_heads": 1,
         "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "max_position_embeddings": 32,
         "tie_word_embeddings": False}
GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": WIDTH, "n_head": 2,
        "n_positions": 7, "n_ctx": 7, "vocab_size": VOCAB, "tie_word_embeddings": True}
VIT = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": WIDTH,
       "intermediate_size": INNER, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
       "num_channels": 3}


def llama_shapes(layers: int) -> dict[str, list[int]]:
    shapes = {"model.embed_tokens.weight": [VOCAB, WIDTH], "lm_head.weight": [VOCAB, WIDTH],
              "model.norm.weight": [WIDTH]}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {at + "self_attn.q_proj.weight": [WIDTH, WIDTH],
                   at + "self_attn.k_proj.weight": [WIDTH // 2, WIDTH],
                   at + "self_attn.v_proj.weight": [WIDTH // 2, WIDTH],
                   at + "self_attn.o_proj.weight": [WIDTH, WIDTH],
                   at + "mlp.gate_proj.weight": [INNER, WIDTH],
                   at + "mlp.up_proj.weight": [INNER, WIDTH],
                   at + "mlp.down_proj.weight": [WIDTH, INNER],
                   at + "input_layernorm.weight": [WIDTH],
                   at + "post_attention_layernorm.weight": [WIDTH]}
    return shapes


def gpt2_shapes(layers: int) -> dict[str, list[int]]:
    shapes = {"transformer.wte.weight": [VOCAB, WIDTH], "transformer.wpe.weight": [7, WIDTH],
              "transformer.ln_f.weight": [WIDTH], "transformer.ln_f.bias": [WIDTH]}
    for i in range(layers):
        at = f"transformer.h.{i}."
        for name, shape in {"attn.c_attn": [WIDTH, 3 * WIDTH], "attn.c_proj": [WIDTH, WIDTH],
                            "mlp.c_fc": [WIDTH, 4 * WIDTH], "mlp.c_proj": [4 * WIDTH, WIDTH]}.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": [shape[1]]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{at}{name}.weight": [WIDTH], f"{at}{name}.bias": [WIDTH]}
    return shapes


def vit_shapes(layers: int) -> dict[str, list[int]]:
    shapes = {"vit.embeddings.cls_token": [1, 1, WIDTH],
              "vit.embeddings.position_embeddings": [1, 5, WIDTH],
              "vit.embeddings.patch_embeddings.projection.weight": [WIDTH, 3, 4, 4],
              "vit.embeddings.patch_embeddings.projection.bias": [WIDTH],
              "vit.layernorm.weight": [WIDTH], "vit.layernorm.bias": [WIDTH],
              "classifier.weight": [2, WIDTH], "classifier.bias": [2]}
    for i in range(layers):
        at = f"vit.encoder.layer.{i}."
        for name, shape in {"attention.attention.query": [WIDTH, WIDTH],
                            "attention.attention.key": [WIDTH, WIDTH],
                            "attention.attention.value": [WIDTH, WIDTH],
                            "attention.output.dense": [WIDTH, WIDTH],
                            "intermediate.dense": [INNER, WIDTH],
                            "output.dense": [WIDTH, INNER]}.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": [shape[0]]}
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"{at}{name}.weight": [WIDTH], f"{at}{name}.bias": [WIDTH]}
    return shapes


FAMILIES = {"llama": (LLAMA, llama_shapes, "num_hidden_layers"),
            "gpt2": (GPT2, gpt2_shapes, "n_layer"), "vit": (VIT, vit_shapes, "num_hidden_layers")}
MODELS = ["base", "a", "b", "c", "d"]


def make_family(family: str, kind: str) -> None:
    """Folders FAMILY.KIND.MODEL: fine-tuned from one base, with a few elements left as they were."""
    config, shapes_of, key = FAMILIES[family]
    shapes = shapes_of(LAYERS)
    base = {name: rng.standard_normal(shape) * 0.3 for name, shape in shapes.items()}
    for model in MODELS:
        tensors = {}
        for name, shape in shapes.items():
            delta = rng.standard_normal(shape) * 0.05 * (rng.random(shape) < 0.9)
            x = base[name] + (delta if model != "base" else 0)
            tensors[name] = Tensor(kind, shape, round_to(kind, x.ravel()))
        folder = Path(f"{family}.{kind}.{model}")
        folder.mkdir()
        write(folder / "model.safetensors", tensors)
        dtype = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[kind]
        (folder / "config.json").write_text(json.dumps(config | {key: LAYERS, "torch_dtype": dtype}))


# ---- written recipes; BASE, A, B, C, D are replaced by folders ----

def models(*entries: str) -> str:
    """models() of "A weight: 1, density: 0.5"."""
    lines = ["models:"]
    for entry in entries:
        name, _, rest = entry.partition(" ")
        lines += [f"- model: {name}"] + ([f"  parameters: {{{rest}}}"] if rest else [])
    return "\n".join(lines) + "\n"


THREE = models("A weight: 0.5", "B weight: 0.3", "C weight: 0.4")
SPARSE = models("A weight: 0.5, density: 0.4", "B weight: 0.3, density: 0.7",
                "C weight: -0.4, density: 0.55")
RECIPES = {
    "linear": "merge_method: linear\n" + THREE,
    "linear_raw": "merge_method: linear\nparameters: {normalize: false}\n" + THREE,
    "linear_negative": "merge_method: linear\n" + models("A weight: 1.5", "B weight: -0.25"),
    "linear_one": "merge_method: linear\n" + models("A weight: 0.7"),
    "linear_base_listed": "merge_method: linear\nbase_model: BASE\n" + models(
        "BASE weight: 0.2", "A weight: 0.5", "B weight: 0.1"),
    "linear_base_unlisted": "merge_method: linear\nbase_model: BASE\nparameters: {weight: 0.4}\n"
                            + models("A weight: 0.5", "B"),
    "linear_gradient": "merge_method: linear\n" + models("A weight: [0, 0.3, 1]", "B weight: [1, 0.5]"),
    "linear_filters": """merge_method: linear
models:
- model: A
  parameters:
    weight:
    - {filter: mlp, value: [0.1, 0.9, 0.2]}
    - {filter: attn, value: 0.7}
    - {value: 0.3}
- model: B
  parameters:
    weight:
    - {filter: "*", value: [0.5, 0.25]}
- model: C
parameters:
  weight:
  - {filter: norm, value: 2}
  - {filter: ln, value: 2}
  - {filter: null, value: [0.125, 0.5, 0.75, 1]}
""",
    "ta": "merge_method: task_arithmetic\nbase_model: BASE\n" + THREE,
    "ta_base_listed": "merge_method: task_arithmetic\nbase_model: BASE\n"
                      + models("A weight: 0.5", "BASE", "B weight: 0.25"),
    "ta_lambda": "merge_method: task_arithmetic\nbase_model: BASE\nparameters: {lambda: 0.37}\n" + THREE,
    "ta_lambda_gradient": "merge_method: task_arithmetic\nbase_model: BASE\n"
                          "parameters: {lambda: [0.1, 1.3]}\n" + THREE,
    "ta_normalize": "merge_method: task_arithmetic\nbase_model: BASE\nparameters: {normalize: true}\n"
                    + THREE,
    "ta_normalize_cancel": "merge_method: task_arithmetic\nbase_model: BASE\n"
                           "parameters: {normalize: true}\n" + models("A weight: 0.5", "B weight: -0.5"),
    "ta_negative": "merge_method: task_arithmetic\nbase_model: BASE\n" + models("A weight: -0.5"),
    "ta_global_weight": "merge_method: task_arithmetic\nbase_model: BASE\nparameters: {weight: 0.45}\n"
                        + models("A", "B weight: 0.2", "C"),
    "ta_fallthrough": """merge_method: task_arithmetic
base_model: BASE
models:
- model: A
  parameters: {weight: [{filter: mlp, value: 0.9}]}
- model: B
  parameters: {weight: [{filter: attn, value: [0.2, 0.4]}]}
parameters: {weight: [{filter: norm, value: 0.1}, {value: [0.6, 0.3, 0.5]}]}
""",
    "ta_text_numbers": "merge_method: task_arithmetic\nbase_model: BASE\n"
                       + models("A weight: 5e-1", "B weight: \"0.25\"", "C weight: .5"),
    "ta_anchors": "merge_method: task_arithmetic\nbase_model: &base BASE\nmodels:\n- model: *base\n"
                  "- model: A\n  parameters: &p\n    weight: 0.3\n- model: B\n  parameters:\n"
                  "    <<: *p\n    density: 0.5\n",
    "ties": "merge_method: ties\nbase_model: BASE\n" + SPARSE,
    "ties_tiny": "merge_method: ties\nbase_model: BASE\nparameters: {density: 0.1, weight: 1}\n"
                 + models("A", "B", "C", "D"),
    "ties_density_gradient": "merge_method: ties\nbase_model: BASE\nparameters: {normalize: false}\n"
                             + models("A weight: 0.5, density: [0.2, 0.9]", "B weight: [0.1, 1], density: 0.5"),
    "ties_int8": "merge_method: ties\nbase_model: BASE\nparameters: {int8_mask: true, lambda: 0.8}\n" + SPARSE,
    "ties_rescale": "merge_method: ties\nbase_model: BASE\nparameters: {rescale: true}\n" + SPARSE,
    "ties_raw_negative": "merge_method: ties\nbase_model: BASE\nparameters: {normalize: 0}\n" + SPARSE,
    "ties_dense": "merge_method: ties\nbase_model: BASE\n" + models("A weight: 1, density: 1", "B weight: 1"),
    "dare_dense": "merge_method: dare_ties\nbase_model: BASE\n" + models("A weight: 0.6", "B weight: -0.3", "C weight: 1"),
    "dare_linear_dense": "merge_method: dare_linear\nbase_model: BASE\nparameters: {normalize: true}\n" + THREE,
    "della_dense": "merge_method: della\nbase_model: BASE\nparameters: {lambda: 1.1}\n" + THREE,
    "della_linear_dense": "merge_method: della_linear\nbase_model: BASE\n" + THREE,
    "breadcrumbs": "merge_method: breadcrumbs\nbase_model: BASE\nparameters: {gamma: 0.2}\n" + SPARSE,
    "breadcrumbs_small_gamma": "merge_method: breadcrumbs\nbase_model: BASE\n" + SPARSE,
    "breadcrumbs_rescale": "merge_method: breadcrumbs\nbase_model: BASE\nparameters: {rescale: true}\n" +
                           models("A weight: 1, density: 0.6, gamma: 0.15", "B weight: 0.5, density: 0.9, gamma: 0.3"),
    "breadcrumbs_ties": "merge_method: breadcrumbs_ties\nbase_model: BASE\nparameters: {gamma: 0.15}\n" + SPARSE,
    "breadcrumbs_ties_normalize": "merge_method: breadcrumbs_ties\nbase_model: BASE\n"
                                  "parameters: {gamma: 0.1, normalize: true}\n" + SPARSE,
    "sce": "merge_method: sce\nbase_model: BASE\nparameters: {select_topk: 0.35}\n" + models("A", "B", "C"),
    "sce_all": "merge_method: sce\nbase_model: BASE\n" + models("A", "B", "C", "D"),
    "sce_gradient": "merge_method: sce\nbase_model: BASE\nparameters: {select_topk: [0.1, 0.9], int8_mask: true}\n"
                    + models("A", "B"),
    "sce_one": "merge_method: sce\nbase_model: BASE\n" + models("A"),
    "slerp": "merge_method: slerp\nbase_model: A\nparameters: {t: 0.35}\n" + models("A", "B"),
    "slerp_second": "merge_method: slerp\nbase_model: B\nparameters: {t: 0.2}\n" + models("A", "B"),
    "slerp_unlisted": "merge_method: slerp\nbase_model: A\nparameters: {t: 0.6}\n" + models("B"),
    "slerp_outside": "merge_method: slerp\nbase_model: A\nparameters: {t: 1.25}\n" + models("B"),
    "slerp_curves": """merge_method: slerp
base_model: A
slices:
- sources:
  - {model: A, layer_range: [0, 5]}
  - {model: B, layer_range: [0, 5]}
parameters:
  t:
  - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
  - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
  - {value: 0.5}
""",
    "nuslerp": "merge_method: nuslerp\n" + models("A weight: 0.7", "B weight: 0.5"),
    "nuslerp_base": "merge_method: nuslerp\nbase_model: BASE\n" + models("A weight: 0.7", "B weight: 0.5"),
    "nuslerp_rows": "merge_method: nuslerp\nparameters: {nuslerp_flatten: false}\n"
                    + models("A weight: 0.2", "B weight: 0.5"),
    "nuslerp_columns": "merge_method: nuslerp\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}\n"
                       + models("A weight: 0.2", "B weight: 0.5"),
    "nuslerp_base_rows": "merge_method: nuslerp\nbase_model: BASE\nparameters: {nuslerp_flatten: false}\n"
                         + models("A weight: [0.2, 0.9]", "B weight: 0.5"),
    "nuslerp_flag_filter": "merge_method: nuslerp\nparameters:\n  nuslerp_flatten:\n  - {filter: mlp, value: false}\n"
                           "  - {value: true}\n" + models("A weight: 0.4", "B weight: 0.5"),
    "nuslerp_cancel": "merge_method: nuslerp\n" + models("A weight: 0.5", "B weight: -0.5"),
    "multislerp": "merge_method: multislerp\n" + THREE,
    "multislerp_base": "merge_method: multislerp\nbase_model: BASE\n" + THREE,
    "multislerp_raw": "merge_method: multislerp\nparameters: {normalize_weights: false}\n" + THREE,
    "multislerp_eps": "merge_method: multislerp\nbase_model: BASE\nparameters: {eps: 1e-3}\n" + THREE,
    "multislerp_one": "merge_method: multislerp\n" + models("A weight: 0.5"),
    "karcher": "merge_method: karcher\n" + models("A", "B", "C"),
    "karcher_base_listed": "merge_method: karcher\nbase_model: BASE\n" + models("A", "BASE", "B"),
    "karcher_base_unlisted": "merge_method: karcher\nbase_model: BASE\n" + models("A", "B", "C"),
    "karcher_once": "merge_method: karcher\nparameters: {max_iter: 1, tol: 1e-9}\n" + models("A", "B"),
    "karcher_none": "merge_method: karcher\nparameters: {max_iter: 0}\n" + models("A", "B", "D"),
    "model_stock": "merge_method: model_stock\nbase_model: BASE\n" + models("A", "B", "C"),
    "model_stock_rows": "merge_method: model_stock\nbase_model: BASE\nparameters: {filter_wise: true}\n"
                        + models("A", "B"),
    "nearswap": "merge_method: nearswap\nbase_model: A\nparameters: {t: 0.01}\n" + models("B"),
    "nearswap_gradient": "merge_method: nearswap\nbase_model: A\nparameters: {t: [0.001, 0.1]}\n" + models("B"),
    "arcee_fusion": "merge_method: arcee_fusion\nbase_model: A\n" + models("B"),
    "ram": "merge_method: ram\nbase_model: BASE\nparameters: {epsilon: 0.03}\n" + models("A", "B", "C"),
    "ram_default": "merge_method: ram\nbase_model: BASE\n" + models("A", "B"),
    "ramplus_tl": "merge_method: ramplus_tl\nbase_model: BASE\nparameters: {epsilon: 0.03, r: 0.3, alpha: 0.6}\n"
                  + models("A", "B", "C"),
    "ramplus_default": "merge_method: ramplus_tl\nbase_model: BASE\n" + models("A", "B", "C"),
    "passthrough": "merge_method: passthrough\n" + models("A"),
    "passthrough_scale": "merge_method: passthrough\n" + models("A scale: [0.5, 1.5]"),
    "franken": """merge_method: passthrough
slices:
- sources: [{model: A, layer_range: [0, 3]}]
- sources: [{model: B, layer_range: [1, 4]}]
- sources:
  - model: A
    layer_range: [2, 5]
    parameters:
      scale:
      - {filter: o_proj, value: 0.0}
      - {filter: down_proj, value: [0.0, 0.5]}
      - {value: 1.0}
""",
    "franken_single_layers": """merge_method: passthrough
slices:
- sources: [{model: A, layer_range: [4, 5]}]
- sources: [{model: B, layer_range: [0, 1], parameters: {scale: [0.25, 0.75]}}]
- sources: [{model: C, layer_range: [2, 3], parameters: {scale: 1.25}}]
""",
    "slices_linear": """merge_method: linear
slices:
- sources:
  - {model: A, layer_range: [0, 2], parameters: {weight: [0.2, 0.7]}}
  - {model: B, layer_range: [3, 5], parameters: {weight: 0.6}}
- sources:
  - {model: C, layer_range: [1, 4], parameters: {weight: [0.1, 0.9]}}
  - {model: A, layer_range: [2, 5]}
  parameters: {weight: [{filter: mlp, value: [0.3, 0.5]}]}
parameters: {weight: 1.5}
""",
    "slices_single_gradient": """merge_method: linear
slices:
- sources:
  - {model: A, layer_range: [1, 2], parameters: {weight: [0.25, 0.75]}}
  - {model: B, layer_range: [1, 2], parameters: {weight: 1.0}}
""",
    "slices_ta": """merge_method: task_arithmetic
base_model: BASE
slices:
- sources:
  - {model: BASE, layer_range: [0, 3]}
  - {model: A, layer_range: [0, 3], parameters: {weight: 0.4}}
- sources:
  - {model: A, layer_range: [2, 5]}
  - {model: B, layer_range: [2, 5]}
  - {model: BASE, layer_range: [1, 4]}
  base_model: A
  parameters: {weight: [0.2, 0.8]}
parameters: {weight: 0.9, lambda: 0.8}
""",
    "slices_more": """merge_method: linear
slices:
- sources:
  - {model: A, layer_range: [0, 2], parameters: {weight: 0.3}}
- sources:
  - {model: B, layer_range: [1, 4], parameters: {weight: 0.9}}
  - {model: A, layer_range: [2, 5], parameters: {weight: 0.4}}
""",
    "slices_residual": """merge_method: passthrough
slices:
- sources: [{model: A, layer_range: [0, 5]}]
  residual_weight: 0.5
""",
    "modules_models": """merge_method: linear
modules:
  default:
    models:
    - {model: A, parameters: {weight: 0.3}}
    - {model: B}
    parameters: {weight: [0.2, 0.8]}
parameters: {weight: 5}
""",
    "modules_slices": """merge_method: linear
modules:
  default:
    slices:
    - sources: [{model: A, layer_range: [0, 2]}, {model: B, layer_range: [2, 4]}]
    parameters: {weight: [0.2, 0.8]}
""",
    "out_dtype": "merge_method: linear\ndtype: float32\nout_dtype: bfloat16\n" + THREE,
    "out_f16": "merge_method: linear\ndtype: float32\nout_dtype: float16\n" + THREE,
    "form_single_gradient": "merge_method: linear\n" + models("A weight: [0.3]", "B weight: [1, 0]"),
    "form_flag_words": "merge_method: ties\nbase_model: BASE\nparameters: {normalize: no, int8_mask: On}\n" + SPARSE,
    "form_flag_list": "merge_method: ties\nbase_model: BASE\nparameters: {normalize: [true, false]}\n" + SPARSE,
    "form_yaml11": "merge_method: task_arithmetic\nbase_model: BASE\n"
                   + models("A weight: 0x1", "B weight: 1_0.5e-1", "C weight: +.25"),
    "form_minutes": "merge_method: linear\n" + models("A weight: 1:30", "B weight: 010"),
    "form_lambda_of_model": "merge_method: task_arithmetic\nbase_model: BASE\n"
                            + models("A weight: 0.5, lambda: 0.1", "B weight: 0.25"),
    "form_normalize_of_model": "merge_method: linear\n"
                               + models("A weight: 0.5, normalize: false", "B weight: 0.25"),
    "form_no_fallback": "merge_method: linear\nmodels:\n- model: A\n  parameters:\n    weight:\n"
                        "    - {filter: mlp, value: 0.5}\n- model: B\n  parameters: {weight: 1}\n",
    "form_filter_order": """merge_method: task_arithmetic
base_model: BASE
models:
- model: A
  parameters:
    weight:
    - {filter: layers.1., value: 0.9}
    - {filter: q_proj, value: [0.1, 0.2, 0.3]}
    - {value: 0.5}
    - {filter: mlp, value: 7}
- model: B
  parameters: {weight: [{filter: "*", value: 0.2}, {filter: mlp, value: 3}]}
""",
    "form_global_gradient_own_scalar": "merge_method: linear\nparameters: {weight: [0, 1]}\n"
                                       + models("A", "B weight: 0.3"),
    "form_ints": "merge_method: slerp\nbase_model: A\nparameters: {t: 1}\n" + models("A", "B"),
    "form_slerp_list": "merge_method: slerp\nbase_model: A\nparameters: {t: [0, 1]}\n" + models("A", "B"),
    "form_slerp_filters": "merge_method: slerp\nbase_model: A\nparameters:\n  t:\n"
                          "  - {filter: embed_tokens, value: 0}\n  - {filter: mlp, value: [1, 0]}\n"
                          "  - {value: 0.25}\n" + models("A", "B"),
    "form_scale_global": "merge_method: passthrough\nparameters: {scale: [{filter: norm, value: 2}, {value: 1}]}\n"
                         + models("A"),
    "form_density_filters": "merge_method: ties\nbase_model: BASE\nparameters: {normalize: true, weight: 0.5, "
                            "density: [{filter: mlp, value: [0.3, 0.6]}, {value: 0.8}]}\n" + models("A", "B"),
    "form_weight_zero": "merge_method: ties\nbase_model: BASE\n"
                        + models("A weight: 0, density: 0.5", "B weight: 1, density: 0.5"),
    "form_density_text": "merge_method: ties\nbase_model: BASE\n" + models('A weight: 1, density: "0.5"', "B weight: 1"),
    "form_slices_precedence": """merge_method: task_arithmetic
base_model: BASE
slices:
- sources:
  - {model: A, layer_range: [0, 2], parameters: {weight: [{filter: mlp, value: 0.7}]}}
  - {model: B, layer_range: [0, 2]}
  - {model: BASE, layer_range: [0, 2]}
  parameters: {weight: 0.2}
- sources:
  - {model: A, layer_range: [2, 5]}
  - {model: B, layer_range: [2, 5], parameters: {weight: 0.1}}
  - {model: BASE, layer_range: [2, 5]}
parameters: {weight: [0.4, 0.8], lambda: 0.5}
""",
    "form_slices_repeat": """merge_method: passthrough
slices:
- sources: [{model: A, layer_range: [0, 4]}]
- sources: [{model: A, layer_range: [2, 4], parameters: {scale: [{filter: down_proj, value: 0.5}, {value: 1}]}}]
- sources: [{model: B, layer_range: [4, 5]}]
""",
    "form_slerp_slices": """merge_method: slerp
base_model: A
slices:
- sources: [{model: A, layer_range: [0, 3]}, {model: B, layer_range: [0, 3]}]
  parameters: {t: [0.1, 0.9]}
- sources: [{model: A, layer_range: [1, 4]}, {model: C, layer_range: [1, 4]}]
parameters: {t: 0.5}
""",
    "form_out_only": "merge_method: linear\nout_dtype: bfloat16\n" + THREE,
    "form_template": "merge_method: linear\nchat_template: chatml\n" + THREE,
    "form_moe_keys": "base_model: A\ngate_mode: hidden\nexperts:\n- {source_model: B, positive_prompts: [a]}\n",
    "named": "name: something\nmerge_method: linear\n" + THREE,
}
LLAMA_ONLY = ["slerp_curves", "franken", "modules_models", "modules_slices", "slices_linear",
              "slices_ta", "slices_more", "franken_single_layers", "form_filter_order",
              "form_slices_precedence", "form_slices_repeat", "form_slerp_slices",
              "form_slerp_filters"]


def fill(text: str, prefix: str) -> str:
    for name in ("BASE", "A", "B", "C", "D"):
        folder = f"{prefix}.{name.lower()}"
        for after in ("\n", ",", "}"):
            text = text.replace(f"model: {name}{after}", f"model: {folder}{after}")
        text = text.replace(f"model: &base {name}\n", f"model: &base {folder}\n")
    return text


# ---- models with vocabularies of their own ----

WORDS = [*"abcdefghij", "ab", "cd", "abc", "<s>", "</s>"]
VOCABULARIES = {  # tokens in the order of their rows; those of <...> are added tokens; rows behind them
    "base": (WORDS, 0), "a": ([*WORDS, "<one>", "<two>"], 0),
    "b": ([*reversed(WORDS), "<two>", "<three>"], 0), "c": (WORDS[:10] + WORDS[13:], 0),
    "d": ([*WORDS, "<own>"], 0), "padded": (WORDS, 5)}


def tokenizer_json(tokens: list[str]) -> dict:
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [m for m in (["a", "b"], ["c", "d"], ["ab", "c"]) if "".join(m) in ids]
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for t, i in ids.items() if t[0] == "<"]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for t, i in ids.items()}, "merges": merges}}


def make_vocabularies() -> None:
    """Folders vocab.F32.MODEL."""
    config = LLAMA | {"num_hidden_layers": 2, "torch_dtype": "float32"}
    for model, (tokens, padding) in VOCABULARIES.items():
        rows = len(tokens) + padding
        shapes = llama_shapes(2)
        shapes["model.embed_tokens.weight"] = shapes["lm_head.weight"] = [rows, WIDTH]
        folder = Path(f"vocab.F32.{model}")
        folder.mkdir()
        write(folder / "model.safetensors",
              {k: Tensor("F32", s, rng.standard_normal(int(np.prod(s))).astype("<f4"))
               for k, s in shapes.items()})
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokens)))
        (folder / "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}))


MIXED = "merge_method: linear\n" + models("A weight: 0.5", "B weight: 0.3", "C weight: 0.4")
VOCAB_RECIPES = {
    "union": MIXED + "tokenizer_source: union\n",
    "union_base": "merge_method: task_arithmetic\nbase_model: BASE\ntokenizer_source: union\n" + THREE,
    "base": "merge_method: task_arithmetic\nbase_model: BASE\ntokenizer_source: base\n" + THREE,
    "base_linear": "base_model: B\n" + MIXED + "tokenizer_source: base\n",
    "of_model": "merge_method: ties\nbase_model: BASE\ntokenizer_source: vocab.F32.b\n" + SPARSE,
    "of_other": MIXED + "tokenizer_source: vocab.F32.d\n",
    "map_form": MIXED + "tokenizer: {source: union}\n",
    "multiple": MIXED + "tokenizer: {source: union, pad_to_multiple_of: 8}\n",
    "padded": "merge_method: linear\nbase_model: vocab.F32.padded\ntokenizer_source: base\n"
              "parameters: {weight: 0.25}\n" + models("A weight: 0.5", "B"),
    "slerp": "merge_method: slerp\nbase_model: A\nparameters: {t: 0.3}\ntokenizer_source: union\n"
             + models("B"),
    "tokens": "merge_method: linear\nbase_model: BASE\n" + models(
        "BASE weight: 0.1", "A weight: 0.5", "B weight: 0.3", "C weight: 0.4") + """tokenizer:
  source: union
  tokens:
    <one>: {source: vocab.F32.a}
    <two>: {source: {kind: zero}}
    <three>: {source: {kind: model_token, model: vocab.F32.a, token: abc}, force: true}
    <new>: {source: {kind: model_token, model: vocab.F32.b, token_id: 4}}
    ab: {source: vocab.F32.b, force: true}
""",
}


def vocabulary(folder: Path) -> dict[str, int]:
    data = json.loads((folder / "tokenizer.json").read_text())
    return {**data["model"]["vocab"], **{t["content"]: t["id"] for t in data["added_tokens"]}}


def compare_tokens(got: Path, expected: Path) -> tuple[float, str]:
    """Tensor by tensor, embeddings token by token: numbers of new tokens are free."""
    ours, theirs = outputs(got), outputs(expected)
    mine, other = vocabulary(got), vocabulary(expected)
    if set(mine) != set(other) or set(ours) != set(theirs):
        return np.inf, f"tokens {sorted(set(mine) ^ set(other))}"
    if json.loads((got / "config.json").read_text())["vocab_size"] != \
            json.loads((expected / "config.json").read_text())["vocab_size"]:
        return np.inf, "vocab_size"
    worst, where = 0.0, ""
    for key, tensor in theirs.items():
        a, b = ours[key].f64(), tensor.f64()
        if a.size != b.size:
            return np.inf, f"{key}: {ours[key].shape} {tensor.shape}"
        if key in ("model.embed_tokens.weight", "lm_head.weight"):
            a, b = a.reshape(-1, WIDTH), b.reshape(-1, WIDTH)
            order = [mine[t] for t in other]
            b = np.concatenate([b[list(other.values())], b[len(other):]])
            a = np.concatenate([a[order], a[len(other):]])
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error <= worst:
            worst, where = error, key
    return worst, where


# ---- comparing ----

def outputs(folder: Path) -> dict[str, Tensor]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= read(path)[0]
    return found


def compare(got: Path, expected: Path) -> tuple[float, str]:
    ours, theirs = outputs(got), outputs(expected)
    if set(ours) != set(theirs):
        return np.inf, f"other tensors: {sorted(set(ours) ^ set(theirs))[:4]}"
    worst, where = 0.0, ""
    for key, tensor in theirs.items():
        if ours[key].dtype != tensor.dtype or ours[key].shape != tensor.shape:
            return np.inf, f"{key}: {ours[key].dtype}{ours[key].shape} {tensor.dtype}{tensor.shape}"
        a, b = ours[key].f64(), tensor.f64()
        if not a.size:
            continue
        if not np.isfinite(a).all():
            return np.inf, f"{key}: not finite"
        error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)
        if not error <= worst:
            worst, where = error, key
    return worst, where


def main() -> int:
    if not PYTHON:
        print("skipped: AM_MERGEKIT_PYTHON names no Python that has mergekit")
        return 77
    families = (sys.argv[1] if len(sys.argv) > 1 else "llama,gpt2,vit").split(",")
    kinds = (sys.argv[2] if len(sys.argv) > 2 else "F32,BF16").split(",")
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    jobs = []
    for family in families:
        for kind in kinds:
            make_family(family, kind)
            for name, text in RECIPES.items():
                if family != "llama" and name in LLAMA_ONLY:
                    continue
                for dtype in (["float32"] if kind == "F32" else ["float32", "bfloat16"]):
                    if not name.startswith(only) or (dtype != "float32" and "dtype" in text):
                        continue
                    label = f"{family}.{kind}.{name}.{dtype}"
                    recipe = Path(f"{label}.yml")
                    body = fill(text, f"{family}.{kind}")
                    recipe.write_text(body + ("" if "dtype" in text else f"dtype: {dtype}\n"))
                    jobs.append({"name": label, "recipe": str(recipe), "out": f"peer.{label}"})
    make_vocabularies()
    for name, text in VOCAB_RECIPES.items():
        if f"vocab_{name}".startswith(only):
            label = f"vocab.F32.vocab_{name}.float32"
            Path(f"{label}.yml").write_text(fill(text, "vocab.F32") + "dtype: float32\n")
            jobs.append({"name": label, "recipe": f"{label}.yml", "out": f"peer.{label}"})
    Path("jobs.json").write_text(json.dumps(jobs))
    subprocess.run([PYTHON, str(SOURCE / "tests/oracle/run_mergekit.py"), "jobs.json"], check=True)
    bad, worst = 0, {}
    for job in jobs:
        refused = Path(job["out"], "failed")
        run = subprocess.run([os.environ["AM_BIN"], "merge", job["recipe"], "-o",
                              f"own.{job['name']}/", "--quiet"], capture_output=True, text=True)
        if refused.exists() or run.returncode != 0:
            if not refused.exists() or run.returncode == 0:
                print(f"{job['name']}: mergekit: "
                      f"{refused.read_text()[:200].strip() if refused.exists() else 'done'}; "
                      f"allmerge: {run.returncode} {run.stderr[:300]}")
                bad += not refused.exists()
            continue
        measure = compare_tokens if job["name"].startswith("vocab.") else compare
        error, where = measure(Path(f"own.{job['name']}"), Path(job["out"]))
        kind = job["name"].rsplit(".", 1)[1]
        limit = 1e-6 if kind == "float32" and "out_" not in job["name"] else 2e-2
        worst[kind] = max(worst.get(kind, (0, "")), (error, job["name"]))
        if not error <= limit:
            print(f"{job['name']}: {error:.3g} {where}")
            bad += 1
    print(f"{len(jobs)} recipes, {bad} differ, largest deviations: {worst}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
