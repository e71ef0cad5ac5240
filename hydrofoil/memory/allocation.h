#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "hydrofoil/memory/alignment.h"

namespace hydrofoil::memory {

class Arena;

[[nodiscard]] int64_t alignment_bytes(const c10::Device& device);

// Zero-filled memory that lives as long as the DataPtr. Host memory from 1 MiB on is mapped for itself, so that it goes
// back to the system at once and untouched pages cost nothing; from 8 MiB on with huge pages. Throws SystemError that
// says how much was asked for where the system refuses.
[[nodiscard]] c10::DataPtr allocate_zeroed(const c10::Device& device, int64_t num_bytes);

// 1-D tensor over allocate_zeroed memory.
[[nodiscard]] at::Tensor make_flat_tensor(int64_t numel, at::ScalarType dtype, const c10::Device& device);
// The same, zeros too, in a slot of `arena` (Arena::allocate).
[[nodiscard]] at::Tensor make_flat_tensor(int64_t numel, at::ScalarType dtype, Arena& arena, bool at_page = false);

}  // namespace hydrofoil::memory
