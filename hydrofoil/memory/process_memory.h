#pragma once

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

}  // namespace hydrofoil::memory
