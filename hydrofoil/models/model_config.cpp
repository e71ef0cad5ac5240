#include "hydrofoil/models/model_config.h"

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/config_fields.h"
#include "hydrofoil/models/detail/read_family.h"
#include "hydrofoil/storage/file.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::models {
namespace {

constexpr const char* kFunction = "load_model_config";
constexpr int64_t kMaxFileBytes = 16 << 20;
constexpr int kMaxDepth = 8;

// What never changes logits or gradients of a causal language model: who wrote the file, special tokens of the
// tokenizer, how text is generated, heads of other tasks, how attention is computed rather than what.
const std::vector<std::string> kHarmlessKeys = {"_attn_implementation",
                                                "_attn_implementation_autoset",
                                                "_commit_hash",
                                                "_name_or_path",
                                                "_num_labels",
                                                "architectures",
                                                "attn_implementation",
                                                "bad_words_ids",
                                                "begin_suppress_tokens",
                                                "bos_token_id",
                                                "classifier_dropout",
                                                "cls_token_id",
                                                "decoder_start_token_id",
                                                "diversity_penalty",
                                                "do_sample",
                                                "early_stopping",
                                                "encoder_no_repeat_ngram_size",
                                                "eos_token_id",
                                                "exponential_decay_length_penalty",
                                                "finetuning_task",
                                                "forced_bos_token_id",
                                                "forced_eos_token_id",
                                                "gradient_checkpointing",
                                                "id2label",
                                                "is_decoder",
                                                "is_llama_config",
                                                "label2id",
                                                "length_penalty",
                                                "max_length",
                                                "max_sequence_length",
                                                "min_length",
                                                "model_max_length",
                                                "n_ctx",
                                                "name_or_path",
                                                "no_repeat_ngram_size",
                                                "num_beam_groups",
                                                "num_beams",
                                                "num_labels",
                                                "num_return_sequences",
                                                "output_attentions",
                                                "output_hidden_states",
                                                "output_past",
                                                "output_scores",
                                                "prefix",
                                                "problem_type",
                                                "remove_invalid_values",
                                                "repetition_penalty",
                                                "return_dict",
                                                "return_dict_in_generate",
                                                "sep_token_id",
                                                "summary_activation",
                                                "summary_first_dropout",
                                                "summary_proj_to_labels",
                                                "summary_type",
                                                "summary_use_proj",
                                                "suppress_tokens",
                                                "task_specific_params",
                                                "temperature",
                                                "tf_legacy_loss",
                                                "tie_encoder_decoder",
                                                "tie_last_hidden_states",
                                                "tokenizer_class",
                                                "top_k",
                                                "top_p",
                                                "torchscript",
                                                "transformers.js_config",
                                                "transformers_version",
                                                "typical_p",
                                                "unk_token_id",
                                                "unsloth_fixed",
                                                "unsloth_version",
                                                "use_bfloat16",
                                                "use_cache",
                                                "use_return_dict"};

// What changes the computation of either family and is not implemented, with the value that changes nothing.
constexpr std::array<std::pair<const char*, const char*>, 14> kNeutralValues = {
    {{"add_cross_attention", "false"},
     {"attention_chunk_size", "null"},
     {"auto_map", "null"},
     {"chunk_size_feed_forward", "0"},
     {"cross_attention_hidden_size", "null"},
     {"is_encoder_decoder", "false"},
     {"layer_types", "null"},
     {"loss_type", "null"},
     {"partial_rotary_factor", "1.0"},
     {"per_layer_config", "null"},
     {"pruned_heads", "{}"},
     {"quantization_config", "null"},
     {"sliding_window", "null"},
     {"use_sliding_window", "false"}}};

std::optional<c10::ScalarType> read_dtype(ConfigFields& fields) {
  std::optional<c10::ScalarType> dtype;
  for (const char* key : {"torch_dtype", "dtype"}) {
    const auto name = fields.optional_string(key);
    if (!name.has_value() || *name == "auto") continue;
    if (*name == "float32" || *name == "torch.float32") {
      dtype = c10::ScalarType::Float;
    } else if (*name == "bfloat16" || *name == "torch.bfloat16") {
      dtype = c10::ScalarType::BFloat16;
    } else if (*name == "float16" || *name == "torch.float16") {
      dtype = c10::ScalarType::Half;
    } else if (*name == "float64" || *name == "torch.float64") {
      dtype = c10::ScalarType::Double;
    } else {
      fields.fail(key, "\"float32\", \"bfloat16\", \"float16\", \"float64\" or \"auto\"");
    }
  }
  return dtype;
}

}  // namespace

int64_t ModelConfig::vocab_size() const {
  return std::visit([](const auto& config) { return config.vocab_size; }, family);
}

double ModelConfig::initializer_range() const {
  return std::visit([](const auto& config) { return config.initializer_range; }, family);
}

void ModelConfig::validate() const {
  std::visit([](const auto& config) { models::validate(config, ""); }, family);
}

ModelConfig parse_model_config(std::string_view text, const std::string& file) {
  const nlohmann::json json = storage::parse_strict_json(text, kFunction, file, kMaxDepth);
  ConfigFields fields(json, "", file);
  const std::string model_type = fields.string("model_type", "");
  ModelConfig config;
  config.dtype = read_dtype(fields);
  for (const auto& [key, neutral] : kNeutralValues) fields.expect(key, neutral);
  fields.ignore(kHarmlessKeys);
  if (model_type == "llama") {
    config.family = read_llama_config(fields, file);
  } else if (model_type == "gpt2") {
    config.family = read_gpt2_config(fields);
  } else {
    fields.fail("model_type", "\"llama\" or \"gpt2\"");
  }
  fields.finish();
  std::visit([&](const auto& own) { models::validate(own, "'" + file + "': "); }, config.family);
  return config;
}

ModelConfig load_model_config(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at cannot be opened either, and that error says why
  const bool is_directory = std::filesystem::is_directory(path, ignored);
  const std::string file = is_directory ? (std::filesystem::path(path) / "config.json").string() : path;
  return parse_model_config(storage::read_file(file, kMaxFileBytes), file);
}

std::string function_of(const ModelConfig& config) {
  std::string line;
  const auto add = [&](const auto&... values) { ((line += detail::concat(' ', values)), ...); };
  if (const auto* gpt2 = std::get_if<Gpt2Config>(&config.family)) {
    add("gpt2", gpt2->vocab_size, gpt2->n_positions, gpt2->n_embd, gpt2->n_layer, gpt2->n_head, gpt2->n_inner,
        static_cast<int>(gpt2->activation_function), gpt2->layer_norm_epsilon, gpt2->scale_attn_weights,
        gpt2->scale_attn_by_inverse_layer_idx, gpt2->tie_word_embeddings);
    return line;
  }
  const auto& llama = std::get<LlamaConfig>(config.family);
  add("llama", llama.vocab_size, llama.hidden_size, llama.intermediate_size, llama.num_hidden_layers,
      llama.num_attention_heads, llama.num_key_value_heads, llama.head_dim, static_cast<int>(llama.hidden_act),
      llama.rms_norm_eps, llama.tie_word_embeddings, llama.attention_bias, llama.mlp_bias,
      llama.pad_token_id.value_or(-1));
  const RopeOptions& rope = llama.rope;
  add("rope", static_cast<int>(rope.type), rope.theta, rope.factor, rope.original_max_position_embeddings,
      rope.attention_factor.value_or(0), rope.beta_fast, rope.beta_slow, rope.mscale, rope.mscale_all_dim,
      rope.truncate, rope.low_freq_factor, rope.high_freq_factor);
  for (const auto* factors : {&rope.short_factor, &rope.long_factor}) {
    add("factors");
    for (const double factor : *factors) add(factor);
  }
  return line;
}

}  // namespace hydrofoil::models
