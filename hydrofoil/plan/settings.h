#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>

namespace hydrofoil::plan {

// What a config says, as far as memory and time depend on it.
struct Settings {
  int stage = 0;
  int world_size = 1;  // data-parallel ranks
  int num_nodes = 1;   // hosts that the ranks are spread over, evenly
  bool training = true;
  std::optional<c10::ScalarType> model_dtype;  // floating parameters are cast to it; nullopt: as they are
  c10::ScalarType accumulation_dtype = c10::ScalarType::Float;
  std::optional<c10::ScalarType> communication_dtype;  // of reductions; nullopt: the accumulation dtype
  int num_optimizer_states = 2;                        // values a trainable element
  c10::ScalarType optimizer_state_dtype = c10::ScalarType::Float;
  int64_t accumulation_steps = 1;
  int64_t unit_min_bytes = 1 << 20;
  int64_t keep_gathered_bytes = 0;  // of units that stay gathered until the step: zero::units_to_keep
  bool overlap = true;
  // Ranks map each other's slices of the parameters (one host, shared memory): they are kept once, and nothing is
  // gathered.
  bool shares_parameters = false;
  bool passing_gradients = false;  // sharded gradients exist from a window's first reduction to the step only
  // Slots and tensors lie in pools of their own, and the process keeps the pages of each pool's high-water mark: a CPU.
  bool pools_keep_pages = false;
  bool narrow_buckets = false;  // buckets of one backward hold 16-bit gradients as they come
  int64_t alignment_bytes = 64;
  int64_t micro_batch_size = 1;  // samples a rank and micro step, for texts: the costs are of this batch

  [[nodiscard]] bool shards_optimizer_states() const { return stage >= 1 && world_size > 1; }
  // Stage 1 too where each window has one backward.
  [[nodiscard]] bool shards_gradients() const {
    return world_size > 1 && (stage >= 2 || (stage == 1 && accumulation_steps == 1));
  }
  [[nodiscard]] bool shards_parameters() const { return stage >= 3 && world_size > 1; }

  // Throws InvalidArgument that names the field, what was got and what is expected.
  void validate() const;
};

// How ranks take part in a collective; see collective_seconds.
enum class CollectiveAlgorithm { kRing, kRecursive };

// How fast a machine is at most. The defaults are of a slow 2-core host; measure your own with
// benchmarks/plan/accuracy.py --roofs.
struct Roofs {
  double fp32_flops = 100e9;  // matrix products, a rank
  double bf16_flops = 200e9;
  double fp32_attention_flops = 0;  // fused attention, which reaches less of a CPU than products; 0: as products
  double bf16_attention_flops = 0;
  double memory_bytes_per_s = 12e9;  // read and written, a rank
  // Of operators that are no products (norms, activations, softmax), which a CPU computes slower than it reads, most of
  // all in 16 bits; 0: memory_bytes_per_s.
  double fp32_operator_bytes_per_s = 0;
  double bf16_operator_bytes_per_s = 0;
  double call_s = 4e-6;          // of an operator beside its work
  double host_latency_s = 5e-6;  // of a message between two ranks of a host
  double host_bytes_per_s = 5e9;
  double network_latency_s = 30e-6;  // of a message between two hosts
  double network_bytes_per_s = 1.25e9;
  CollectiveAlgorithm algorithm = CollectiveAlgorithm::kRing;
  // Whether collectives cost the compute nothing. Not on a CPU, where they run on the same cores.
  bool overlaps = false;

  void validate() const;
};

}  // namespace hydrofoil::plan
