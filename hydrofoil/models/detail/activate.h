#pragma once

#include <ATen/core/Tensor.h>

#include "hydrofoil/models/activation.h"

namespace hydrofoil::models {

// The operators of Transformers' class of that name, one by one.
[[nodiscard]] at::Tensor activate(Activation activation, const at::Tensor& x);

}  // namespace hydrofoil::models
