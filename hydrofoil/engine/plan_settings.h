#pragma once

#include "hydrofoil/engine/engine_options.h"
#include "hydrofoil/plan/settings.h"

namespace hydrofoil::engine {

// torch's dtype of the config's.
[[nodiscard]] c10::ScalarType scalar_type(DType dtype);

// What the planner has to know of a resolved config. Where it names no optimizer, or one of torch.optim, two states an
// element are planned, as of AdamW.
[[nodiscard]] plan::Settings plan_settings(const EngineOptions& options, const ResolveContext& context);

// Whether buckets of 16-bit gradients are to stay 16-bit, where the transport sums them in fp32.
[[nodiscard]] bool wants_narrow_buckets(const EngineOptions& options);

// What `settings` become where all ranks share the memory of one host: parameters are kept once.
void assume_one_host(const EngineOptions& options, plan::Settings& settings);

}  // namespace hydrofoil::engine
