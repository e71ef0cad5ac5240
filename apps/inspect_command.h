#pragma once

#include <iosfwd>
#include <optional>
#include <span>
#include <string>

namespace hydrofoil {

// What `hydrofoil inspect` was asked for.
struct InspectArguments {
  std::optional<std::string> help;  // set: print it, inspect nothing
  std::string path;                 // safetensors file, checkpoint, or directory of checkpoints
  std::optional<std::string> tag;   // of the checkpoint in the directory; none: the latest
  bool json = false;
};

// Parses what follows `hydrofoil inspect`. Throws InvalidArgument at wrong use.
[[nodiscard]] InspectArguments parse_inspect_arguments(std::span<const std::string> arguments);

// Writes names, dtypes, shapes and sizes. Reads headers and manifests only, never a tensor. Throws InvalidArgument with
// file and defect, SystemError where a file cannot be read or `out` cannot be written.
void inspect(const InspectArguments& arguments, std::ostream& out);

}  // namespace hydrofoil
