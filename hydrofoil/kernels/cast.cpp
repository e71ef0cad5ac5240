#include "hydrofoil/kernels/cast.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <cstring>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/detail/isa_kernels.h"

namespace hydrofoil::kernels {
namespace {

constexpr int64_t kGrain = 65536;

void check(const char* function, const FlatOutput& dst, const FlatInput& src, int64_t numel) {
  HYDROFOIL_CHECK_ARG(numel >= 0, function, "numel: got ", numel, ", expected at least 0");
  HYDROFOIL_CHECK_ARG(numel == 0 || (dst.data != nullptr && src.data != nullptr), function,
                      "arrays: got a null pointer, expected ", numel, " elements");
}

char* at_element(const FlatOutput& array, int64_t index) {
  return static_cast<char*>(array.data) + index * element_bytes(array.type);
}

const char* at_element(const FlatInput& array, int64_t index) {
  return static_cast<const char*>(array.data) + index * element_bytes(array.type);
}

}  // namespace

void cast(FlatOutput dst, FlatInput src, int64_t numel, CpuIsa isa) {
  check("cast", dst, src, numel);
  if (dst.type != src.type) {
    (void)accumulate(dst, src, numel, 1.0f, AccumulateMode::kAssign, isa);
    return;
  }
  at::parallel_for(0, numel, kGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(at_element(dst, begin), at_element(src, begin), (end - begin) * element_bytes(dst.type));
  });
}

bool accumulate(FlatOutput dst, FlatInput src, int64_t numel, float scale, AccumulateMode mode, CpuIsa isa) {
  check("accumulate", dst, src, numel);
  const detail::IsaKernels& kernels = detail::isa_kernels(isa);
  std::atomic<bool> finite = true;
  at::parallel_for(0, numel, kGrain, [&](int64_t begin, int64_t end) {
    const bool part = kernels.accumulate({.dst = at_element(dst, begin),
                                          .src = at_element(src, begin),
                                          .numel = end - begin,
                                          .dst_type = dst.type,
                                          .src_type = src.type,
                                          .scale = scale,
                                          .add = mode == AccumulateMode::kAdd});
    if (!part) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load(std::memory_order_relaxed);
}

}  // namespace hydrofoil::kernels
