#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "hydrofoil/models/causal_lm.h"
#include "hydrofoil/models/detail/layers.h"
#include "hydrofoil/models/rope.h"

namespace hydrofoil::models {

// Transformers' LlamaForCausalLM; make_model builds it.
class Llama final : public CausalLM {
 public:
  Llama(const ModelConfig& config, at::TensorOptions options);

 private:
  struct Layer {
    int module = -1;
    int attention = -1;
    int mlp = -1;
    int activation = -1;
    Linear q_proj, k_proj, v_proj, o_proj;
    Linear gate_proj, up_proj, down_proj;
    RmsNorm input_layernorm, post_attention_layernorm;
  };

  struct Rotation {
    at::Tensor cos;
    at::Tensor sin;
  };

  [[nodiscard]] Layer build_layer(LayerBuilder& build, int index, int parent) const;
  [[nodiscard]] at::Tensor run(const at::Tensor& tokens) override;
  [[nodiscard]] at::Tensor run_model(const at::Tensor& tokens);
  [[nodiscard]] at::Tensor run_layer(const Layer& layer, const at::Tensor& x, const Rotation& rotation);
  [[nodiscard]] at::Tensor attend(const Layer& layer, const at::Tensor& x, const Rotation& rotation);
  [[nodiscard]] at::Tensor feed_forward(const Layer& layer, const at::Tensor& x);

  LlamaConfig own_;
  RotaryEmbedding rotary_;
  int model_ = -1;
  int rotary_module_ = -1;
  Embedding embed_tokens_;
  std::vector<Layer> layers_;
  RmsNorm norm_;
  Linear lm_head_;
};

}  // namespace hydrofoil::models
