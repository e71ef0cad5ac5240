#include "hydrofoil/config/dtype.h"

namespace hydrofoil::config {

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "fp32";
    case DType::kBFloat16:
      return "bf16";
    case DType::kFloat16:
      return "fp16";
  }
  return "unknown";
}

const std::vector<std::pair<std::string, DType>>& dtype_spellings() {
  static const std::vector<std::pair<std::string, DType>> spellings = {
      {"fp32", DType::kFloat32},      {"bf16", DType::kBFloat16},           {"fp16", DType::kFloat16},
      {"float32", DType::kFloat32},   {"float", DType::kFloat32},           {"torch.float32", DType::kFloat32},
      {"bfloat16", DType::kBFloat16}, {"torch.bfloat16", DType::kBFloat16}, {"float16", DType::kFloat16},
      {"half", DType::kFloat16},      {"torch.float16", DType::kFloat16},
  };
  return spellings;
}

}  // namespace hydrofoil::config
