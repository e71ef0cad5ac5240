#pragma once

#include <cstdint>

namespace hydrofoil::kernels {

// Element types that the kernels read and write.
enum class ElementType { kFloat32, kBFloat16, kFloat16 };

[[nodiscard]] constexpr int64_t element_bytes(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

}  // namespace hydrofoil::kernels
