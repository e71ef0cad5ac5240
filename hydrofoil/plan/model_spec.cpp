#include "hydrofoil/plan/model_spec.h"

#include <algorithm>
#include <array>

#include "hydrofoil/base/error.h"

namespace hydrofoil::plan {

ComputeWork& ComputeWork::operator+=(const ComputeWork& other) {
  product_flops += other.product_flops;
  attention_flops += other.attention_flops;
  traffic_bytes += other.traffic_bytes;
  num_calls += other.num_calls;
  return *this;
}

int64_t ModelSpec::num_parameters() const {
  int64_t total = 0;
  for (const auto& parameter : parameters) total += parameter.numel;
  return total;
}

int64_t ModelSpec::num_trainable() const {
  int64_t total = 0;
  for (const auto& parameter : parameters) total += parameter.trainable ? parameter.numel : 0;
  return total;
}

namespace {

struct Type {
  c10::ScalarType dtype;
  const char* name;
  int64_t num_bytes;
  bool floating;
};
constexpr std::array<Type, 7> kTypes = {{{c10::ScalarType::Float, "float32", 4, true},
                                         {c10::ScalarType::BFloat16, "bfloat16", 2, true},
                                         {c10::ScalarType::Half, "float16", 2, true},
                                         {c10::ScalarType::Double, "float64", 8, true},
                                         {c10::ScalarType::Char, "int8", 1, false},
                                         {c10::ScalarType::Int, "int32", 4, false},
                                         {c10::ScalarType::Long, "int64", 8, false}}};

const Type& type_of(c10::ScalarType dtype) {
  for (const auto& type : kTypes) {
    if (type.dtype == dtype) return type;
  }
  HYDROFOIL_CHECK_ARG(false, "plan", "dtype: got number ", static_cast<int>(dtype),
                      " of torch, expected float32, bfloat16, float16, float64, int8, int32 or int64");
}

}  // namespace

const char* dtype_text(c10::ScalarType dtype) { return type_of(dtype).name; }

c10::ScalarType parse_dtype(std::string_view name) {
  for (const auto& type : kTypes) {
    if (name == type.name) return type.dtype;
  }
  HYDROFOIL_CHECK_ARG(false, "plan", "dtype: got ", name,
                      ", expected float32, bfloat16, float16, float64, int8, int32 or int64");
}

int64_t element_bytes(c10::ScalarType dtype) { return type_of(dtype).num_bytes; }

bool is_floating(c10::ScalarType dtype) { return type_of(dtype).floating; }

bool is_known(c10::ScalarType dtype) {
  return std::any_of(kTypes.begin(), kTypes.end(), [&](const Type& type) { return type.dtype == dtype; });
}

}  // namespace hydrofoil::plan
