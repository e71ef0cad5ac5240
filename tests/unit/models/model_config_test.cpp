#include "hydrofoil/models/model_config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/causal_lm.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::models {
namespace {

// config.json of HuggingFaceTB/SmolLM2-135M.
constexpr const char* kSmolLm2 = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0,
  "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama",
  "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
  "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true,
  "vocab_size": 49152})";

// `extra`: more keys, each with a comma in front.
ModelConfig parse_llama(const std::string& extra) {
  return parse_model_config(R"({"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4)" + extra + "}",
                            "config.json");
}

ModelConfig parse_gpt2(const std::string& extra) {
  return parse_model_config(R"({"model_type": "gpt2", "n_embd": 32, "n_head": 4)" + extra + "}", "config.json");
}

std::string error_of(const auto& function) {
  try {
    function();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "no error";
}

TEST(ModelConfig, ReadsSmolLm2) {
  const ModelConfig config = parse_model_config(kSmolLm2, "config.json");
  const auto& llama = std::get<LlamaConfig>(config.family);
  EXPECT_EQ(config.vocab_size(), 49152);
  EXPECT_EQ(config.dtype, c10::ScalarType::BFloat16);
  EXPECT_EQ(llama.head_dim, 64);
  EXPECT_EQ(llama.num_key_value_heads, 3);
  EXPECT_EQ(llama.rope.type, RopeType::kDefault);
  EXPECT_EQ(llama.rope.theta, 100000.0);
  EXPECT_TRUE(llama.tie_word_embeddings);
}

TEST(ModelConfig, TakesTheDefaultsOfTransformers) {
  const auto llama = std::get<LlamaConfig>(parse_model_config(R"({"model_type": "llama"})", "f").family);
  EXPECT_EQ(llama.intermediate_size, 11008);
  EXPECT_EQ(llama.num_key_value_heads, 32);
  EXPECT_FALSE(llama.tie_word_embeddings);
  const auto gpt2 = std::get<Gpt2Config>(parse_model_config(R"({"model_type": "gpt2"})", "f").family);
  EXPECT_EQ(gpt2.n_inner, 3072);
  EXPECT_EQ(gpt2.attn_pdrop, 0.1);
  EXPECT_TRUE(gpt2.tie_word_embeddings);
}

TEST(ModelConfig, LoadsAFileAndItsDirectory) {
  const storage::TemporaryDirectory directory;
  std::ofstream(directory.path() + "/config.json") << kSmolLm2;
  EXPECT_EQ(load_model_config(directory.path()).vocab_size(), 49152);
  EXPECT_EQ(load_model_config(directory.path() + "/config.json").vocab_size(), 49152);
  EXPECT_THROW((void)load_model_config(directory.path() + "/none.json"), SystemError);
}

TEST(ModelConfig, ReadsBothFormsOfRope) {
  const auto rope_of = [](const std::string& extra) { return std::get<LlamaConfig>(parse_llama(extra).family).rope; };
  const RopeOptions linear = rope_of(R"(, "rope_theta": 500, "rope_scaling": {"type": "linear", "factor": 2})");
  EXPECT_EQ(linear.type, RopeType::kLinear);
  EXPECT_EQ(linear.factor, 2.0);
  EXPECT_EQ(linear.theta, 500.0);
  const RopeOptions llama3 = rope_of(
      R"(, "rope_parameters": {"rope_type": "llama3", "rope_theta": 700.0, "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 64})");
  EXPECT_EQ(llama3.type, RopeType::kLlama3);
  EXPECT_EQ(llama3.theta, 700.0);
  EXPECT_EQ(llama3.original_max_position_embeddings, 64);
  const RopeOptions yarn = rope_of(R"(, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 0})");
  EXPECT_EQ(yarn.original_max_position_embeddings, 2048);
  EXPECT_EQ(yarn.beta_fast, 32.0);
  const RopeOptions longrope = rope_of(
      R"(, "original_max_position_embeddings": 512, "rope_scaling": {"type": "longrope", "short_factor": [1,1,1,1],
           "long_factor": [2,2,2,2]})");
  EXPECT_EQ(longrope.factor, 4.0);
  EXPECT_EQ(longrope.long_factor.size(), 4U);
  EXPECT_EQ(rope_of(R"(, "rope_scaling": {}, "rope_parameters": null)").type, RopeType::kDefault);
}

TEST(ModelConfig, CountsANegativePaddingTokenFromTheEnd) {
  EXPECT_EQ(std::get<LlamaConfig>(parse_llama(R"(, "vocab_size": 10, "pad_token_id": -1)").family).pad_token_id, 9);
}

struct Wrong {
  const char* extra;
  const char* expected;  // in the error
};

class WrongLlama : public testing::TestWithParam<Wrong> {};

TEST_P(WrongLlama, IsAnErrorThatNamesTheKey) {
  const std::string error = error_of([] { (void)parse_llama(GetParam().extra); });
  EXPECT_NE(error.find("'config.json': "), std::string::npos) << error;
  EXPECT_NE(error.find(GetParam().expected), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(
    Keys, WrongLlama,
    testing::Values(
        Wrong{R"(, "hiden_act": "silu")",
              "hiden_act: got \"silu\", expected no such key (the nearest one that is "
              "known: 'hidden_act')"},
        Wrong{R"(, "hidden_act": "xielu")", "hidden_act: got \"xielu\", expected gelu, gelu_fast"},
        Wrong{R"(, "hidden_act": null)", "hidden_act: got null"},
        Wrong{R"(, "vocab_size": "many")", "vocab_size: got \"many\", expected an integer from 1 to"},
        Wrong{R"(, "vocab_size": 0)", "vocab_size: got 0"}, Wrong{R"(, "vocab_size": 1.5)", "vocab_size: got 1.5"},
        Wrong{R"(, "vocab_size": 18446744073709551615)", "vocab_size: got 18446744073709551615"},
        Wrong{R"(, "num_hidden_layers": -1)", "num_hidden_layers: got -1"},
        Wrong{R"(, "intermediate_size": 99999999999)", "intermediate_size: got 99999999999"},
        Wrong{R"(, "num_key_value_heads": 3)", "num_key_value_heads: got 3, expected a divisor of num_attention_heads"},
        Wrong{R"(, "head_dim": 7)", "head_dim: got 7, expected an even number"},
        Wrong{R"(, "head_dim": 16777216)", "num_attention_heads: got 4 of head_dim 16777216"},
        Wrong{R"(, "rms_norm_eps": -1)", "rms_norm_eps: got -1"},
        Wrong{R"(, "attention_bias": 1)", "attention_bias: got 1, expected true or false"},
        Wrong{R"(, "attention_dropout": 1.5)", "attention_dropout: got 1.5"},
        Wrong{R"(, "pad_token_id": 32000)", "pad_token_id: got 32000"},
        Wrong{R"(, "pretraining_tp": 2)", "pretraining_tp: got 2, expected 1"},
        Wrong{R"(, "rope_interleaved": true)", "rope_interleaved: got true, expected false"},
        Wrong{R"(, "partial_rotary_factor": 0.5)", "partial_rotary_factor: got 0.5, expected 1.0"},
        Wrong{R"(, "quantization_config": {"bits": 4})", "quantization_config: got {\"bits\":4}, expected null"},
        Wrong{R"(, "sliding_window": 128)", "sliding_window: got 128, expected null"},
        Wrong{R"(, "auto_map": {"AutoModel": "x"})", "auto_map: got"},
        Wrong{R"(, "torch_dtype": "float8_e4m3fn")", "torch_dtype: got \"float8_e4m3fn\""},
        Wrong{R"(, "rope_theta": 0)", "rope_theta: got 0"},
        Wrong{R"(, "rope_scaling": [])", "rope_scaling: got [], expected an object or null"},
        Wrong{R"(, "rope_scaling": {"type": "su"})", "rope_scaling.type: got \"su\", expected default, linear"},
        Wrong{R"(, "rope_scaling": {"type": "linear"})", "rope_scaling.factor: got nothing"},
        Wrong{R"(, "rope_scaling": {"type": "linear", "factor": 0.5})", "rope_scaling.factor: got 0.5"},
        Wrong{R"(, "rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 3})", "rope_scaling.beta_fast: got 3"},
        Wrong{R"(, "rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2})",
              "rope_scaling.rope_type: got"},
        Wrong{R"(, "rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"})",
              "rope_scaling: got"},
        Wrong{R"(, "rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                 "high_freq_factor": 4})",
              "high_freq_factor: got 4, expected more than low_freq_factor"},
        Wrong{R"(, "rope_parameters": {"rope_type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 4})",
              "beta_fast: got 1, expected at least beta_slow"},
        Wrong{R"(, "rope_parameters": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1]})",
              "rope_parameters.short_factor: got [1], expected a list of 4 numbers"},
        Wrong{R"(, "rope_parameters": {"rope_type": "longrope", "short_factor": [1,1,1,1]})",
              "rope_parameters.long_factor: got nothing"},
        Wrong{R"(, "head_dim": 2, "rope_parameters": {"rope_type": "dynamic", "factor": 2})",
              "head_dim: got 2, expected more than 2"},
        Wrong{R"(, "hidden_size": 4)", "duplicate key 'hidden_size'"},
        Wrong{R"(, "eos_token_id": [[[[[[[[[0]]]]]]]]])", "nests deeper"},
        Wrong{R"(, "use_cache": tru)", "invalid JSON"}));

class WrongGpt2 : public testing::TestWithParam<Wrong> {};

TEST_P(WrongGpt2, IsAnErrorThatNamesTheKey) {
  const std::string error = error_of([] { (void)parse_gpt2(GetParam().extra); });
  EXPECT_NE(error.find(GetParam().expected), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(
    Keys, WrongGpt2,
    testing::Values(Wrong{R"(, "reorder_and_upcast_attn": true)", "reorder_and_upcast_attn: got true, expected false"},
                    Wrong{R"(, "add_cross_attention": true)", "add_cross_attention: got true, expected false"},
                    Wrong{R"(, "activation_function": "mish")", "activation_function: got \"mish\""},
                    Wrong{R"(, "resid_pdrop": null)", "resid_pdrop: got null"},
                    Wrong{R"(, "embd_pdrop": -0.1)", "embd_pdrop: got -0.1"},
                    Wrong{R"(, "n_inner": 0)", "n_inner: got 0"},
                    Wrong{R"(, "n_positions": 9007199254740993)", "n_positions: got 9007199254740993"},
                    Wrong{R"(, "rope_theta": 10000)", "rope_theta: got 10000, expected no such key"}));

TEST(ModelConfig, RefusesSizesThatDoNotDivide) {
  EXPECT_NE(error_of([] {
              (void)parse_model_config(R"({"model_type": "gpt2", "n_embd": 30, "n_head": 4})", "f");
            }).find("n_embd: got 30, expected a multiple of n_head (4)"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              (void)parse_model_config(R"({"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4})", "f");
            }).find("hidden_size: got 30, expected a multiple of num_attention_heads (4)"),
            std::string::npos);
}

TEST(ModelConfig, RefusesOtherModels) {
  EXPECT_NE(error_of([] {
              (void)parse_model_config(R"({"model_type": "mistral"})", "f");
            }).find("model_type: got \"mistral\", expected \"llama\" or \"gpt2\""),
            std::string::npos);
  EXPECT_NE(error_of([] { (void)parse_model_config("{}", "f"); }).find("model_type: got nothing"), std::string::npos);
  EXPECT_NE(error_of([] { (void)parse_model_config("[1]", "f"); }).find("expected a JSON object"), std::string::npos);
}

TEST(ModelConfig, SurvivesDamagedBytes) {
  std::minstd_rand random(1);
  const std::string bytes = "\"{}[],:-.0e9\\x\xff";
  for (int i = 0; i < 5000; ++i) {
    std::string text = kSmolLm2;
    for (int change = 0; change < 1 + i % 3; ++change) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text[at] = bytes[random() % bytes.size()];
      } else {
        text.erase(at, 1 + random() % 8);
      }
    }
    (void)error_of([&] { (void)parse_model_config(text, "f"); });  // any other exception fails the test
  }
}

TEST(ModelConfig, IsCheckedAgainWhenAModelIsMade) {
  LlamaConfig llama;
  llama.num_attention_heads = 3;
  llama.num_key_value_heads = 2;
  EXPECT_NE(error_of([&] {
              (void)make_model({llama, std::nullopt});
            }).find("num_key_value_heads: got 2"),
            std::string::npos);
  Gpt2Config gpt2;
  gpt2.embd_pdrop = 2.0;
  EXPECT_NE(error_of([&] { (void)make_model({gpt2, std::nullopt}); }).find("embd_pdrop: got 2"), std::string::npos);
}

}  // namespace
}  // namespace hydrofoil::models
