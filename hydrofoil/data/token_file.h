#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "hydrofoil/storage/mapped_file.h"

namespace hydrofoil::data {

// How a file holds tokens: little-endian integers. Plain text is kUInt8: its bytes are the tokens.
enum class TokenType { kUInt8, kUInt16, kUInt32, kInt32, kInt64 };

[[nodiscard]] int64_t token_bytes(TokenType type);

// Consecutive tokens of one file.
struct TokenRange {
  std::string path;
  TokenType type = TokenType::kUInt8;
  int64_t byte_offset = 0;  // of the first token
  int64_t num_tokens = 0;
};

// Whether the name says pre-tokenised: it ends in ".npy". Every other file is plain text.
[[nodiscard]] bool is_npy_path(const std::string& path);

// Whether the file's first 8192 bytes hold no zero byte.
[[nodiscard]] bool is_text_file(const std::string& path);

// All tokens of a file. Throws InvalidArgument with file and byte where it is empty, where a .npy file is not a 1-D
// array of a TokenType or not whole (see parse_npy_header), and where any other file is not text.
[[nodiscard]] TokenRange describe_token_file(const std::string& path);

// Copies tokens [first, first + out.size()) of the range, which lies in `file`. Throws InvalidArgument with file and
// byte at a token that is negative or not below `vocab_size`, SystemError where the file has become shorter.
void read_tokens(const TokenRange& range, const storage::MappedFile& file, int64_t first, std::span<int64_t> out,
                 std::optional<int64_t> vocab_size);

}  // namespace hydrofoil::data
