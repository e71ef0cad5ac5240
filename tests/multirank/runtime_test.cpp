#include "hydrofoil/zero/runtime.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/zero/optimizer_step.h"
#include "tests/support/perceptron.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::zero {
namespace {

using testing::values;

constexpr int kNumSteps = 3;
constexpr int kBatches = 12;  // a step: a multiple of every rank count used here

// One rank: runtime and model, with each layer's call as a scope.
class Rank {
 public:
  Rank(int stage, int64_t unit_min_bytes, const std::vector<comm::Group>& channels) : num_ranks_(channels[0].size()) {
    RuntimeOptions options;
    options.sharding = Sharding::of_stage(stage, channels[0].rank(), num_ranks_, 2);
    options.unit_min_bytes = unit_min_bytes;
    runtime_ = std::make_unique<Runtime>(model_.parameters, model_.modules, options, channels[0], channels[1]);
  }

  at::Tensor loss(int step, int batch) { return model_.loss(*runtime_, step, batch); }

  void train(int batches) {
    const int per_rank = batches / num_ranks_;
    for (int step = 0; step < kNumSteps; ++step) {
      for (int i = 0; i < per_rank; ++i) {
        runtime_->reducer().configure_rounds(i + 1 == per_rank, 1.0 / per_rank, i);
        backward(loss(step, runtime_->gather_group().rank() * per_rank + i));
      }
      this->step(step + 1);
    }
  }

  void backward(const at::Tensor& loss) {
    runtime_->watch_loss(loss);
    loss.backward();
  }

  void step(int64_t number) {
    runtime_->prepare_step();
    norm_ = summarize_gradients(*runtime_).norm;
    const std::vector<optim::Hyperparameters> groups(1, {.lr = 0.05, .momentum = 0.9});
    step_optimizer(*runtime_, optim::OptimizerKind::kSgd, groups, number, 1.0F);
    runtime_->publish_step();
  }

  std::vector<at::Tensor> masters() {
    std::vector<at::Tensor> result;
    for (size_t p = 0; p < model_.parameters.size(); ++p) {
      if (!model_.parameters[p].parameter.requires_grad()) continue;
      result.push_back(runtime_->assemble(
          static_cast<int64_t>(p), [](Unit& unit, size_t b) { return unit.buckets[b]->group().owned_master(); }));
    }
    return result;
  }

  Runtime& runtime() { return *runtime_; }
  testing::Perceptron& model() { return model_; }
  double norm() const { return norm_; }

 private:
  testing::Perceptron model_;
  const int num_ranks_;
  std::unique_ptr<Runtime> runtime_;
  double norm_ = 0.0;
};

struct Outcome {
  std::vector<at::Tensor> masters;
  double norm = 0.0;
};

Outcome train(int stage, int num_ranks, int64_t unit_min_bytes, int batches = kBatches) {
  const auto channels = comm::make_local_channels(num_ranks, 2, {.name = "test", .timeout = std::chrono::seconds(60)});
  std::vector<Outcome> outcomes(num_ranks);
  testing::run_ranks(num_ranks, [&](int r) {
    Rank rank(stage, unit_min_bytes, channels[r]);
    rank.train(batches);
    outcomes[r] = {rank.masters(), rank.norm()};
    rank.runtime().destroy(false);
  });
  for (const auto& outcome : outcomes) {
    EXPECT_EQ(outcome.norm, outcomes[0].norm);
    for (size_t p = 0; p < outcome.masters.size(); ++p) EXPECT_TRUE(outcome.masters[p].equal(outcomes[0].masters[p]));
  }
  return outcomes[0];
}

struct Case {
  int stage;
  int num_ranks;
};

class RuntimeParity : public ::testing::TestWithParam<Case> {};

TEST_P(RuntimeParity, EqualsStage0OnOneRank) {
  const Outcome expected = train(0, 1, 0);
  const Outcome outcome = train(GetParam().stage, GetParam().num_ranks, 0);
  ASSERT_EQ(outcome.masters.size(), expected.masters.size());
  EXPECT_NEAR(outcome.norm, expected.norm, 1e-5 * expected.norm);
  for (size_t p = 0; p < expected.masters.size(); ++p) {
    EXPECT_TRUE(outcome.masters[p].allclose(expected.masters[p], 1e-5, 1e-6)) << "parameter " << p;
  }
  const Outcome merged = train(GetParam().stage, GetParam().num_ranks, 1 << 20);
  for (size_t p = 0; p < expected.masters.size(); ++p) EXPECT_TRUE(merged.masters[p].equal(outcome.masters[p]));
}

INSTANTIATE_TEST_SUITE_P(Stages, RuntimeParity,
                         ::testing::Values(Case{0, 1}, Case{3, 1}, Case{0, 2}, Case{1, 2}, Case{2, 2}, Case{3, 2},
                                           Case{1, 3}, Case{2, 3}, Case{3, 3}, Case{0, 4}, Case{1, 4}, Case{3, 4}));

// One micro step a rank: with more, stages 2 and 3 reduce each and so add in another order.
TEST(Runtime, GivesTheSameBitsAtEveryStageOnTwoRanks) {
  const Outcome expected = train(0, 2, 0, 2);
  for (int stage = 1; stage <= 3; ++stage) {
    const Outcome outcome = train(stage, 2, 0, 2);
    for (size_t p = 0; p < expected.masters.size(); ++p) EXPECT_TRUE(outcome.masters[p].equal(expected.masters[p]));
  }
}

// Runs body on two ranks of a stage-3 runtime.
void on_two_ranks(const std::function<void(Rank&)>& body,
                  std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
  const auto channels = comm::make_local_channels(2, 2, {.name = "test", .timeout = timeout});
  testing::run_ranks(2, [&](int r) {
    Rank rank(3, 0, channels[r]);
    body(rank);
  });
}

TEST(Runtime, GuardsReleasedParametersAndGathersThemForTheUser) {
  on_two_ranks([](Rank& rank) {
    at::Tensor& weight = rank.model().layers[2].weight;
    std::vector<int64_t> versions;
    EXPECT_THROW((void)weight.sum(), c10::Error);
    versions = rank.runtime().enter_access({4});
    EXPECT_TRUE(weight.equal(values({9, 9}, 20.0)));
    rank.runtime().leave_access({4}, versions, std::nullopt);
    EXPECT_THROW((void)weight.sum(), c10::Error);
    EXPECT_THROW(rank.runtime().prepare_step(), InvalidArgument);  // no backward
  });
}

TEST(Runtime, RefusesWritesThatItWouldLose) {
  on_two_ranks([](Rank& rank) {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> versions;
    versions = rank.runtime().enter_access({4});
    rank.model().layers[2].weight.mul_(2.0);
    EXPECT_THROW(rank.runtime().leave_access({4}, versions, std::nullopt), InvalidArgument);
    versions = rank.runtime().enter_access({4});
    EXPECT_TRUE(rank.model().layers[2].weight.equal(values({9, 9}, 20.0)));
    if (rank.runtime().gather_group().rank() == 1) rank.model().layers[2].weight.mul_(3.0);
    rank.runtime().leave_access({4}, versions, 1);
    versions = rank.runtime().enter_access({4});
    EXPECT_TRUE(rank.model().layers[2].weight.equal(values({9, 9}, 20.0).mul(3.0)));
    rank.runtime().leave_access({4}, versions, std::nullopt);
  });
}

TEST(Runtime, NamesTheUnitThatOneRankRunsAlone) {
  std::vector<std::string> messages(2);
  on_two_ranks([&](Rank& rank) {
    const int r = rank.runtime().gather_group().rank();
    messages[r] =
        testing::error_of<CommError>([&] { (void)rank.runtime().enter_access({r == 0 ? int64_t{0} : int64_t{4}}); });
  });
  for (const auto& message : messages) {
    EXPECT_NE(message.find("layers.0"), std::string::npos) << message;
    EXPECT_NE(message.find("layers.2"), std::string::npos) << message;
  }
}

TEST(Runtime, FollowsAChangeOfRequiresGrad) {
  const auto channels = comm::make_local_channels(2, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  testing::run_ranks(2, [&](int r) {
    Rank rank(3, 0, channels[r]);
    rank.runtime().reducer().configure_rounds(true, 1.0, 0);
    rank.backward(rank.loss(0, r));
    rank.step(1);
    const auto before = rank.masters();
    rank.model().layers[2].weight.set_requires_grad(false);
    rank.backward(rank.loss(1, r));
    rank.step(2);
    rank.model().layers[2].weight.set_requires_grad(true);
    const at::Tensor loss = rank.loss(2, r);  // the way in lays the unit out anew
    const auto after = rank.masters();
    ASSERT_EQ(before.size(), after.size());
    EXPECT_TRUE(before[3].equal(after[3]));   // layers.2.weight; layers.1.bias is frozen and not listed
    EXPECT_FALSE(before[0].equal(after[0]));  // layers.0.weight
    rank.backward(loss);
    rank.step(3);
    EXPECT_FALSE(rank.masters()[3].equal(after[3]));
  });
}

TEST(Runtime, LeavesGraphsAndHooksHarmlessWhenItIsDestroyed) {
  const auto channels = comm::make_local_channels(1, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  auto rank = std::make_unique<Rank>(0, 0, channels[0]);
  const at::Tensor loss = rank->loss(0, 0);
  const at::Tensor weight = rank->model().layers[0].weight;
  rank->runtime().destroy(false);
  EXPECT_FALSE(rank->runtime().alive());
  rank.reset();
  loss.backward();
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_GT(weight.grad().abs().sum().item<float>(), 0.0F);
}

TEST(Runtime, RejectsModelsThatItCannotHold) {
  const auto channels = comm::make_local_channels(1, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  const RuntimeOptions options{.sharding = Sharding::of_stage(0, 0, 1, 1), .reduction = {}, .unit_min_bytes = 0};
  const std::vector<ModuleNode> modules = {{"", "Model", -1, false, false, {0}}};
  const auto build = [&](std::vector<RuntimeParameter> parameters, std::vector<ModuleNode> nodes) {
    Runtime runtime(std::move(parameters), std::move(nodes), options, channels[0][0], channels[0][1]);
  };
  EXPECT_THROW(build({}, {{"", "Model", -1, false, false, {}}}), InvalidArgument);
  const at::Tensor shared = values({3}, 0.0);
  EXPECT_THROW(build({{"a", shared}, {"b", shared}}, {{"", "Model", -1, false, false, {0, 1}}}), InvalidArgument);
  EXPECT_THROW(build({{"wide", values({3}, 0.0).to(at::kDouble)}}, modules), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::zero
