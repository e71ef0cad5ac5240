#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "hydrofoil/optim/optimizer_kind.h"

namespace hydrofoil::optim {

// A run of a flat shard that belongs to one parameter group, in elements of the shard.
struct Segment {
  int64_t offset = 0;
  int64_t numel = 0;
  int group = 0;
};

// Which bits of chance round bf16 states: element i of the shard takes those of (step, stream, offset + i), see
// NOTE [Stochastic rounding] in kernels/stochastic_rounding.h. With the offset of the shard in its flat buffer the
// result does not depend on how that is cut.
struct Rounding {
  int64_t offset = 0;
  int64_t stream = 0;
};

// What one step reads and writes: 1-D contiguous tensors of one numel on one device.
struct ShardTensors {
  at::Tensor master;               // fp32, updated in place
  at::Tensor model;                // 16-bit copy that is written in the same pass; undefined where the model is fp32
  at::Tensor gradient;             // fp32, bf16 or fp16; read only
  std::vector<at::Tensor> states;  // fp32, or all bf16; as many as state_names says, updated in place
  Rounding rounding = {};          // of bf16 states
};

// One fused pass over `shard`: g = gradient * gradient_scale, update of states and master, 16-bit copy. `step` counts
// from 1 (bias correction; SGD's first step sets the momentum buffer to g, so states need no zeroing there). Elements
// outside `segments`, which must not overlap, stay as they are. Formulas: torch.optim's Adam, AdamW, SGD, Adagrad
// (lr_decay 0) and Lion (arXiv 2302.06675, algorithm 2), in fp32 whatever the states are kept in. On the CPU the bits
// depend neither on the number of threads, nor on the instruction set, nor on where in a shard an element lies; other
// devices use torch's fused kernels or operators. SGD may come without states where no group has momentum. Throws
// InvalidArgument for wrong dtypes, sizes or groups.
void optimizer_step(OptimizerKind kind, const ShardTensors& shard, std::span<const Segment> segments,
                    std::span<const Hyperparameters> groups, int64_t step, float gradient_scale);

}  // namespace hydrofoil::optim
