#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace hydrofoil::memory {

// Which parts of a region are free. Parts are taken first-fit from the start, so the highest point that living parts
// ever reached bounds the resident memory, and neighbours that come back become one. Not thread-safe.
class FreeRanges {
 public:
  explicit FreeRanges(int64_t num_bytes) { free_.emplace(0, num_bytes); }

  // Offset of `num_bytes` > 0 free bytes at a multiple of `alignment`, now taken; nullopt where there are none.
  [[nodiscard]] std::optional<int64_t> take(int64_t num_bytes, int64_t alignment);
  // Returns what take() gave.
  void give_back(int64_t offset, int64_t num_bytes);

  // offset -> bytes, never adjacent.
  [[nodiscard]] const std::map<int64_t, int64_t>& free() const { return free_; }

 private:
  std::map<int64_t, int64_t> free_;
};

}  // namespace hydrofoil::memory
