#pragma once

#include <cstdint>
#include <optional>

#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/kernels/element_type.h"

namespace hydrofoil::kernels {

struct GradientStats {
  double sum_of_squares = 0;                // infinite or NaN where an element is
  std::optional<int64_t> first_non_finite;  // index of the first element that is infinite or NaN
};

// One pass over `numel` elements of host memory. Squares are exact in double; they are added in a fixed structure of
// blocks counted from `data`, so the bits depend neither on the number of threads nor on `isa`. Throws InvalidArgument
// if `numel` < 0, or `data` is null while `numel` > 0.
[[nodiscard]] GradientStats gradient_stats(const void* data, ElementType type, int64_t numel, CpuIsa isa = cpu_isa());

}  // namespace hydrofoil::kernels
