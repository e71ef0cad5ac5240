#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/kernels/element_type.h"

namespace hydrofoil::kernels::testing_support {

// The builds that this processor runs.
inline std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> result;
  for (const CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (isa <= detected_cpu_isa()) result.push_back(isa);
  }
  return result;
}

inline const char* type_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "Float32";
    case ElementType::kBFloat16:
      return "BFloat16";
    case ElementType::kFloat16:
      break;
  }
  return "Float16";
}

inline constexpr ElementType kTypes[] = {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16};

// A typed array whose conversions are torch's own scalar ones.
class Array {
 public:
  Array(ElementType type, int64_t numel) : type_(type), bytes_(numel * element_bytes(type)) {}

  ElementType type() const { return type_; }
  int64_t numel() const { return static_cast<int64_t>(bytes_.size()) / element_bytes(type_); }
  void* data(int64_t index = 0) { return bytes_.data() + index * element_bytes(type_); }
  bool operator==(const Array& other) const { return bytes_ == other.bytes_; }

  float get(int64_t index) const {
    const char* at = bytes_.data() + index * element_bytes(type_);
    if (type_ == ElementType::kFloat32) return read<float>(at);
    if (type_ == ElementType::kBFloat16) return static_cast<float>(read<c10::BFloat16>(at));
    return static_cast<float>(read<c10::Half>(at));
  }

  void set(int64_t index, float value) {
    if (type_ == ElementType::kFloat32) return write(index, value);
    if (type_ == ElementType::kBFloat16) return write(index, c10::BFloat16(value));
    write(index, c10::Half(value));
  }

 private:
  template <typename T>
  static T read(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
  }
  template <typename T>
  void write(int64_t index, T value) {
    std::memcpy(data(index), &value, sizeof(T));
  }

  ElementType type_;
  std::vector<char> bytes_;
};

inline void fill_normal(Array& array, std::mt19937& random, float deviation) {
  std::normal_distribution<float> normal(0.0f, deviation);
  for (int64_t i = 0; i < array.numel(); ++i) array.set(i, normal(random));
}

}  // namespace hydrofoil::kernels::testing_support
