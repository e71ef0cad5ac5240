#include "hydrofoil/mesh/mesh.h"

#include <gtest/gtest.h>

#include <set>

#include "hydrofoil/base/error.h"

namespace hydrofoil::mesh {
namespace {

const Mesh& cube() {
  static const Mesh mesh({{"pp", 2}, {"dp", 3}, {"tp", 4}});
  return mesh;
}

TEST(Mesh, CoordinatesAndRanksAreInverse) {
  EXPECT_EQ(cube().world_size(), 24);
  for (int rank = 0; rank < 24; ++rank) {
    EXPECT_EQ(cube().world_rank(
                  {cube().rank_along(rank, "pp"), cube().rank_along(rank, "dp"), cube().rank_along(rank, "tp")}),
              rank);
  }
}

TEST(Mesh, LastAxisVariesFastest) {
  EXPECT_EQ(cube().rank_along(1, "tp"), 1);
  EXPECT_EQ(cube().rank_along(4, "dp"), 1);
  EXPECT_EQ(cube().rank_along(12, "pp"), 1);
}

TEST(Mesh, GroupsOfAnAxisPartitionTheWorld) {
  for (const auto& axis : cube().axes()) {
    std::multiset<int> seen;
    for (int rank = 0; rank < 24; ++rank) {
      const auto group = cube().group(rank, axis.name);
      ASSERT_EQ(static_cast<int>(group.size()), axis.size);
      EXPECT_EQ(group[cube().rank_along(rank, axis.name)], rank);
      seen.insert(group.begin(), group.end());
    }
    for (int rank = 0; rank < 24; ++rank) EXPECT_EQ(static_cast<int>(seen.count(rank)), axis.size);
  }
}

TEST(Mesh, OneRankIsAWorld) {
  const Mesh mesh({{"dp", 1}});
  EXPECT_EQ(mesh.group(0, "dp"), (std::vector<int>{0}));
}

TEST(Mesh, RejectsWhatCannotBe) {
  EXPECT_THROW(Mesh({}), InvalidArgument);
  EXPECT_THROW(Mesh({{"", 1}}), InvalidArgument);
  EXPECT_THROW(Mesh({{"dp", 0}}), InvalidArgument);
  EXPECT_THROW(Mesh({{"dp", 2}, {"dp", 2}}), InvalidArgument);
  EXPECT_THROW(Mesh({{"dp", 1 << 20}, {"tp", 1 << 20}}), InvalidArgument);
  EXPECT_THROW((void)cube().size("dq"), InvalidArgument);
  EXPECT_THROW((void)cube().rank_along(24, "dp"), InvalidArgument);
  EXPECT_THROW((void)cube().world_rank({0, 0}), InvalidArgument);
  EXPECT_THROW((void)cube().world_rank({0, 3, 0}), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::mesh
