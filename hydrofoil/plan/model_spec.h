#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/zero/unit_planner.h"

namespace hydrofoil::plan {

struct ParameterSpec {
  std::string name;
  int64_t numel = 0;
  c10::ScalarType dtype = c10::ScalarType::Float;
  bool trainable = true;
};

// What a rank computes.
struct ComputeWork {
  double product_flops = 0.0;    // of matrix products
  double attention_flops = 0.0;  // of fused attention, a causal half once
  double traffic_bytes = 0.0;    // read and written by what is neither
  double num_calls = 0.0;        // operators

  ComputeWork& operator+=(const ComputeWork& other);
};

// What one call of a module itself costs (its children apart), for one micro batch of one rank.
struct ModuleCost {
  int64_t saved_bytes = 0;               // kept from its forward to the end of its backward
  int64_t forward_workspace_bytes = 0;   // beside them, at the worst moment of its forward
  int64_t backward_workspace_bytes = 0;  // the same of its backward: gradients of activations and weights
  int64_t left_by_backward_bytes = 0;    // from its backward to the end of the whole backward
  ComputeWork forward;
  ComputeWork backward;
};

// A model as the planner sees it: shapes, no tensors.
struct ModelSpec {
  std::vector<zero::ModuleNode> modules;
  std::vector<ParameterSpec> parameters;
  std::vector<ModuleCost> costs;  // one a module, or none: neither activations nor compute are planned

  [[nodiscard]] int64_t num_parameters() const;
  [[nodiscard]] int64_t num_trainable() const;
};

// "float32", "bfloat16", ...
[[nodiscard]] const char* dtype_text(c10::ScalarType dtype);
// The other way; throws InvalidArgument for another name.
[[nodiscard]] c10::ScalarType parse_dtype(std::string_view name);

// Bytes of an element. Throws InvalidArgument for a dtype that no parameter can have. (c10::elementSize needs libc10.)
[[nodiscard]] int64_t element_bytes(c10::ScalarType dtype);
[[nodiscard]] bool is_floating(c10::ScalarType dtype);
// Whether the functions above know it.
[[nodiscard]] bool is_known(c10::ScalarType dtype);

}  // namespace hydrofoil::plan
