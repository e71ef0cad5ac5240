#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace hydrofoil::storage {

// Parses JSON that came from outside: duplicate keys, more than `max_depth` nested containers, invalid UTF-8, NaN and
// trailing bytes are refused. Throws InvalidArgument "[function] 'file': ..." with the byte where it went wrong.
[[nodiscard]] nlohmann::json parse_strict_json(std::string_view text, std::string_view function, std::string_view file,
                                               int max_depth);

}  // namespace hydrofoil::storage
