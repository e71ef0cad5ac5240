#include "hydrofoil/optim/grad_clip.h"

#include <cmath>

#include "hydrofoil/base/error.h"

namespace hydrofoil::optim {

float global_norm(double sum_of_squares) { return static_cast<float>(std::sqrt(sum_of_squares)); }

float clip_coefficient(float norm, double max_norm) {
  HYDROFOIL_CHECK_ARG(std::isfinite(max_norm) && max_norm >= 0, "clip_coefficient", "max_norm: got ", max_norm,
                      ", expected a finite number of at least 0");
  if (max_norm == 0) return 1.0f;
  // torch divides a number by a tensor as reciprocal times number.
  const float coefficient = (1.0f / (norm + 1e-6f)) * static_cast<float>(max_norm);
  return coefficient > 1.0f ? 1.0f : coefficient;
}

}  // namespace hydrofoil::optim
