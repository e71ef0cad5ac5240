#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hydrofoil::plan {

// "24GiB", "1.5 TiB", "800MB", "4096" (bytes): a decimal number and one of B, KiB, MiB, GiB, TiB, PiB (powers of 1024)
// or KB, MB, GB, TB, PB (powers of 1000). Throws InvalidArgument that names `what` for anything else, and where the
// size is no whole number of bytes in 63 bits.
[[nodiscard]] int64_t parse_byte_size(const std::string& what, std::string_view text);

// "5us", "1.5 ms": a decimal number and one of s, ms, us, ns, in seconds. "25GB/s": a byte size and /s. Both throw
// InvalidArgument that names `what` for anything else.
[[nodiscard]] double parse_duration(const std::string& what, std::string_view text);
[[nodiscard]] double parse_byte_rate(const std::string& what, std::string_view text);

// "24.00 GiB": three or four digits, the largest binary unit that fits; exact below 1 KiB.
[[nodiscard]] std::string format_bytes(int64_t num_bytes);

}  // namespace hydrofoil::plan
