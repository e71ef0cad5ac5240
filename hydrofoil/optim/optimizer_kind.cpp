#include "hydrofoil/optim/optimizer_kind.h"

#include <algorithm>

#include "hydrofoil/base/error.h"

namespace hydrofoil::optim {
namespace {

struct KindNames {
  const char* optimizer;
  std::vector<std::string> hyperparameters;
  std::vector<std::string> states;
};

const KindNames& names_of(OptimizerKind kind) {
  static const std::vector<std::string> kAdamHyperparameters{"lr", "betas", "eps", "weight_decay", "bias_correction"};
  static const std::vector<std::string> kAdamStates{"exp_avg", "exp_avg_sq"};
  static const KindNames kAdam{"Adam", kAdamHyperparameters, kAdamStates};
  static const KindNames kAdamW{"AdamW", kAdamHyperparameters, kAdamStates};
  static const KindNames kSgd{"SGD", {"lr", "momentum", "dampening", "weight_decay", "nesterov"}, {"momentum_buffer"}};
  static const KindNames kAdagrad{"Adagrad", {"lr", "eps", "weight_decay"}, {"sum"}};
  static const KindNames kLion{"Lion", {"lr", "betas", "weight_decay"}, {"exp_avg"}};
  switch (kind) {
    case OptimizerKind::kAdam:
      return kAdam;
    case OptimizerKind::kAdamW:
      return kAdamW;
    case OptimizerKind::kSgd:
      return kSgd;
    case OptimizerKind::kAdagrad:
      return kAdagrad;
    case OptimizerKind::kLion:
      return kLion;
  }
  HYDROFOIL_ASSERT(false, "unknown optimizer kind");
}

}  // namespace

OptimizerKind parse_optimizer_kind(std::string_view name, bool adam_w_mode) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (lower == "adam") return adam_w_mode ? OptimizerKind::kAdamW : OptimizerKind::kAdam;
  if (lower == "adamw") return OptimizerKind::kAdamW;
  if (lower == "sgd") return OptimizerKind::kSgd;
  if (lower == "adagrad") return OptimizerKind::kAdagrad;
  if (lower == "lion") return OptimizerKind::kLion;
  HYDROFOIL_CHECK_ARG(false, "parse_optimizer_kind", "optimizer: got '", name,
                      "', expected one of adam, adamw, sgd, adagrad, lion");
}

const char* optimizer_name(OptimizerKind kind) { return names_of(kind).optimizer; }

const std::vector<std::string>& hyperparameter_names(OptimizerKind kind) { return names_of(kind).hyperparameters; }

const std::vector<std::string>& state_names(OptimizerKind kind) { return names_of(kind).states; }

const std::vector<std::string>& state_names(OptimizerKind kind, std::span<const Hyperparameters> groups) {
  static const std::vector<std::string> kNone;
  const bool has_momentum =
      std::any_of(groups.begin(), groups.end(), [](const auto& group) { return group.momentum != 0; });
  return kind == OptimizerKind::kSgd && !has_momentum ? kNone : state_names(kind);
}

}  // namespace hydrofoil::optim
