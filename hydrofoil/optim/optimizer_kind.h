#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::optim {

enum class OptimizerKind { kAdam, kAdamW, kSgd, kAdagrad, kLion };

// Hyperparameters of one parameter group; an optimizer reads the ones it knows.
struct Hyperparameters {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double momentum = 0.0;
  double dampening = 0.0;
  bool nesterov = false;
  bool bias_correction = true;
};

// Parses "adam", "AdamW", "SGD", "adagrad", "lion", case-insensitively. `adam_w_mode` turns Adam into AdamW.
// Throws InvalidArgument that lists the known names.
[[nodiscard]] OptimizerKind parse_optimizer_kind(std::string_view name, bool adam_w_mode);

// "Adam", "AdamW", "SGD", "Adagrad" or "Lion".
[[nodiscard]] const char* optimizer_name(OptimizerKind kind);

// Which hyperparameters a kind reads, by torch.optim's names: {"lr", "betas", "eps", ...}.
[[nodiscard]] const std::vector<std::string>& hyperparameter_names(OptimizerKind kind);

// Names of the state tensors that a kind keeps for each element, e.g. {"exp_avg", "exp_avg_sq"}.
[[nodiscard]] const std::vector<std::string>& state_names(OptimizerKind kind);

// The same for given groups: SGD keeps no state where every group's momentum is 0.
[[nodiscard]] const std::vector<std::string>& state_names(OptimizerKind kind, std::span<const Hyperparameters> groups);

}  // namespace hydrofoil::optim
