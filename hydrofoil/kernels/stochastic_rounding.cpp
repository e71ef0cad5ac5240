#include "hydrofoil/kernels/stochastic_rounding.h"

namespace hydrofoil::kernels {

// The finalizer of SplitMix64, once a number: neighbouring steps and streams get keys that have nothing in common.
uint32_t rounding_key(int64_t step, int64_t stream) {
  const auto mixed = [](uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  };
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15u;
  const uint64_t of_step = mixed(static_cast<uint64_t>(step) + kOdd);
  return static_cast<uint32_t>(mixed(of_step + static_cast<uint64_t>(stream) * kOdd) >> 32);
}

}  // namespace hydrofoil::kernels
