#include "hydrofoil/kernels/detail/convert.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

namespace hydrofoil::kernels::HYDROFOIL_ISA {
namespace {

// Element i of a block is added to sum i % kLanes; then the sums are added pairwise. The structure is the same for
// every instruction set, and so are the bits: the square of a float is exact in double.
constexpr int64_t kLanes = 32;
constexpr int64_t kChunk = 512;

void add_squares(const float* __restrict values, int64_t numel, double* __restrict lanes) {
  for (int64_t i = 0; i < numel; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      lanes[lane] += value * value;
    }
  }
}

template <typename Type>
double sum_of_squares(const typename Type::Raw* data, int64_t numel) {
  alignas(64) float values[kChunk];
  alignas(64) double lanes[kLanes] = {};
  for (int64_t begin = 0; begin < numel; begin += kChunk) {
    const int64_t count = numel - begin < kChunk ? numel - begin : kChunk;
    for (int64_t i = 0; i < count; ++i) values[i] = Type::load(data[begin + i]);
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < padded; ++i) values[i] = 0;
    add_squares(values, padded, lanes);
  }
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

double sum_of_squares(const void* data, ElementType type, int64_t numel) {
  switch (type) {
    case ElementType::kFloat32:
      return sum_of_squares<Float32>(static_cast<const float*>(data), numel);
    case ElementType::kBFloat16:
      return sum_of_squares<BFloat16>(static_cast<const uint16_t*>(data), numel);
    case ElementType::kFloat16:
      break;
  }
  return sum_of_squares<Float16>(static_cast<const uint16_t*>(data), numel);
}

}  // namespace hydrofoil::kernels::HYDROFOIL_ISA
