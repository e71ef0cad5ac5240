#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hydrofoil::memory {

// Lets torch take host tensors from 64 KiB on from one region of this process from now on; smaller ones come from
// where they came before. See NOTE [Host allocator]. Idempotent and thread-safe. Does nothing where
// HYDROFOIL_HOST_ALLOCATOR is "torch", under a sanitizer of addresses, and where the system reserves no addresses
// (ulimit -v).
void install_host_allocator();

// Uninitialised 1-D tensor that takes the place of tensors which are freed in the order opposite to their making (a
// backward's activations): where the region is installed, at the highest free place that is resident.
[[nodiscard]] at::Tensor make_successor_tensor(int64_t numel, at::ScalarType dtype, const c10::Device& device);

// Gives pages of the region that no tensor lies in back to the system: after a model was built in it, whose parameters
// the engine has taken over. Not in a step, which would ask for them again.
void trim_host_allocator();

struct HostAllocatorUse {
  int64_t in_use_bytes = 0;
  int64_t resident_bytes = 0;  // of the region: up to the highest point that a tensor has reached since the last trim
};
// Zeros where it is not installed.
[[nodiscard]] HostAllocatorUse host_allocator_use();

}  // namespace hydrofoil::memory
