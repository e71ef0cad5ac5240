#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace hydrofoil::memory {

// Memory of this process as the kernel counts it, in bytes.
struct ProcessMemory {
  int64_t pss_bytes = 0;       // resident, shared pages divided by the processes that map them
  int64_t rss_bytes = 0;       // resident, shared pages counted whole
  int64_t peak_rss_bytes = 0;  // high-water mark of rss since the start
};

// Reads /proc/self/smaps_rollup and /proc/self/status. Throws SystemError where they cannot be read.
[[nodiscard]] ProcessMemory process_memory();

// The same without pss_bytes, which the kernel counts page by page under a lock that page faults need: for readers
// beside a training step.
[[nodiscard]] ProcessMemory resident_memory();

// Bytes that this rank could allocate on `device` on top of the most it has had so far. On the host: what is left of
// `limit_bytes` above the high-water mark of the process, but no more than its share of what the system has available,
// which `ranks_of_host` processes divide. On an accelerator: what the device has free and torch's allocator has in
// reserve, above its own high-water mark. Negative where it is over already. Throws SystemError as process_memory().
[[nodiscard]] int64_t free_bytes(const c10::Device& device, int64_t limit_bytes, int ranks_of_host);

// Gives the pages of freed heap memory back to the system. glibc raises the size from which it maps an allocation for
// itself up to 32 MiB, so freed tensors leave holes in the heap that no tensor of their size fits in any more. Takes
// about a millisecond; without glibc it does nothing.
void trim_heap();

}  // namespace hydrofoil::memory
