#include "hydrofoil/models/detail/gpt2.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/dropout.h>

#include <cmath>
#include <string>

#include "hydrofoil/models/detail/activate.h"

namespace hydrofoil::models {

Gpt2::Gpt2(const ModelConfig& config, at::TensorOptions options)
    : CausalLM(config), own_(std::get<Gpt2Config>(config.family)) {
  LayerBuilder build(tree(), options);
  const int root = build.module("", "GPT2LMHeadModel", -1);
  transformer_ = build.module("transformer", "GPT2Model", root);
  wte_ = build.embedding("wte", transformer_, own_.vocab_size, own_.n_embd);
  wpe_ = build.embedding("wpe", transformer_, own_.n_positions, own_.n_embd);
  dropout_ = build.module("drop", "Dropout", transformer_);
  const int list = build.module("h", "ModuleList", transformer_, /*is_list=*/true);
  for (int i = 0; i < own_.n_layer; ++i) blocks_.push_back(build_block(build, i, list));
  ln_f_ = build.layer_norm("ln_f", transformer_, own_.n_embd, own_.layer_norm_epsilon);
  lm_head_ = own_.tie_word_embeddings ? build.tied_linear("lm_head", root, wte_.weight)
                                      : build.linear("lm_head", root, own_.n_embd, own_.vocab_size, false);
}

Gpt2::Block Gpt2::build_block(LayerBuilder& build, int index, int parent) const {
  const int64_t dim = own_.n_embd;
  Block block;
  if (own_.scale_attn_weights) block.scaling = std::pow(static_cast<double>(dim / own_.n_head), -0.5);
  if (own_.scale_attn_by_inverse_layer_idx) block.scaling /= static_cast<double>(index + 1);
  block.module = build.module(std::to_string(index), "GPT2Block", parent);
  block.ln_1 = build.layer_norm("ln_1", block.module, dim, own_.layer_norm_epsilon);
  block.attention = build.module("attn", "GPT2Attention", block.module);
  block.c_attn = build.conv1d("c_attn", block.attention, dim, 3 * dim);
  block.c_proj = build.conv1d("c_proj", block.attention, dim, dim);
  build.module("attn_dropout", "Dropout", block.attention);  // happens inside the attention operator
  block.residual_dropout = build.module("resid_dropout", "Dropout", block.attention);
  block.ln_2 = build.layer_norm("ln_2", block.module, dim, own_.layer_norm_epsilon);
  block.mlp = build.module("mlp", "GPT2MLP", block.module);
  block.mlp_c_fc = build.conv1d("c_fc", block.mlp, dim, own_.n_inner);
  block.mlp_c_proj = build.conv1d("c_proj", block.mlp, own_.n_inner, dim);
  block.activation = build.module("act", "Activation", block.mlp);
  block.mlp_dropout = build.module("dropout", "Dropout", block.mlp);
  return block;
}

at::Tensor Gpt2::run(const at::Tensor& tokens) {
  zero::Boundaries& boundaries = *tree().boundaries;
  return boundaries.call(0, {}, [&] {
    const at::Tensor hidden = boundaries.call(transformer_, {}, [&] { return run_transformer(tokens); });
    return apply(boundaries, lm_head_, hidden);
  });
}

at::Tensor Gpt2::run_transformer(const at::Tensor& tokens) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const at::Tensor embedded = apply(boundaries, wte_, tokens);
  const at::Tensor positions = at::arange(tokens.size(1), tokens.options()).unsqueeze(0);
  at::Tensor hidden = drop(dropout_, embedded.add(apply(boundaries, wpe_, positions)), own_.embd_pdrop);
  for (const Block& block : blocks_) {
    hidden = boundaries.call(block.module, {hidden}, [&] { return run_block(block, hidden); });
  }
  return apply(boundaries, ln_f_, hidden);
}

at::Tensor Gpt2::run_block(const Block& block, const at::Tensor& x) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const at::Tensor normed = apply(boundaries, block.ln_1, x);
  const at::Tensor attended = boundaries.call(block.attention, {normed}, [&] { return attend(block, normed); });
  const at::Tensor middle = attended.add(x);
  const at::Tensor again = apply(boundaries, block.ln_2, middle);
  return middle.add(boundaries.call(block.mlp, {again}, [&] { return feed_forward(block, again); }));
}

at::Tensor Gpt2::attend(const Block& block, const at::Tensor& x) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const auto parts = apply(boundaries, block.c_attn, x).split(own_.n_embd, 2);
  const int64_t head_dim = own_.n_embd / own_.n_head;
  const at::Tensor output =
      causal_attention(split_heads(parts[0], own_.n_head, head_dim), split_heads(parts[1], own_.n_head, head_dim),
                       split_heads(parts[2], own_.n_head, head_dim), training() ? own_.attn_pdrop : 0.0, block.scaling);
  return drop(block.residual_dropout, apply(boundaries, block.c_proj, output), own_.resid_pdrop);
}

at::Tensor Gpt2::feed_forward(const Block& block, const at::Tensor& x) {
  zero::Boundaries& boundaries = *tree().boundaries;
  const at::Tensor wide = apply(boundaries, block.mlp_c_fc, x);
  const at::Tensor active =
      boundaries.call(block.activation, {wide}, [&] { return activate(own_.activation_function, wide); });
  return drop(block.mlp_dropout, apply(boundaries, block.mlp_c_proj, active), own_.resid_pdrop);
}

at::Tensor Gpt2::drop(int module, const at::Tensor& x, double probability) {
  return tree().boundaries->call(module, {x}, [&] { return at::dropout(x, probability, training()); });
}

}  // namespace hydrofoil::models
