#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hydrofoil/plan/collective_time.h"
#include "hydrofoil/plan/model_spec.h"
#include "hydrofoil/plan/settings.h"
#include "hydrofoil/plan/timeline.h"
#include "hydrofoil/plan/unit_bytes.h"

namespace hydrofoil::plan {

// What a rank holds at most, permanent state included, and the moment of a step at which it does. Where pools keep
// their pages (Settings), slots count as at their own peak, whenever that is.
struct Peak {
  int64_t bytes = 0;
  int64_t state_bytes = 0;  // that exist at that moment
  int64_t slot_bytes = 0;
  int64_t activation_bytes = 0;
  int64_t workspace_bytes = 0;
  Phase phase = Phase::kForward;
  int64_t micro_step = 0;
  std::string where;  // the module that runs, or the unit that arrives
};

// Collectives of one kind in one optimizer step.
struct CollectiveTotal {
  Activity activity = Activity::kGather;
  Collective collective = Collective::kAllGather;
  int64_t count = 0;
  int64_t bytes = 0;         // of the full tensors
  double moved_bytes = 0.0;  // that one rank sends
};

// What one rank of a job keeps, does and takes at a steady optimizer step.
struct Plan {
  Settings settings;
  int64_t num_parameters = 0;
  int64_t num_trainable = 0;
  StateBytes states;  // exact; the gradients pass where Settings::passing_gradients
  std::vector<UnitBytes> units;
  std::vector<std::string> modules;  // paths, for Event::module
  int64_t largest_unit_bytes = 0;
  int64_t peak_slot_bytes = 0;
  int64_t kept_gathered_bytes = 0;  // of units that stay gathered until the step
  int64_t peak_activation_bytes = 0;
  Peak peak;
  std::vector<CollectiveTotal> collectives;
  double step_seconds = 0.0;
  Timeline timeline;

  // Of the states, what exists all the time: a MemoryPoint's bytes come on top.
  [[nodiscard]] int64_t permanent_bytes() const;
};

// Plans without allocating anything: costs grow with the modules and parameter tensors of `spec`, not with ranks or
// elements. Throws InvalidArgument for settings or a tree that are none, and where sizes do not fit in 63 bits.
[[nodiscard]] Plan make_plan(const ModelSpec& spec, const Settings& settings, const Roofs& roofs = {});

}  // namespace hydrofoil::plan
