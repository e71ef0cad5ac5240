#pragma once

#include <cstdint>

#include "hydrofoil/plan/settings.h"

namespace hydrofoil::plan {

enum class Collective { kAllGather, kReduceScatter, kAllReduce };

[[nodiscard]] const char* collective_name(Collective collective);

// Bytes that one rank sends (and receives) in a ring, of a tensor of `num_bytes` in all: (N - 1) / N of it, twice that
// for an all-reduce.
[[nodiscard]] double moved_bytes(Collective collective, int64_t num_bytes, int world_size);

// Seconds of one collective over all ranks by the alpha-beta model of a ring: N - 1 messages (all-reduce: twice that)
// of num_bytes / N each. Across hosts the slowest link of the ring, the network, decides.
[[nodiscard]] double collective_seconds(Collective collective, int64_t num_bytes, const Settings& settings,
                                        const Roofs& roofs);

}  // namespace hydrofoil::plan
