#include "hydrofoil/models/rope.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hydrofoil/base/error.h"

// Equality with Transformers: tests/python/test_cpp_models.py.
namespace hydrofoil::models {
namespace {

TEST(RotaryEmbedding, TurnsPairsByTheirFrequency) {
  const RotaryEmbedding rotary({.theta = 100.0}, 4, 16);
  const at::Tensor frequencies = rotary.inverse_frequencies(3);
  EXPECT_FLOAT_EQ(frequencies[0].item<float>(), 1.0F);
  EXPECT_FLOAT_EQ(frequencies[1].item<float>(), 0.1F);
  const auto [cos, sin] = rotary.cos_sin(3, at::zeros({1}));
  EXPECT_EQ(cos.sizes(), (std::vector<int64_t>{1, 3, 4}));
  EXPECT_FLOAT_EQ(cos[0][2][0].item<float>(), std::cos(2.0F));
  EXPECT_FLOAT_EQ(sin[0][2][3].item<float>(), std::sin(0.2F));
}

TEST(RotaryEmbedding, StretchesOnlyWhatIsLong) {
  const RotaryEmbedding plain({}, 8, 16);
  const RotaryEmbedding dynamic({.type = RopeType::kDynamic, .factor = 2.0}, 8, 16);
  EXPECT_TRUE(at::equal(plain.inverse_frequencies(16), dynamic.inverse_frequencies(16)));
  EXPECT_FALSE(at::equal(plain.inverse_frequencies(17), dynamic.inverse_frequencies(17)));
  // The length alone decides: no memory of longer ones.
  EXPECT_TRUE(at::equal(plain.inverse_frequencies(16), dynamic.inverse_frequencies(16)));

  const RotaryEmbedding longrope({.type = RopeType::kLongrope,
                                  .factor = 2.0,
                                  .original_max_position_embeddings = 8,
                                  .short_factor = {1, 1, 1, 1},
                                  .long_factor = {2, 2, 2, 2}},
                                 8, 16);
  EXPECT_TRUE(at::equal(longrope.inverse_frequencies(8), plain.inverse_frequencies(8)));
  EXPECT_TRUE(at::equal(longrope.inverse_frequencies(9), plain.inverse_frequencies(9).div(2.0)));
  EXPECT_DOUBLE_EQ(longrope.attention_scaling(), std::sqrt(1.0 + std::log(2.0) / std::log(8.0)));
}

TEST(RotaryEmbedding, RefusesOddHeads) {
  EXPECT_THROW(RotaryEmbedding({}, 7, 16), InvalidArgument);
  EXPECT_THROW(RotaryEmbedding({}, 0, 16), InvalidArgument);
  EXPECT_THROW(RotaryEmbedding({.type = RopeType::kDynamic}, 2, 16), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::models
