#pragma once

#include <cstdint>
#include <string>

namespace hydrofoil::memory {

// Bytes of memory that the processes of this host, or of this container, can have at most: the physical memory, or the
// lowest limit among this process's control groups (version 1 or 2), whichever is less. Throws SystemError where
// /proc/meminfo cannot be read. `root`: where /proc and /sys are, for tests.
[[nodiscard]] int64_t host_memory_limit(const std::string& root = "");

}  // namespace hydrofoil::memory
