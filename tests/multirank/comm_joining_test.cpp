#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/joining_group.h"
#include "hydrofoil/comm/local/local_group.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::comm {
namespace {

constexpr int kNumIds = 6;

// Rank r's slice of `id`: that many elements.
at::Tensor slice(int id, int rank) { return at::full({id}, 100.0 * id + rank, at::kFloat); }

std::vector<Group> joining_groups(int size, std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
  std::vector<Group> groups = make_local_groups(size, {.name = "test", .timeout = timeout});
  for (int rank = 0; rank < size; ++rank) {
    groups[rank] = make_joining_group(groups[rank], [rank](int64_t id) { return slice(static_cast<int>(id), rank); });
  }
  return groups;
}

at::Tensor gather(const Group& group, int id, int64_t place) {
  const at::Tensor output = at::empty({static_cast<int64_t>(group.size()) * id}, at::kFloat);
  OpInfo info{"unit " + std::to_string(id), 1};
  info.joinable = {.id = id, .place = place};
  group.all_gather(slice(id, group.rank()), output, info).wait();
  return output;
}

void expect_gathered(const at::Tensor& output, int id, int size) {
  for (int rank = 0; rank < size; ++rank) EXPECT_TRUE(output.narrow(0, rank * id, id).equal(slice(id, rank)));
}

class Joining : public ::testing::TestWithParam<int> {};

TEST_P(Joining, ServesAnyCallsInAnyOrder) {
  const int size = GetParam();
  const auto groups = joining_groups(size);
  testing::run_ranks(size, [&](int rank) {
    std::mt19937 draw(17 + rank);
    for (int step = 0; step < 200; ++step) {
      const int calls = static_cast<int>(draw() % 8);
      for (int i = 0; i < calls; ++i) {
        const int id = static_cast<int>(draw() % kNumIds);
        expect_gathered(gather(groups[rank], id, draw() % 5), id, size);
        if (draw() % 16 == 0) std::this_thread::yield();
      }
      if (draw() % 2 == 0) {
        OpInfo pause;
        pause.joinable = Joinable{};
        groups[rank].barrier(pause);
      }
      at::Tensor sum = at::full({3}, rank + 1.0, at::kFloat);
      groups[rank].all_reduce(sum, ReduceOp::kSum, {"sum", 7}).wait();
      EXPECT_TRUE(sum.equal(at::full({3}, size * (size + 1) / 2.0, at::kFloat)));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, Joining, ::testing::Values(1, 2, 3, 5));

TEST(JoiningGroup, LetsTheRankThatIsBehindGoFirst) {
  const auto groups = joining_groups(2);
  std::vector<int> joined;
  std::vector<Group> inner = make_local_groups(2, {.name = "test", .timeout = std::chrono::seconds(30)});
  testing::run_ranks(2, [&](int rank) {
    const Group group = make_joining_group(inner[rank], [&, rank](int64_t id) {
      if (rank == 0) joined.push_back(static_cast<int>(id));
      return slice(static_cast<int>(id), rank);
    });
    if (rank == 1) (void)gather(group, 4, 4);  // rank 0 does not run it; then both run 5 together
    (void)gather(group, 5, 5);
    group.barrier({"end", 3});
  });
  EXPECT_EQ(joined, std::vector<int>{4});
}

TEST(JoiningGroup, NamesCollectivesThatDiffer) {
  const auto groups = joining_groups(2);
  std::vector<std::string> messages(2);
  testing::run_ranks(2, [&](int rank) {
    if (rank == 0) expect_gathered(gather(groups[0], 2, 0), 2, 2);
    messages[rank] = testing::error_of<CommError>([&] {
      groups[rank].barrier({rank == 0 ? "end of backward" : "step", static_cast<uint64_t>(5 + rank)});
    });
  });
  for (const auto& message : messages) {
    EXPECT_NE(message.find("rank 0: barrier of unit end of backward"), std::string::npos) << message;
    EXPECT_NE(message.find("rank 1: barrier of unit step"), std::string::npos) << message;
  }
}

TEST(JoiningGroup, DoesNotWaitForARankThatHasGone) {
  auto groups = joining_groups(3);
  std::vector<std::string> messages(3);
  testing::run_ranks(3, [&](int rank) {
    if (rank == 1) {
      groups[1] = Group();
    } else {
      messages[rank] = testing::error_of<CommError>([&] { (void)gather(groups[rank], 3, 0); });
    }
  });
  EXPECT_NE(messages[0].find("rank 1 has left the group"), std::string::npos) << messages[0];
  EXPECT_NE(messages[2].find("rank"), std::string::npos) << messages[2];
}

TEST(JoiningGroup, RejectsWhatCannotBeJoined) {
  const auto groups = joining_groups(1);
  OpInfo info;
  info.joinable = {.id = 1, .place = 0};
  EXPECT_THROW(groups[0].all_reduce(slice(3, 0), ReduceOp::kSum, info).wait(), InvalidArgument);
  EXPECT_THROW((void)make_joining_group(make_local_groups(1)[0], nullptr), InvalidArgument);
  EXPECT_THROW((void)make_joining_group(Group(), [](int64_t) { return at::Tensor(); }), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::comm
