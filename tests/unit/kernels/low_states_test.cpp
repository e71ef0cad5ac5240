// bf16 states of the optimizer kernels: NOTE [Stochastic rounding].
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "hydrofoil/base/error.h"
#include "hydrofoil/kernels/optimizer_update.h"
#include "hydrofoil/kernels/stochastic_rounding.h"
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

constexpr ElementType kBf16 = ElementType::kBFloat16;

struct Shard {
  std::vector<float> master;
  Array first, second, model;

  explicit Shard(std::vector<float> start)
      : master(std::move(start)), first(kBf16, numel()), second(kBf16, numel()), model(kBf16, numel()) {}

  int64_t numel() const { return static_cast<int64_t>(master.size()); }
  bool operator==(const Shard& other) const {
    return master == other.master && first == other.first && second == other.second && model == other.model;
  }

  // Its elements from `begin` on.
  UpdateBuffers buffers(UpdateRule rule, Array& gradient, uint32_t key, int64_t begin = 0) {
    const bool is_adam = rule == UpdateRule::kAdam || rule == UpdateRule::kAdamW;
    return {.master = master.data() + begin,
            .first = first.data(begin),
            .second = is_adam ? second.data(begin) : nullptr,
            .state_type = kBf16,
            .gradient = gradient.data(begin),
            .gradient_type = gradient.type(),
            .model = model.data(begin),
            .model_type = kBf16,
            .rounding_key = key,
            .first_index = begin};
  }
};

// One of the two bf16 values around `value`, which fp32 may have missed by its own rounding, and no other.
bool is_neighbour(float rounded, double value) {
  const double unit = value == 0 ? 0 : std::ldexp(1.0, std::ilogb(value) - 7);
  return std::abs(rounded - value) < unit * (1 + 1e-4) + 1e-6;
}

struct Case {
  const char* name;
  UpdateRule rule;
  Settings settings;
};

class LowStates : public testing::TestWithParam<std::tuple<Case, ElementType>> {};

// Each step against the formula in double, from the states that the step before has left.
TEST_P(LowStates, AreTheNeighboursOfTheFormulasValues) {
  const auto& [test, gradient_type] = GetParam();
  constexpr int64_t kNumel = 1237;
  constexpr float kScale = 0.5f;
  std::mt19937 random(5);
  Array gradient(gradient_type, kNumel);
  std::vector<Shard> shards(isas().size(), Shard(normal_values(kNumel, random)));
  int64_t num_up = 0, num_down = 0;
  for (int64_t step = 1; step <= 30; ++step) {
    fill_normal(gradient, random, 1);
    const Shard before = shards[0];
    const UpdateRun run{0, kNumel, coefficients(test.settings, test.rule, step)};
    for (size_t isa = 0; isa < isas().size(); ++isa) {
      const auto buffers = shards[isa].buffers(test.rule, gradient, rounding_key(step, 3));
      optimizer_update(test.rule, buffers, {&run, 1}, kScale, isas()[isa]);
      ASSERT_TRUE(shards[isa] == shards[0]) << "step " << step << ": bits of " << cpu_isa_name(isas()[isa]);
    }
    for (int64_t i = 0; i < kNumel; ++i) {
      Element<double> e{before.master[i], before.first.get(i), before.second.get(i)};
      reference_update<double>(test.rule, test.settings, step, double(gradient.get(i)) * kScale, e);
      const float m = shards[0].first.get(i), v = shards[0].second.get(i);
      ASSERT_TRUE(is_neighbour(m, e.m)) << "step " << step << ", element " << i << ": " << m << " of " << e.m;
      ASSERT_TRUE(is_neighbour(v, e.v)) << "step " << step << ", element " << i << ": " << v << " of " << e.v;
      const bool is_exact = std::abs(m - e.m) < 1e-5 * std::abs(e.m);  // nothing to round, as in SGD's first step
      if (!is_exact) (m > e.m ? num_up : num_down) += 1;
      // Lion's sign may part from the formula's where the direction is a rounding error.
      const double slack = test.rule == UpdateRule::kLion ? 2 * test.settings.lr : 1e-5;
      ASSERT_NEAR(shards[0].master[i], e.p, slack * (1 + std::abs(e.p))) << "the master takes the fp32 value";
    }
  }
  EXPECT_NEAR(double(num_up) / double(num_up + num_down), 0.5, 0.05);
}

INSTANTIATE_TEST_SUITE_P(
    Rules, LowStates,
    testing::Combine(testing::Values(Case{"Adam", UpdateRule::kAdam, {.beta2 = 0.999, .weight_decay = 0.01}},
                                     Case{"AdamFromEnd", UpdateRule::kAdam, {.beta1 = 0.3}},
                                     Case{"AdamW", UpdateRule::kAdamW, {.beta2 = 0.999, .weight_decay = 0.1}},
                                     Case{"SgdMomentum", UpdateRule::kSgd, {.momentum = 0.9, .dampening = 0.3}},
                                     Case{"SgdNesterov", UpdateRule::kSgd, {.momentum = 0.9, .nesterov = true}},
                                     Case{"Adagrad", UpdateRule::kAdagrad, {.eps = 1e-3, .weight_decay = 0.01}},
                                     Case{"Lion", UpdateRule::kLion, {.lr = 1e-4, .weight_decay = 0.1}}),
                     testing::ValuesIn(kTypes)),
    [](const auto& info) { return std::string(std::get<0>(info.param).name) + type_name(std::get<1>(info.param)); });

TEST(LowStatesLarge, GiveTheSameBitsForEveryThreadCountCutAndIsa) {
  constexpr int64_t kNumel = 700'001;
  std::mt19937 random(3);
  const Shard start(normal_values(kNumel, random));
  Array gradient(kBf16, kNumel);
  fill_normal(gradient, random, 1);
  const UpdateCoefficients c = coefficients({.weight_decay = 0.1}, UpdateRule::kAdamW, 1);
  const int threads_before = at::get_num_threads();
  std::vector<Shard> results;
  for (const CpuIsa isa : isas()) {
    for (const int threads : {1, 3}) {
      for (const int64_t cut : {int64_t{0}, int64_t{12345}}) {
        at::set_num_threads(threads);
        Shard& shard = results.emplace_back(start);
        // Two shards of one flat buffer.
        const UpdateRun head{0, cut, c}, tail{0, kNumel - cut, c};
        optimizer_update(UpdateRule::kAdamW, shard.buffers(UpdateRule::kAdamW, gradient, 9), {&head, 1}, 1.0f, isa);
        optimizer_update(UpdateRule::kAdamW, shard.buffers(UpdateRule::kAdamW, gradient, 9, cut), {&tail, 1}, 1.0f,
                         isa);
        EXPECT_TRUE(shard == results[0]) << cpu_isa_name(isa) << ", " << threads << " threads, cut " << cut;
      }
    }
  }
  at::set_num_threads(threads_before);
  Shard other = start;
  const UpdateRun all{0, kNumel, c};
  optimizer_update(UpdateRule::kAdamW, other.buffers(UpdateRule::kAdamW, gradient, 10), {&all, 1}, 1.0f);
  EXPECT_FALSE(other.first == results[0].first) << "another key, other bits of chance";
}

// With beta1 = beta2 = 0 both averages are the gradient's own powers: what is rounded is known exactly.
Shard round_gradients(const std::vector<float>& values, uint32_t key) {
  const auto numel = static_cast<int64_t>(values.size());
  Array gradient(ElementType::kFloat32, numel);
  for (int64_t i = 0; i < numel; ++i) gradient.set(i, values[i]);
  Shard shard(std::vector<float>(values.size()));
  const UpdateRun run{0, numel, coefficients({.beta1 = 0, .beta2 = 0}, UpdateRule::kAdam, 1)};
  optimizer_update(UpdateRule::kAdam, shard.buffers(UpdateRule::kAdam, gradient, key), {&run, 1}, 1.0f);
  return shard;
}

TEST(StochasticRounding, IsRightInTheMeanOverElementsAndOverSteps) {
  constexpr int64_t kNumel = int64_t{1} << 18;
  constexpr float kLow = 1.0f, kUnit = 1.0f / 128;
  for (const float fraction : {1.0f / 256, 0.25f, 0.5f, 0.9f}) {
    const double bound = 5 * std::sqrt(fraction * (1 - fraction) / double(kNumel));
    const float value = kLow + fraction * kUnit;
    const Shard shard = round_gradients(std::vector<float>(kNumel, value), rounding_key(1, 0));
    const double square = double(value) * value;
    const double square_low = 1.0 + std::floor((square - 1.0) / kUnit) * kUnit,
                 square_fraction = (square - square_low) / kUnit;
    int64_t first_up = 0, second_up = 0, both_up = 0, next_too = 0;
    for (int64_t i = 0; i < kNumel; ++i) {
      const bool m_up = shard.first.get(i) > value, v_up = shard.second.get(i) > square;
      first_up += m_up;
      second_up += v_up;
      both_up += m_up && v_up;
      next_too += m_up && i + 1 < kNumel && shard.first.get(i + 1) > value;
    }
    EXPECT_NEAR(double(first_up) / kNumel, fraction, bound);
    EXPECT_NEAR(double(second_up) / kNumel, square_fraction, 5 * std::sqrt(0.25 / kNumel));
    EXPECT_NEAR(double(both_up) / kNumel, fraction * square_fraction, 5 * std::sqrt(0.25 / kNumel))
        << "the halves are independent";
    EXPECT_NEAR(double(next_too) / kNumel, fraction * fraction, 5 * std::sqrt(0.25 / kNumel)) << "so are neighbours";
    int64_t step_up = 0;
    constexpr int64_t kSteps = 20'000;
    for (int64_t step = 1; step <= kSteps; ++step) {
      step_up += round_gradients({value}, rounding_key(step, 7)).first.get(0) > value;
    }
    EXPECT_NEAR(double(step_up) / kSteps, fraction, 5 * std::sqrt(fraction * (1 - fraction) / double(kSteps)));
  }
}

// A step of beta2 = 0.999 changes v by a thousandth, a bf16 value's last bit is 4 to 8 of them: rounding to nearest
// would leave v where it is.
TEST(StochasticRounding, LetsAveragesMoveByLessThanALastBit) {
  constexpr int64_t kNumel = 4096;
  Shard shard((std::vector<float>(kNumel)));
  for (int64_t i = 0; i < kNumel; ++i) shard.second.set(i, 2.0f);
  Array gradient(ElementType::kFloat32, kNumel);
  for (int64_t i = 0; i < kNumel; ++i) gradient.set(i, 1.0f);
  constexpr int64_t kSteps = 700;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const UpdateRun run{0, kNumel, coefficients({.beta2 = 0.999}, UpdateRule::kAdamW, step)};
    optimizer_update(UpdateRule::kAdamW, shard.buffers(UpdateRule::kAdamW, gradient, rounding_key(step, 0)), {&run, 1},
                     1.0f);
  }
  double mean = 0;
  for (int64_t i = 0; i < kNumel; ++i) mean += shard.second.get(i) / kNumel;
  EXPECT_NEAR(mean, 1 + std::pow(0.999, kSteps), 0.005);
}

TEST(StochasticRounding, KeepsWhatBf16HoldsAndWhatIsNotFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float all_ones = std::bit_cast<float>(0xFFFFFFFFu);
  const Shard shard = round_gradients({0.0f, -0.0f, 1.0f, -1.5f, 0x1p-126f, kInf, -kInf, all_ones, 1.0f}, 1);
  for (const int64_t i : {0, 1, 2, 3, 4, 8}) {
    EXPECT_EQ(shard.first.get(i), (std::vector<float>{0, 0, 1, -1.5, 0x1p-126f, 0, 0, 0, 1}[i])) << i;
  }
  for (const int64_t i : {5, 6, 7}) EXPECT_FALSE(std::isfinite(shard.second.get(i))) << i;
  EXPECT_TRUE(std::isnan(shard.first.get(7)));
}

TEST(LowStatesArguments, AreChecked) {
  float p[4] = {}, g[4] = {};
  uint16_t m[4] = {}, v[4] = {};
  const UpdateRun run{0, 4, {}};
  UpdateBuffers buffers{.master = p, .first = m, .second = v, .state_type = kBf16, .gradient = g};
  EXPECT_NO_THROW(optimizer_update(UpdateRule::kAdam, buffers, {&run, 1}, 1.0f));
  buffers.state_type = ElementType::kFloat16;
  EXPECT_THROW(optimizer_update(UpdateRule::kAdam, buffers, {&run, 1}, 1.0f), InvalidArgument);
}

TEST(LowStates, OfSgdWithoutMomentumStayAsTheyAre) {
  float p[3] = {1, 1, 1}, g[3] = {1, 1, 1};
  const UpdateRun run{0, 3, {.step_size = 0.5f}};
  const UpdateBuffers buffers{.master = p, .state_type = kBf16, .gradient = g};
  optimizer_update(UpdateRule::kSgd, buffers, {&run, 1}, 1.0f);
  EXPECT_EQ(p[2], 0.5f);
}

}  // namespace
}  // namespace hydrofoil::kernels
