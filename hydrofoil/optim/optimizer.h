#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::optim {

enum class OptimizerKind { kAdam, kAdamW, kSgd, kAdagrad, kLion };

// Hyperparameters of one parameter group; an optimizer reads the ones it knows.
struct Hyperparameters {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double momentum = 0.0;
  double dampening = 0.0;
  bool nesterov = false;
  bool bias_correction = true;
};

// A run of a flat shard that belongs to one parameter group, in elements of the shard.
struct Segment {
  int64_t offset = 0;
  int64_t numel = 0;
  int group = 0;
};

// What one step reads and writes: 1-D contiguous tensors of one numel on one device.
struct ShardTensors {
  at::Tensor master;               // fp32, updated in place
  at::Tensor model;                // 16-bit copy that is written in the same pass; undefined where the model is fp32
  at::Tensor gradient;             // fp32, bf16 or fp16; read only
  std::vector<at::Tensor> states;  // fp32, as many as state_names says, updated in place
};

// Parses "adam", "AdamW", "SGD", "adagrad", "lion", case-insensitively. `adam_w_mode` turns Adam into AdamW.
// Throws InvalidArgument that lists the known names.
[[nodiscard]] OptimizerKind parse_optimizer_kind(std::string_view name, bool adam_w_mode);

// "Adam", "AdamW", "SGD", "Adagrad" or "Lion".
[[nodiscard]] const char* optimizer_name(OptimizerKind kind);

// Which hyperparameters a kind reads, by torch.optim's names: {"lr", "betas", "eps", ...}.
[[nodiscard]] const std::vector<std::string>& hyperparameter_names(OptimizerKind kind);

// Names of the state tensors that a kind keeps for each element, e.g. {"exp_avg", "exp_avg_sq"}.
[[nodiscard]] const std::vector<std::string>& state_names(OptimizerKind kind);

// The same for given groups: SGD keeps no state where every group's momentum is 0.
[[nodiscard]] const std::vector<std::string>& state_names(OptimizerKind kind, std::span<const Hyperparameters> groups);

// One fused pass over `shard`: g = gradient * gradient_scale, update of states and master, 16-bit copy. `step` counts
// from 1 (bias correction; SGD's first step sets the momentum buffer to g, so states need no zeroing there). Elements
// outside `segments`, which must not overlap, stay as they are. Formulas: torch.optim's Adam, AdamW, SGD, Adagrad
// (lr_decay 0) and Lion (arXiv 2302.06675, algorithm 2). On the CPU the bits depend neither on the number of threads,
// nor on the instruction set, nor on where in a shard an element lies; other devices use torch's fused kernels or
// operators. SGD may come without states where no group has momentum. Throws InvalidArgument for wrong dtypes, sizes or
// groups.
void optimizer_step(OptimizerKind kind, const ShardTensors& shard, std::span<const Segment> segments,
                    std::span<const Hyperparameters> groups, int64_t step, float gradient_scale);

}  // namespace hydrofoil::optim
