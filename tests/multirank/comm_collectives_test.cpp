#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>

#include <string>
#include <vector>

#include "hydrofoil/comm/local/local_group.h"
#include "tests/support/collectives.h"

namespace hydrofoil::comm {
namespace {

using testing::check_moves;
using testing::check_reductions;
using testing::rank_data;
using testing::run_ranks;

class Collectives : public ::testing::TestWithParam<int> {};

TEST_P(Collectives, EqualTheirDefinitionForEveryDtypeAndSize) {
  const auto groups = make_local_groups(GetParam());
  run_ranks(GetParam(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)];
    EXPECT_EQ(group.rank(), rank);
    EXPECT_EQ(group.size(), GetParam());
    EXPECT_EQ(group.backend_name(), "local");
    for (const at::ScalarType dtype : testing::comm_dtypes()) {
      for (const int64_t numel : {0, 1, 3, 1025}) {
        check_reductions(group, numel, dtype);
        check_moves(group, numel, dtype);
      }
    }
    group.barrier();
  });
}

// Several chunks and an odd rest.
TEST_P(Collectives, MoveBuffersLargerThanTheirChunks) {
  const auto groups = make_local_groups(GetParam());
  run_ranks(GetParam(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)];
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      check_reductions(group, 600'001 / GetParam(), dtype);
      check_moves(group, 600'001 / GetParam(), dtype);
    }
  });
}

TEST_P(Collectives, RunInTheOrderOfTheCallsOnEveryChannel) {
  const int size = GetParam();
  const auto groups = make_local_channels(size, 2);
  run_ranks(size, [&](int rank) {
    const auto& channels = groups[static_cast<size_t>(rank)];
    at::Tensor first = at::ones({1001}, at::kFloat);
    at::Tensor second = at::ones({1001}, at::kFloat);
    std::vector<Work> works;
    // The ranks take the two channels in different orders: they are independent.
    for (int i = 0; i < 10; ++i) {
      works.push_back(channels[rank % 2].all_reduce(rank % 2 == 0 ? first : second, ReduceOp::kSum));
      works.push_back(channels[1 - rank % 2].all_reduce(rank % 2 == 0 ? second : first, ReduceOp::kSum));
    }
    for (auto& work : works) {
      work.wait();
      EXPECT_TRUE(work.done());
    }
    const float expected = std::pow(static_cast<float>(size), 10.0F);
    EXPECT_TRUE(at::equal(first, at::full({1001}, expected)));
    EXPECT_TRUE(at::equal(second, at::full({1001}, expected)));
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, Collectives, ::testing::Values(1, 2, 3, 5));

}  // namespace
}  // namespace hydrofoil::comm
