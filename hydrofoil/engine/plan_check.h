#pragma once

#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/engine/engine_options.h"
#include "hydrofoil/plan/plan.h"
#include "hydrofoil/zero/runtime.h"

namespace hydrofoil::engine {

// A model as the planner sees it.
[[nodiscard]] plan::ModelSpec model_spec(const std::vector<zero::RuntimeParameter>& parameters,
                                         const std::vector<zero::ModuleNode>& modules);

// Bytes that one of this host's ranks can have: HYDROFOIL_MEMORY_LIMIT ("24GiB"), or the host's or container's memory
// over them (LOCAL_WORLD_SIZE).
[[nodiscard]] int64_t memory_of_rank(int world_size);
[[nodiscard]] int ranks_of_host(int world_size);

// Plans states, gathered units and gradient buckets of an engine about to be made, and logs them on rank 0. Collective.
//
// On the CPU, throws InvalidArgument on every rank where a rank needs more than memory_of_rank(). The error has the
// numbers and the cheapest setting that would fit.
void require_memory(const EngineOptions& options, const std::vector<zero::RuntimeParameter>& parameters,
                    const std::vector<zero::ModuleNode>& modules, bool training, bool native_optimizer,
                    const comm::Group& group);

}  // namespace hydrofoil::engine
