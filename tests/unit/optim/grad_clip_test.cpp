#include "hydrofoil/optim/grad_clip.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "hydrofoil/base/error.h"

namespace hydrofoil::optim {
namespace {

TEST(ClipCoefficient, HasTheBitsOfTorchsTensorArithmetic) {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> uniform(0.0f, 20.0f);
  for (int i = 0; i < 200; ++i) {
    const float norm = i == 0 ? 0.0f : uniform(random);
    for (const double max_norm : {0.1, 1.0, 3.7}) {
      const at::Tensor coefficient = at::full({}, norm, at::kFloat).add(1e-6).reciprocal().mul(max_norm).clamp_max(1.0);
      EXPECT_EQ(clip_coefficient(norm, max_norm), coefficient.item<float>()) << norm << " " << max_norm;
    }
  }
}

TEST(ClipCoefficient, ShrinksOnlyLargeNorms) {
  EXPECT_EQ(clip_coefficient(0.5f, 1.0), 1.0f);
  EXPECT_FLOAT_EQ(clip_coefficient(4.0f, 1.0), 0.25f);
  EXPECT_EQ(clip_coefficient(1e9f, 0.0), 1.0f) << "0 means no clipping";
  EXPECT_EQ(clip_coefficient(std::numeric_limits<float>::infinity(), 1.0), 0.0f);
  EXPECT_TRUE(std::isnan(clip_coefficient(std::numeric_limits<float>::quiet_NaN(), 1.0)));
}

TEST(ClipCoefficient, RefusesWhatIsNoNorm) {
  EXPECT_THROW((void)clip_coefficient(1.0f, -1.0), InvalidArgument);
  EXPECT_THROW((void)clip_coefficient(1.0f, std::numeric_limits<double>::infinity()), InvalidArgument);
}

TEST(GlobalNorm, IsTheRootOfTheSum) { EXPECT_EQ(global_norm(25.0), 5.0f); }

}  // namespace
}  // namespace hydrofoil::optim
