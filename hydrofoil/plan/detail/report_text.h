#pragma once

#include <cstdint>
#include <string>

#include "hydrofoil/plan/plan.h"

namespace hydrofoil::plan::detail {

// "1,234,567"
[[nodiscard]] std::string with_commas(int64_t value);
// "5 us", "12.3 ms", "1.5 s"
[[nodiscard]] std::string format_seconds(double value);
// What is planned, in one line: parameters, ranks, stage, dtypes, micro steps.
[[nodiscard]] std::string heading(const Plan& plan);

}  // namespace hydrofoil::plan::detail
