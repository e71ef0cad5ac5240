#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace hydrofoil {

// What `hydrofoil config explain` was asked for.
struct ConfigArguments {
  std::optional<std::string> help;  // set: print it, explain nothing
  std::string text_or_path;         // file, JSON text or base64
  int world_size = 1;
  bool cpu_device = true;
};

// Parses what follows `hydrofoil config`. Throws InvalidArgument at wrong use.
[[nodiscard]] ConfigArguments parse_config_arguments(std::span<const std::string> arguments);

// The table of every resolved setting. Throws InvalidArgument where the configuration is wrong, and where this build
// has no configuration module.
[[nodiscard]] std::string explain_config(const ConfigArguments& arguments);

}  // namespace hydrofoil
