#include "hydrofoil/kernels/gradient_stats.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

namespace hydrofoil::kernels {
namespace {

constexpr int64_t kBlock = 4096;
constexpr int64_t kGrainBlocks = 16;

bool is_finite(const void* data, ElementType type, int64_t index) {
  if (type == ElementType::kFloat32) return std::isfinite(static_cast<const float*>(data)[index]);
  const uint16_t exponent = type == ElementType::kBFloat16 ? 0x7F80 : 0x7C00;
  return (static_cast<const uint16_t*>(data)[index] & exponent) != exponent;
}

}  // namespace

GradientStats gradient_stats(const void* data, ElementType type, int64_t numel, CpuIsa isa) {
  HYDROFOIL_CHECK_ARG(numel >= 0, "gradient_stats", "numel: got ", numel, ", expected at least 0");
  HYDROFOIL_CHECK_ARG(numel == 0 || data != nullptr, "gradient_stats", "data: got null, expected ", numel, " elements");
  const detail::IsaKernels& kernels = detail::isa_kernels(isa);
  const int64_t num_blocks = (numel + kBlock - 1) / kBlock;
  std::vector<double> sums(num_blocks);
  at::parallel_for(0, num_blocks, kGrainBlocks, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t offset = block * kBlock;
      const auto* first = static_cast<const char*>(data) + offset * element_bytes(type);
      sums[block] = kernels.sum_of_squares(first, type, std::min(kBlock, numel - offset));
    }
  });
  GradientStats stats;
  for (int64_t block = 0; block < num_blocks; ++block) {
    stats.sum_of_squares += sums[block];
    // Squares of finite floats never overflow a double, so a sum that is not finite has an element that is not.
    if (stats.first_non_finite || std::isfinite(sums[block])) continue;
    int64_t index = block * kBlock;
    while (is_finite(data, type, index)) ++index;
    stats.first_non_finite = index;
  }
  return stats;
}

}  // namespace hydrofoil::kernels
