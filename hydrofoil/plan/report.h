#pragma once

#include <string>

#include "hydrofoil/plan/plan.h"

namespace hydrofoil::plan {

// A table for people: bytes a rank by category, the peak and where, collectives and time of a step, the largest units.
[[nodiscard]] std::string to_text(const Plan& plan);

// The same for programs, as JSON text; `with_timeline` adds events and memory points.
[[nodiscard]] std::string to_json(const Plan& plan, bool with_timeline = false);

}  // namespace hydrofoil::plan
