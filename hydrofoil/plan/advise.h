#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "hydrofoil/plan/plan.h"
#include "hydrofoil/plan/transformer_spec.h"

namespace hydrofoil::plan {

// What is to be trained, in a memory of `memory_bytes` a rank.
struct Question {
  std::function<ModelSpec(const BatchShape&)> spec;  // of the model for a micro batch
  bool has_costs = true;                             // its costs depend on the batch; else only states are planned
  BatchShape batch;
  Settings settings;
  Roofs roofs;
  int64_t memory_bytes = 0;
};

// Settings that fit.
struct Fit {
  Settings settings;
  BatchShape batch;
  int64_t peak_bytes = 0;
  double step_seconds = 0.0;
  std::string changes;  // "zero_optimization.stage 3, micro batch 2 (gradient_accumulation_steps 8)"
};

// The plan of a job in that memory: where the config leaves it open, half of what the plan leaves free is for units
// that stay gathered, as the running engine chooses it. Writes the choice into `settings`.
[[nodiscard]] Plan make_plan_within(const ModelSpec& spec, Settings& settings, const Roofs& roofs,
                                    int64_t memory_bytes);

// The fastest settings by the plan that train the same global batch in the memory, among: a higher stage, activation
// checkpointing, a smaller micro batch with more accumulation. nullopt where none fits.
[[nodiscard]] std::optional<Fit> find_fit(const Question& question);

// Why `plan` does not fit and what would: numbers and the cheapest setting; where none fits, the fewest ranks on which
// the leanest settings would, and what offload would leave, which the engine does not have yet.
[[nodiscard]] std::string explain_misfit(const Question& question, const Plan& plan);

}  // namespace hydrofoil::plan
