#include "hydrofoil/base/control_groups.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace hydrofoil {
namespace {

void add_with_parents(const std::string& base, std::string group, std::vector<std::string>& folders) {
  while (!group.empty() && group != "/") {
    folders.push_back(base + group);
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  folders.push_back(base);
}

// "150000 100000" (version 2, one file) or the same numbers in two files; "max" and -1 are none.
std::optional<double> quota_in(const std::string& folder) {
  double quota = 0;
  double period = 0;
  std::ifstream both(folder + "/cpu.max");
  if (!(both >> quota >> period)) {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
    std::ifstream period_file(folder + "/cpu.cfs_period_us");
    if (!(quota_file >> quota) || !(period_file >> period)) return std::nullopt;
  }
  if (quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

}  // namespace

std::vector<std::string> control_group_folders(const std::string& controller, const std::string& root) {
  std::vector<std::string> folders;
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
    if (controllers.empty()) add_with_parents(base, path, folders);
    if (("," + controllers + ",").find("," + controller + ",") != std::string::npos) {
      add_with_parents(base + "/" + controller, path, folders);
    }
  }
  return folders;
}

std::optional<double> cpu_time_limit(const std::string& root) {
  std::optional<double> limit;
  for (const std::string& folder : control_group_folders("cpu", root)) {
    const auto quota = quota_in(folder);
    if (quota) limit = std::min(limit.value_or(*quota), *quota);
  }
  return limit;
}

}  // namespace hydrofoil
