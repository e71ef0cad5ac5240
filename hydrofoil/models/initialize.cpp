#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/normal.h>

#include <cmath>
#include <string>
#include <string_view>
#include <variant>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/causal_lm.h"

namespace hydrofoil::models {
namespace {

bool is_norm(const zero::ModuleNode& module) {
  return module.type_name == "LayerNorm" || module.type_name == "LlamaRMSNorm";
}

double deviation_of(const ModelConfig& config, std::string_view parameter) {
  const auto* gpt2 = std::get_if<Gpt2Config>(&config.family);
  if (gpt2 == nullptr || !parameter.ends_with(".c_proj.weight")) return config.initializer_range();
  return gpt2->initializer_range / std::sqrt(2.0 * static_cast<double>(gpt2->n_layer));
}

}  // namespace

void initialize_weights(CausalLM& model, uint64_t seed) {
  zero::ModelTree& tree = model.tree();
  HYDROFOIL_CHECK_ARG(!tree.boundaries->attached(), "initialize_weights",
                      "the model belongs to an engine; expected a call before an engine takes it over");
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::vector<bool> done(tree.parameters.size(), false);  // a tied parameter belongs to its first module
  for (const zero::ModuleNode& module : tree.modules) {
    for (const int64_t index : module.parameters) {
      if (done[static_cast<size_t>(index)]) continue;
      done[static_cast<size_t>(index)] = true;
      zero::RuntimeParameter& parameter = tree.parameters[static_cast<size_t>(index)];
      if (is_norm(module) && parameter.name.ends_with(".weight")) {
        parameter.parameter.fill_(1.0);
      } else if (parameter.name.ends_with(".bias")) {
        parameter.parameter.fill_(0.0);
      } else {
        // In fp32 on the CPU whatever the model's dtype and device: the seed alone decides the values.
        at::Tensor values = at::empty(parameter.parameter.sizes(), at::kFloat);
        values.normal_(0.0, deviation_of(model.config(), parameter.name), generator);
        parameter.parameter.copy_(values);
      }
    }
  }
  const auto* llama = std::get_if<LlamaConfig>(&model.config().family);
  if (llama != nullptr && llama->pad_token_id.has_value()) {
    tree.parameters.front().parameter.select(0, *llama->pad_token_id).zero_();  // model.embed_tokens.weight
  }
}

}  // namespace hydrofoil::models
