#pragma once

#include <cstdint>

#include "hydrofoil/base/cpu_features.h"

namespace hydrofoil::comm::detail {

enum class ElementType { kFloat32, kBFloat16, kFloat16, kInt8, kInt32, kInt64 };
enum class Reduction { kSum, kMax };

[[nodiscard]] constexpr int64_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
    case ElementType::kInt32:
      return 4;
    case ElementType::kBFloat16:
    case ElementType::kFloat16:
      return 2;
    case ElementType::kInt8:
      return 1;
    case ElementType::kInt64:
      return 8;
  }
  return 0;
}

struct ReduceArgs {
  ElementType type = ElementType::kFloat32;
  bool widen = false;  // 16-bit floats: `out` is fp32
  Reduction reduction = Reduction::kSum;
  const void* const* sources = nullptr;  // num_sources buffers of numel elements, each apart from or equal to `out`
  int num_sources = 0;
  void* out = nullptr;
  int64_t numel = 0;
  float scale = 1.0F;  // of floating types, after the reduction
};

// out[i] = scale * (sources[0][i] + sources[1][i] + ...) in that order; 16-bit floats in fp32 with one rounding at the
// end (none with `widen`), integers modulo 2^bits, max with NaN winning. The bits are the same for every instruction
// set and however a buffer is cut into calls, but for which NaN a sum of several fp32 NaNs is. Runs on the calling
// thread.
void reduce_buffers(const ReduceArgs& args);

// The same by one instruction set; the processor must have it.
void reduce_buffers(const ReduceArgs& args, CpuIsa isa);

}  // namespace hydrofoil::comm::detail
