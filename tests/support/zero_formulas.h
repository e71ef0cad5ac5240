#pragma once

#include <cmath>
#include <cstdint>

#include "hydrofoil/plan/settings.h"

namespace hydrofoil::testing {

// The closed formulas of plan/scaling.h, written down a second time.
struct ZeroFormula {
  int64_t num_units = 0;
  int64_t num_elements = 0;
  double parameter_bytes = 0;  // an element
  double gradient_bytes = 0;

  // Seconds that the collectives of a step take over one kind of link.
  [[nodiscard]] double seconds(int stage, double num_ranks, double micro_steps, double latency_s, double bytes_per_s,
                               plan::CollectiveAlgorithm algorithm) const {
    const double messages =
        algorithm == plan::CollectiveAlgorithm::kRing ? num_ranks - 1 : std::ceil(std::log2(num_ranks));
    const auto once = [&](double bytes_an_element) {
      return static_cast<double>(num_units) * messages * latency_s +
             (num_ranks - 1) / num_ranks * bytes_an_element * static_cast<double>(num_elements) / bytes_per_s;
    };
    const double gather = once(parameter_bytes);
    const double reduce = once(gradient_bytes);
    if (stage == 1) return reduce + gather;
    if (stage == 2) return micro_steps * reduce + gather;
    return micro_steps * (reduce + 2 * gather);
  }
};

}  // namespace hydrofoil::testing
