#pragma once

#include <c10/core/ScalarType.h>

#include "hydrofoil/kernels/element_type.h"

namespace hydrofoil::kernels {

// The kernels' name of a torch dtype. Throws InvalidArgument unless it is float32, bfloat16 or float16.
[[nodiscard]] ElementType element_type(at::ScalarType dtype);

}  // namespace hydrofoil::kernels
