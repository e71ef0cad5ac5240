#include "apps/cmake_prefix.h"

#include <algorithm>
#include <filesystem>

#include "hydrofoil/base/error.h"

namespace hydrofoil {
namespace {

namespace fs = std::filesystem;

// Where the package may lie for a program in `root`/bin: `root` itself, or the Python package of a virtual environment,
// of `pip install --user` or a system's Python, or of `pip install --target`.
std::vector<fs::path> candidates(const fs::path& root) {
  std::vector<fs::path> pythons;
  for (const char* lib : {"lib", "lib64"}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(root / lib, error)) {
      if (entry.path().filename().string().starts_with("python")) pythons.push_back(entry.path());
    }
  }
  std::sort(pythons.begin(), pythons.end());
  std::vector<fs::path> prefixes = {root};
  for (const auto& python : pythons) {
    for (const char* packages : {"site-packages", "dist-packages"}) prefixes.push_back(python / packages / "hydrofoil");
  }
  prefixes.push_back(root / "hydrofoil");
  return prefixes;
}

}  // namespace

std::string cmake_prefix(const std::vector<std::string>& program_paths) {
  std::string tried;
  for (const std::string& program : program_paths) {
    const fs::path root = fs::absolute(program).lexically_normal().parent_path().parent_path();
    for (const fs::path& prefix : candidates(root)) {
      std::error_code error;
      if (fs::exists(prefix / "lib/cmake/hydrofoil/hydrofoilConfig.cmake", error)) return prefix.string();
    }
    const std::string searched =
        root.string() + "/lib/cmake, " + root.string() + "/lib/python*/site-packages/hydrofoil";
    if (tried.find(searched) == std::string::npos) tried += (tried.empty() ? "" : ", ") + searched;
  }
  throw SystemError(
      "[hydrofoil --cmake-prefix] no CMake package (hydrofoilConfig.cmake) was installed with this program; "
      "searched " +
      tried +
      "; install hydrofoil (pip install ., or cmake --install build/dev --prefix DIR) "
      "and call the program of that installation");
}

}  // namespace hydrofoil
