#include "hydrofoil/memory/torch_dtype.h"

#include <array>
#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::memory {
namespace {

using storage::DType;

constexpr std::array<std::pair<c10::ScalarType, DType>, 10> kPairs = {{{c10::ScalarType::Double, DType::kF64},
                                                                       {c10::ScalarType::Float, DType::kF32},
                                                                       {c10::ScalarType::Half, DType::kF16},
                                                                       {c10::ScalarType::BFloat16, DType::kBF16},
                                                                       {c10::ScalarType::Long, DType::kI64},
                                                                       {c10::ScalarType::Int, DType::kI32},
                                                                       {c10::ScalarType::Short, DType::kI16},
                                                                       {c10::ScalarType::Char, DType::kI8},
                                                                       {c10::ScalarType::Byte, DType::kU8},
                                                                       {c10::ScalarType::Bool, DType::kBool}}};

}  // namespace

DType to_storage_dtype(c10::ScalarType dtype) {
  for (const auto& [torch, stored] : kPairs) {
    if (torch == dtype) return stored;
  }
  HYDROFOIL_CHECK_ARG(false, "to_storage_dtype", "dtype: got ", c10::toString(dtype),
                      ", expected a real, integer or boolean type of at most 64 bits");
}

c10::ScalarType to_torch_dtype(DType dtype) {
  for (const auto& [torch, stored] : kPairs) {
    if (stored == dtype) return torch;
  }
  HYDROFOIL_ASSERT(false, "dtype ", static_cast<int>(dtype));
}

}  // namespace hydrofoil::memory
