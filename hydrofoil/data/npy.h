#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "hydrofoil/data/token_file.h"

namespace hydrofoil::data {

// Longest header that is read, in bytes; numpy's own limit.
inline constexpr int64_t kMaxNpyHeaderBytes = 10'000;

// First bytes of a file that parse_npy_header may need: magic, version, length, header.
inline constexpr int64_t kMaxNpyPrefixBytes = 12 + kMaxNpyHeaderBytes;

// Finds the tokens of a file that numpy.save wrote
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1 to 3). `prefix` is the file's
// first min(file_bytes, kMaxNpyPrefixBytes) bytes; they may be hostile.
//
// Throws InvalidArgument with file and byte unless it is a whole 1-D array in C order of uint8, uint16, uint32, int32
// or int64, little-endian, with nothing behind it.
[[nodiscard]] TokenRange parse_npy_header(std::string_view prefix, int64_t file_bytes, const std::string& path);

}  // namespace hydrofoil::data
