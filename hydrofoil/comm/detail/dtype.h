#pragma once

#include <c10/core/ScalarType.h>

#include "hydrofoil/comm/detail/reduce.h"

namespace hydrofoil::comm::detail {

// "float32", "bfloat16", ... for the dtypes that Group takes; "unsupported" else.
[[nodiscard]] inline const char* dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::ScalarType::Float:
      return "float32";
    case at::ScalarType::BFloat16:
      return "bfloat16";
    case at::ScalarType::Half:
      return "float16";
    case at::ScalarType::Char:
      return "int8";
    case at::ScalarType::Int:
      return "int32";
    case at::ScalarType::Long:
      return "int64";
    default:
      return "unsupported";
  }
}

[[nodiscard]] inline bool is_supported(at::ScalarType dtype) {
  return dtype == at::ScalarType::Float || dtype == at::ScalarType::BFloat16 || dtype == at::ScalarType::Half ||
         dtype == at::ScalarType::Char || dtype == at::ScalarType::Int || dtype == at::ScalarType::Long;
}

[[nodiscard]] inline bool is_16_bit_float(at::ScalarType dtype) {
  return dtype == at::ScalarType::BFloat16 || dtype == at::ScalarType::Half;
}

[[nodiscard]] inline bool is_floating(at::ScalarType dtype) {
  return dtype == at::ScalarType::Float || is_16_bit_float(dtype);
}

[[nodiscard]] inline ElementType element_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::ScalarType::BFloat16:
      return ElementType::kBFloat16;
    case at::ScalarType::Half:
      return ElementType::kFloat16;
    case at::ScalarType::Char:
      return ElementType::kInt8;
    case at::ScalarType::Int:
      return ElementType::kInt32;
    case at::ScalarType::Long:
      return ElementType::kInt64;
    default:
      return ElementType::kFloat32;
  }
}

}  // namespace hydrofoil::comm::detail
