#pragma once

#include <cstdint>
#include <span>

#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/kernels/element_type.h"
#include "hydrofoil/kernels/update_rule.h"

namespace hydrofoil::kernels {

// A run of elements that share coefficients.
struct UpdateRun {
  int64_t offset = 0;
  int64_t numel = 0;
  UpdateCoefficients coefficients;
};

// Host memory of one shard; every array has the same element count and none overlaps another.
struct UpdateBuffers {
  float* master = nullptr;
  void* first = nullptr;                           // m; null for Sgd whose runs all have momentum 0
  void* second = nullptr;                          // v; Adam and AdamW only
  ElementType state_type = ElementType::kFloat32;  // of both: fp32, or bf16 by NOTE [Stochastic rounding]
  const void* gradient = nullptr;
  ElementType gradient_type = ElementType::kFloat32;
  void* model = nullptr;  // 16-bit copy of the new master, round to nearest even; null: none
  ElementType model_type = ElementType::kBFloat16;
  // bf16 states: rounding_key() and the index that element 0 has for it.
  uint32_t rounding_key = 0;
  int64_t first_index = 0;
};

// One pass over the runs (which must not overlap), on at::get_num_threads() threads. The bits of the result depend
// neither on the number of threads, nor on `isa`, nor on how elements are split into runs. Throws InvalidArgument for a
// missing or superfluous buffer, a negative offset or size, a 32-bit model copy, or fp16 states.
void optimizer_update(UpdateRule rule, const UpdateBuffers& buffers, std::span<const UpdateRun> runs,
                      float gradient_scale, CpuIsa isa = cpu_isa());

}  // namespace hydrofoil::kernels
