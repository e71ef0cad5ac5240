#pragma once

#include <c10/core/ScalarType.h>

#include "hydrofoil/storage/dtype.h"

namespace hydrofoil::memory {

// Throws InvalidArgument for a dtype that files do not hold (complex, quantized, float8).
[[nodiscard]] storage::DType to_storage_dtype(c10::ScalarType dtype);
[[nodiscard]] c10::ScalarType to_torch_dtype(storage::DType dtype);

}  // namespace hydrofoil::memory
