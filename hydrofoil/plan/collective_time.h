#pragma once

#include <cstdint>

#include "hydrofoil/plan/settings.h"

namespace hydrofoil::plan {

enum class Collective { kAllGather, kReduceScatter, kAllReduce };

[[nodiscard]] const char* collective_name(Collective collective);

// Bytes that one rank sends (and receives), of a tensor of `num_bytes` in all: (N - 1) / N of it, twice that for an
// all-reduce. No algorithm sends less, and both of CollectiveAlgorithm send no more.
[[nodiscard]] double moved_bytes(Collective collective, int64_t num_bytes, int world_size);

// Seconds of one collective over N ranks by the alpha-beta model: a message of n bytes takes alpha + n / bandwidth.
//   all_gather, reduce_scatter  ring: (N - 1) alpha + (N - 1) / N n beta; recursive: ceil(log2 N) alpha + the same
//   bytes all_reduce                  a reduce_scatter and an all_gather: twice that
// Ring: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel
// Distrib. Comput. 69 (2009). Recursive doubling and halving (Bruck's algorithm where N is no power of two): Thakur,
// Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", Int. J. High Perform. Comput.
// Appl. 19 (2005). The arithmetic of the reduction costs nothing. Across hosts the slowest link, the network, decides.
[[nodiscard]] double collective_seconds(Collective collective, int64_t num_bytes, const Settings& settings,
                                        const Roofs& roofs);

}  // namespace hydrofoil::plan
