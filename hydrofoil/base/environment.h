#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hydrofoil {

// Value of an environment variable; nullopt where it is unset or empty.
[[nodiscard]] std::optional<std::string> environment(const char* name);

// The same as a decimal integer. Throws InvalidArgument where it is set and not an integer.
[[nodiscard]] std::optional<int64_t> environment_int(const char* name);

}  // namespace hydrofoil
