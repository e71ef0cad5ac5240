#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hydrofoil::launcher {

// Columns of the terminal that standard output is, 80 where it does not tell; nullopt where it is none.
[[nodiscard]] std::optional<int64_t> terminal_columns();

// "1,234,567".
[[nodiscard]] std::string with_commas(int64_t value);

}  // namespace hydrofoil::launcher
