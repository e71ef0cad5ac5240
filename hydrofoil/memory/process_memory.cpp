#include "hydrofoil/memory/process_memory.h"

#include <malloc.h>

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
  return {read_kib("/proc/self/smaps_rollup", "Pss:"), read_kib("/proc/self/status", "VmRSS:"),
          read_kib("/proc/self/status", "VmHWM:")};
}

void trim_heap() {
// A sanitizer brings an allocator of its own: glibc's heap was never set up, and trimming it from two threads crashes.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  ::malloc_trim(0);
#endif
}

}  // namespace hydrofoil::memory
