#include "hydrofoil/memory/process_memory.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

#include "hydrofoil/base/error.h"

namespace hydrofoil::memory {
namespace {

// Value in bytes of the line "<key>   N kB" of a /proc file.
int64_t read_kib(const char* path, const std::string& key) {
  std::ifstream file(path);
  if (!file) throw_system_error("process_memory", std::string("cannot read ") + path, errno);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(key, 0) != 0) continue;
    std::istringstream fields(line.substr(key.size()));
    int64_t kib = 0;
    if (fields >> kib) return kib * 1024;
  }
  throw SystemError(detail::concat("[process_memory] ", path, " has no line ", key));
}

}  // namespace

ProcessMemory process_memory() {
  ProcessMemory memory = resident_memory();
  memory.pss_bytes = read_kib("/proc/self/smaps_rollup", "Pss:");
  return memory;
}

ProcessMemory resident_memory() {
  return {.pss_bytes = 0,
          .rss_bytes = read_kib("/proc/self/status", "VmRSS:"),
          .peak_rss_bytes = read_kib("/proc/self/status", "VmHWM:")};
}

int64_t free_bytes(const c10::Device& device, int64_t limit_bytes, int ranks_of_host) {
  if (device.is_cpu()) {
    const int64_t below_limit = limit_bytes - read_kib("/proc/self/status", "VmHWM:");
    return std::min(below_limit, read_kib("/proc/meminfo", "MemAvailable:") / std::max(ranks_of_host, 1));
  }
  auto* allocator = c10::getDeviceAllocator(device.type());
  const auto free = static_cast<int64_t>(allocator->getMemoryInfo(device.index()).first);
  const auto stats = allocator->getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return free + stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].peak;
}

void trim_heap() {
// A sanitizer brings an allocator of its own: glibc's heap was never set up, and trimming it from two threads crashes.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  ::malloc_trim(0);
#endif
}

}  // namespace hydrofoil::memory
