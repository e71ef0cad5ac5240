#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/engine/initialize.h"
#include "hydrofoil/models/causal_lm.h"
#include "hydrofoil/models/weights.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::engine {
namespace {

constexpr int kNumRanks = 2;
constexpr int kNumSteps = 3;

models::ModelConfig config_of(const std::string& family) {
  const std::string llama = R"({"model_type": "llama", "vocab_size": 19, "hidden_size": 12, "intermediate_size": 20,
    "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 1, "pad_token_id": 3, )";
  if (family == "tied llama") return models::parse_model_config(llama + R"("tie_word_embeddings": true})", "c");
  if (family == "llama") return models::parse_model_config(llama + R"("attention_bias": true})", "c");
  return models::parse_model_config(R"({"model_type": "gpt2", "vocab_size": 19, "n_embd": 12, "n_layer": 3, "n_head": 3,
    "n_positions": 8, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0})",
                                    "c");
}

EngineOptions options_of(int stage) {
  return resolve_engine_options(
             detail::concat(R"({"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": )", stage,
                            R"(}, "hydrofoil": {"unit_min_bytes": 0},
                               "optimizer": {"type": "SGD", "params": {"lr": 0.5}}})"),
             {kNumRanks, true})
      .options;
}

at::Tensor tokens_of(int step, int rank) {
  return at::arange(14, at::kLong).mul(7).add(step * 5 + rank * 3).remainder(19).view({2, 7});
}

// Losses of two ranks, a row each.
std::vector<std::vector<double>> losses_of(const std::string& family, int stage) {
  std::vector<std::vector<double>> losses(kNumRanks);
  const auto channels = comm::make_local_channels(kNumRanks, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  testing::run_ranks(kNumRanks, [&](int rank) {
    const auto model = models::make_model(config_of(family));
    models::initialize_weights(*model, 1);
    const auto engine = initialize(model->tree(), options_of(stage), channels[rank]);
    EXPECT_THROW(models::initialize_weights(*model, 2), InvalidArgument);
    EXPECT_THROW(models::load_weights(*model, "none"), InvalidArgument);
    for (int step = 0; step < kNumSteps; ++step) {
      const at::Tensor tokens = tokens_of(step, rank);
      const at::Tensor loss = model->loss(tokens, models::next_token_targets(tokens));
      losses[rank].push_back(loss.item<double>());
      engine->backward(loss);
      engine->step();
    }
  });
  return losses;
}

class Models : public ::testing::TestWithParam<std::string> {};

TEST_P(Models, TrainAtEachStageWithTheSameLosses) {
  const auto reference = losses_of(GetParam(), 0);
  EXPECT_LT(reference[0].back(), reference[0].front());
  for (int stage = 1; stage <= 3; ++stage) EXPECT_EQ(losses_of(GetParam(), stage), reference) << "stage " << stage;
}

INSTANTIATE_TEST_SUITE_P(Families, Models, ::testing::Values("llama", "tied llama", "gpt2"));

}  // namespace
}  // namespace hydrofoil::engine
