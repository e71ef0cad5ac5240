#include "hydrofoil/models/causal_lm.h"

#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full_like.h>

#include <variant>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/gpt2.h"
#include "hydrofoil/models/detail/llama.h"

namespace hydrofoil::models {
namespace {

constexpr int64_t kIgnored = -100;

void check_tokens(const char* function, const char* name, const at::Tensor& tokens) {
  HYDROFOIL_CHECK_ARG(tokens.defined(), function, name, ": got an undefined tensor, expected int64 [batch, length]");
  HYDROFOIL_CHECK_ARG(tokens.dim() == 2 && tokens.scalar_type() == at::kLong, function, name, ": got ",
                      c10::toString(tokens.scalar_type()), " ", tokens.sizes(), ", expected int64 [batch, length]");
}

}  // namespace

at::Tensor CausalLM::forward(const at::Tensor& tokens) {
  check_tokens("forward", "tokens", tokens);
  HYDROFOIL_CHECK_ARG(tokens.numel() > 0, "forward", "tokens: got ", tokens.sizes(), ", expected at least one token");
  HYDROFOIL_CHECK_ARG(max_length() == 0 || tokens.size(1) <= max_length(), "forward", "tokens: got ", tokens.size(1),
                      " a sequence, expected at most ", max_length(), ", the positions that the model has");
  return run(tokens);
}

at::Tensor CausalLM::loss(const at::Tensor& tokens, const at::Tensor& targets) {
  check_tokens("loss", "targets", targets);
  HYDROFOIL_CHECK_ARG(tokens.defined() && targets.sizes() == tokens.sizes(), "loss", "targets: got ", targets.sizes(),
                      ", expected the shape of tokens");
  const at::Tensor logits = forward(tokens).to(at::kFloat);
  return at::cross_entropy_loss(logits.view({-1, config_.vocab_size()}), targets.reshape({-1}), /*weight=*/{},
                                at::Reduction::Mean, kIgnored);
}

at::Tensor next_token_targets(const at::Tensor& tokens) {
  check_tokens("next_token_targets", "tokens", tokens);
  at::Tensor targets = at::full_like(tokens, kIgnored);
  const int64_t length = tokens.size(1);
  if (length > 1) targets.slice(1, 0, length - 1).copy_(tokens.slice(1, 1));
  return targets;
}

std::unique_ptr<CausalLM> make_model(const ModelConfig& config, at::TensorOptions options) {
  config.validate();
  const at::ScalarType dtype = c10::typeMetaToScalarType(options.dtype());
  HYDROFOIL_CHECK_ARG(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kDouble,
                      "make_model", "dtype: got ", c10::toString(dtype), ", expected Float, BFloat16, Half or Double");
  if (std::holds_alternative<LlamaConfig>(config.family)) return std::make_unique<Llama>(config, options);
  return std::make_unique<Gpt2>(config, options);
}

}  // namespace hydrofoil::models
