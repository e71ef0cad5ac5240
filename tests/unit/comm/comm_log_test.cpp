#include "hydrofoil/comm/comm_log.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/fake/fake_group.h"

namespace hydrofoil::comm {
namespace {

EndedOperation operation(OpKind kind, int64_t bytes, int64_t took_ns, std::string_view unit = "", int group_size = 4) {
  return {.kind = kind,
          .unit = unit,
          .message_bytes = bytes,
          .begin_ns = 1000,
          .end_ns = 1000 + took_ns,
          .group_size = group_size};
}

TEST(CommLog, CountsEachOperationByMessageSize) {
  const auto log = std::make_shared<CommLog>();
  const Group group = make_fake_group({.rank = 0, .size = 4});
  group.all_reduce(at::zeros({3}), ReduceOp::kSum).wait();
  group.observe(log);
  group.all_reduce(at::zeros({3}), ReduceOp::kSum, {.unit = "a"}).wait();
  group.all_reduce(at::zeros({3}), ReduceOp::kSum, {.unit = "b"}).wait();
  group.all_reduce(at::zeros({0}), ReduceOp::kSum).wait();
  group.all_gather(at::zeros({2}, at::kBFloat16), at::zeros({8}, at::kBFloat16)).wait();
  group.reduce_scatter(at::zeros({8}), at::zeros({2}), ReduceOp::kSum).wait();
  group.barrier();
  const auto rows = log->rows();
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_EQ(rows[0].op, "all_gather");
  EXPECT_EQ(rows[0].message_bytes, 16);
  EXPECT_EQ(rows[1].op, "all_reduce");
  EXPECT_EQ(rows[1].message_bytes, 0);
  EXPECT_EQ(rows[2].message_bytes, 12);
  EXPECT_EQ(rows[2].count, 2);
  EXPECT_EQ(rows[2].unit, "");
  EXPECT_EQ(rows[3].op, "barrier");
  EXPECT_EQ(rows[3].message_bytes, 0);
  EXPECT_EQ(rows[4].op, "reduce_scatter");
  EXPECT_EQ(rows[4].message_bytes, 32);  // of all slices
  log->clear();
  EXPECT_TRUE(log->rows().empty());
}

TEST(CommLog, LeavesOutWhatFailed) {
  const auto faults = std::make_shared<FakeLog>();
  faults->set_failure([](const FakeRecord&) { return "a fault"; });
  const auto log = std::make_shared<CommLog>();
  const Group group = make_fake_group({.log = faults});
  group.observe(log);
  EXPECT_THROW(group.all_reduce(at::zeros({3}), ReduceOp::kSum).wait(), CommError);
  EXPECT_TRUE(log->rows().empty());
}

// The formulas of nccl-tests, doc/PERFORMANCE.md, for 4 ranks.
TEST(CommLog, HasTheBandwidthsOfNcclTests) {
  struct Case {
    OpKind kind;
    double factor;
  };
  for (const Case& c :
       {Case{OpKind::kAllReduce, 1.5}, Case{OpKind::kReduceScatter, 0.75}, Case{OpKind::kAllGather, 0.75},
        Case{OpKind::kAllToAll, 0.75}, Case{OpKind::kBroadcast, 1.0}, Case{OpKind::kSend, 1.0}}) {
    CommLog log;
    log.on_operation(operation(c.kind, 1000, 1000));
    log.on_operation(operation(c.kind, 1000, 3000));
    const CommLogRow row = log.rows().at(0);
    EXPECT_EQ(row.count, 2);
    EXPECT_DOUBLE_EQ(row.total_s, 4e-6);
    EXPECT_DOUBLE_EQ(row.average_s(), 2e-6);
    EXPECT_DOUBLE_EQ(row.algorithm_bytes_per_s(), 0.5e9) << op_kind_name(c.kind);
    EXPECT_DOUBLE_EQ(row.bus_bytes_per_s(), 0.5e9 * c.factor) << op_kind_name(c.kind);
  }
  EXPECT_EQ(CommLogRow::bus_factor("all_reduce", 1), 0.0);
  EXPECT_EQ(CommLogRow{}.algorithm_bytes_per_s(), 0.0);
}

TEST(CommLog, CountsByUnitAndLeavesOutOtherOperations) {
  CommLog log({.by_unit = true, .ops = {"all_gather"}});
  for (const char* unit : {"b", "a", "b"}) log.on_operation(operation(OpKind::kAllGather, 8, 1, unit));
  log.on_operation(operation(OpKind::kAllReduce, 8, 1, "a"));
  const auto rows = log.rows();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].unit, "a");
  EXPECT_EQ(rows[1].unit, "b");
  EXPECT_EQ(rows[1].count, 2);
}

TEST(CommLog, CountsCallsOfAnybody) {
  CommLog log({.ops = {"all_gather"}});
  EXPECT_TRUE(log.counts("all_gather"));
  EXPECT_FALSE(log.counts("gather"));
  log.count("gather", "logits", 100, 4, 1e-6);
  const CommLogRow row = log.rows().at(0);
  EXPECT_EQ(row.op, "gather");
  EXPECT_EQ(row.unit, "logits");
  EXPECT_DOUBLE_EQ(row.bus_bytes_per_s(), 0.75e8);
  CommLogRow waited = row;
  waited.waited_s = {0.0};
  EXPECT_NE(to_text({row, waited}).find("waited for the last rank"), std::string::npos);
}

TEST(CommLog, VerboseLogsEachOperation) {
  ::testing::internal::CaptureStderr();
  CommLog log({.verbose = true});
  log.on_operation(operation(OpKind::kAllReduce, 2048, 1'000'000, "layers.0"));
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("all_reduce of unit layers.0, 2.00 KiB, 1.000 ms, algorithm bandwidth 0.002 GB/s, bus bandwidth "
                      "0.003 GB/s"),
            std::string::npos)
      << text;
}

TEST(CommLog, PrintsATable) {
  EXPECT_EQ(to_text({}), "no collective has been counted\n");
  CommLogRow row{.op = "all_reduce", .message_bytes = 1 << 20, .group_size = 2, .count = 3, .total_s = 0.003};
  EXPECT_NE(to_text({row}).find("all_reduce     1.00 MiB         3        3.00       1.000         1.049      1.049\n"),
            std::string::npos)
      << to_text({row});
  row.waited_s = {0.002, 0.0};
  EXPECT_NE(to_text({row}).find("1.049  2.00  0.00\n"), std::string::npos) << to_text({row});
}

TEST(Observe, RefusesNothing) {
  const Group group = make_fake_group();
  EXPECT_THROW(group.observe(nullptr), InvalidArgument);
  EXPECT_THROW(Group().observe(std::make_shared<CommLog>()), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::comm
