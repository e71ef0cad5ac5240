#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "hydrofoil/models/model_config.h"
#include "hydrofoil/zero/model_tree.h"

namespace hydrofoil::models {

// A decoder-only language model with its parameters under Hugging Face names.
//
//   ModelConfig config = load_model_config(directory);
//   auto model = make_model(config, at::kFloat);
//   load_weights(*model, directory);                 // hydrofoil/models/weights.h; before an engine takes it over
//   model->loss(tokens, next_token_targets(tokens)).backward();
//
// Its operators and their order are those of Transformers' model with SDPA attention, without a padding mask. Every
// module's forward runs through tree().boundaries. One thread at a time.
class CausalLM {
 public:
  virtual ~CausalLM() = default;
  CausalLM(const CausalLM&) = delete;
  CausalLM& operator=(const CausalLM&) = delete;

  // Logits [batch, length, vocab_size] in the model's dtype; position t sees the tokens up to t. `tokens`: int64
  // [batch, length] on the model's device. Throws InvalidArgument for another shape or dtype and for more tokens than
  // GPT-2 has positions, c10::IndexError for a token outside the vocabulary.
  [[nodiscard]] at::Tensor forward(const at::Tensor& tokens);

  // Mean cross entropy of forward(tokens) in fp32, a scalar. `targets`: int64 like `tokens`, what follows each
  // position; positions of -100 do not count.
  [[nodiscard]] at::Tensor loss(const at::Tensor& tokens, const at::Tensor& targets);

  // Dropout is active while training, as a new model is.
  void train(bool on = true) { training_ = on; }
  [[nodiscard]] bool training() const { return training_; }

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  // Modules in the order of named_modules() in Transformers; what an engine takes over.
  [[nodiscard]] zero::ModelTree& tree() { return tree_; }
  [[nodiscard]] const zero::ModelTree& tree() const { return tree_; }

 protected:
  explicit CausalLM(ModelConfig config) : config_(std::move(config)) {}

  // The forward of the root, module 0, for tokens that were checked.
  [[nodiscard]] virtual at::Tensor run(const at::Tensor& tokens) = 0;
  // Tokens in a sequence at most; 0: any number.
  [[nodiscard]] virtual int64_t max_length() const { return 0; }

 private:
  ModelConfig config_;
  zero::ModelTree tree_;
  bool training_ = true;
};

// Builds the model that `config` describes with weights of zeros; `options` gives dtype (float32, bfloat16, float16 or
// float64) and device. All parameters require gradients. Throws InvalidArgument where the config is wrong.
[[nodiscard]] std::unique_ptr<CausalLM> make_model(const ModelConfig& config, at::TensorOptions options = {});

// Gives all weights the values that a new model of the family starts from: normal with deviation initializer_range,
// GPT-2's residual projections divided by sqrt(2 n_layer), ones for norms, zeros for biases. `seed` alone decides them,
// rounded to the model's dtype. Throws InvalidArgument once an engine has taken the model over.
void initialize_weights(CausalLM& model, uint64_t seed);

// The target of each position: the next token, and -100 for the last. Transformers shifts `labels` the same way.
[[nodiscard]] at::Tensor next_token_targets(const at::Tensor& tokens);

}  // namespace hydrofoil::models
