#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace hydrofoil::zero {

// Which kinds of state are cut into one slice a rank, and in which dtypes they live. The ZeRO stages are values of it
// (arXiv 1910.02054): 0 cuts nothing, 1 optimizer states, 2 gradients too, 3 parameters too.
struct Sharding {
  int shard_rank = 0;
  int num_shards = 1;
  bool optimizer_states = false;
  bool gradients = false;
  bool parameters = false;
  at::ScalarType accumulation_dtype = at::kFloat;     // of gradient buckets and gradient shards
  std::optional<at::ScalarType> communication_dtype;  // of reductions; nullopt: the accumulation dtype
  at::ScalarType optimizer_state_dtype = at::kFloat;  // or bf16: see NOTE [Stochastic rounding] in kernels/
  std::optional<at::ScalarType> model_dtype;          // floating parameters are cast to it; nullopt: as they are
  // Buckets that live for one backward may hold 16-bit gradients as they come, and the sum over the ranks is the first
  // to be fp32: the same bits, half the memory. For windows of one backward whose sums are taken in fp32.
  bool narrow_buckets = false;
  // Gradient shards exist from a window's first reduction to the step only, in the place of activations that backward
  // has freed. Not where others keep views of them (client optimizers).
  bool passing_gradients = false;

  bool poison_released = false;  // debug: memory of gathered units and gradients is NaN after its release
  bool log_states = false;       // debug: log each transition of units and gradient buckets

  // With one rank nothing is cut, whatever the stage. Stage 1 cuts gradients too where each window has one backward
  // (`accumulation_steps` 1): what stages 2 and 3 do to them costs nothing then, and less is kept. Throws
  // InvalidArgument unless 0 <= stage <= 3.
  [[nodiscard]] static Sharding of_stage(int stage, int shard_rank, int num_shards, int64_t accumulation_steps);
};

// How gradients of several ranks become one.
struct ReductionOptions {
  bool average = true;    // false: sum
  bool prescale = false;  // divide by `predivide_factor` before the sum, by num_shards / factor after it
  double predivide_factor = 1.0;
  bool overlap = true;  // reductions and prefetched gathers run beside the compute; never changes bits
  // Ranks may run different units, and join each other's gathers: there is no order to prefetch along.
  bool join_divergent_units = false;
};

// One parameter in a flat group. Offsets and counts are in elements.
struct ParameterSlot {
  int64_t index = 0;  // in the runtime's table
  std::string name;
  at::Tensor parameter;
  int64_t offset = 0;
  int64_t numel = 0;
  int optimizer_group = 0;
  int64_t missed_steps = 0;  // optimizer steps made while it was frozen: its bias correction does not count them
};

// Elements [begin, end) that two ranges share; empty where begin >= end.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  [[nodiscard]] int64_t numel() const { return end > begin ? end - begin : 0; }
};
[[nodiscard]] inline Range intersect(const Range& a, const Range& b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

}  // namespace hydrofoil::zero
