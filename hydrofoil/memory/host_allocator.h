#pragma once

#include <cstdint>

namespace hydrofoil::memory {

// Lets torch take host tensors from 256 KiB on from one region of this process from now on; smaller ones come from
// where they came before. See NOTE [Host allocator]. Idempotent and thread-safe. Does nothing where
// HYDROFOIL_HOST_ALLOCATOR is "torch", under a sanitizer of addresses, and where the system reserves no addresses
// (ulimit -v).
void install_host_allocator();

struct HostAllocatorUse {
  int64_t in_use_bytes = 0;
  int64_t resident_bytes = 0;  // of the region: up to the highest point that a tensor ever reached
};
// Zeros where it is not installed.
[[nodiscard]] HostAllocatorUse host_allocator_use();

}  // namespace hydrofoil::memory
