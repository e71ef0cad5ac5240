#include "hydrofoil/plan/detail/report_text.h"

#include <array>
#include <cstdio>

#include "hydrofoil/base/error.h"

namespace hydrofoil::plan::detail {

using hydrofoil::detail::concat;

std::string with_commas(int64_t value) {
  std::string text = std::to_string(value);
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > 0; at -= 3) text.insert(at, ",");
  return text;
}

std::string format_seconds(double value) {
  std::array<char, 32> text{};
  if (value < 1e-3) {
    std::snprintf(text.data(), text.size(), "%.3g us", 1e6 * value);
  } else if (value < 1) {
    std::snprintf(text.data(), text.size(), "%.3g ms", 1e3 * value);
  } else {
    std::snprintf(text.data(), text.size(), value < 1000 ? "%.3g s" : "%.0f s", value);
  }
  return text.data();
}

std::string heading(const Plan& plan) {
  const Settings& settings = plan.settings;
  std::string text = concat(with_commas(plan.num_parameters), " parameters");
  if (plan.num_trainable != plan.num_parameters) {
    text += concat(", ", with_commas(plan.num_trainable), " of them trained");
  }
  text += concat(" in ", plan.units.size(), plan.units.size() == 1 ? " unit; " : " units; ", settings.world_size,
                 settings.world_size == 1 ? " rank" : " ranks");
  if (settings.num_nodes > 1) text += concat(" on ", settings.num_nodes, " nodes");
  text += concat(", stage ", settings.stage);
  if (settings.model_dtype) text += concat(", ", dtype_text(*settings.model_dtype), " parameters");
  const bool low_states = settings.optimizer_state_dtype != c10::ScalarType::Float;
  text += concat(", ", dtype_text(settings.accumulation_dtype), " gradients, ", settings.num_optimizer_states,
                 low_states ? " bf16" : "", " optimizer states, ", settings.accumulation_steps,
                 settings.accumulation_steps == 1 ? " micro step of " : " micro steps of ", settings.micro_batch_size);
  return text;
}

}  // namespace hydrofoil::plan::detail
