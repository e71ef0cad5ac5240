#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "hydrofoil/data/token_stream.h"

namespace hydrofoil::data {

struct BatchesOptions {
  int64_t context = 0;       // tokens of a window
  int64_t global_batch = 0;  // windows of a step, all ranks and micro steps together
  int64_t seed = 0;          // of the order of windows
  int64_t rank = 0;          // dp_rank
  int64_t world_size = 1;    // of the dp axis
  int64_t accumulation = 1;  // micro steps of a step

  // Throws InvalidArgument that names the field, or says why the batch cannot be cut equally.
  void validate() const;
};

// Both int64 [micro batch, context] on the CPU; a target is the token after its input.
struct Batch {
  at::Tensor inputs;
  at::Tensor targets;
};

// Which windows of a stream each rank takes at each step.
//
// An epoch is a permutation of all windows. The global batch of a step depends on the seed and the step alone: ranks
// and micro steps cut it into equal, disjoint parts, so that every world size trains on the same batches. There is no
// position to save but the step. A batch may span two epochs; tokens behind the last whole window are never taken.
class Batches {
 public:
  // Throws InvalidArgument for wrong options (see validate) and a stream without a window.
  Batches(TokenStream stream, const BatchesOptions& options);

  // Of this rank. Throws InvalidArgument for a negative step and a micro step outside the accumulation.
  [[nodiscard]] std::vector<int64_t> window_indices(int64_t step, int64_t micro_step = 0) const;
  [[nodiscard]] Batch micro_batch(int64_t step, int64_t micro_step = 0) const;

  [[nodiscard]] int64_t micro_batch_size() const { return micro_batch_size_; }
  [[nodiscard]] int64_t num_windows() const { return num_windows_; }

  // What must be equal for a resumed run to go on in the same order: "context", "num_tokens", "seed" and
  // "tokens_per_step". World size and accumulation may change. Integers under names: they go into JSON as they are.
  [[nodiscard]] std::map<std::string, int64_t> state() const;
  // Throws InvalidArgument that names the first difference between a saved state and this one, or what it lacks.
  void check_state(const std::map<std::string, int64_t>& saved) const;

 private:
  TokenStream stream_;
  BatchesOptions options_;
  int64_t micro_batch_size_ = 0;
  int64_t num_windows_ = 0;
};

// The given windows of a stream. Throws InvalidArgument for an index outside num_windows(context).
[[nodiscard]] Batch read_windows(const TokenStream& stream, int64_t context, std::span<const int64_t> indices);

// At most `count` windows, evenly spread over the stream: for evaluation.
[[nodiscard]] std::vector<int64_t> spread_windows(const TokenStream& stream, int64_t context, int64_t count);

}  // namespace hydrofoil::data
