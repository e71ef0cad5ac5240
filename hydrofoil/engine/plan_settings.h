#pragma once

#include <string>
#include <vector>

#include "hydrofoil/engine/engine_options.h"
#include "hydrofoil/plan/settings.h"

namespace hydrofoil::engine {

// What the planner has to know of a resolved config. Where it names no optimizer, or one of torch.optim, two states an
// element are planned, as of AdamW.
[[nodiscard]] plan::Settings plan_settings(const EngineOptions& options, const ResolveContext& context);

// Modules that the config keeps whole.
[[nodiscard]] std::vector<std::string> whole_modules(const EngineOptions& options);

}  // namespace hydrofoil::engine
