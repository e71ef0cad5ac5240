#pragma once

#include <cstdint>

#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/kernels/element_type.h"

namespace hydrofoil::kernels {

// A flat array of host memory.
struct FlatOutput {
  void* data = nullptr;
  ElementType type = ElementType::kFloat32;
};
struct FlatInput {
  const void* data = nullptr;
  ElementType type = ElementType::kFloat32;
};

// dst[i] = src[i], rounded to nearest even. Equal types copy the bits; a NaN that becomes narrower becomes a quiet NaN.
// Both functions: same bits for every number of threads and every `isa`; the arrays must not overlap; they throw
// InvalidArgument if `numel` < 0, or a pointer is null while `numel` > 0.
void cast(FlatOutput dst, FlatInput src, int64_t numel, CpuIsa isa = cpu_isa());

enum class AccumulateMode { kAssign, kAdd };

// dst[i] = src[i] * scale, or dst[i] += src[i] * scale: computed in fp32 and rounded once, as torch's mul and add_
// (alpha) do. With scale 1, kAssign is `cast` and kAdd is torch's add_. Returns whether every value stored is finite:
// the same pass finds it.
bool accumulate(FlatOutput dst, FlatInput src, int64_t numel, float scale, AccumulateMode mode, CpuIsa isa = cpu_isa());

}  // namespace hydrofoil::kernels
