#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/read_family.h"

namespace hydrofoil::models {

Gpt2Config read_gpt2_config(ConfigFields& fields) {
  Gpt2Config config;
  config.vocab_size = fields.integer("vocab_size", config.vocab_size, 1, kMaxSize);
  config.n_positions = fields.integer("n_positions", config.n_positions, 1, kMaxSize);
  config.n_embd = fields.integer("n_embd", config.n_embd, 1, kMaxSize / 4);
  config.n_layer = fields.integer("n_layer", config.n_layer, 0, kMaxLayers);
  config.n_head = fields.integer("n_head", config.n_head, 1, kMaxSize);
  config.n_inner = fields.optional_integer("n_inner", 1, kMaxSize).value_or(4 * config.n_embd);
  config.activation_function = read_activation(fields, "activation_function", config.activation_function);
  config.resid_pdrop = fields.number("resid_pdrop", config.resid_pdrop, 0.0, 1.0);
  config.embd_pdrop = fields.number("embd_pdrop", config.embd_pdrop, 0.0, 1.0);
  config.attn_pdrop = fields.number("attn_pdrop", config.attn_pdrop, 0.0, 1.0);
  config.layer_norm_epsilon = fields.number("layer_norm_epsilon", config.layer_norm_epsilon, 0.0, 1.0);
  config.initializer_range = fields.number("initializer_range", config.initializer_range, 0.0, 1.0);
  config.scale_attn_weights = fields.boolean("scale_attn_weights", config.scale_attn_weights);
  config.scale_attn_by_inverse_layer_idx =
      fields.boolean("scale_attn_by_inverse_layer_idx", config.scale_attn_by_inverse_layer_idx);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", config.tie_word_embeddings);
  fields.expect("reorder_and_upcast_attn", "false");
  fields.ignore({"pad_token_id"});
  return config;
}

void validate(const Gpt2Config& config, const std::string& place) {
  const auto size = [&](const char* name, int64_t value, int64_t low, int64_t high) {
    HYDROFOIL_CHECK_ARG(value >= low && value <= high, "model_config", place, name, ": got ", value,
                        ", expected an integer from ", low, " to ", high);
  };
  size("vocab_size", config.vocab_size, 1, kMaxSize);
  size("n_positions", config.n_positions, 1, kMaxSize);
  size("n_embd", config.n_embd, 1, kMaxSize / 4);
  size("n_layer", config.n_layer, 0, kMaxLayers);
  size("n_head", config.n_head, 1, kMaxSize);
  size("n_inner", config.n_inner, 1, kMaxSize);
  HYDROFOIL_CHECK_ARG(config.n_embd % config.n_head == 0, "model_config", place, "n_embd: got ", config.n_embd,
                      ", expected a multiple of n_head (", config.n_head, ")");
  for (const auto& [name, value] :
       {std::pair("resid_pdrop", config.resid_pdrop), std::pair("embd_pdrop", config.embd_pdrop),
        std::pair("attn_pdrop", config.attn_pdrop)}) {
    HYDROFOIL_CHECK_ARG(value >= 0.0 && value <= 1.0, "model_config", place, name, ": got ", value,
                        ", expected a number from 0 to 1");
  }
}

}  // namespace hydrofoil::models
