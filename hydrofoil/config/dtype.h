#pragma once

#include <string>
#include <utility>
#include <vector>

namespace hydrofoil::config {

// Element types that a config can name.
enum class DType { kFloat32, kBFloat16, kFloat16 };

// "fp32", "bf16", "fp16".
[[nodiscard]] const char* dtype_name(DType dtype);

// Every spelling DeepSpeed's DtypeEnum accepts for these types ("fp32", "float32", "torch.float32", "float", ...); the
// first of each type is its name.
[[nodiscard]] const std::vector<std::pair<std::string, DType>>& dtype_spellings();

}  // namespace hydrofoil::config
