#pragma once

#include <string_view>

namespace hydrofoil {

// What HYDROFOIL_DEBUG turns on; see docs/debugging.md.
struct DebugChecks {
  bool memory = false;  // released memory is filled with NaN
  bool comm = false;    // collectives are numbered, compared across ranks and logged
  bool state = false;   // transitions of units and gradient buckets are logged
};

// "memory,comm": words from memory, comm, state, separated by commas or bars. Throws InvalidArgument for another word.
[[nodiscard]] DebugChecks parse_debug_checks(std::string_view text);

// Of the environment variable HYDROFOIL_DEBUG; all off where it is unset or empty.
[[nodiscard]] DebugChecks debug_checks_from_environment();

}  // namespace hydrofoil
