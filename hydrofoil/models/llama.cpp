#include "hydrofoil/models/detail/llama.h"

#include <cmath>
#include <string>
#include <utility>

#include "hydrofoil/models/detail/activate.h"

namespace hydrofoil::models {

Llama::Llama(const ModelConfig& config, at::TensorOptions options)
    : CausalLM(config),
      own_(std::get<LlamaConfig>(config.family)),
      rotary_(own_.rope, own_.head_dim, own_.max_position_embeddings) {
  LayerBuilder build(tree(), options);
  const int root = build.module("", "LlamaForCausalLM", -1);
  model_ = build.module("model", "LlamaModel", root);
  embed_tokens_ = build.embedding("embed_tokens", model_, own_.vocab_size, own_.hidden_size, own_.pad_token_id);
  const int list = build.module("layers", "ModuleList", model_, /*is_list=*/true);
  for (int i = 0; i < own_.num_hidden_layers; ++i) layers_.push_back(build_layer(build, i, list));
  norm_ = build.rms_norm("norm", model_, own_.hidden_size, own_.rms_norm_eps);
  rotary_module_ = build.module("rotary_emb", "LlamaRotaryEmbedding", model_);
  lm_head_ = own_.tie_word_embeddings ? build.tied_linear("lm_head", root, embed_tokens_.weight)
                                      : build.linear("lm_head", root, own_.hidden_size, own_.vocab_size, false);
}

Llama::Layer Llama::build_layer(LayerBuilder& build, int index, int parent) const {
  const int64_t query_dim = own_.num_attention_heads * own_.head_dim;
  const int64_t key_dim = own_.num_key_value_heads * own_.head_dim;
  Layer layer;
  layer.module = build.module(std::to_string(index), "LlamaDecoderLayer", parent);
  layer.attention = build.module("self_attn", "LlamaAttention", layer.module);
  layer.q_proj = build.linear("q_proj", layer.attention, own_.hidden_size, query_dim, own_.attention_bias);
  layer.k_proj = build.linear("k_proj", layer.attention, own_.hidden_size, key_dim, own_.attention_bias);
  layer.v_proj = build.linear("v_proj", layer.attention, own_.hidden_size, key_dim, own_.attention_bias);
  layer.o_proj = build.linear("o_proj", layer.attention, query_dim, own_.hidden_size, own_.attention_bias);
  layer.mlp = build.module("mlp", "LlamaMLP", layer.module);
  layer.gate_proj = build.linear("gate_proj", layer.mlp, own_.hidden_size, own_.intermediate_size, own_.mlp_bias);
  layer.up_proj = build.linear("up_proj", layer.mlp, own_.hidden_size, own_.intermediate_size, own_.mlp_bias);
  layer.down_proj = build.linear("down_proj", layer.mlp, own_.intermediate_size, own_.hidden_size, own_.mlp_bias);
  layer.activation = build.module("act_fn", "Activation", layer.mlp);
  layer.input_layernorm = build.rms_norm("input_layernorm", layer.module, own_.hidden_size, own_.rms_norm_eps);
  layer.post_attention_layernorm =
      build.rms_norm("post_attention_layernorm", layer.module, own_.hidden_size, own_.rms_norm_eps);
  return layer;
}

at::Tensor Llama::run(const at::Tensor& tokens) {
  zero::Boundaries& boundaries = *tree().boundaries;
  return boundaries.call(0, {}, [&] {
    const at::Tensor hidden = boundaries.call(model_, {}, [&] { return run_model(tokens); });
    return apply(boundaries, lm_head_, hidden);
  });
}

at::Tensor Llama::run_model(const at::Tensor& tokens) {
  zero::Boundaries& boundaries = *tree().boundaries;
  at::Tensor hidden = apply(boundaries, embed_tokens_, tokens);
  const auto [cos, sin] = boundaries.call(rotary_module_, {}, [&] { return rotary_.cos_sin(tokens.size(1), hidden); });
  const Rotation rotation{cos.unsqueeze(1), sin.unsqueeze(1)};
  for (const Layer& layer : layers_) {
    hidden = boundaries.call(layer.module, {hidden}, [&] { return run_layer(layer, hidden, rotation); });
  }
  return apply(boundaries, norm_, hidden);
}

at::Tensor Llama::run_layer(const Layer& layer, const at::Tensor& x, const Rotation& rotation) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const at::Tensor normed = apply(boundaries, layer.input_layernorm, x);
  const at::Tensor attended =
      boundaries.call(layer.attention, {normed}, [&] { return attend(layer, normed, rotation); });
  const at::Tensor middle = x.add(attended);
  const at::Tensor again = apply(boundaries, layer.post_attention_layernorm, middle);
  return middle.add(boundaries.call(layer.mlp, {again}, [&] { return feed_forward(layer, again); }));
}

at::Tensor Llama::attend(const Layer& layer, const at::Tensor& x, const Rotation& rotation) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const int64_t head_dim = own_.head_dim;
  const at::Tensor query = split_heads(apply(boundaries, layer.q_proj, x), own_.num_attention_heads, head_dim);
  const at::Tensor key = split_heads(apply(boundaries, layer.k_proj, x), own_.num_key_value_heads, head_dim);
  const at::Tensor value = split_heads(apply(boundaries, layer.v_proj, x), own_.num_key_value_heads, head_dim);
  const at::Tensor rotated_query = rotate(query, rotation.cos, rotation.sin);
  const at::Tensor rotated_key = rotate(key, rotation.cos, rotation.sin);
  const double dropout = training() ? own_.attention_dropout : 0.0;
  const double scaling = std::pow(static_cast<double>(head_dim), -0.5);
  return apply(boundaries, layer.o_proj, causal_attention(rotated_query, rotated_key, value, dropout, scaling));
}

at::Tensor Llama::feed_forward(const Layer& layer, const at::Tensor& x) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const at::Tensor gate = apply(boundaries, layer.gate_proj, x);
  const at::Tensor open = boundaries.call(layer.activation, {gate}, [&] { return activate(own_.hidden_act, gate); });
  return apply(boundaries, layer.down_proj, open.mul(apply(boundaries, layer.up_proj, x)));
}

}  // namespace hydrofoil::models
