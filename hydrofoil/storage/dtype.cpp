#include "hydrofoil/storage/dtype.h"

#include <array>

#include "hydrofoil/base/error.h"

namespace hydrofoil::storage {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  int64_t num_bytes;
};

constexpr std::array<Entry, 10> kEntries = {{{DType::kF64, "F64", 8},
                                             {DType::kF32, "F32", 4},
                                             {DType::kF16, "F16", 2},
                                             {DType::kBF16, "BF16", 2},
                                             {DType::kI64, "I64", 8},
                                             {DType::kI32, "I32", 4},
                                             {DType::kI16, "I16", 2},
                                             {DType::kI8, "I8", 1},
                                             {DType::kU8, "U8", 1},
                                             {DType::kBool, "BOOL", 1}}};

const Entry& entry(DType dtype) {
  for (const Entry& candidate : kEntries) {
    if (candidate.dtype == dtype) return candidate;
  }
  HYDROFOIL_ASSERT(false, "dtype ", static_cast<int>(dtype));
}

}  // namespace

int64_t dtype_bytes(DType dtype) { return entry(dtype).num_bytes; }

std::string_view dtype_name(DType dtype) { return entry(dtype).name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (const Entry& candidate : kEntries) {
    if (candidate.name == name) return candidate.dtype;
  }
  return std::nullopt;
}

std::optional<int64_t> checked_numel(std::span<const int64_t> shape) {
  int64_t nonzero_product = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(nonzero_product, size, &nonzero_product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : nonzero_product;
}

std::optional<int64_t> checked_bytes(std::span<const int64_t> shape, DType dtype) {
  const auto numel = checked_numel(shape);
  int64_t num_bytes = 0;
  if (!numel || __builtin_mul_overflow(*numel, dtype_bytes(dtype), &num_bytes)) return std::nullopt;
  return num_bytes;
}

}  // namespace hydrofoil::storage
