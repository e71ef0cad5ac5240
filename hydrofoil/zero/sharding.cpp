#include "hydrofoil/zero/sharding.h"

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/allocation.h"

namespace hydrofoil::zero {

Sharding Sharding::of_stage(int stage, int shard_rank, int num_shards) {
  HYDROFOIL_CHECK_ARG(stage >= 0 && stage <= 3, "zero_optimization.stage", "got ", stage, ", expected 0, 1, 2 or 3");
  HYDROFOIL_CHECK_ARG(num_shards >= 1 && shard_rank >= 0 && shard_rank < num_shards, "Sharding", "got rank ",
                      shard_rank, " of ", num_shards);
  Sharding sharding;
  sharding.shard_rank = shard_rank;
  sharding.num_shards = num_shards;
  sharding.optimizer_states = stage >= 1 && num_shards > 1;
  sharding.gradients = stage >= 2 && num_shards > 1;
  sharding.parameters = stage >= 3 && num_shards > 1;
  return sharding;
}

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
