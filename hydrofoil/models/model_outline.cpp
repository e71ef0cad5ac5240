#include "hydrofoil/models/model_outline.h"

#include <utility>

#include "hydrofoil/memory/alignment.h"

namespace hydrofoil::models {
namespace {

// The calls are those of LayerBuilder (detail/layers.h), in their order; a test compares the results.
class OutlineBuilder {
 public:
  int module(const std::string& name, const std::string& type_name, int parent, bool is_list = false) {
    std::string path = name;
    if (parent >= 0 && !outline_.modules[parent].path.empty()) path = outline_.modules[parent].path + "." + name;
    outline_.modules.push_back({.path = std::move(path), .type_name = type_name, .parent = parent, .is_list = is_list});
    return static_cast<int>(outline_.modules.size()) - 1;
  }
  int64_t parameter(int module, const std::string& name, std::vector<int64_t> sizes) {
    outline_.parameters.push_back({outline_.modules[module].path + "." + name, std::move(sizes)});
    share(module, static_cast<int64_t>(outline_.parameters.size()) - 1);
    return outline_.modules[module].parameters.back();
  }
  void share(int module, int64_t parameter) { outline_.modules[module].parameters.push_back(parameter); }

  int64_t embedding(const std::string& name, int parent, int64_t num, int64_t dim) {
    return parameter(module(name, "Embedding", parent), "weight", {num, dim});
  }
  void linear(const std::string& name, int parent, int64_t in, int64_t out, bool bias) {
    const int number = module(name, "Linear", parent);
    parameter(number, "weight", {out, in});
    if (bias) parameter(number, "bias", {out});
  }
  void conv1d(const std::string& name, int parent, int64_t in, int64_t out) {
    const int number = module(name, "Conv1D", parent);
    parameter(number, "weight", {in, out});
    parameter(number, "bias", {out});
  }
  void layer_norm(const std::string& name, int parent, int64_t dim) {
    const int number = module(name, "LayerNorm", parent);
    parameter(number, "weight", {dim});
    parameter(number, "bias", {dim});
  }
  void rms_norm(const std::string& name, int parent, int64_t dim) {
    parameter(module(name, "LlamaRMSNorm", parent), "weight", {dim});
  }
  void head(int parent, bool tied, int64_t embedding, int64_t dim, int64_t vocab_size) {
    if (tied) {
      share(module("lm_head", "Linear", parent), embedding);
    } else {
      linear("lm_head", parent, dim, vocab_size, false);
    }
  }

  [[nodiscard]] ModelOutline take() { return std::move(outline_); }

 private:
  ModelOutline outline_;
};

void outline_layer(OutlineBuilder& build, const LlamaConfig& config, int index, int parent) {
  const int64_t hidden = config.hidden_size;
  const int64_t query_dim = config.num_attention_heads * config.head_dim;
  const int64_t key_dim = config.num_key_value_heads * config.head_dim;
  const int layer = build.module(std::to_string(index), "LlamaDecoderLayer", parent);
  const int attention = build.module("self_attn", "LlamaAttention", layer);
  build.linear("q_proj", attention, hidden, query_dim, config.attention_bias);
  build.linear("k_proj", attention, hidden, key_dim, config.attention_bias);
  build.linear("v_proj", attention, hidden, key_dim, config.attention_bias);
  build.linear("o_proj", attention, query_dim, hidden, config.attention_bias);
  const int mlp = build.module("mlp", "LlamaMLP", layer);
  build.linear("gate_proj", mlp, hidden, config.intermediate_size, config.mlp_bias);
  build.linear("up_proj", mlp, hidden, config.intermediate_size, config.mlp_bias);
  build.linear("down_proj", mlp, config.intermediate_size, hidden, config.mlp_bias);
  build.module("act_fn", "Activation", mlp);
  build.rms_norm("input_layernorm", layer, hidden);
  build.rms_norm("post_attention_layernorm", layer, hidden);
}

ModelOutline outline_family(const LlamaConfig& config) {
  OutlineBuilder build;
  const int root = build.module("", "LlamaForCausalLM", -1);
  const int model = build.module("model", "LlamaModel", root);
  const int64_t embedding = build.embedding("embed_tokens", model, config.vocab_size, config.hidden_size);
  const int list = build.module("layers", "ModuleList", model, /*is_list=*/true);
  for (int i = 0; i < config.num_hidden_layers; ++i) outline_layer(build, config, i, list);
  build.rms_norm("norm", model, config.hidden_size);
  build.module("rotary_emb", "LlamaRotaryEmbedding", model);
  build.head(root, config.tie_word_embeddings, embedding, config.hidden_size, config.vocab_size);
  return build.take();
}

void outline_block(OutlineBuilder& build, const Gpt2Config& config, int index, int parent) {
  const int64_t dim = config.n_embd;
  const int block = build.module(std::to_string(index), "GPT2Block", parent);
  build.layer_norm("ln_1", block, dim);
  const int attention = build.module("attn", "GPT2Attention", block);
  build.conv1d("c_attn", attention, dim, 3 * dim);
  build.conv1d("c_proj", attention, dim, dim);
  build.module("attn_dropout", "Dropout", attention);
  build.module("resid_dropout", "Dropout", attention);
  build.layer_norm("ln_2", block, dim);
  const int mlp = build.module("mlp", "GPT2MLP", block);
  build.conv1d("c_fc", mlp, dim, config.n_inner);
  build.conv1d("c_proj", mlp, config.n_inner, dim);
  build.module("act", "Activation", mlp);
  build.module("dropout", "Dropout", mlp);
}

ModelOutline outline_family(const Gpt2Config& config) {
  OutlineBuilder build;
  const int root = build.module("", "GPT2LMHeadModel", -1);
  const int transformer = build.module("transformer", "GPT2Model", root);
  const int64_t embedding = build.embedding("wte", transformer, config.vocab_size, config.n_embd);
  (void)build.embedding("wpe", transformer, config.n_positions, config.n_embd);
  build.module("drop", "Dropout", transformer);
  const int list = build.module("h", "ModuleList", transformer, /*is_list=*/true);
  for (int i = 0; i < config.n_layer; ++i) outline_block(build, config, i, list);
  build.layer_norm("ln_f", transformer, config.n_embd);
  build.head(root, config.tie_word_embeddings, embedding, config.n_embd, config.vocab_size);
  return build.take();
}

}  // namespace

int64_t ParameterOutline::numel() const {
  int64_t numel = 1;
  for (const int64_t size : sizes) numel = memory::checked_multiply(numel, size, "outline_model");
  return numel;
}

ModelOutline outline_model(const ModelConfig& config) {
  config.validate();
  return std::visit([](const auto& family) { return outline_family(family); }, config.family);
}

}  // namespace hydrofoil::models
