#include "hydrofoil/storage/checksum.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace hydrofoil::storage {
namespace {

constexpr std::string_view kPrefix = "xxh3:";
constexpr size_t kDigits = 16;

}  // namespace

uint64_t xxh3_64(const void* data, size_t num_bytes) { return XXH3_64bits(data, num_bytes); }

struct Xxh3Stream::State {
  XXH3_state_t value;
};

Xxh3Stream::Xxh3Stream() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->value); }
Xxh3Stream::Xxh3Stream(Xxh3Stream&&) noexcept = default;
Xxh3Stream& Xxh3Stream::operator=(Xxh3Stream&&) noexcept = default;
Xxh3Stream::~Xxh3Stream() = default;

void Xxh3Stream::update(const void* data, size_t num_bytes) { XXH3_64bits_update(&state_->value, data, num_bytes); }

uint64_t Xxh3Stream::digest() const { return XXH3_64bits_digest(&state_->value); }

std::string checksum_text(uint64_t checksum) {
  char digits[kDigits + 1];
  std::snprintf(digits, sizeof(digits), "%016llx", static_cast<unsigned long long>(checksum));
  return std::string(kPrefix) + digits;
}

std::optional<uint64_t> parse_checksum(std::string_view text) {
  if (text.size() != kPrefix.size() + kDigits || !text.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = text.substr(kPrefix.size());
  const bool lower = std::all_of(digits.begin(), digits.end(),
                                 [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!lower) return std::nullopt;
  uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return value;
}

}  // namespace hydrofoil::storage
