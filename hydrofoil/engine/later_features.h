#pragma once

#include <vector>

#include "hydrofoil/config/field.h"

namespace hydrofoil::engine {

// Top-level keys and sections of ds_config.json that belong to features the engine does not have yet, or that only tune
// DeepSpeed's own implementation. Their values go nowhere; an active feature is an error.
[[nodiscard]] std::vector<config::Field> later_feature_fields();

}  // namespace hydrofoil::engine
