#pragma once

#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hydrofoil {

// What `hydrofoil doctor` was asked for.
struct DoctorArguments {
  std::optional<std::string> help;  // set: print it, examine nothing
  bool json = false;
  bool hide_problems = false;
};

inline constexpr int kExitProblem = 1;

// Parses what follows `hydrofoil doctor`. Throws InvalidArgument at wrong use.
[[nodiscard]] DoctorArguments parse_doctor_arguments(std::span<const std::string> arguments);

// Examines this machine and the Python that would run ranks, and writes what was found. `program_paths`: where this
// program may lie, see launcher::find_python. Returns 0, or kExitProblem. Throws SystemError where `out` cannot be
// written.
[[nodiscard]] int doctor_command(const DoctorArguments& arguments, const std::vector<std::string>& program_paths,
                                 std::ostream& out);

}  // namespace hydrofoil
