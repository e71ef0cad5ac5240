#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "hydrofoil/zero/model_tree.h"

// The leaves of a model: each holds its parameters and its module number in the tree. apply() runs the module's forward
// through the tree's boundaries.
namespace hydrofoil::models {

struct Embedding {
  int module = -1;
  at::Tensor weight;  // [num, dim]
  int64_t padding_idx = -1;
};

struct Linear {
  int module = -1;
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // undefined: none
};

// Transformers' Conv1D: a linear layer whose weight is [in, out].
struct Conv1d {
  int module = -1;
  at::Tensor weight;
  at::Tensor bias;
};

struct LayerNorm {
  int module = -1;
  at::Tensor weight;
  at::Tensor bias;
  double eps = 0.0;
};

// Computes in fp32 and rounds before it multiplies with the weight, as LlamaRMSNorm does.
struct RmsNorm {
  int module = -1;
  at::Tensor weight;
  double eps = 0.0;
};

[[nodiscard]] at::Tensor apply(zero::Boundaries& boundaries, const Embedding& layer, const at::Tensor& tokens);
[[nodiscard]] at::Tensor apply(zero::Boundaries& boundaries, const Linear& layer, const at::Tensor& x);
[[nodiscard]] at::Tensor apply(zero::Boundaries& boundaries, const Conv1d& layer, const at::Tensor& x);
[[nodiscard]] at::Tensor apply(zero::Boundaries& boundaries, const LayerNorm& layer, const at::Tensor& x);
[[nodiscard]] at::Tensor apply(zero::Boundaries& boundaries, const RmsNorm& layer, const at::Tensor& x);

// Adds modules and their zero-filled parameters to a tree, in the order of the calls.
class LayerBuilder {
 public:
  LayerBuilder(zero::ModelTree& tree, at::TensorOptions options) : tree_(tree), options_(options) {}

  int module(const std::string& name, const std::string& type_name, int parent, bool is_list = false);
  [[nodiscard]] Embedding embedding(const std::string& name, int parent, int64_t num, int64_t dim,
                                    std::optional<int64_t> padding_idx = std::nullopt);
  [[nodiscard]] Linear linear(const std::string& name, int parent, int64_t in, int64_t out, bool bias);
  // A linear layer without bias whose weight is `weight`, that of another module.
  [[nodiscard]] Linear tied_linear(const std::string& name, int parent, const at::Tensor& weight);
  [[nodiscard]] Conv1d conv1d(const std::string& name, int parent, int64_t in, int64_t out);
  [[nodiscard]] LayerNorm layer_norm(const std::string& name, int parent, int64_t dim, double eps);
  [[nodiscard]] RmsNorm rms_norm(const std::string& name, int parent, int64_t dim, double eps);

 private:
  at::Tensor parameter(int module, const std::string& name, at::IntArrayRef sizes);

  zero::ModelTree& tree_;
  at::TensorOptions options_;
};

// Causal attention through the operator that Transformers' SDPA path takes. `query` [batch, heads, length, head_dim],
// `key` and `value` with as many or fewer heads; the result is [batch, length, heads * head_dim].
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                          double dropout, double scaling);

// [batch, length, heads * head_dim] as [batch, heads, length, head_dim], a view.
[[nodiscard]] at::Tensor split_heads(const at::Tensor& x, int64_t num_heads, int64_t head_dim);

}  // namespace hydrofoil::models
