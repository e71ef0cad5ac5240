#pragma once

// What the sources built once per instruction set (*_cpu.inc.cpp) define, and the table that picks one build.
// These sources and this header stay free of inline functions of other libraries: a copy of one compiled for AVX-512
// could be the one that the linker keeps for the baseline code.

#include <cstdint>

#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/kernels/element_type.h"
#include "hydrofoil/kernels/update_rule.h"

namespace hydrofoil::kernels::detail {

// One run; pointers at its first element.
struct UpdateArguments {
  float* master;
  void* first;
  void* second;
  const void* gradient;
  void* model;
  int64_t numel;
  ElementType state_type;
  ElementType gradient_type;
  ElementType model_type;
  float gradient_scale;
  bool stream_model;     // write `model` past the caches
  uint32_t random_base;  // key + index of the first element: see NOTE [Stochastic rounding]
  const UpdateCoefficients* coefficients;
};

struct AccumulateArguments {
  void* dst;
  const void* src;
  int64_t numel;
  ElementType dst_type;
  ElementType src_type;
  float scale;
  bool add;
};

struct IsaKernels {
  void (*optimizer_update)(UpdateRule rule, const UpdateArguments& arguments);
  double (*sum_of_squares)(const void* data, ElementType type, int64_t numel);
  bool (*accumulate)(const AccumulateArguments& arguments);
};

// Throws InvalidArgument where this processor does not run `isa`.
[[nodiscard]] const IsaKernels& isa_kernels(CpuIsa isa);

}  // namespace hydrofoil::kernels::detail

#define HYDROFOIL_DECLARE_ISA_KERNELS(isa)                                                              \
  namespace hydrofoil::kernels::isa {                                                                   \
  void optimizer_update(hydrofoil::kernels::UpdateRule rule, const detail::UpdateArguments& arguments); \
  double sum_of_squares(const void* data, hydrofoil::kernels::ElementType type, int64_t numel);         \
  bool accumulate(const detail::AccumulateArguments& arguments);                                        \
  }

HYDROFOIL_DECLARE_ISA_KERNELS(scalar)
HYDROFOIL_DECLARE_ISA_KERNELS(avx2)
HYDROFOIL_DECLARE_ISA_KERNELS(avx512)

#undef HYDROFOIL_DECLARE_ISA_KERNELS
