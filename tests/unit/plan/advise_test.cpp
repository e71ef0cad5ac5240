#include "hydrofoil/plan/advise.h"

#include <gtest/gtest.h>

#include <string>

#include "hydrofoil/models/model_config.h"

namespace hydrofoil::plan {
namespace {

constexpr const char* kConfig = R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 1024,
  "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16})";
constexpr int64_t kGiB = int64_t{1} << 30;

Question question(int stage, int world_size, int64_t micro_batch, int64_t memory_bytes) {
  Question result;
  result.spec = [](const BatchShape& batch) {
    return transformer_spec(models::parse_model_config(kConfig, "test"), batch, c10::ScalarType::BFloat16);
  };
  result.batch.micro_batch_size = micro_batch;
  result.settings.stage = stage;
  result.settings.world_size = world_size;
  result.settings.model_dtype = c10::ScalarType::BFloat16;
  result.memory_bytes = memory_bytes;
  return result;
}

std::string explain(const Question& question) {
  return explain_misfit(question, make_plan(question.spec(question.batch), question.settings));
}

TEST(Advise, KeepsSettingsThatFit) {
  const auto fit = find_fit(question(1, 4, 2, 64 * kGiB));
  ASSERT_TRUE(fit);
  EXPECT_EQ(fit->settings.stage, 1);
  EXPECT_EQ(fit->batch.micro_batch_size, 2);
  EXPECT_EQ(fit->changes, "");
}

TEST(Advise, RaisesTheStageFirst) {
  const Question asked = question(0, 8, 1, 3 * kGiB);
  const auto fit = find_fit(asked);
  ASSERT_TRUE(fit);
  EXPECT_GT(fit->settings.stage, 0);
  EXPECT_LE(fit->peak_bytes, asked.memory_bytes);
  const std::string text = explain(asked);
  EXPECT_NE(text.find("does not fit: a rank needs "), std::string::npos) << text;
  EXPECT_NE(text.find("of 3.00 GiB"), std::string::npos) << text;
  EXPECT_NE(text.find("cheapest setting that fits: zero_optimization.stage"), std::string::npos) << text;
}

TEST(Advise, KeepsTheGlobalBatch) {
  Question asked = question(3, 8, 16, 4 * kGiB);
  asked.settings.accumulation_steps = 3;
  const auto fit = find_fit(asked);
  ASSERT_TRUE(fit);
  EXPECT_EQ(fit->batch.micro_batch_size * fit->settings.accumulation_steps, 16 * 3);
  EXPECT_TRUE(fit->batch.micro_batch_size < 16 || fit->batch.checkpointing);
}

TEST(Advise, GivesUpWhatStaysGatheredAndStatesOfFp32Last) {
  Question asked = question(3, 2, 1, 64 * kGiB);
  asked.settings.keep_gathered_bytes = int64_t{1} << 40;
  const auto peak = [&](int64_t keep, c10::ScalarType dtype) {
    Settings settings = asked.settings;
    settings.keep_gathered_bytes = keep;
    settings.optimizer_state_dtype = dtype;
    BatchShape batch = asked.batch;
    batch.checkpointing = true;
    return make_plan(asked.spec(batch), settings).peak.bytes;
  };
  asked.batch.checkpointing = true;
  asked.memory_bytes = peak(0, c10::ScalarType::Float);
  ASSERT_LT(asked.memory_bytes, peak(int64_t{1} << 40, c10::ScalarType::Float));
  ASSERT_TRUE(find_fit(asked));
  EXPECT_EQ(find_fit(asked)->changes, "hydrofoil.keep_gathered_bytes 0");
  asked.settings.model_dtype = c10::ScalarType::BFloat16;
  asked.memory_bytes = peak(0, c10::ScalarType::Float) - 1;
  const auto fit = find_fit(asked);
  ASSERT_TRUE(fit);
  EXPECT_NE(fit->changes.find("bf16.bf16_optimizer_states true"), std::string::npos) << fit->changes;
}

TEST(Advise, NamesRanksAndOffloadWhereNothingFits) {
  const std::string text = explain(question(0, 1, 1, 1 * kGiB));
  EXPECT_NE(text.find("nothing that the engine has fits at world size 1"), std::string::npos) << text;
  EXPECT_NE(text.find(" ranks, zero_optimization.stage 3"), std::string::npos) << text;
  EXPECT_NE(text.find("which the engine does not have yet"), std::string::npos) << text;
}

}  // namespace
}  // namespace hydrofoil::plan
