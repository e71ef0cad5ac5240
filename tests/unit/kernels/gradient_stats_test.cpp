#include "hydrofoil/kernels/gradient_stats.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hydrofoil/base/error.h"
#include "tests/unit/kernels/support.h"

namespace hydrofoil::kernels {
namespace {

using testing_support::Array;
using testing_support::fill_normal;
using testing_support::isas;
using testing_support::kTypes;
using testing_support::type_name;

class GradientStatsOf : public testing::TestWithParam<ElementType> {};
INSTANTIATE_TEST_SUITE_P(Types, GradientStatsOf, testing::ValuesIn(kTypes),
                         [](const auto& info) { return type_name(info.param); });

TEST_P(GradientStatsOf, SumsSquaresOfEveryElement) {
  std::mt19937 random(5);
  for (const int64_t numel : {0, 1, 7, 31, 32, 33, 63, 64, 65, 511, 513, 1000, 4095, 4096, 4097, 70001}) {
    Array data(GetParam(), numel + 1);
    fill_normal(data, random, 3);
    double expected = 0;
    for (int64_t i = 1; i <= numel; ++i) expected += static_cast<double>(data.get(i)) * data.get(i);
    for (const CpuIsa isa : isas()) {
      const GradientStats stats = gradient_stats(data.data(1), GetParam(), numel, isa);
      EXPECT_NEAR(stats.sum_of_squares, expected, 1e-13 * expected) << numel << " " << cpu_isa_name(isa);
      EXPECT_FALSE(stats.first_non_finite.has_value());
    }
  }
}

TEST_P(GradientStatsOf, GivesTheSameBitsForEveryThreadCountAndIsa) {
  std::mt19937 random(6);
  Array data(GetParam(), 300'007);
  fill_normal(data, random, 1);
  const int threads_before = at::get_num_threads();
  at::set_num_threads(1);
  const double expected = gradient_stats(data.data(), GetParam(), data.numel(), CpuIsa::kScalar).sum_of_squares;
  for (const CpuIsa isa : isas()) {
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      EXPECT_EQ(gradient_stats(data.data(), GetParam(), data.numel(), isa).sum_of_squares, expected);
    }
  }
  at::set_num_threads(threads_before);
}

TEST_P(GradientStatsOf, FindsTheFirstNonFiniteElement) {
  constexpr int64_t kNumel = 20'001;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const CpuIsa isa : isas()) {
    for (const int64_t index : {int64_t{0}, int64_t{1}, int64_t{4095}, int64_t{4096}, int64_t{9999}, kNumel - 1}) {
      for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
        Array data(GetParam(), kNumel);
        data.set(kNumel - 1, kInfinity);
        data.set(index, bad);
        const GradientStats stats = gradient_stats(data.data(), GetParam(), kNumel, isa);
        ASSERT_EQ(stats.first_non_finite, index);
        EXPECT_FALSE(std::isfinite(stats.sum_of_squares));
      }
    }
  }
}

TEST(GradientStatsRange, HoldsTheLargestFloats) {
  const std::vector<float> data(10'000, std::numeric_limits<float>::max());
  for (const CpuIsa isa : isas()) {
    const GradientStats stats = gradient_stats(data.data(), ElementType::kFloat32, 10'000, isa);
    EXPECT_FALSE(stats.first_non_finite.has_value());
    EXPECT_NEAR(std::sqrt(stats.sum_of_squares) / 100, std::numeric_limits<float>::max(), 1e26);
  }
}

TEST(GradientStatsArguments, AreChecked) {
  const float one = 1;
  EXPECT_THROW((void)gradient_stats(&one, ElementType::kFloat32, -1), InvalidArgument);
  EXPECT_THROW((void)gradient_stats(nullptr, ElementType::kFloat32, 1), InvalidArgument);
  EXPECT_EQ(gradient_stats(nullptr, ElementType::kFloat32, 0).sum_of_squares, 0);
}

TEST(KernelBuilds, BeyondTheProcessorAreRefused) {
  if (detected_cpu_isa() == CpuIsa::kAvx512) GTEST_SKIP() << "this processor runs every build";
  EXPECT_THROW((void)gradient_stats(nullptr, ElementType::kFloat32, 0, CpuIsa::kAvx512), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::kernels
