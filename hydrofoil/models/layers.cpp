#include <ATen/ops/addmm.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include "hydrofoil/models/detail/layers.h"

namespace hydrofoil::models {

at::Tensor apply(zero::Boundaries& boundaries, const Embedding& layer, const at::Tensor& tokens) {
  return boundaries.call(layer.module, {}, [&] { return at::embedding(layer.weight, tokens, layer.padding_idx); });
}

at::Tensor apply(zero::Boundaries& boundaries, const Linear& layer, const at::Tensor& x) {
  return boundaries.call(layer.module, {x}, [&] {
    return layer.bias.defined() ? at::linear(x, layer.weight, layer.bias) : at::linear(x, layer.weight);
  });
}

at::Tensor apply(zero::Boundaries& boundaries, const Conv1d& layer, const at::Tensor& x) {
  return boundaries.call(layer.module, {x}, [&] {
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = layer.weight.size(1);
    return at::addmm(layer.bias, x.view({-1, x.size(-1)}), layer.weight).view(sizes);
  });
}

at::Tensor apply(zero::Boundaries& boundaries, const LayerNorm& layer, const at::Tensor& x) {
  return boundaries.call(layer.module, {x},
                         [&] { return at::layer_norm(x, layer.weight.sizes(), layer.weight, layer.bias, layer.eps); });
}

at::Tensor apply(zero::Boundaries& boundaries, const RmsNorm& layer, const at::Tensor& x) {
  return boundaries.call(layer.module, {x}, [&] {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor variance = wide.pow(2).mean({-1}, /*keepdim=*/true);
    return layer.weight.mul(wide.mul(at::rsqrt(variance.add(layer.eps))).to(x.scalar_type()));
  });
}

at::Tensor LayerBuilder::parameter(int module, const std::string& name, at::IntArrayRef sizes) {
  at::Tensor tensor = at::zeros(sizes, options_);
  tensor.set_requires_grad(true);
  tree_.add_parameter(module, name, tensor);
  return tensor;
}

int LayerBuilder::module(const std::string& name, const std::string& type_name, int parent, bool is_list) {
  return tree_.add_module(name, type_name, parent, is_list);
}

Embedding LayerBuilder::embedding(const std::string& name, int parent, int64_t num, int64_t dim,
                                  std::optional<int64_t> padding_idx) {
  const int number = module(name, "Embedding", parent);
  return {number, parameter(number, "weight", {num, dim}), padding_idx.value_or(-1)};
}

Linear LayerBuilder::linear(const std::string& name, int parent, int64_t in, int64_t out, bool bias) {
  Linear layer{module(name, "Linear", parent), {}, {}};
  layer.weight = parameter(layer.module, "weight", {out, in});
  if (bias) layer.bias = parameter(layer.module, "bias", {out});
  return layer;
}

Linear LayerBuilder::tied_linear(const std::string& name, int parent, const at::Tensor& weight) {
  const int number = module(name, "Linear", parent);
  tree_.add_parameter(number, "weight", weight);
  return {number, weight, {}};
}

Conv1d LayerBuilder::conv1d(const std::string& name, int parent, int64_t in, int64_t out) {
  Conv1d layer{module(name, "Conv1D", parent), {}, {}};
  layer.weight = parameter(layer.module, "weight", {in, out});
  layer.bias = parameter(layer.module, "bias", {out});
  return layer;
}

LayerNorm LayerBuilder::layer_norm(const std::string& name, int parent, int64_t dim, double eps) {
  LayerNorm layer{module(name, "LayerNorm", parent), {}, {}, eps};
  layer.weight = parameter(layer.module, "weight", {dim});
  layer.bias = parameter(layer.module, "bias", {dim});
  return layer;
}

RmsNorm LayerBuilder::rms_norm(const std::string& name, int parent, int64_t dim, double eps) {
  const int number = module(name, "LlamaRMSNorm", parent);
  return {number, parameter(number, "weight", {dim}), eps};
}

namespace {

// Heads over this size leave the kernels that share keys between heads; Transformers copies the keys then.
constexpr int64_t kMaxSharedHeadDim = 256;

at::Tensor repeat_heads(const at::Tensor& x, int64_t times) {
  const auto sizes = x.sizes();
  return x.unsqueeze(2)
      .expand({sizes[0], sizes[1], times, sizes[2], sizes[3]})
      .reshape({sizes[0], sizes[1] * times, sizes[2], sizes[3]});
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, double dropout,
                            double scaling) {
  const int64_t heads_per_key = query.size(1) / key.size(1);
  const bool copies_keys = heads_per_key > 1 && key.size(-1) > kMaxSharedHeadDim;
  const at::Tensor output = at::scaled_dot_product_attention(
      query, copies_keys ? repeat_heads(key, heads_per_key) : key,
      copies_keys ? repeat_heads(value, heads_per_key) : value, /*attn_mask=*/std::nullopt, dropout,
      /*is_causal=*/query.size(2) > 1, scaling, /*enable_gqa=*/heads_per_key > 1 && !copies_keys);
  return output.transpose(1, 2).contiguous().view({query.size(0), query.size(2), query.size(1) * query.size(3)});
}

at::Tensor split_heads(const at::Tensor& x, int64_t num_heads, int64_t head_dim) {
  return x.view({x.size(0), x.size(1), num_heads, head_dim}).transpose(1, 2);
}

}  // namespace hydrofoil::models
