#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hydrofoil::memory {

// 1-D tensor over `memory` of num_bytes, which its storage owns. It cannot be resized.
[[nodiscard]] at::Tensor flat_tensor_over(c10::DataPtr memory, int64_t num_bytes, int64_t numel, at::ScalarType dtype);

}  // namespace hydrofoil::memory
