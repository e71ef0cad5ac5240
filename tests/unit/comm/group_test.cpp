#include "hydrofoil/comm/group.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/connect.h"
#include "hydrofoil/comm/fake/fake_group.h"
#include "hydrofoil/comm/local/local_group.h"

namespace hydrofoil::comm {
namespace {

std::string argument_error(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

#define EXPECT_ARGUMENT_ERROR(part, ...)                                                           \
  do {                                                                                             \
    const std::string error = argument_error([&] { static_cast<void>(__VA_ARGS__); });             \
    EXPECT_NE(error.find(part), std::string::npos) << "expected " << (part) << ", got: " << error; \
  } while (false)

TEST(Group, RejectsBuffersThatCannotTravel) {
  const Group group = make_fake_group({.rank = 1, .size = 2});
  EXPECT_ARGUMENT_ERROR("buffer is undefined", group.all_reduce({}, ReduceOp::kSum));
  EXPECT_ARGUMENT_ERROR("buffer has 2 dimensions", group.all_reduce(at::zeros({2, 2}), ReduceOp::kSum));
  EXPECT_ARGUMENT_ERROR("buffer has 0 dimensions", group.broadcast(at::zeros({}), 0));
  EXPECT_ARGUMENT_ERROR("not contiguous", group.send(at::zeros({4, 2}).select(1, 0), 0));
  EXPECT_ARGUMENT_ERROR("dtype Double", group.recv(at::zeros({2}, at::kDouble), 0));
  EXPECT_ARGUMENT_ERROR("avg of dtype int32", group.all_reduce(at::zeros({2}, at::kInt), ReduceOp::kAvg));
  EXPECT_ARGUMENT_ERROR("avg of dtype int8",
                        group.reduce_scatter(at::zeros({2}, at::kChar), at::zeros({1}, at::kChar), ReduceOp::kAvg));
  EXPECT_ARGUMENT_ERROR("on meta", group.all_reduce(at::empty({2}, at::TensorOptions(at::kMeta)), ReduceOp::kSum));
}

TEST(Group, RejectsSizesAndRanksThatDoNotFit) {
  const Group group = make_fake_group({.rank = 1, .size = 2});
  const at::Tensor four = at::zeros({4});
  EXPECT_ARGUMENT_ERROR("input has numel 4, expected 2 x 3",
                        group.reduce_scatter(four, at::zeros({3}), ReduceOp::kSum));
  EXPECT_ARGUMENT_ERROR("output has numel 4, expected 2 x 4", group.all_gather(at::zeros({4}), four));
  EXPECT_ARGUMENT_ERROR("output has dtype int32", group.all_gather(at::zeros({2}), at::zeros({4}, at::kInt)));
  EXPECT_ARGUMENT_ERROR("output has numel 2", group.all_to_all(four, at::zeros({2})));
  EXPECT_ARGUMENT_ERROR("multiple of the group's size 2", group.all_to_all(at::zeros({3}), at::zeros({3})));
  EXPECT_ARGUMENT_ERROR("root is 2, expected 0 to 1", group.broadcast(four, 2));
  EXPECT_ARGUMENT_ERROR("peer is -1, expected 0 to 1", group.send(four, -1));
  EXPECT_ARGUMENT_ERROR("peer is 7", group.recv(four, 7));
  EXPECT_ARGUMENT_ERROR("this rank itself", group.send(four, 1));
  EXPECT_ARGUMENT_ERROR("this rank itself", group.recv(four, 1));
}

TEST(Group, RejectsOverlapOtherThanTheOwnSlice) {
  const Group group = make_fake_group({.rank = 1, .size = 2});
  const at::Tensor four = at::zeros({4});
  EXPECT_ARGUMENT_ERROR("overlap", group.reduce_scatter(four, four.narrow(0, 0, 2), ReduceOp::kSum));
  EXPECT_ARGUMENT_ERROR("overlap", group.all_gather(four.narrow(0, 1, 2), four));
  EXPECT_ARGUMENT_ERROR("overlap", group.all_to_all(four, four));
  group.reduce_scatter(four, four.narrow(0, 2, 2), ReduceOp::kSum).wait();
  group.all_gather(four.narrow(0, 2, 2), four).wait();
}

TEST(Group, IsUndefinedByDefaultAndSaysSo) {
  const Group group;
  EXPECT_FALSE(group.defined());
  EXPECT_ARGUMENT_ERROR("the group is undefined", group.barrier());
  EXPECT_ARGUMENT_ERROR("the group is undefined", group.rank());
  EXPECT_ARGUMENT_ERROR("timeout of group g is 0 ms",
                        make_fake_group({.group = {.name = "g", .timeout = std::chrono::milliseconds(0)}}));
  EXPECT_ARGUMENT_ERROR("backend is null", Group(nullptr, {}));
  Work().wait();
  EXPECT_TRUE(Work().done());
}

TEST(Group, OfOneCopiesOnTheCallingThread) {
  const Group group = make_local_groups(1)[0];
  const at::Tensor input = at::arange(5, at::kFloat);
  const at::Tensor output = at::zeros({5});
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kAvg, ReduceOp::kMax}) {
    group.reduce_scatter(input, output.zero_(), op).wait();
    EXPECT_TRUE(at::equal(input, output));
  }
  Work work = group.all_gather(input, output.zero_());
  EXPECT_TRUE(work.done());
  EXPECT_TRUE(at::equal(input, output));
  group.barrier();
  EXPECT_EQ(group.name(), "world");
}

TEST(Group, TellsTheEndOfAnOperationBeforeTheWorkIsDone) {
  const auto log = std::make_shared<FakeLog>();
  const Group group = make_fake_group({.rank = 0, .size = 2, .log = log});
  log->set_failure([](const FakeRecord& record) { return record.unit == "bad" ? "a fault" : ""; });
  std::vector<std::string> ends;
  const auto on_end = [&](const std::exception_ptr& error) { ends.push_back(error ? "error" : "good"); };
  group.all_reduce(at::zeros({3}), ReduceOp::kSum, {.unit = "good", .on_end = on_end}).wait();
  EXPECT_THROW(group.all_reduce(at::zeros({3}), ReduceOp::kSum, {.unit = "bad", .on_end = on_end}).wait(), CommError);
  EXPECT_THROW(group.all_reduce(at::zeros({3}), ReduceOp::kSum, {.unit = "late", .on_end = on_end}).wait(), CommError);
  EXPECT_EQ(ends, (std::vector<std::string>{"good", "error", "error"}));
}

TEST(MakeLocalGroups, RejectsSizesBelowOne) {
  EXPECT_ARGUMENT_ERROR("size is 0", make_local_groups(0));
  EXPECT_ARGUMENT_ERROR("num_channels is 0", make_local_channels(2, 0));
}

TEST(Connect, RejectsOptionsThatCannotBe) {
  EXPECT_ARGUMENT_ERROR("size is 0", connect({.size = 0}));
  EXPECT_ARGUMENT_ERROR("rank is 2, expected 0 to 1", connect({.rank = 2, .size = 2}));
  EXPECT_ARGUMENT_ERROR("num_channels is 0", connect({.num_channels = 0}));
  EXPECT_ARGUMENT_ERROR("backend is gloo, expected auto, shm, c10d or mpi", connect({.backend = "gloo"}));
  EXPECT_ARGUMENT_ERROR("CPU tensors only", connect({.backend = "shm", .device = c10::DeviceType::CUDA}));
  EXPECT_ARGUMENT_ERROR("store is null", connect({.size = 2}));
}

TEST(Connect, GivesOneRankGroupsOfOne) {
  const auto groups = connect({.num_channels = 3});
  ASSERT_EQ(groups.size(), 3U);
  EXPECT_EQ(groups[2].size(), 1);
  groups[2].barrier();
}

TEST(FakeGroup, RejectsRanksOutsideOfIt) {
  EXPECT_ARGUMENT_ERROR("size is 0", make_fake_group({.size = 0}));
  EXPECT_ARGUMENT_ERROR("rank is 2, expected 0 to 1", make_fake_group({.rank = 2, .size = 2}));
}

TEST(FakeGroup, BehavesAsIfAllRanksGaveTheSame) {
  const Group group = make_fake_group({.rank = 1, .size = 3});
  const at::Tensor sum = at::full({5}, 2.0F);
  group.all_reduce(sum, ReduceOp::kSum).wait();
  EXPECT_TRUE(at::equal(sum, at::full({5}, 6.0F)));
  group.all_reduce(sum, ReduceOp::kAvg).wait();
  EXPECT_TRUE(at::equal(sum, at::full({5}, 6.0F)));
  const at::Tensor slice = at::zeros({2});
  group.reduce_scatter(at::arange(6, at::kFloat), slice, ReduceOp::kSum).wait();
  EXPECT_TRUE(at::equal(slice, at::arange(2, 4, at::kFloat).mul(3)));
  const at::Tensor all = at::zeros({6});
  group.all_gather(at::arange(2, at::kFloat), all).wait();
  EXPECT_TRUE(at::equal(all, at::arange(2, at::kFloat).repeat({3})));
  group.all_to_all(at::arange(6, at::kFloat), all).wait();
  EXPECT_TRUE(at::equal(all, at::arange(2, 4, at::kFloat).repeat({3})));
  group.send(at::full({3}, 4.0F), 2).wait();
  const at::Tensor received = at::zeros({3});
  group.recv(received, 2).wait();
  EXPECT_TRUE(at::equal(received, at::full({3}, 4.0F)));
  EXPECT_THROW(group.recv(received, 0).wait(), CommError);
}

TEST(FakeGroup, RecordsTheSequence) {
  const auto log = std::make_shared<FakeLog>();
  const Group first = make_fake_group({.channel = 0, .log = log});
  const Group second = make_fake_group({.channel = 1, .log = log});
  first.all_gather(at::zeros({4}, at::kBFloat16), at::zeros({8}, at::kBFloat16), {.unit = "layers.0"}).wait();
  second.all_reduce(at::zeros({3}), ReduceOp::kMax, {.unit = "norm"}).wait();
  first.barrier();
  const auto records = log->records();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].kind, OpKind::kAllGather);
  EXPECT_EQ(records[0].dtype, at::kBFloat16);
  EXPECT_EQ(records[0].numel, 8);
  EXPECT_EQ(records[0].unit, "layers.0");
  EXPECT_EQ(records[1].kind, OpKind::kAllReduce);
  EXPECT_EQ(records[1].reduce, ReduceOp::kMax);
  EXPECT_EQ(records[1].channel, 1);
  EXPECT_EQ(records[2].kind, OpKind::kBarrier);
  log->clear();
  EXPECT_TRUE(log->records().empty());
}

TEST(FakeGroup, DelaysAndFailsAsAsked) {
  const auto log = std::make_shared<FakeLog>();
  const Group group = make_fake_group({.log = log});
  log->set_delay([](const FakeRecord&) { return std::chrono::milliseconds(50); });
  Work work = group.all_reduce(at::zeros({1}), ReduceOp::kSum);
  EXPECT_FALSE(work.done());
  work.wait();
  log->set_delay(nullptr);
  log->set_failure([](const FakeRecord& record) { return record.unit == "bad" ? "the cable is cut" : ""; });
  group.all_reduce(at::zeros({1}), ReduceOp::kSum, {.unit = "good"}).wait();
  try {
    group.all_reduce(at::zeros({1}), ReduceOp::kSum, {.unit = "bad"}).wait();
    FAIL() << "no error";
  } catch (const CommError& error) {
    EXPECT_STREQ(error.what(), "[comm] all_reduce of unit bad (numel 1, float32, sum): the cable is cut");
  }
}

TEST(FakeGroup, KeepsTheDeadlineInADelay) {
  const auto log = std::make_shared<FakeLog>();
  const Group group = make_fake_group({.log = log, .group = {.timeout = std::chrono::milliseconds(20)}});
  log->set_delay([](const FakeRecord&) { return std::chrono::milliseconds(20'000); });
  EXPECT_THROW(group.barrier(), CommError);
}

}  // namespace
}  // namespace hydrofoil::comm
