#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/optim/optimizer.h"

namespace hydrofoil::engine {

// Hyperparameters of the parameter groups as a checkpoint keeps them: a JSON array of objects with torch.optim's names
// (lr, betas, eps, weight_decay, momentum, ...), those that the kind reads.
[[nodiscard]] std::string groups_to_json(optim::OptimizerKind kind, const std::vector<optim::Hyperparameters>& groups);

// Sets what the text names, also where Python wrote it. Throws InvalidArgument for another number of groups and for
// values of a wrong type.
void groups_from_json(std::string_view text, std::vector<optim::Hyperparameters>& groups);

}  // namespace hydrofoil::engine
