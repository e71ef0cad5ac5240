#pragma once

#include "hydrofoil/base/stopwatch.h"

namespace hydrofoil::zero {

// How long the thread that computes has stood still for other ranks. Nothing is counted, and nothing paid, until
// `counted` is set.
struct WaitTimes {
  bool counted = false;
  Stopwatch gather;  // from the need of a unit to the unit; and for the parameters that a step publishes
  Stopwatch reduce;  // from the need of a reduced gradient to the gradient, with what is left to do to it; and for the
                     // norm

  [[nodiscard]] Stopwatch* for_gather() { return counted ? &gather : nullptr; }
  [[nodiscard]] Stopwatch* for_reduce() { return counted ? &reduce : nullptr; }
};

}  // namespace hydrofoil::zero
