#include "hydrofoil/memory/memory_limit.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <sstream>

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

// Of a group and of those above it.
int64_t limit_of_group(const std::string& base, std::string group, const char* file) {
  int64_t limit = limit_in(base + "/" + file);
  while (!group.empty() && group != "/") {
    limit = std::min(limit, limit_in(base + group + "/" + file));
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  return limit;
}

}  // namespace

int64_t host_memory_limit(const std::string& root) {
  int64_t limit = physical_memory(root + "/proc/meminfo");
  std::ifstream groups(root + "/proc/self/cgroup");  // lines "number:controllers:path"
  std::string line;
  while (std::getline(groups, line)) {
    std::istringstream fields(line);
    std::string number;
    std::string controllers;
    std::string path;
    if (!std::getline(fields, number, ':') || !std::getline(fields, controllers, ':') || !std::getline(fields, path))
      continue;
    const std::string base = root + "/sys/fs/cgroup";
    if (controllers.empty()) limit = std::min(limit, limit_of_group(base, path, "memory.max"));
    if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      limit = std::min(limit, limit_of_group(base + "/memory", path, "memory.limit_in_bytes"));
    }
  }
  return limit;
}

}  // namespace hydrofoil::memory
