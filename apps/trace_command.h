#pragma once

#include <optional>
#include <span>
#include <string>

namespace hydrofoil {

// What `hydrofoil trace` was asked for.
struct TraceArguments {
  std::optional<std::string> help;  // set: print it, read nothing
  std::string path;
};

// Parses what follows `hydrofoil trace`. Throws InvalidArgument at wrong use.
[[nodiscard]] TraceArguments parse_trace_arguments(std::span<const std::string> arguments);

// See trace::summarize. SystemError where the file cannot be read.
[[nodiscard]] std::string summarize_trace(const TraceArguments& arguments);

}  // namespace hydrofoil
