#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hydrofoil::memory {

class Arena;

// Every parameter and every buffer starts at a multiple of this. Products with one row change bits where a weight
// starts at a 4- or 8-byte offset, so the alignment is part of bit identity with plain PyTorch.
inline constexpr int64_t kHostAlignmentBytes = 64;
inline constexpr int64_t kCudaAlignmentBytes = 256;
inline constexpr int64_t kPageBytes = 4096;

[[nodiscard]] int64_t alignment_bytes(const c10::Device& device);

// Rounds up to a multiple; throws InvalidArgument where the result does not fit in 63 bits.
[[nodiscard]] int64_t round_up(int64_t value, int64_t multiple);

// a * b; throws InvalidArgument "[function] ..." on overflow or negative factors.
[[nodiscard]] int64_t checked_multiply(int64_t a, int64_t b, const char* function);

// Zero-filled memory that lives as long as the DataPtr. Host memory from 1 MiB on is mapped for itself, so that it goes
// back to the system at once and untouched pages cost nothing; from 8 MiB on with huge pages. Throws SystemError that
// says how much was asked for where the system refuses.
[[nodiscard]] c10::DataPtr allocate_zeroed(const c10::Device& device, int64_t num_bytes);

// 1-D tensor over allocate_zeroed memory.
[[nodiscard]] at::Tensor make_flat_tensor(int64_t numel, at::ScalarType dtype, const c10::Device& device);
// The same, zeros too, in a slot of `arena` (Arena::allocate).
[[nodiscard]] at::Tensor make_flat_tensor(int64_t numel, at::ScalarType dtype, Arena& arena, bool at_page = false);

}  // namespace hydrofoil::memory
