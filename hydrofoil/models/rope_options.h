#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace hydrofoil::models {

enum class RopeType { kDefault, kLinear, kDynamic, kYarn, kLongrope, kLlama3 };

// Rotary position embedding (https://arxiv.org/abs/2104.09864) and how it is stretched to longer sequences. Names and
// meanings are those of `rope_parameters` in config.json; a type reads only its own fields.
struct RopeOptions {
  RopeType type = RopeType::kDefault;
  double theta = 10'000.0;
  double factor = 1.0;                           // all but default
  int64_t original_max_position_embeddings = 0;  // yarn, longrope, llama3
  std::optional<double> attention_factor;        // yarn, longrope; absent: what `factor` implies
  double beta_fast = 32.0;                       // yarn
  double beta_slow = 1.0;                        // yarn
  double mscale = 0.0;                           // yarn; 0: not given
  double mscale_all_dim = 0.0;                   // yarn; 0: not given
  bool truncate = true;                          // yarn
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
  std::vector<double> short_factor;              // longrope, head_dim / 2 values
  std::vector<double> long_factor;               // longrope, head_dim / 2 values
};

}  // namespace hydrofoil::models
