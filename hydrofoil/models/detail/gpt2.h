#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "hydrofoil/models/causal_lm.h"
#include "hydrofoil/models/detail/layers.h"

namespace hydrofoil::models {

// Transformers' GPT2LMHeadModel; make_model builds it.
class Gpt2 final : public CausalLM {
 public:
  Gpt2(const ModelConfig& config, at::TensorOptions options);

 private:
  struct Block {
    int module = -1;
    int attention = -1;
    int mlp = -1;
    int activation = -1;
    int residual_dropout = -1;
    int mlp_dropout = -1;
    double scaling = 1.0;
    LayerNorm ln_1, ln_2;
    Conv1d c_attn, c_proj;
    Conv1d mlp_c_fc, mlp_c_proj;
  };

  [[nodiscard]] Block build_block(LayerBuilder& build, int index, int parent) const;
  [[nodiscard]] at::Tensor run(const at::Tensor& tokens) override;
  [[nodiscard]] int64_t max_length() const override { return own_.n_positions; }
  [[nodiscard]] at::Tensor run_transformer(const at::Tensor& tokens);
  [[nodiscard]] at::Tensor run_block(const Block& block, const at::Tensor& x);
  [[nodiscard]] at::Tensor attend(const Block& block, const at::Tensor& x);
  [[nodiscard]] at::Tensor feed_forward(const Block& block, const at::Tensor& x);
  [[nodiscard]] at::Tensor drop(int module, const at::Tensor& x, double probability);

  Gpt2Config own_;
  int transformer_ = -1;
  int dropout_ = -1;
  Embedding wte_;
  Embedding wpe_;
  std::vector<Block> blocks_;
  LayerNorm ln_f_;
  Linear lm_head_;
};

}  // namespace hydrofoil::models
