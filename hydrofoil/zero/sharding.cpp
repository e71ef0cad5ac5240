#include "hydrofoil/zero/sharding.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {

Sharding Sharding::of_stage(int stage, int shard_rank, int num_shards, int64_t accumulation_steps) {
  HYDROFOIL_CHECK_ARG(stage >= 0 && stage <= 3, "zero_optimization.stage", "got ", stage, ", expected 0, 1, 2 or 3");
  HYDROFOIL_CHECK_ARG(num_shards >= 1 && shard_rank >= 0 && shard_rank < num_shards, "Sharding", "got rank ",
                      shard_rank, " of ", num_shards);
  Sharding sharding;
  sharding.shard_rank = shard_rank;
  sharding.num_shards = num_shards;
  sharding.optimizer_states = stage >= 1 && num_shards > 1;
  sharding.gradients = (stage >= 2 || (stage == 1 && accumulation_steps == 1)) && num_shards > 1;
  sharding.parameters = stage >= 3 && num_shards > 1;
  return sharding;
}

}  // namespace hydrofoil::zero
