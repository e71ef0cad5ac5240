#pragma once

#include <cstdint>

namespace hydrofoil::memory {

// Every parameter and every buffer starts at a multiple of this. Products with one row change bits where a weight
// starts at a 4- or 8-byte offset, so the alignment is part of bit identity with plain PyTorch.
inline constexpr int64_t kHostAlignmentBytes = 64;
inline constexpr int64_t kCudaAlignmentBytes = 256;
inline constexpr int64_t kPageBytes = 4096;
inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// Rounds up to a multiple; throws InvalidArgument where the result does not fit in 63 bits.
[[nodiscard]] int64_t round_up(int64_t value, int64_t multiple);

// a * b; throws InvalidArgument "[function] ..." on overflow or negative factors.
[[nodiscard]] int64_t checked_multiply(int64_t a, int64_t b, const char* function);

}  // namespace hydrofoil::memory
