#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hydrofoil::config::detail {

// The longest start of `text` that is valid UTF-8 (no overlong forms, surrogates or codes over U+10FFFF).
[[nodiscard]] std::string_view valid_utf8_prefix(std::string_view text);

// Appends the UTF-8 form of a code point (at most U+10FFFF).
void append_utf8(std::string& out, uint32_t code);

}  // namespace hydrofoil::config::detail
