#include "hydrofoil/kernels/detail/convert.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

namespace hydrofoil::kernels::HYDROFOIL_ISA {
namespace {

inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

// Each loop keeps the largest magnitude that it stores: what it finds needs no pass of its own.
template <typename To, typename From>
bool accumulate_as(const detail::AccumulateArguments& a) {
  auto* __restrict dst = static_cast<typename To::Raw*>(a.dst);
  const auto* __restrict src = static_cast<const typename From::Raw*>(a.src);
  const float scale = a.scale;
  const int64_t numel = a.numel;
  uint32_t largest = 0;
  if (a.add) {
    for (int64_t i = 0; i < numel; ++i) {
      dst[i] = To::store(To::load(dst[i]) + From::load(src[i]) * scale);
      largest = larger(largest, To::magnitude(dst[i]));
    }
  } else {
    for (int64_t i = 0; i < numel; ++i) {
      dst[i] = To::store(From::load(src[i]) * scale);
      largest = larger(largest, To::magnitude(dst[i]));
    }
  }
  return largest < To::kInfinity;
}

template <typename Type>
bool copy_as(const detail::AccumulateArguments& a) {
  auto* __restrict dst = static_cast<typename Type::Raw*>(a.dst);
  const auto* __restrict src = static_cast<const typename Type::Raw*>(a.src);
  const int64_t numel = a.numel;
  uint32_t largest = 0;
  for (int64_t i = 0; i < numel; ++i) {
    dst[i] = src[i];
    largest = larger(largest, Type::magnitude(src[i]));
  }
  return largest < Type::kInfinity;
}

template <typename To>
bool accumulate_to(const detail::AccumulateArguments& a) {
  if (a.src_type == a.dst_type && !a.add && a.scale == 1.0f) return copy_as<To>(a);
  switch (a.src_type) {
    case ElementType::kFloat32:
      return accumulate_as<To, Float32>(a);
    case ElementType::kBFloat16:
      return accumulate_as<To, BFloat16>(a);
    case ElementType::kFloat16:
      break;
  }
  return accumulate_as<To, Float16>(a);
}

}  // namespace

bool accumulate(const detail::AccumulateArguments& arguments) {
  switch (arguments.dst_type) {
    case ElementType::kFloat32:
      return accumulate_to<Float32>(arguments);
    case ElementType::kBFloat16:
      return accumulate_to<BFloat16>(arguments);
    case ElementType::kFloat16:
      break;
  }
  return accumulate_to<Float16>(arguments);
}

}  // namespace hydrofoil::kernels::HYDROFOIL_ISA
