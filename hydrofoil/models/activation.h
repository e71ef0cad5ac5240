#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::models {

enum class Activation { kGelu, kGeluFast, kGeluNew, kGeluPytorchTanh, kQuickGelu, kRelu, kSigmoid, kSilu, kTanh };

// By the names of `hidden_act` and `activation_function`: "gelu_new", "silu", "swish", ...
[[nodiscard]] std::optional<Activation> parse_activation(std::string_view name);
[[nodiscard]] std::vector<std::string> activation_names();

}  // namespace hydrofoil::models
