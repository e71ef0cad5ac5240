#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/read_family.h"

namespace hydrofoil::models {

Activation read_activation(ConfigFields& fields, const std::string& name, Activation fallback) {
  const std::string got = fields.string(name, "");
  if (!fields.contains(name)) return fallback;
  const auto activation = parse_activation(got);
  if (!activation.has_value()) {
    std::string expected;
    for (const std::string& known : activation_names()) expected += (expected.empty() ? "" : ", ") + known;
    fields.fail(name, expected);
  }
  return *activation;
}

LlamaConfig read_llama_config(ConfigFields& fields, const std::string& file) {
  LlamaConfig config;
  config.vocab_size = fields.integer("vocab_size", config.vocab_size, 1, kMaxSize);
  config.hidden_size = fields.integer("hidden_size", config.hidden_size, 1, kMaxSize);
  config.intermediate_size = fields.integer("intermediate_size", config.intermediate_size, 1, kMaxSize);
  config.num_hidden_layers = fields.integer("num_hidden_layers", config.num_hidden_layers, 0, kMaxLayers);
  config.num_attention_heads = fields.integer("num_attention_heads", config.num_attention_heads, 1, kMaxSize);
  config.num_key_value_heads =
      fields.optional_integer("num_key_value_heads", 1, kMaxSize).value_or(config.num_attention_heads);
  const auto head_dim = fields.optional_integer("head_dim", 1, kMaxSize);
  if (!head_dim.has_value() && config.hidden_size % config.num_attention_heads != 0) {
    fields.fail("hidden_size", detail::concat("a multiple of num_attention_heads (", config.num_attention_heads, ")"));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.num_attention_heads);
  config.max_position_embeddings =
      fields.integer("max_position_embeddings", config.max_position_embeddings, 1, kMaxPositions);
  config.hidden_act = read_activation(fields, "hidden_act", config.hidden_act);
  config.rms_norm_eps = fields.number("rms_norm_eps", config.rms_norm_eps, 0.0, 1.0);
  config.initializer_range = fields.number("initializer_range", config.initializer_range, 0.0, 1.0);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", config.tie_word_embeddings);
  config.attention_bias = fields.boolean("attention_bias", config.attention_bias);
  config.mlp_bias = fields.boolean("mlp_bias", config.mlp_bias);
  config.attention_dropout = fields.optional_number("attention_dropout", 0.0, 1.0).value_or(0.0);
  config.pad_token_id = fields.optional_integer("pad_token_id", -config.vocab_size, config.vocab_size - 1);
  // As torch.nn.Embedding takes its padding_idx.
  if (config.pad_token_id.has_value() && *config.pad_token_id < 0) *config.pad_token_id += config.vocab_size;
  config.rope = read_rope(fields, file, config.head_dim, config.max_position_embeddings);
  fields.expect("pretraining_tp", "1");
  fields.expect("rope_interleaved", "false");
  return config;
}

void validate(const LlamaConfig& config, const std::string& place) {
  const auto size = [&](const char* name, int64_t value, int64_t low, int64_t high) {
    HYDROFOIL_CHECK_ARG(value >= low && value <= high, "model_config", place, name, ": got ", value,
                        ", expected an integer from ", low, " to ", high);
  };
  size("vocab_size", config.vocab_size, 1, kMaxSize);
  size("hidden_size", config.hidden_size, 1, kMaxSize);
  size("intermediate_size", config.intermediate_size, 1, kMaxSize);
  size("num_hidden_layers", config.num_hidden_layers, 0, kMaxLayers);
  size("num_attention_heads", config.num_attention_heads, 1, kMaxSize);
  size("num_key_value_heads", config.num_key_value_heads, 1, kMaxSize);
  size("head_dim", config.head_dim, 1, kMaxSize);
  size("max_position_embeddings", config.max_position_embeddings, 1, kMaxPositions);
  size("pad_token_id", config.pad_token_id.value_or(0), 0, config.vocab_size - 1);
  HYDROFOIL_CHECK_ARG(config.num_attention_heads % config.num_key_value_heads == 0, "model_config", place,
                      "num_key_value_heads: got ", config.num_key_value_heads,
                      ", expected a divisor of num_attention_heads (", config.num_attention_heads, ")");
  HYDROFOIL_CHECK_ARG(config.num_attention_heads * config.head_dim <= kMaxSize, "model_config", place,
                      "num_attention_heads: got ", config.num_attention_heads, " of head_dim ", config.head_dim,
                      ", expected a product of at most ", kMaxSize);
  HYDROFOIL_CHECK_ARG(config.attention_dropout >= 0.0 && config.attention_dropout <= 1.0, "model_config", place,
                      "attention_dropout: got ", config.attention_dropout, ", expected a number from 0 to 1");
  validate(config.rope, config.head_dim, place);
}

}  // namespace hydrofoil::models
