#pragma once

#include <string>
#include <vector>

#include "apps/launcher/run_options.h"

namespace hydrofoil::launcher {

// Runs the ranks to their end and returns the exit code of `hydrofoil run`. `program_paths`: where this program may
// lie, see find_python(). The process must have one thread; signals stay blocked afterwards. Throws InvalidArgument and
// SystemError for what shows before the first rank starts.
[[nodiscard]] int launch(const RunOptions& options, const std::vector<std::string>& program_paths);

}  // namespace hydrofoil::launcher
