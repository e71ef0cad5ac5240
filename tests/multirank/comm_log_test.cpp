// The log of collectives across ranks: stragglers, and what cannot be compared.
#include "hydrofoil/comm/comm_log.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::comm {
namespace {

using testing::error_of;

EndedOperation all_reduce(int64_t bytes, double seconds) {
  return {.kind = OpKind::kAllReduce,
          .message_bytes = bytes,
          .end_ns = static_cast<int64_t>(1e9 * seconds),
          .group_size = 3};
}

// The last rank to come to an operation is the shortest in it: what the others took longer, they waited.
TEST(Stragglers, AreTheWaitForTheLastRankOfEachOperation) {
  const auto groups = make_local_groups(3);
  testing::run_ranks(3, [&](int rank) {
    CommLog log;
    const std::vector<std::vector<double>> seconds = {{0.5, 0.25}, {0.125, 0.5}, {1.0, 0.25}};
    for (const double s : seconds[rank]) log.on_operation(all_reduce(8, s));
    log.on_operation(all_reduce(16, 0.5));
    const auto rows = log.rows_with_stragglers(groups[rank]);
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0].waited_s, (std::vector<double>{0.375, 0.25, 0.875}));
    EXPECT_EQ(rows[1].waited_s, (std::vector<double>{0.0, 0.0, 0.0}));
    EXPECT_EQ(log.rows().size(), 2U);
  });
}

TEST(Stragglers, AreOfTheLatestOperationsOfARow) {
  const auto groups = make_local_groups(2);
  testing::run_ranks(2, [&](int rank) {
    CommLog log;
    for (int64_t i = 0; i < CommLog::kKept + 3; ++i) log.on_operation(all_reduce(8, i < 3 && rank == 1 ? 8.0 : 0.5));
    const auto row = log.rows_with_stragglers(groups[rank]).at(0);
    EXPECT_EQ(row.count, CommLog::kKept + 3);
    EXPECT_EQ(row.waited_s, (std::vector<double>{0.0, 0.0}));
  });
}

TEST(Stragglers, ArentCountedThemselves) {
  const auto groups = make_local_groups(2);
  testing::run_ranks(2, [&](int rank) {
    const auto log = std::make_shared<CommLog>();
    groups[rank].observe(log);
    groups[rank].all_reduce(at::zeros({5}), ReduceOp::kSum).wait();
    ASSERT_EQ(log->rows_with_stragglers(groups[rank]).size(), 1U);
    ASSERT_EQ(log->rows().size(), 1U);
    groups[rank].all_reduce(at::zeros({5}), ReduceOp::kSum).wait();
    EXPECT_EQ(log->rows()[0].count, 2);
  });
}

TEST(Stragglers, OfDifferentOperationsAreAnError) {
  const auto groups = make_local_groups(2);
  testing::run_ranks(2, [&](int rank) {
    CommLog log;
    for (int i = 0; i <= rank; ++i) log.on_operation(all_reduce(8, 0.5));
    const std::string error = error_of<CommError>([&] { (void)log.rows_with_stragglers(groups[rank]); });
    EXPECT_NE(error.find("log_summary"), std::string::npos) << error;
    EXPECT_NE(error.find("all_reduce, 8 bytes: 2 times"), std::string::npos) << error;
    log.on_operation(all_reduce(8, 0.5));  // counts on
    EXPECT_EQ(log.rows()[0].count, rank + 2);
  });
}

}  // namespace
}  // namespace hydrofoil::comm
