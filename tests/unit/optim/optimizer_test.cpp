#include "hydrofoil/optim/optimizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/optim/detail/aten_step.h"

namespace hydrofoil::optim {
namespace {

at::Tensor normal(int64_t numel, uint64_t seed) {
  return at::randn({numel}, at::detail::createCPUGenerator(seed), at::kFloat);
}

ShardTensors make_shard(OptimizerKind kind, int64_t numel, at::ScalarType gradient_type, at::ScalarType model_type) {
  ShardTensors shard;
  shard.master = normal(numel, 1);
  shard.gradient = normal(numel, 2).to(gradient_type);
  if (model_type != at::kFloat) shard.model = at::zeros({numel}, model_type);
  for (size_t i = 0; i < state_names(kind).size(); ++i) shard.states.push_back(at::zeros({numel}, at::kFloat));
  return shard;
}

ShardTensors clone(const ShardTensors& shard) {
  ShardTensors copy;
  copy.master = shard.master.clone();
  copy.gradient = shard.gradient;
  if (shard.model.defined()) copy.model = shard.model.clone();
  for (const at::Tensor& state : shard.states) copy.states.push_back(state.clone());
  return copy;
}

// Odd sizes and offsets; elements 0, 1 and the last three belong to no segment.
std::vector<Segment> odd_segments(int num_groups) {
  std::vector<Segment> segments;
  int64_t offset = 2;
  int index = 0;
  for (const int64_t numel : {0, 1, 7, 63, 64, 65, 1000, 4099}) {
    segments.push_back({offset, numel, index++ % num_groups});
    offset += numel + 1;
  }
  return segments;
}

constexpr int64_t kShardNumel = 2 + 0 + 1 + 7 + 63 + 64 + 65 + 1000 + 4099 + 8 + 2;

struct Case {
  const char* name;
  OptimizerKind kind;
  std::vector<Hyperparameters> groups;
};

// One thread: torch starts a team for every small tensor, which takes minutes where processors are shared.
class AgainstTorch : public testing::TestWithParam<std::tuple<Case, at::ScalarType>> {
 protected:
  AgainstTorch() : threads_before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~AgainstTorch() override { at::set_num_threads(threads_before_); }

 private:
  int threads_before_;
};

// aten_step calls torch's own fused Adam, AdamW and SGD.
TEST_P(AgainstTorch, AgreesForAThousandSteps) {
  const auto& [test, type] = GetParam();
  const ShardTensors start = make_shard(test.kind, kShardNumel, type, type);
  ShardTensors ours = clone(start), torchs = clone(start);
  const std::vector<Segment> segments = odd_segments(static_cast<int>(test.groups.size()));
  std::vector<at::Tensor> gradients;
  for (uint64_t i = 0; i < 7; ++i) gradients.push_back(normal(kShardNumel, 10 + i).add_(0.1).to(type));
  for (int64_t step = 1; step <= 1000; ++step) {
    ours.gradient = torchs.gradient = gradients[step % gradients.size()];
    optimizer_step(test.kind, ours, segments, test.groups, step, 0.25f);
    detail::aten_step(test.kind, torchs, segments, test.groups, step, 0.25f);
  }
  EXPECT_TRUE(ours.master.allclose(torchs.master, 1e-4, 2e-5))
      << ours.master.sub(torchs.master).abs().max().item<float>();
  EXPECT_FALSE(ours.master.allclose(start.master, 1e-2, 1e-2)) << "the test moves the parameters";
  for (size_t i = 0; i < ours.states.size(); ++i) {
    const bool unused = test.kind == OptimizerKind::kSgd && test.groups[0].momentum == 0;
    EXPECT_TRUE(unused || ours.states[i].allclose(torchs.states[i], 1e-4, 2e-5));
  }
  if (type == at::kFloat) return;
  for (const Segment& segment : segments) {
    const at::Tensor master = ours.master.narrow(0, segment.offset, segment.numel);
    EXPECT_TRUE(at::equal(ours.model.narrow(0, segment.offset, segment.numel), master.to(type)));
  }
  for (const int64_t outside : {int64_t{0}, int64_t{1}, kShardNumel - 1}) {
    EXPECT_EQ(ours.model[outside].item<float>(), 0.0f);
    EXPECT_TRUE(at::equal(ours.master[outside], start.master[outside]));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, AgainstTorch,
    testing::Combine(
        testing::Values(
            Case{"Adam",
                 OptimizerKind::kAdam,
                 {{.lr = 1e-3, .weight_decay = 0.01}, {.lr = 1e-2, .bias_correction = false}}},
            Case{"AdamW",
                 OptimizerKind::kAdamW,
                 {{.lr = 1e-3, .weight_decay = 0.1}, {.lr = 1e-2, .beta1 = 0.3, .beta2 = 0.95}}},
            Case{"Sgd", OptimizerKind::kSgd, {{.lr = 1e-2, .weight_decay = 0.01}, {.lr = 1e-3}}},
            Case{"SgdMomentum",
                 OptimizerKind::kSgd,
                 {{.lr = 1e-3, .momentum = 0.9},
                  {.lr = 1e-3, .weight_decay = 0.01, .momentum = 0.8, .dampening = 0.3},
                  {.lr = 1e-3, .momentum = 0.9, .nesterov = true}}},
            Case{"Adagrad", OptimizerKind::kAdagrad, {{.lr = 1e-2, .eps = 1e-10, .weight_decay = 0.01}, {.lr = 1e-1}}},
            Case{"Lion", OptimizerKind::kLion, {{.lr = 1e-4, .weight_decay = 0.1}, {.lr = 1e-3, .beta2 = 0.99}}}),
        testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param).name) + c10::toString(std::get<1>(info.param));
    });

TEST(OptimizerStep, GivesAnElementTheSameBitsWhereverItLies) {
  const Hyperparameters group{.weight_decay = 0.1};
  const ShardTensors whole = make_shard(OptimizerKind::kAdamW, 1001, at::kFloat, at::kBFloat16);
  ShardTensors parts = clone(whole);
  const Segment all{0, 1001, 0};
  const Segment pieces[] = {{500, 501, 0}, {0, 3, 0}, {3, 497, 0}};  // any order
  optimizer_step(OptimizerKind::kAdamW, whole, {&all, 1}, {&group, 1}, 1, 1.0f);
  optimizer_step(OptimizerKind::kAdamW, parts, pieces, {&group, 1}, 1, 1.0f);
  EXPECT_TRUE(at::equal(whole.master, parts.master));
  EXPECT_TRUE(at::equal(whole.model, parts.model));
  EXPECT_TRUE(at::equal(whole.states[1], parts.states[1]));
}

ShardTensors with_low_states(ShardTensors shard) {
  for (at::Tensor& state : shard.states) state = state.to(at::kBFloat16);
  return shard;
}

// With both betas 0 the averages are the gradient and its square, whoever computes them: what differs is the rounding.
TEST(LowStates, AreRoundedToTheSameBitsByTorchsOperators) {
  const Hyperparameters group{.beta1 = 0, .beta2 = 0};
  const std::vector<Segment> segments = {{3, 500, 0}, {503, 90, 0}, {600, 401, 0}};
  ShardTensors a = with_low_states(make_shard(OptimizerKind::kAdam, 1001, at::kFloat, at::kFloat)), b = clone(a);
  a.rounding = b.rounding = {.offset = (int64_t{1} << 33) + 12345, .stream = 7};
  optimizer_step(OptimizerKind::kAdam, a, segments, {&group, 1}, 3, 1.0f);
  detail::aten_step(OptimizerKind::kAdam, b, segments, {&group, 1}, 3, 1.0f);
  EXPECT_TRUE(at::equal(a.states[0], b.states[0]));
  EXPECT_TRUE(at::equal(a.states[1], b.states[1]));
  EXPECT_FALSE(at::equal(a.states[0], a.gradient.to(at::kBFloat16))) << "not to nearest";
}

TEST(LowStates, DoNotDependOnHowTheFlatBufferIsCut) {
  const Hyperparameters group{.weight_decay = 0.1};
  const ShardTensors whole = with_low_states(make_shard(OptimizerKind::kAdamW, 1001, at::kBFloat16, at::kBFloat16));
  const ShardTensors parts = clone(whole);
  const Segment all{0, 1001, 0};
  optimizer_step(OptimizerKind::kAdamW, whole, {&all, 1}, {&group, 1}, 2, 1.0f);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 333}, {333, 1001}}) {
    const auto part = [begin = begin, end = end](const at::Tensor& tensor) {
      return tensor.narrow(0, begin, end - begin);
    };
    const ShardTensors shard{part(parts.master),
                             part(parts.model),
                             part(parts.gradient),
                             {part(parts.states[0]), part(parts.states[1])},
                             {.offset = begin}};
    const Segment all_of_it{0, end - begin, 0};
    optimizer_step(OptimizerKind::kAdamW, shard, {&all_of_it, 1}, {&group, 1}, 2, 1.0f);
  }
  EXPECT_TRUE(at::equal(whole.master, parts.master));
  EXPECT_TRUE(at::equal(whole.states[0], parts.states[0]));
  EXPECT_TRUE(at::equal(whole.states[1], parts.states[1]));
}

TEST(OptimizerStep, LeavesTheGradientAsItIs) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    ShardTensors shard = make_shard(OptimizerKind::kAdam, 33, type, at::kFloat);
    const at::Tensor before = shard.gradient.clone();
    const Segment all{0, 33, 0};
    const Hyperparameters group{.weight_decay = 0.1};
    optimizer_step(OptimizerKind::kAdam, shard, {&all, 1}, {&group, 1}, 1, 0.5f);
    detail::aten_step(OptimizerKind::kAdam, shard, {&all, 1}, {&group, 1}, 1, 0.5f);
    EXPECT_TRUE(at::equal(shard.gradient, before));
  }
}

TEST(OptimizerStep, AcceptsAnEmptyShard) {
  const ShardTensors shard = make_shard(OptimizerKind::kLion, 0, at::kFloat, at::kHalf);
  const Segment none{0, 0, 0};
  const Hyperparameters group;
  EXPECT_NO_THROW(optimizer_step(OptimizerKind::kLion, shard, {&none, 1}, {&group, 1}, 1, 1.0f));
  EXPECT_NO_THROW(optimizer_step(OptimizerKind::kLion, shard, {}, {}, 1, 1.0f));
}

TEST(OptimizerStep, NeedsNoStatesForSgdWithoutMomentum) {
  ShardTensors shard = make_shard(OptimizerKind::kSgd, 5, at::kFloat, at::kFloat);
  shard.states.clear();
  const at::Tensor expected = shard.master.sub(shard.gradient.mul(0.5));
  const Segment all{0, 5, 0};
  Hyperparameters group{.lr = 0.5};
  optimizer_step(OptimizerKind::kSgd, shard, {&all, 1}, {&group, 1}, 1, 1.0f);
  EXPECT_TRUE(at::equal(shard.master, expected));
  group.momentum = 0.9;
  EXPECT_THROW(optimizer_step(OptimizerKind::kSgd, shard, {&all, 1}, {&group, 1}, 1, 1.0f), InvalidArgument);
}

TEST(OptimizerStep, RefusesWrongTensors) {
  const Segment all{0, 9, 0};
  const Hyperparameters group;
  auto expect_refused = [&](auto change) {
    ShardTensors shard = make_shard(OptimizerKind::kAdam, 9, at::kFloat, at::kHalf);
    change(shard);
    EXPECT_THROW(optimizer_step(OptimizerKind::kAdam, shard, {&all, 1}, {&group, 1}, 1, 1.0f), InvalidArgument);
  };
  expect_refused([](ShardTensors& s) { s.master = at::Tensor(); });
  expect_refused([](ShardTensors& s) { s.master = s.master.to(at::kDouble); });
  expect_refused([](ShardTensors& s) { s.master = s.master.view({3, 3}); });
  expect_refused([](ShardTensors& s) { s.gradient = at::Tensor(); });
  expect_refused([](ShardTensors& s) { s.gradient = s.gradient.to(at::kDouble); });
  expect_refused([](ShardTensors& s) { s.gradient = s.gradient.narrow(0, 0, 8); });
  expect_refused([](ShardTensors& s) { s.gradient = at::zeros({18}, at::kFloat).slice(0, 0, 18, 2); });
  expect_refused([](ShardTensors& s) { s.model = s.model.to(at::kFloat); });
  expect_refused([](ShardTensors& s) { s.states.pop_back(); });
  expect_refused([](ShardTensors& s) { s.states[0] = s.states[0].to(at::kHalf); });
  expect_refused([](ShardTensors& s) { s.states[1] = s.states[1].to(at::kBFloat16); });
  expect_refused(
      [](ShardTensors& s) { s.states[1] = at::empty({9}, at::TensorOptions(at::kFloat).device(at::kMeta)); });
}

TEST(OptimizerStep, RefusesWrongSegmentsAndSteps) {
  const ShardTensors shard = make_shard(OptimizerKind::kAdam, 9, at::kFloat, at::kFloat);
  const Hyperparameters group;
  auto expect_refused = [&](std::vector<Segment> segments, int64_t step) {
    EXPECT_THROW(optimizer_step(OptimizerKind::kAdam, shard, segments, {&group, 1}, step, 1.0f), InvalidArgument);
  };
  expect_refused({{0, 9, 0}}, 0);
  expect_refused({{0, 10, 0}}, 1);
  expect_refused({{-1, 3, 0}}, 1);
  expect_refused({{3, -1, 0}}, 1);
  expect_refused({{INT64_MAX, 1, 0}}, 1);
  expect_refused({{0, 9, 1}}, 1);
  expect_refused({{0, 9, -1}}, 1);
  expect_refused({{4, 5, 0}, {0, 5, 0}}, 1);
}

TEST(OptimizerKindNames, AreParsedWithoutCase) {
  EXPECT_EQ(parse_optimizer_kind("Adam", false), OptimizerKind::kAdam);
  EXPECT_EQ(parse_optimizer_kind("adam", true), OptimizerKind::kAdamW);
  EXPECT_EQ(parse_optimizer_kind("AdamW", false), OptimizerKind::kAdamW);
  EXPECT_EQ(parse_optimizer_kind("SGD", true), OptimizerKind::kSgd);
  EXPECT_EQ(parse_optimizer_kind("Adagrad", true), OptimizerKind::kAdagrad);
  EXPECT_EQ(parse_optimizer_kind("LION", true), OptimizerKind::kLion);
  EXPECT_THROW((void)parse_optimizer_kind("adamx", true), InvalidArgument);
  EXPECT_EQ(state_names(OptimizerKind::kAdamW), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  for (const char* name : {"Adam", "AdamW", "SGD", "Adagrad", "Lion"}) {
    EXPECT_STREQ(optimizer_name(parse_optimizer_kind(name, false)), name);
  }
  const Hyperparameters plain, with_momentum{.momentum = 0.9};
  EXPECT_TRUE(state_names(OptimizerKind::kSgd, {&plain, 1}).empty());
  EXPECT_EQ(state_names(OptimizerKind::kSgd, {&with_momentum, 1}).size(), 1u);
  EXPECT_EQ(state_names(OptimizerKind::kLion, {&plain, 1}).size(), 1u);
}

}  // namespace
}  // namespace hydrofoil::optim
