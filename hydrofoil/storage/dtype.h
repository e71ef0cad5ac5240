#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hydrofoil::storage {

// Element types of stored tensors, under the names that safetensors gives them.
enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

[[nodiscard]] int64_t dtype_bytes(DType dtype);

// "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL".
[[nodiscard]] std::string_view dtype_name(DType dtype);
[[nodiscard]] std::optional<DType> parse_dtype(std::string_view name);

// Number of elements of a shape (1 for no dimensions); nullopt for a negative dimension or a product over 2^63 - 1,
// even where another dimension is 0.
[[nodiscard]] std::optional<int64_t> checked_numel(std::span<const int64_t> shape);

// Bytes of that many elements; nullopt where they are over 2^63 - 1.
[[nodiscard]] std::optional<int64_t> checked_bytes(std::span<const int64_t> shape, DType dtype);

}  // namespace hydrofoil::storage
