#pragma once

#include <string>
#include <vector>

namespace hydrofoil {

// What CMAKE_PREFIX_PATH needs for find_package(hydrofoil): the folder with lib/cmake/hydrofoil/ that was installed
// with the program at one of `program_paths`, by `cmake --install` or pip. Throws SystemError where there is none.
[[nodiscard]] std::string cmake_prefix(const std::vector<std::string>& program_paths);

}  // namespace hydrofoil
