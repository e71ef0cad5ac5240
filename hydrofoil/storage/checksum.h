#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace hydrofoil::storage {

// XXH3 with 64 bits and seed 0: finds damage, is no protection against forgery.
[[nodiscard]] uint64_t xxh3_64(const void* data, size_t num_bytes);

// The same over bytes that come in portions.
class Xxh3Stream {
 public:
  Xxh3Stream();
  Xxh3Stream(Xxh3Stream&&) noexcept;
  Xxh3Stream& operator=(Xxh3Stream&&) noexcept;
  ~Xxh3Stream();

  void update(const void* data, size_t num_bytes);
  [[nodiscard]] uint64_t digest() const;  // of all bytes so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// "xxh3:" and 16 lower-case hexadecimal digits; parse_checksum takes exactly that.
[[nodiscard]] std::string checksum_text(uint64_t checksum);
[[nodiscard]] std::optional<uint64_t> parse_checksum(std::string_view text);

}  // namespace hydrofoil::storage
