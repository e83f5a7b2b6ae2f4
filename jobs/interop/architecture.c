/* The tables of architectures. Names and defaults are those of the configurations that the
 * transformers library saves. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/interop/architecture.h"

#include <stddef.h>

/* ---- GPT-2: Conv1D weights are [in, out]; c_attn is queries, keys and values ---- */

static const am_hf_number gpt2_numbers[] = {{"vocab_size", "vocabulary", "50257"},
                                            {"n_embd", "features", "768"},
                                            {"n_layer", "depth", "12"},
                                            {"n_head", "heads", "12"},
                                            {"n_inner", "hidden", "0"},
                                            {"layer_norm_epsilon", "epsilon", "1e-5"},
                                            {0}};
static const am_hf_setting gpt2_settings[] = {{"activation_function", "gelu_new|gelu_pytorch_tanh"},
                                              {"scale_attn_weights", "true"},
                                              {"scale_attn_by_inverse_layer_idx", "false"},
                                              {"add_cross_attention", "false"},
                                              {0}};
static const am_hf_name gpt2_names[] = {
    {"token.weight", {"wte.weight"}, false, false},
    {"position.weight", {"wpe.weight"}, false, true},
    {"blocks.%d.norm1.weight", {"h.%d.ln_1.weight"}, false, false},
    {"blocks.%d.norm1.bias", {"h.%d.ln_1.bias"}, false, false},
    {"blocks.%d.qkv.weight", {"h.%d.attn.c_attn.weight"}, true, false},
    {"blocks.%d.qkv.bias", {"h.%d.attn.c_attn.bias"}, false, false},
    {"blocks.%d.proj.weight", {"h.%d.attn.c_proj.weight"}, true, false},
    {"blocks.%d.proj.bias", {"h.%d.attn.c_proj.bias"}, false, false},
    {"blocks.%d.norm2.weight", {"h.%d.ln_2.weight"}, false, false},
    {"blocks.%d.norm2.bias", {"h.%d.ln_2.bias"}, false, false},
    {"blocks.%d.up.weight", {"h.%d.mlp.c_fc.weight"}, true, false},
    {"blocks.%d.up.bias", {"h.%d.mlp.c_fc.bias"}, false, false},
    {"blocks.%d.down.weight", {"h.%d.mlp.c_proj.weight"}, true, false},
    {"blocks.%d.down.bias", {"h.%d.mlp.c_proj.bias"}, false, false},
    {"norm.weight", {"ln_f.weight"}, false, false},
    {"norm.bias", {"ln_f.bias"}, false, false},
    {0}};
static const char *const gpt2_carried[] = {"h.*.attn.bias", "h.*.attn.masked_bias", NULL};

/* ---- Llama ---- */

static const am_hf_number llama_numbers[] = {{"vocab_size", "vocabulary", "32000"},
                                             {"hidden_size", "features", "4096"},
                                             {"num_hidden_layers", "depth", "32"},
                                             {"num_attention_heads", "heads", "32"},
                                             {"num_key_value_heads", "groups", "0"},
                                             {"intermediate_size", "hidden", "11008"},
                                             {"rope_theta", "rotary", "10000"},
                                             {"rms_norm_eps", "epsilon", "1e-6"},
                                             {0}};
static const am_hf_setting llama_settings[] = {{"hidden_act", "silu|swish"},
                                               {"attention_bias", "false"},
                                               {"mlp_bias", "false"},
                                               {"rope_scaling", "null"},
                                               {"rope_parameters", "null"},
                                               {"partial_rotary_factor", "1|1.0"},
                                               {0}};
static const am_hf_name llama_names[] = {
    {"token.weight", {"embed_tokens.weight"}, false, false},
    {"blocks.%d.norm1.weight", {"layers.%d.input_layernorm.weight"}, false, false},
    {"blocks.%d.qkv.weight",
     {"layers.%d.self_attn.q_proj.weight", "layers.%d.self_attn.k_proj.weight",
      "layers.%d.self_attn.v_proj.weight"},
     false,
     false},
    {"blocks.%d.proj.weight", {"layers.%d.self_attn.o_proj.weight"}, false, false},
    {"blocks.%d.norm2.weight", {"layers.%d.post_attention_layernorm.weight"}, false, false},
    {"blocks.%d.gate_up.weight",
     {"layers.%d.mlp.gate_proj.weight", "layers.%d.mlp.up_proj.weight"},
     false,
     false},
    {"blocks.%d.down.weight", {"layers.%d.mlp.down_proj.weight"}, false, false},
    {"norm.weight", {"norm.weight"}, false, false},
    {0}};
static const char *const llama_carried[] = {"layers.*.self_attn.rotary_emb.inv_freq", NULL};

/* ---- ViT ---- */

static const am_hf_number vit_numbers[] = {
    {"image_size", "height", "224"},        {"image_size", "width", "224"},
    {"num_channels", "colours", "3"},       {"patch_size", "patch", "16"},
    {"hidden_size", "features", "768"},     {"num_hidden_layers", "depth", "12"},
    {"num_attention_heads", "heads", "12"}, {"intermediate_size", "hidden", "3072"},
    {"layer_norm_eps", "epsilon", "1e-12"}, {0}};
static const am_hf_setting vit_settings[] = {{"hidden_act", "gelu"}, {"qkv_bias", "true"}, {0}};
static const am_hf_name vit_names[] = {
    {"class.weight", {"embeddings.cls_token"}, false, false},
    {"position.weight", {"embeddings.position_embeddings"}, false, false},
    {"patch.weight", {"embeddings.patch_embeddings.projection.weight"}, false, false},
    {"patch.bias", {"embeddings.patch_embeddings.projection.bias"}, false, false},
    {"blocks.%d.norm1.weight", {"encoder.layer.%d.layernorm_before.weight"}, false, false},
    {"blocks.%d.norm1.bias", {"encoder.layer.%d.layernorm_before.bias"}, false, false},
    {"blocks.%d.qkv.weight",
     {"encoder.layer.%d.attention.attention.query.weight",
      "encoder.layer.%d.attention.attention.key.weight",
      "encoder.layer.%d.attention.attention.value.weight"},
     false,
     false},
    {"blocks.%d.qkv.bias",
     {"encoder.layer.%d.attention.attention.query.bias",
      "encoder.layer.%d.attention.attention.key.bias",
      "encoder.layer.%d.attention.attention.value.bias"},
     false,
     false},
    {"blocks.%d.proj.weight", {"encoder.layer.%d.attention.output.dense.weight"}, false, false},
    {"blocks.%d.proj.bias", {"encoder.layer.%d.attention.output.dense.bias"}, false, false},
    {"blocks.%d.norm2.weight", {"encoder.layer.%d.layernorm_after.weight"}, false, false},
    {"blocks.%d.norm2.bias", {"encoder.layer.%d.layernorm_after.bias"}, false, false},
    {"blocks.%d.up.weight", {"encoder.layer.%d.intermediate.dense.weight"}, false, false},
    {"blocks.%d.up.bias", {"encoder.layer.%d.intermediate.dense.bias"}, false, false},
    {"blocks.%d.down.weight", {"encoder.layer.%d.output.dense.weight"}, false, false},
    {"blocks.%d.down.bias", {"encoder.layer.%d.output.dense.bias"}, false, false},
    {"norm.weight", {"layernorm.weight"}, false, false},
    {"norm.bias", {"layernorm.bias"}, false, false},
    {0}};
static const char *const vit_carried[] = {"pooler.dense.weight", "pooler.dense.bias", NULL};

const am_hf_architecture am_hf_architectures[] = {{"gpt2",
                                                   "gpt",
                                                   "transformer.",
                                                   gpt2_numbers,
                                                   gpt2_settings,
                                                   gpt2_names,
                                                   {"lm_head.weight", NULL},
                                                   true,
                                                   {"n_positions", NULL, "1024"},
                                                   gpt2_carried},
                                                  {"llama",
                                                   "llama",
                                                   "model.",
                                                   llama_numbers,
                                                   llama_settings,
                                                   llama_names,
                                                   {"lm_head.weight", NULL},
                                                   false,
                                                   {"max_position_embeddings", NULL, "2048"},
                                                   llama_carried},
                                                  {"vit",
                                                   "vit",
                                                   "vit.",
                                                   vit_numbers,
                                                   vit_settings,
                                                   vit_names,
                                                   {"classifier.weight", "classifier.bias"},
                                                   false,
                                                   {0},
                                                   vit_carried},
                                                  {0}};
