#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "hydrofoil/models/activation.h"
#include "hydrofoil/models/rope_options.h"

namespace hydrofoil::models {

// Fields, names and defaults of Transformers' LlamaConfig.
struct LlamaConfig {
  int64_t vocab_size = 32'000;
  int64_t hidden_size = 4096;
  int64_t intermediate_size = 11'008;
  int64_t num_hidden_layers = 32;
  int64_t num_attention_heads = 32;
  int64_t num_key_value_heads = 32;  // divides num_attention_heads
  int64_t head_dim = 128;            // even
  int64_t max_position_embeddings = 2048;
  Activation hidden_act = Activation::kSilu;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  double attention_dropout = 0.0;
  std::optional<int64_t> pad_token_id;  // its embedding gets no gradient; in [0, vocab_size)
  RopeOptions rope;
};

// Fields, names and defaults of Transformers' GPT2Config.
struct Gpt2Config {
  int64_t vocab_size = 50'257;
  int64_t n_positions = 1024;
  int64_t n_embd = 768;
  int64_t n_layer = 12;
  int64_t n_head = 12;     // divides n_embd
  int64_t n_inner = 3072;  // 4 n_embd where the file does not give it
  Activation activation_function = Activation::kGeluNew;
  double resid_pdrop = 0.1;
  double embd_pdrop = 0.1;
  double attn_pdrop = 0.1;
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.02;
  bool scale_attn_weights = true;
  bool scale_attn_by_inverse_layer_idx = false;
  bool tie_word_embeddings = true;
};

struct ModelConfig {
  std::variant<LlamaConfig, Gpt2Config> family;
  std::optional<c10::ScalarType> dtype;  // of the stored weights, where the file tells (`dtype`, `torch_dtype`)

  [[nodiscard]] int64_t vocab_size() const;
  [[nodiscard]] double initializer_range() const;

  // Throws InvalidArgument that names the field, what was got and what is expected. make_model calls it.
  void validate() const;
};

// Every value that changes what a trained model computes, as one line: two models are the same where these are equal.
// Dropout and the range of initial weights are left out.
[[nodiscard]] std::string function_of(const ModelConfig& config);

// Reads a Hugging Face config.json: `path` is the file or its directory.
//
// Every key is known: it is read, or it is one of those that never change the computation (token ids, generation and
// task settings; the list is kHarmlessKeys in model_config.cpp), or it must have the value that changes nothing
// (`quantization_config`: null). Anything else throws InvalidArgument with the key, what was got, and what is expected.
[[nodiscard]] ModelConfig load_model_config(const std::string& path);

// The same from its text; `file` stands in errors.
[[nodiscard]] ModelConfig parse_model_config(std::string_view text, const std::string& file);

}  // namespace hydrofoil::models
