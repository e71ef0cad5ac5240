#include <gtest/gtest.h>

#include <numeric>

#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/flat_layout.h"
#include "hydrofoil/zero/sharding.h"
#include "hydrofoil/zero/unit_planner.h"

namespace hydrofoil::zero {
namespace {

struct Case {
  std::vector<int64_t> numels;
  int num_shards;
  int64_t alignment;
};

class LayoutFlat : public testing::TestWithParam<Case> {};

TEST_P(LayoutFlat, AlignsEveryParameterAndEverySlice) {
  const auto& [numels, num_shards, alignment] = GetParam();
  const FlatLayout layout = layout_flat(numels, num_shards, alignment);
  ASSERT_EQ(layout.offsets.size(), numels.size());
  int64_t end = 0;
  for (size_t i = 0; i < numels.size(); ++i) {
    EXPECT_EQ(layout.offsets[i] % alignment, 0);
    EXPECT_GE(layout.offsets[i], end);
    EXPECT_LT(layout.offsets[i] - end, alignment);
    end = layout.offsets[i] + numels[i];
  }
  EXPECT_EQ(layout.shard_numel * num_shards, layout.padded_numel);
  EXPECT_EQ(layout.shard_numel % alignment, 0);
  EXPECT_GE(layout.padded_numel, end);
  EXPECT_LT(layout.padded_numel - end, alignment * (num_shards + 1));
}

constexpr int64_t kBillion = 1'000'000'000;
INSTANTIATE_TEST_SUITE_P(Sizes, LayoutFlat,
                         testing::Values(Case{{}, 2, 16}, Case{{0}, 3, 16}, Case{{1}, 4, 16},
                                         Case{{0, 1, 0, 17}, 3, 16}, Case{{7, 5, 31}, 1, 32}, Case{{16, 16}, 2, 16},
                                         Case{{3}, 8, 1}, Case{{3 * kBillion}, 2, 16},
                                         Case{{(int64_t{1} << 31) + 1, 5}, 3, 32},
                                         Case{{(int64_t{1} << 40) + 7, 1, (int64_t{1} << 33)}, 1024, 64}));

TEST(LayoutFlat, SlicesOfAHugeBufferCoverEveryElementOnce) {
  const int num_shards = 7;
  const std::vector<int64_t> numels = {(int64_t{1} << 31) + 5, 3, (int64_t{1} << 33) + 1, 0, 1};
  const FlatLayout layout = layout_flat(numels, num_shards, 16);
  int64_t covered = 0;
  for (size_t i = 0; i < numels.size(); ++i) {
    int64_t of_parameter = 0;
    for (int64_t r = 0; r < num_shards; ++r) {
      const Range shard{r * layout.shard_numel, (r + 1) * layout.shard_numel};
      of_parameter += intersect({layout.offsets[i], layout.offsets[i] + numels[i]}, shard).numel();
    }
    EXPECT_EQ(of_parameter, numels[i]);
    covered += of_parameter;
  }
  EXPECT_EQ(covered, std::accumulate(numels.begin(), numels.end(), int64_t{0}));
}

TEST(LayoutFlat, RejectsWhatDoesNotFitIn63Bits) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_THROW((void)layout_flat({-1}, 2, 16), InvalidArgument);
  EXPECT_THROW((void)layout_flat({kMost, 1}, 2, 16), InvalidArgument);
  EXPECT_THROW((void)layout_flat({kMost / 2, kMost / 2, 64}, 2, 16), InvalidArgument);
  EXPECT_THROW((void)layout_flat({kMost - 3}, 2, 16), InvalidArgument);
}

TEST(Sharding, OneRankCutsNothing) {
  for (int stage = 0; stage <= 3; ++stage) {
    const Sharding alone = Sharding::of_stage(stage, 0, 1, 2);
    EXPECT_FALSE(alone.optimizer_states || alone.gradients || alone.parameters);
    const Sharding shared = Sharding::of_stage(stage, 1, 3, 2);
    EXPECT_EQ(shared.optimizer_states, stage >= 1);
    EXPECT_EQ(shared.gradients, stage >= 2);
    EXPECT_EQ(Sharding::of_stage(stage, 1, 3, 1).gradients, stage >= 1) << "one backward a window";
    EXPECT_EQ(shared.parameters, stage >= 3);
  }
}

TEST(Sharding, RejectsWrongStagesAndRanks) {
  EXPECT_THROW((void)Sharding::of_stage(4, 0, 2, 2), InvalidArgument);
  EXPECT_THROW((void)Sharding::of_stage(-1, 0, 2, 2), InvalidArgument);
  EXPECT_THROW((void)Sharding::of_stage(1, 2, 2, 2), InvalidArgument);
  EXPECT_THROW((void)Sharding::of_stage(1, -1, 2, 2), InvalidArgument);
  EXPECT_THROW((void)Sharding::of_stage(1, 0, 0, 2), InvalidArgument);
}

TEST(PlanUnits, CountsBytesBeyond32Bits) {
  const std::vector<ModuleNode> modules = {{"", "Sequential", -1, true, false, {}},
                                           {"0", "Linear", 0, false, false, {0}},
                                           {"1", "Linear", 0, false, false, {1}},
                                           {"2", "Linear", 0, false, false, {2}}};
  const std::vector<ParameterSize> sizes(3, {3 * kBillion, 4});
  const UnitLayout apart = plan_units(modules, sizes, 5 * kBillion);
  ASSERT_EQ(apart.units.size(), 3U);
  EXPECT_EQ(apart.units[0].num_bytes, 12 * kBillion);
  const UnitLayout merged = plan_units(modules, sizes, 20 * kBillion);
  ASSERT_EQ(merged.units.size(), 2U);
  EXPECT_EQ(merged.units[0].num_bytes, 24 * kBillion);
}

}  // namespace
}  // namespace hydrofoil::zero
