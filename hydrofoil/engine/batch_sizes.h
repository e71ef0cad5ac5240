#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hydrofoil::engine {

// The batch triple of DeepSpeed, in samples: train_batch_size == micro_batch_size * accumulation_steps * world size.
struct BatchSizes {
  int64_t train_batch_size = 0;    // per optimizer step, all ranks together
  int64_t micro_batch_size = 0;    // per rank and micro step
  int64_t accumulation_steps = 0;  // micro steps per optimizer step
  std::string train_note;          // how each was derived, as arithmetic; empty where it was given
  std::string micro_note;
  std::string accumulation_note;
};

// Completes the triple from what is given (each at least 1), as DeepSpeed does: with T, M, G and the world size W,
// T,M: G = T//M//W; T,G: M = T//W//G; M,G: T = M*G*W; T: G = 1, M = T//W; M: G = 1, T = M*W.
//
// Throws InvalidArgument that shows the arithmetic and the world size where neither T nor M is given, a size is derived
// as 0, the product differs from T, or it exceeds 64 bits.
[[nodiscard]] BatchSizes complete_batch_sizes(std::optional<int64_t> train_batch_size,
                                              std::optional<int64_t> micro_batch_size,
                                              std::optional<int64_t> accumulation_steps, int64_t world_size);

}  // namespace hydrofoil::engine
