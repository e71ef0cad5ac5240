#pragma once

#include <string>

#include "hydrofoil/models/causal_lm.h"

namespace hydrofoil::models {

// Reads a model's weights by their Hugging Face names. `path`: a safetensors file, a `*.safetensors.index.json`, or a
// directory with `model.safetensors` or `model.safetensors.index.json` (the single file goes first).
//
// Strict: a missing, an extra and a wrongly shaped tensor throw InvalidArgument with tensor, file, what was got and
// what is expected, before any weight changes. A tied head may be missing, or must equal the embedding. Files of the
// bare model ("h.0.ln_1.weight") and buffers that old files keep (`attn.bias`, `rotary_emb.inv_freq`) are fine.
// Floating-point values are rounded to the model's dtype. Holds one tensor at a time beside the model. An I/O error in
// the middle leaves some weights read. Throws InvalidArgument once an engine has taken the model over.
void load_weights(CausalLM& model, const std::string& path);

}  // namespace hydrofoil::models
