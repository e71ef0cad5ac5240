#pragma once

#include <span>
#include <string>

namespace hydrofoil {

// `hydrofoil config ...`: returns the exit code. Throws InvalidArgument at wrong use and at a wrong configuration.
[[nodiscard]] int config_command(std::span<const std::string> arguments);

}  // namespace hydrofoil
