#include "hydrofoil/models/activation.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::models {
namespace {

constexpr std::array<std::pair<std::string_view, Activation>, 10> kNames = {
    {{"gelu", Activation::kGelu},
     {"gelu_fast", Activation::kGeluFast},
     {"gelu_new", Activation::kGeluNew},
     {"gelu_pytorch_tanh", Activation::kGeluPytorchTanh},
     {"quick_gelu", Activation::kQuickGelu},
     {"relu", Activation::kRelu},
     {"sigmoid", Activation::kSigmoid},
     {"silu", Activation::kSilu},
     {"swish", Activation::kSilu},
     {"tanh", Activation::kTanh}}};

}  // namespace

std::optional<Activation> parse_activation(std::string_view name) {
  for (const auto& [known, activation] : kNames) {
    if (known == name) return activation;
  }
  return std::nullopt;
}

std::vector<std::string> activation_names() {
  std::vector<std::string> names;
  for (const auto& [name, activation] : kNames) names.emplace_back(name);
  return names;
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluFast:
      return x.mul(0.5).mul(at::tanh(x.mul(0.7978845608).mul(x.mul(0.044715).mul(x).add(1.0))).add(1.0));
    case Activation::kGeluNew: {
      // The order of the calls is that of the gradient's sums.
      const at::Tensor half = x.mul(0.5);
      const at::Tensor inner = x.add(at::pow(x, 3.0).mul(0.044715)).mul(std::sqrt(2.0 / std::numbers::pi));
      return half.mul(at::tanh(inner).add(1.0));
    }
    case Activation::kGeluPytorchTanh:
      return at::gelu(x, "tanh");
    case Activation::kQuickGelu:
      return x.mul(at::sigmoid(x.mul(1.702)));
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kSigmoid:
      return at::sigmoid(x);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kTanh:
      return at::tanh(x);
  }
  HYDROFOIL_ASSERT(false, "activation ", static_cast<int>(activation));
}

}  // namespace hydrofoil::models
