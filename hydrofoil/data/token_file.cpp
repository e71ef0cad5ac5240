#include "hydrofoil/data/token_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/data/npy.h"

namespace hydrofoil::data {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian and are read as they are");

constexpr int64_t kSniffedBytes = 8192;
constexpr int64_t kBufferBytes = 1 << 16;

std::string read_prefix(const storage::File& file, int64_t num_bytes) {
  std::string prefix(static_cast<size_t>(std::min(num_bytes, file.size())), '\0');
  file.read_at(prefix.data(), static_cast<int64_t>(prefix.size()), 0);
  return prefix;
}

std::optional<int64_t> find_zero_byte(const storage::File& file) {
  const size_t at = read_prefix(file, kSniffedBytes).find('\0');
  return at == std::string::npos ? std::nullopt : std::optional<int64_t>(static_cast<int64_t>(at));
}

// Widens tokens and returns the index of the first outside [0, limit); `count` where there is none.
template <typename T>
size_t widen(const char* bytes, int64_t* out, size_t count, int64_t limit) {
  for (size_t i = 0; i < count; ++i) {
    T token;
    std::memcpy(&token, bytes + i * sizeof(T), sizeof(T));
    out[i] = static_cast<int64_t>(token);
    if (out[i] < 0 || out[i] >= limit) return i;
  }
  return count;
}

size_t widen(TokenType type, const char* bytes, int64_t* out, size_t count, int64_t limit) {
  switch (type) {
    case TokenType::kUInt8:
      return widen<uint8_t>(bytes, out, count, limit);
    case TokenType::kUInt16:
      return widen<uint16_t>(bytes, out, count, limit);
    case TokenType::kUInt32:
      return widen<uint32_t>(bytes, out, count, limit);
    case TokenType::kInt32:
      return widen<int32_t>(bytes, out, count, limit);
    case TokenType::kInt64:
      return widen<int64_t>(bytes, out, count, limit);
  }
  HYDROFOIL_ASSERT(false, "token type ", static_cast<int>(type));
}

}  // namespace

int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::kUInt8:
      return 1;
    case TokenType::kUInt16:
      return 2;
    case TokenType::kUInt32:
    case TokenType::kInt32:
      return 4;
    case TokenType::kInt64:
      return 8;
  }
  HYDROFOIL_ASSERT(false, "token type ", static_cast<int>(type));
}

bool is_npy_path(const std::string& path) { return path.ends_with(".npy"); }

bool is_text_file(const std::string& path) { return !find_zero_byte(storage::File::open(path)); }

TokenRange describe_token_file(const std::string& path) {
  const storage::File file = storage::File::open(path);
  const int64_t num_bytes = file.size();
  if (is_npy_path(path)) return parse_npy_header(read_prefix(file, kMaxNpyPrefixBytes), num_bytes, path);
  HYDROFOIL_CHECK_ARG(num_bytes > 0, "data", "'", path, "': byte 0: the file is empty");
  const auto zero = find_zero_byte(file);
  HYDROFOIL_CHECK_ARG(!zero, "data", "'", path, "': byte ", *zero,
                      ": a zero byte: the file is binary, expected plain text or a .npy file");
  return TokenRange{.path = path, .type = TokenType::kUInt8, .byte_offset = 0, .num_tokens = num_bytes};
}

void read_tokens(const TokenRange& range, const storage::MappedFile& file, int64_t first, std::span<int64_t> out,
                 std::optional<int64_t> vocab_size) {
  const int64_t size = token_bytes(range.type);
  const int64_t limit = vocab_size.value_or(INT64_MAX);
  const auto num_tokens = static_cast<int64_t>(out.size());
  std::vector<char> buffer(static_cast<size_t>(std::min(num_tokens * size, kBufferBytes)));
  for (int64_t done = 0; done < num_tokens;) {
    const int64_t count = std::min(num_tokens - done, kBufferBytes / size);
    const int64_t offset = range.byte_offset + (first + done) * size;
    if (offset + count * size > file.size()) {
      throw SystemError(::hydrofoil::detail::concat("[data] '", file.path(), "': byte ", file.size(),
                                                    ": the file has become shorter while it was in use, expected ",
                                                    count, " tokens at byte ", offset));
    }
    file.read_at(buffer.data(), count * size, offset);
    const auto good =
        static_cast<int64_t>(widen(range.type, buffer.data(), out.data() + done, static_cast<size_t>(count), limit));
    if (good < count) {
      const int64_t token = out[static_cast<size_t>(done + good)];
      HYDROFOIL_CHECK_ARG(false, "data", "'", file.path(), "': byte ", offset + good * size, ": got token ", token,
                          token < 0 ? ", expected none below 0" : ", expected one below the vocabulary's size ",
                          token < 0 ? std::string() : std::to_string(limit));
    }
    done += count;
  }
}

}  // namespace hydrofoil::data
