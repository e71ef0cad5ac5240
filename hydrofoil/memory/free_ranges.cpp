#include "hydrofoil/memory/free_ranges.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::memory {

std::optional<int64_t> FreeRanges::take(int64_t num_bytes, int64_t alignment) {
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    const auto [begin, length] = *range;
    const int64_t offset = (begin + alignment - 1) / alignment * alignment;
    if (begin + length - offset < num_bytes) continue;
    free_.erase(range);
    if (offset > begin) free_.emplace(begin, offset - begin);
    if (begin + length > offset + num_bytes) free_.emplace(offset + num_bytes, begin + length - offset - num_bytes);
    return offset;
  }
  return std::nullopt;
}

void FreeRanges::give_back(int64_t offset, int64_t num_bytes) {
  auto [here, inserted] = free_.emplace(offset, num_bytes);
  HYDROFOIL_ASSERT(inserted, "a range was returned twice");
  if (const auto next = std::next(here); next != free_.end() && here->first + here->second == next->first) {
    here->second += next->second;
    free_.erase(next);
  }
  if (here == free_.begin()) return;
  const auto before = std::prev(here);
  if (before->first + before->second != here->first) return;
  before->second += here->second;
  free_.erase(here);
}

}  // namespace hydrofoil::memory
