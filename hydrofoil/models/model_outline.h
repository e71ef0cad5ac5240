#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hydrofoil/models/model_config.h"
#include "hydrofoil/zero/unit_planner.h"

namespace hydrofoil::models {

struct ParameterOutline {
  std::string name;
  std::vector<int64_t> sizes;

  [[nodiscard]] int64_t numel() const;
};

// The modules and parameters of a model, without tensors.
struct ModelOutline {
  std::vector<zero::ModuleNode> modules;
  std::vector<ParameterOutline> parameters;  // each once, under its first name
};

// Of what make_model builds: the same modules under the same numbers. Throws InvalidArgument where the config is wrong.
[[nodiscard]] ModelOutline outline_model(const ModelConfig& config);

}  // namespace hydrofoil::models
