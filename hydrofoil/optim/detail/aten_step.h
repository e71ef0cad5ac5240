#pragma once

#include <span>

#include "hydrofoil/optim/optimizer.h"

namespace hydrofoil::optim::detail {

// optimizer_step by torch's fused kernels (Adam, AdamW, SGD) and operators (Adagrad, Lion), for any device. The
// arguments have been checked.
void aten_step(OptimizerKind kind, const ShardTensors& shard, std::span<const Segment> segments,
               std::span<const Hyperparameters> groups, int64_t step, float gradient_scale);

}  // namespace hydrofoil::optim::detail
