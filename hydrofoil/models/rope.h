#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "hydrofoil/models/rope_options.h"

namespace hydrofoil::models {

// Cosines and sines of the positions 0, 1, ..., as Transformers' ROPE_INIT_FUNCTIONS define them.
//
// They depend on the length alone. Transformers' `dynamic` also remembers the longest sequence so far and uses its
// frequencies for shorter ones that are over max_position_embeddings; here each sequence has those of its own length.
class RotaryEmbedding {
 public:
  // `head_dim` is even, and over 2 for kDynamic.
  RotaryEmbedding(RopeOptions options, int64_t head_dim, int64_t max_position_embeddings);

  // Both [1, length, head_dim], computed in fp32 and then of the dtype and device of `like`.
  [[nodiscard]] std::pair<at::Tensor, at::Tensor> cos_sin(int64_t length, const at::Tensor& like) const;

  // Inverse frequencies of a sequence, fp32 [head_dim / 2] on the CPU.
  [[nodiscard]] at::Tensor inverse_frequencies(int64_t length) const;
  // What cosines and sines are multiplied with.
  [[nodiscard]] double attention_scaling() const { return attention_scaling_; }

 private:
  RopeOptions options_;
  int64_t head_dim_;
  int64_t max_position_embeddings_;
  double attention_scaling_;
};

// `x` [batch, heads, length, head_dim], `cos` and `sin` [1, 1, length, head_dim].
[[nodiscard]] at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace hydrofoil::models
