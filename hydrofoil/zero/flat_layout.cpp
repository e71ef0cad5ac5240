#include "hydrofoil/zero/flat_layout.h"

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/alignment.h"

namespace hydrofoil::zero {

FlatLayout layout_flat(const std::vector<int64_t>& numels, int num_shards, int64_t alignment_elements,
                       int64_t shard_multiple) {
  FlatLayout layout;
  int64_t end = 0;
  for (const int64_t numel : numels) {
    HYDROFOIL_CHECK_ARG(numel >= 0, "layout_flat", "numel: got ", numel, ", expected >= 0");
    layout.offsets.push_back(end);
    HYDROFOIL_CHECK_ARG(!__builtin_add_overflow(end, numel, &end), "layout_flat", "sizes do not fit in 63 bits");
    end = memory::round_up(end, alignment_elements);
  }
  const int64_t multiple = shard_multiple > 0 ? shard_multiple : alignment_elements;
  layout.padded_numel = memory::round_up(end, memory::checked_multiply(multiple, num_shards, "layout_flat"));
  layout.shard_numel = layout.padded_numel / num_shards;
  return layout;
}

}  // namespace hydrofoil::zero
