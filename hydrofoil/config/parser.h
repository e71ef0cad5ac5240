#pragma once

#include <string>
#include <string_view>

#include "hydrofoil/config/value.h"

namespace hydrofoil::config {

// Deepest nesting of objects and lists that the parser takes; a DeepSpeed config has fewer than ten levels.
inline constexpr int kMaxDepth = 100;

// Parses strict JSON plus what DeepSpeed users rely on: comments (#, //, /* */), trailing commas, members whose key
// starts with "_comment" (dropped), Infinity and inf (a field must allow them).
//
// Time is linear in the text and the recursion is bounded by kMaxDepth. Throws InvalidArgument
// "[config] SOURCE:LINE:COLUMN: PATH: ..." for a syntax error, other HJSON liberties (named as such), duplicate keys,
// NaN, numbers out of range, invalid UTF-8, and deeper nesting.
[[nodiscard]] Value parse_json(std::string_view text, const std::string& source);

// Throws InvalidArgument "[config] SOURCE:LINE:COLUMN: PATH: WHAT"; PATH is left out where it is empty.
[[noreturn]] void throw_at(const std::string& source, Position position, const std::string& path,
                           const std::string& what);

}  // namespace hydrofoil::config
