#include "hydrofoil/models/causal_lm.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>

#include "hydrofoil/base/error.h"

namespace hydrofoil::models {
namespace {

ModelConfig small_llama() {
  LlamaConfig llama;
  llama.vocab_size = 19;
  llama.hidden_size = 12;
  llama.intermediate_size = 20;
  llama.num_hidden_layers = 2;
  llama.num_attention_heads = 3;
  llama.num_key_value_heads = 1;
  llama.head_dim = 4;
  return {llama, std::nullopt};
}

ModelConfig small_gpt2() {
  Gpt2Config gpt2;
  gpt2.vocab_size = 19;
  gpt2.n_positions = 8;
  gpt2.n_embd = 12;
  gpt2.n_layer = 2;
  gpt2.n_head = 3;
  gpt2.n_inner = 20;
  return {gpt2, std::nullopt};
}

at::Tensor some_tokens(int64_t batch, int64_t length) {
  return at::arange(batch * length, at::kLong).mul(7).remainder(19).view({batch, length});
}

const at::Tensor& parameter(const CausalLM& model, const std::string& name) {
  for (const auto& one : model.tree().parameters) {
    if (one.name == name) return one.parameter;
  }
  throw std::runtime_error("no parameter " + name);
}

class Family : public testing::TestWithParam<ModelConfig> {};

TEST_P(Family, ReturnsLogitsAndALossWithGradients) {
  const auto model = make_model(GetParam());
  initialize_weights(*model, 1);
  const at::Tensor tokens = some_tokens(2, 5);
  EXPECT_EQ(model->forward(tokens).sizes(), (std::vector<int64_t>{2, 5, 19}));
  EXPECT_EQ(model->forward(some_tokens(1, 1)).sizes(), (std::vector<int64_t>{1, 1, 19}));
  const at::Tensor loss = model->loss(tokens, next_token_targets(tokens));
  loss.backward();
  EXPECT_EQ(loss.dim(), 0);
  for (const auto& one : model->tree().parameters) {
    ASSERT_TRUE(one.parameter.grad().defined()) << one.name;
    EXPECT_TRUE(at::isfinite(one.parameter.grad()).all().item<bool>()) << one.name;
  }
}

TEST_P(Family, SeesNoLaterToken) {
  const auto model = make_model(GetParam());
  model->train(false);
  initialize_weights(*model, 2);
  at::Tensor tokens = some_tokens(1, 6);
  const at::Tensor before = model->forward(tokens).slice(1, 0, 5).clone();
  tokens.select(1, 5).fill_(0);
  EXPECT_TRUE(at::equal(before, model->forward(tokens).slice(1, 0, 5)));
}

TEST_P(Family, RefusesWrongTokens) {
  const auto model = make_model(GetParam());
  const auto forward = [&](const at::Tensor& tokens) { (void)model->forward(tokens); };
  EXPECT_THROW(forward(at::Tensor()), InvalidArgument);
  EXPECT_THROW(forward(at::zeros({4}, at::kLong)), InvalidArgument);
  EXPECT_THROW(forward(at::zeros({1, 4}, at::kInt)), InvalidArgument);
  EXPECT_THROW(forward(at::zeros({1, 4})), InvalidArgument);
  EXPECT_THROW(forward(at::zeros({0, 4}, at::kLong)), InvalidArgument);
  EXPECT_THROW(forward(at::zeros({1, 0}, at::kLong)), InvalidArgument);
  EXPECT_THROW(forward(at::zeros({1, 4}, at::kLong).fill_(19)), c10::Error);
  EXPECT_THROW(forward(at::zeros({1, 4}, at::kLong).fill_(-1)), c10::Error);
  EXPECT_THROW((void)model->loss(some_tokens(1, 4), some_tokens(1, 3)), InvalidArgument);
  EXPECT_THROW((void)model->loss(some_tokens(1, 4), at::Tensor()), InvalidArgument);
}

TEST_P(Family, TakesASeedForTheSameWeightsInEachDtype) {
  const auto wide = make_model(GetParam());
  const auto narrow = make_model(GetParam(), at::kBFloat16);
  initialize_weights(*wide, 3);
  initialize_weights(*narrow, 3);
  for (size_t p = 0; p < wide->tree().parameters.size(); ++p) {
    const at::Tensor& values = wide->tree().parameters[p].parameter;
    EXPECT_TRUE(at::equal(values.to(at::kBFloat16), narrow->tree().parameters[p].parameter));
  }
  EXPECT_EQ(narrow->forward(some_tokens(1, 3)).scalar_type(), at::kBFloat16);
}

INSTANTIATE_TEST_SUITE_P(Families, Family, testing::Values(small_llama(), small_gpt2()),
                         [](const auto& info) { return info.index == 0 ? "Llama" : "Gpt2"; });

TEST(CausalLM, RefusesMorePositionsThanGpt2Has) {
  const auto model = make_model(small_gpt2());
  EXPECT_THROW((void)model->forward(some_tokens(1, 9)), InvalidArgument);
  EXPECT_NO_THROW((void)model->forward(some_tokens(1, 8)));
}

TEST(CausalLM, RefusesOtherDtypes) { EXPECT_THROW((void)make_model(small_llama(), at::kLong), InvalidArgument); }

TEST(CausalLM, SharesATiedHead) {
  const auto model = make_model(small_gpt2());
  const auto& tree = model->tree();
  EXPECT_EQ(tree.modules.back().path, "lm_head");
  EXPECT_EQ(tree.modules.back().parameters, std::vector<int64_t>{0});
  EXPECT_EQ(tree.parameters[0].name, "transformer.wte.weight");
  EXPECT_EQ(parameter(*make_model(small_llama()), "lm_head.weight").size(0), 19);
}

TEST(CausalLM, DropsOnlyWhileItTrains) {
  const auto model = make_model(small_gpt2());
  initialize_weights(*model, 4);
  const at::Tensor tokens = some_tokens(2, 7);
  EXPECT_TRUE(model->training());
  EXPECT_FALSE(at::equal(model->forward(tokens), model->forward(tokens)));
  model->train(false);
  EXPECT_TRUE(at::equal(model->forward(tokens), model->forward(tokens)));
}

TEST(CausalLM, InitializesAsTheFamilyDoes) {
  ModelConfig config = small_gpt2();
  std::get<Gpt2Config>(config.family).n_inner = 2000;
  const auto gpt2 = make_model(config);
  initialize_weights(*gpt2, 5);
  EXPECT_NEAR(parameter(*gpt2, "transformer.h.0.mlp.c_fc.weight").std().item<double>(), 0.02, 0.001);
  EXPECT_NEAR(parameter(*gpt2, "transformer.h.0.mlp.c_proj.weight").std().item<double>(), 0.01, 0.0005);
  EXPECT_EQ(parameter(*gpt2, "transformer.h.1.ln_2.weight").min().item<double>(), 1.0);
  EXPECT_EQ(parameter(*gpt2, "transformer.h.1.ln_2.bias").abs().max().item<double>(), 0.0);

  config = small_llama();
  std::get<LlamaConfig>(config.family).pad_token_id = 2;
  const auto llama = make_model(config);
  initialize_weights(*llama, 5);
  EXPECT_EQ(parameter(*llama, "model.embed_tokens.weight").select(0, 2).abs().max().item<double>(), 0.0);
  EXPECT_GT(parameter(*llama, "model.embed_tokens.weight").select(0, 3).abs().max().item<double>(), 0.0);
}

TEST(CausalLM, ShiftsTokensToTargets) {
  const at::Tensor targets = next_token_targets(some_tokens(1, 3));
  EXPECT_EQ(targets[0][0].item<int64_t>(), 7);
  EXPECT_EQ(targets[0][1].item<int64_t>(), 14);
  EXPECT_EQ(targets[0][2].item<int64_t>(), -100);
  EXPECT_EQ(next_token_targets(some_tokens(2, 1)).max().item<int64_t>(), -100);
  EXPECT_THROW((void)next_token_targets(at::zeros({3}, at::kLong)), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::models
