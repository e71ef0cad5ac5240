#include "hydrofoil/models/activation.h"

#include <array>
#include <utility>

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

}  // namespace hydrofoil::models
