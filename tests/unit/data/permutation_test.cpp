#include "hydrofoil/data/permutation.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

#include "hydrofoil/base/error.h"

namespace hydrofoil::data {
namespace {

struct Golden {
  int64_t index, size, seed, epoch, expected;
};

// The same table stands in tests/python/test_data_windows.py.
constexpr Golden kGolden[] = {
    {0, 1, 0, 0, 0},
    {1, 2, 0, 0, 1},
    {2, 3, 1, 0, 2},
    {4, 5, 1, 2, 4},
    {16, 17, -1, 0, 11},
    {999, 1000, 3, 0, 317},
    {999, 1000, 3, 1, 894},
    {0, 1025, 1234, 7, 445},
    {123456, 1048576, 1, 0, 616614},
    {5, 1099511627777, 42, 3, 962996258602},
    {4611686018427387903, 4611686018427387904, 9223372036854775807, 9, 1620290998179044138},
    {12345, 9223372036854775807, INT64_MIN, 4611686018427387904, 8663858579837584608},
};

TEST(Permutation, IsTheOneOfTheTable) {
  for (const Golden& row : kGolden) {
    EXPECT_EQ(permuted(row.index, row.size, row.seed, row.epoch), row.expected) << row.size;
  }
}

TEST(Permutation, ReachesEveryIndexOnce) {
  for (const int64_t size : {1, 2, 3, 4, 5, 16, 17, 1000, 1025}) {
    std::set<int64_t> reached;
    for (int64_t index = 0; index < size; ++index) reached.insert(permuted(index, size, 7, 1));
    EXPECT_EQ(static_cast<int64_t>(reached.size()), size);
    EXPECT_EQ(*reached.begin(), 0);
    EXPECT_EQ(*reached.rbegin(), size - 1);
  }
}

TEST(Permutation, SendsAnIndexEverywhereOverTheSeeds) {
  constexpr int64_t kSize = 10;
  constexpr int kNumSeeds = 4000;
  std::vector<int> hits(kSize);
  for (int64_t seed = 0; seed < kNumSeeds; ++seed) ++hits[static_cast<size_t>(permuted(0, kSize, seed, 0))];
  for (const int count : hits) EXPECT_NEAR(count, kNumSeeds / kSize, 80);  // four standard deviations
}

TEST(Permutation, RefusesAnIndexOutsideIt) {
  EXPECT_THROW((void)permuted(-1, 5, 0, 0), InvalidArgument);
  EXPECT_THROW((void)permuted(5, 5, 0, 0), InvalidArgument);
  EXPECT_THROW((void)permuted(0, 0, 0, 0), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::data
