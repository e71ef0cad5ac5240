#pragma once

#include <optional>
#include <string>
#include <vector>

namespace hydrofoil {

// The folders of this process's control groups that hold files of `controller` ("memory", "cpu"), of version 1 or 2:
// each group and those above it. Folders that are not there may be among them. `root`: where /proc and /sys are, for
// tests.
[[nodiscard]] std::vector<std::string> control_group_folders(const std::string& controller,
                                                             const std::string& root = "");

// Cores' worth of time that the control groups allow, e.g. 1.5; nullopt: they set no limit.
[[nodiscard]] std::optional<double> cpu_time_limit(const std::string& root = "");

}  // namespace hydrofoil
