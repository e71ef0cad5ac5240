#pragma once

#include <cstdint>

namespace hydrofoil::kernels {

// NOTE [Stochastic rounding]
// bf16 keeps 8 significant bits: an average that moves by less than half of the last one each step (beta2 = 0.999)
// would stand still under rounding to nearest. So a state is rounded up with the probability that the dropped bits say,
// which leaves its mean right. The bits of chance are a hash of (step, stream, index of the element) and of nothing
// else: the result depends neither on threads, nor on the instruction set, nor on how the elements are cut into shards.
// What bf16 holds exactly stays as it is.
//
// random(x) = h ^ (h >> 16), h = g * kSecondFactor, g = (f ^ (f >> 15)), f = (x ^ (x >> 16)) * kFirstFactor, of 32 bits
// (Chris Wellons' lowbias32) at x = key + index. Its upper half rounds the first state, its lower half the second:
// bf16(value) = upper half of (bits of the fp32 value + 16 random bits).
inline constexpr uint32_t kFirstFactor = 0x7FEB352Du;
inline constexpr uint32_t kSecondFactor = 0x846CA68Bu;

// What `key` is for the elements of one stream at one step.
[[nodiscard]] uint32_t rounding_key(int64_t step, int64_t stream);

}  // namespace hydrofoil::kernels
