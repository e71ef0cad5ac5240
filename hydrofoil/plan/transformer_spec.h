#pragma once

#include <cstdint>

#include "hydrofoil/models/model_config.h"
#include "hydrofoil/plan/model_spec.h"

namespace hydrofoil::plan {

// One micro batch of one rank.
struct BatchShape {
  int64_t micro_batch_size = 1;   // samples
  int64_t sequence_length = 512;  // tokens a sample
  bool checkpointing = false;     // each block keeps its input alone and runs its forward again in backward

  void validate() const;
};

// A model of hydrofoil/models as shapes, with what its calls cost in `dtype` (of parameters and activations).
//
// Saved bytes are counted operator by operator, as models/llama.cpp, gpt2.cpp and layers.cpp call them and as autograd
// saves their inputs and results (derivatives.yaml of torch 2.13): what several operators save is counted once. Bytes
// are T = samples x length tokens by width by element. Attention without dropout is torch's CPU flash kernel, which
// keeps its inputs, its output and a logarithm a row; with dropout it is the composed one, which keeps three squares of
// the length a head (Korthikanti et al., arXiv 2205.05198, section 4, counts the same tensors for fp16). Programs that
// keep the logits during backward (Transformers' ModelOutput) hold T x vocabulary elements more. Matrix products take 2
// x tokens x in x out operations, backward twice that.
[[nodiscard]] ModelSpec transformer_spec(const models::ModelConfig& config, const BatchShape& batch,
                                         c10::ScalarType dtype);

}  // namespace hydrofoil::plan
