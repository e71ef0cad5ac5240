#include "hydrofoil/kernels/optimizer_update.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"
#include "tests/unit/kernels/rules.h"
#include "tests/unit/kernels/support.h"

namespace hydrofoil::kernels {
namespace {

using testing_support::Array;
using testing_support::coefficients;
using testing_support::Element;
using testing_support::fill_normal;
using testing_support::isas;
using testing_support::kTypes;
using testing_support::normal_values;
using testing_support::reference_update;
using testing_support::Settings;
using testing_support::type_name;

struct Case {
  const char* name;
  UpdateRule rule;
  std::vector<Settings> groups;
};

// Runs of odd sizes at unaligned offsets, with gaps that nothing may touch.
struct Layout {
  std::vector<UpdateRun> runs;
  std::vector<int> group_of;  // of each element; -1 in a gap
};

Layout odd_layout(int num_groups) {
  Layout layout;
  int64_t offset = 0;
  int run = 0;
  for (const int64_t numel : {0, 1, 7, 63, 64, 65, 1000, 4099}) {
    offset += 3;
    layout.runs.push_back({offset, numel, {}});
    layout.group_of.resize(offset, -1);
    layout.group_of.resize(offset + numel, run++ % num_groups);
    offset += numel;
  }
  layout.group_of.resize(offset + 5, -1);
  return layout;
}

struct State {
  std::vector<float> master, first, second;
  Array model;

  State(const std::vector<float>& start, ElementType model_type)
      : master(start),
        first(start.size()),
        second(start.size()),
        model(model_type, static_cast<int64_t>(start.size())) {}

  UpdateBuffers buffers(UpdateRule rule, Array& gradient) {
    const bool is_adam = rule == UpdateRule::kAdam || rule == UpdateRule::kAdamW;
    return {.master = master.data(),
            .first = first.data(),
            .second = is_adam ? second.data() : nullptr,
            .gradient = gradient.data(),
            .gradient_type = gradient.type(),
            .model = model.type() == ElementType::kFloat32 ? nullptr : model.data(),
            .model_type = model.type()};
  }
};

class OptimizerUpdate : public testing::TestWithParam<std::tuple<Case, ElementType>> {};

// Lion's sign would turn a last-bit difference into a step, so its reference runs in float.
template <typename Real>
void run_thousand_steps(const Case& test, ElementType gradient_type) {
  constexpr float kScale = 0.125f;
  std::mt19937 random(7);
  Layout layout = odd_layout(static_cast<int>(test.groups.size()));
  const auto numel = static_cast<int64_t>(layout.group_of.size());
  const std::vector<float> start = normal_values(numel, random);
  const ElementType model_type =
      gradient_type == ElementType::kFloat16 ? ElementType::kFloat16 : ElementType::kBFloat16;
  std::vector<State> states(isas().size(), State(start, model_type));
  std::vector<Element<Real>> expected(numel);
  for (int64_t i = 0; i < numel; ++i) expected[i].p = start[i];
  Array gradient(gradient_type, numel);
  fill_normal(gradient, random, 1 / kScale);
  for (int64_t step = 1; step <= 1000; ++step) {
    // New values for a part only: drawing all of them would take most of the test's time.
    std::normal_distribution<float> normal(0.1f, 1 / kScale);
    for (int64_t i = step % 13; i < numel; i += 13) gradient.set(i, normal(random));
    for (size_t run = 0; run < layout.runs.size(); ++run) {
      layout.runs[run].coefficients = coefficients(test.groups[run % test.groups.size()], test.rule, step);
    }
    for (size_t isa = 0; isa < states.size(); ++isa) {
      optimizer_update(test.rule, states[isa].buffers(test.rule, gradient), layout.runs, kScale, isas()[isa]);
    }
    for (int64_t i = 0; i < numel; ++i) {
      if (layout.group_of[i] < 0) continue;
      reference_update<Real>(test.rule, test.groups[layout.group_of[i]], step, Real(gradient.get(i)) * Real(kScale),
                             expected[i]);
    }
  }
  for (size_t isa = 0; isa < states.size(); ++isa) {
    SCOPED_TRACE(cpu_isa_name(isas()[isa]));
    const State& state = states[isa];
    Array rounded(model_type, numel);
    for (int64_t i = 0; i < numel; ++i) {
      if (layout.group_of[i] < 0) {
        ASSERT_EQ(state.master[i], start[i]) << "gap element " << i;
        ASSERT_EQ(state.first[i], 0.0f);
        continue;
      }
      rounded.set(i, state.master[i]);
      ASSERT_NEAR(state.master[i], expected[i].p, 2e-5 * (1 + std::abs(expected[i].p))) << "element " << i;
      ASSERT_NEAR(state.first[i], expected[i].m, 2e-5 * (1 + std::abs(expected[i].m))) << "element " << i;
      ASSERT_NEAR(state.second[i], expected[i].v, 2e-5 * (1 + std::abs(expected[i].v))) << "element " << i;
    }
    EXPECT_TRUE(state.model == rounded) << "the model copy is the master rounded to nearest even";
    EXPECT_EQ(state.master, states[0].master) << "same bits as the scalar build";
    EXPECT_EQ(state.first, states[0].first);
    EXPECT_EQ(state.second, states[0].second);
  }
}

TEST_P(OptimizerUpdate, FollowsTheFormulaForAThousandStepsOnEveryIsa) {
  const auto& [test, gradient_type] = GetParam();
  if (test.rule == UpdateRule::kLion) {
    run_thousand_steps<float>(test, gradient_type);
  } else {
    run_thousand_steps<double>(test, gradient_type);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rules, OptimizerUpdate,
    testing::Combine(
        testing::Values(
            Case{"Adam", UpdateRule::kAdam, {{.weight_decay = 0.01}, {.lr = 1e-3, .beta1 = 0.3, .beta2 = 0.999}}},
            Case{"AdamW", UpdateRule::kAdamW, {{.weight_decay = 0.1}, {.lr = 1e-3, .beta2 = 0.999}, {.beta1 = 0}}},
            Case{"Sgd", UpdateRule::kSgd, {{.weight_decay = 0.01}, {.lr = 1e-3}}},
            Case{"SgdMomentum",
                 UpdateRule::kSgd,
                 {{.momentum = 0.9},
                  {.weight_decay = 0.01, .momentum = 0.8, .dampening = 0.3},
                  {.momentum = 0.9, .nesterov = true}}},
            Case{"Adagrad", UpdateRule::kAdagrad, {{.eps = 1e-10}, {.lr = 1e-3, .eps = 1e-3, .weight_decay = 0.01}}},
            Case{"Lion", UpdateRule::kLion, {{.lr = 1e-4}, {.lr = 1e-3, .weight_decay = 0.1}}}),
        testing::ValuesIn(kTypes)),
    [](const auto& info) { return std::string(std::get<0>(info.param).name) + type_name(std::get<1>(info.param)); });

TEST(OptimizerUpdateLarge, GivesTheSameBitsForEveryThreadCountSplitAndIsa) {
  constexpr int64_t kNumel = 700'001;
  std::mt19937 random(3);
  const std::vector<float> start = normal_values(kNumel, random);
  const UpdateCoefficients c = coefficients({.weight_decay = 0.1}, UpdateRule::kAdamW, 1);
  const int threads_before = at::get_num_threads();
  for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat16}) {
    Array gradient(type, kNumel);
    fill_normal(gradient, random, 1);
    std::vector<State> states;
    for (const CpuIsa isa : isas()) {
      for (const int threads : {1, 3}) {
        for (const int64_t cut : {int64_t{0}, int64_t{12345}}) {
          at::set_num_threads(threads);
          State& state = states.emplace_back(start, type);
          const UpdateRun runs[] = {{1, cut, c}, {1 + cut, kNumel - 1 - cut, c}};
          optimizer_update(UpdateRule::kAdamW, state.buffers(UpdateRule::kAdamW, gradient), runs, 1.0f, isa);
          EXPECT_EQ(state.master, states[0].master);
          EXPECT_EQ(state.first, states[0].first);
          EXPECT_EQ(state.second, states[0].second);
          EXPECT_TRUE(state.model == states[0].model);
        }
      }
    }
    Array rounded(type, kNumel);
    for (int64_t i = 1; i < kNumel; ++i) rounded.set(i, states[0].master[i]);
    EXPECT_TRUE(states[0].model == rounded);
    EXPECT_EQ(states[0].master[0], start[0]);
  }
  at::set_num_threads(threads_before);
}

TEST(OptimizerUpdateArguments, AreChecked) {
  float p[4] = {}, m[4] = {}, v[4] = {}, g[4] = {};
  uint16_t model[4] = {};
  const UpdateRun run{0, 4, {}};
  const UpdateBuffers good{.master = p, .first = m, .second = v, .gradient = g};
  EXPECT_NO_THROW(optimizer_update(UpdateRule::kAdam, good, {&run, 1}, 1.0f));
  auto expect_refused = [&](UpdateRule rule, auto change) {
    UpdateBuffers buffers = good;
    UpdateRun changed = run;
    change(buffers, changed);
    EXPECT_THROW(optimizer_update(rule, buffers, {&changed, 1}, 1.0f), InvalidArgument);
  };
  expect_refused(UpdateRule::kAdam, [](auto& b, auto&) { b.master = nullptr; });
  expect_refused(UpdateRule::kAdam, [](auto& b, auto&) { b.gradient = nullptr; });
  expect_refused(UpdateRule::kAdam, [](auto& b, auto&) { b.first = nullptr; });
  expect_refused(UpdateRule::kAdam, [](auto& b, auto&) { b.second = nullptr; });
  expect_refused(UpdateRule::kLion, [](auto&, auto&) {});
  expect_refused(UpdateRule::kAdam, [](auto&, auto& r) { r.offset = -1; });
  expect_refused(UpdateRule::kAdam, [](auto&, auto& r) { r.numel = -1; });
  expect_refused(UpdateRule::kSgd, [](auto& b, auto& r) {
    b.first = b.second = nullptr;
    r.coefficients.momentum = 0.9f;
  });
  expect_refused(UpdateRule::kAdam, [&](auto& b, auto&) {
    b.model = model;
    b.model_type = ElementType::kFloat32;
  });
}

TEST(OptimizerUpdateArguments, MayBeEmpty) { EXPECT_NO_THROW(optimizer_update(UpdateRule::kAdamW, {}, {}, 1.0f)); }

}  // namespace
}  // namespace hydrofoil::kernels
