#pragma once

#include <cstdint>
#include <vector>

namespace hydrofoil::zero {

// Offsets of parameters in a flat buffer, each aligned, and its padded size: a multiple of num_shards slices of one
// size, each a multiple of `shard_multiple` elements (of the alignment where 0). Pure arithmetic, 64-bit, throws
// InvalidArgument on overflow.
struct FlatLayout {
  std::vector<int64_t> offsets;
  int64_t padded_numel = 0;
  int64_t shard_numel = 0;
};
[[nodiscard]] FlatLayout layout_flat(const std::vector<int64_t>& numels, int num_shards, int64_t alignment_elements,
                                     int64_t shard_multiple = 0);

}  // namespace hydrofoil::zero
