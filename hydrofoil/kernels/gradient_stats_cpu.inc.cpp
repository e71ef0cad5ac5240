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
#if defined(__FMA__)
      lanes[lane] = __builtin_fma(value, value, lanes[lane]);  // the same bits, for the square is exact
#else
      lanes[lane] += value * value;
#endif
    }
  }
}

// `count` elements as fp32, in `buffer` where they are not fp32 already.
template <typename Type>
const float* as_floats(const typename Type::Raw* data, int64_t count, float* __restrict buffer) {
  for (int64_t i = 0; i < count; ++i) buffer[i] = Type::load(data[i]);
  return buffer;
}
template <>
const float* as_floats<Float32>(const float* data, int64_t count, float* __restrict buffer) {
  return data;
}

template <typename Type>
double sum_of_squares(const typename Type::Raw* data, int64_t numel) {
  alignas(64) float values[kChunk];
  alignas(64) double lanes[kLanes] = {};
  const int64_t whole = numel / kLanes * kLanes;
  for (int64_t begin = 0; begin < whole; begin += kChunk) {
    const int64_t count = whole - begin < kChunk ? whole - begin : kChunk;
    add_squares(as_floats<Type>(data + begin, count, values), count, lanes);
  }
  if (whole < numel) {
    for (int64_t i = 0; i < kLanes; ++i) values[i] = whole + i < numel ? Type::load(data[whole + i]) : 0;
    add_squares(values, kLanes, lanes);
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
