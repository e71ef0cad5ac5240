#include "hydrofoil/memory/memory_limit.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>

#include "hydrofoil/base/control_groups.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::memory {
namespace {

constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

int64_t physical_memory(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw_system_error("host_memory_limit", "cannot read " + path, errno);
  std::string word;
  int64_t kib = 0;
  while (file >> word) {
    if (word == "MemTotal:" && file >> kib) return kib * 1024;
  }
  throw SystemError("[host_memory_limit] " + path + " has no line MemTotal");
}

// "max", or no file: none.
int64_t limit_in(const std::string& path) {
  std::ifstream file(path);
  int64_t limit = 0;
  return file >> limit && limit > 0 ? limit : kNone;
}

}  // namespace

int64_t host_memory_limit(const std::string& root) {
  int64_t limit = physical_memory(root + "/proc/meminfo");
  for (const std::string& folder : control_group_folders("memory", root)) {
    for (const char* file : {"memory.max", "memory.limit_in_bytes"}) {
      limit = std::min(limit, limit_in(folder + "/" + file));
    }
  }
  return limit;
}

}  // namespace hydrofoil::memory
