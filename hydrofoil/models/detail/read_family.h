#pragma once

#include <string>

#include "hydrofoil/models/detail/config_fields.h"
#include "hydrofoil/models/model_config.h"

namespace hydrofoil::models {

// Sizes that no model reaches, and whose products fit 64 bits.
inline constexpr int64_t kMaxSize = int64_t{1} << 24;
inline constexpr int64_t kMaxLayers = 100'000;
inline constexpr int64_t kMaxPositions = int64_t{1} << 40;

// Reads the family's own keys, without the check of how they fit together.
[[nodiscard]] LlamaConfig read_llama_config(ConfigFields& fields, const std::string& file);
[[nodiscard]] Gpt2Config read_gpt2_config(ConfigFields& fields);

// `rope_parameters` or, in older files, `rope_theta` and `rope_scaling`.
[[nodiscard]] RopeOptions read_rope(ConfigFields& fields, const std::string& file, int64_t head_dim,
                                    int64_t max_position_embeddings);
[[nodiscard]] Activation read_activation(ConfigFields& fields, const std::string& name, Activation fallback);

// How the fields fit together. `place` stands before the field in errors: "'config.json': ".
void validate(const LlamaConfig& config, const std::string& place);
void validate(const Gpt2Config& config, const std::string& place);
void validate(const RopeOptions& rope, int64_t head_dim, const std::string& place);

}  // namespace hydrofoil::models
