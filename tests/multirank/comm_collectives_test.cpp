#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/collectives.h"
#include "tests/support/comm_backends.h"

namespace hydrofoil::comm {
namespace {

using testing::check_moves;
using testing::check_reductions;
using testing::connect_threads;
using testing::run_ranks;

class Collectives : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  std::string backend() const { return std::get<0>(GetParam()); }
  int size() const { return std::get<1>(GetParam()); }
};

TEST_P(Collectives, EqualTheirDefinitionForEveryDtypeAndSize) {
  const auto groups = connect_threads(backend(), size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    EXPECT_EQ(group.rank(), rank);
    EXPECT_EQ(group.size(), size());
    const std::string several = backend() == "c10d" ? "c10d:store" : backend();
    EXPECT_EQ(group.backend_name(), size() == 1 ? "local" : several);
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
  const auto groups = connect_threads(backend(), size(), 1);
  const int64_t numel = 600'001 / size();
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      check_reductions(group, numel, dtype);
      check_moves(group, numel, dtype);
    }
  });
}

TEST_P(Collectives, RunInTheOrderOfTheCallsOnEveryChannel) {
  const auto groups = connect_threads(backend(), size(), 2);
  run_ranks(size(), [&](int rank) {
    const auto& channels = groups[static_cast<size_t>(rank)];
    at::Tensor buffers[2] = {at::ones({1001}), at::ones({1001})};
    std::vector<Work> works;
    // The ranks take the two channels in different orders: they are independent.
    for (int i = 0; i < 20; ++i) {
      const auto channel = static_cast<size_t>((i + rank) % 2);
      works.push_back(channels[channel].all_reduce(buffers[channel], ReduceOp::kSum, {.unit = "u", .signature = 7}));
    }
    for (auto& work : works) {
      work.wait();
      EXPECT_TRUE(work.done());
    }
    const float expected = std::pow(static_cast<float>(size()), 10.0F);
    for (const auto& buffer : buffers) EXPECT_TRUE(at::equal(buffer, at::full({1001}, expected)));
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, Collectives,
                         ::testing::Combine(::testing::Values("local", "shm", "c10d"), ::testing::Values(1, 2, 3, 5)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace hydrofoil::comm
