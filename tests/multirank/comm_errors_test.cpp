#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <stdexcept>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/agree.h"
#include "hydrofoil/comm/c10d/c10d_group.h"
#include "tests/support/comm_backends.h"

namespace hydrofoil::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::connect_threads;
using testing::error_of;
using testing::expect_contains;
using testing::run_ranks;

class CommErrors : public ::testing::TestWithParam<std::string> {};

TEST_P(CommErrors, DisagreementIsNamedOnEveryRank) {
  const auto groups = connect_threads(GetParam(), 3, 1);
  std::vector<std::string> errors(3);
  run_ranks(3, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    group.barrier();
    const at::Tensor whole = at::zeros({384}, at::kBFloat16);
    errors[static_cast<size_t>(rank)] = error_of<CommError>([&] {
      if (rank == 1) {
        group.all_reduce(at::zeros({5}), ReduceOp::kMax, {.unit = "head", .signature = 12}).wait();
      } else {
        group.all_gather(whole.narrow(0, 0, 128).clone(), whole, {.unit = "layers.3", .signature = 11}).wait();
      }
    });
  });
  for (const auto& error : errors) {
    expect_contains(error, {"group world", "rank 0: all_gather of unit layers.3 (numel 384, bfloat16)",
                            "rank 1: all_reduce of unit head (numel 5, float32, max)",
                            "rank 2: all_gather of unit layers.3 (numel 384, bfloat16)"});
  }
}

class Ran : public RunHistory {
 public:
  Ran(int64_t first, std::vector<std::string> units) : part_{first, std::move(units)} {}
  Part recent() const override { return part_; }

 private:
  Part part_;
};

TEST_P(CommErrors, DisagreementNamesTheFirstUnitThatDiffers) {
  const auto groups = connect_threads(GetParam(), 3, 1);
  std::vector<std::string> errors(3);
  run_ranks(3, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    OpInfo info{"head", static_cast<uint64_t>(1 + rank)};
    info.history = rank == 0   ? std::make_shared<Ran>(1, std::vector<std::string>{"a", "b", "c", "d"})
                   : rank == 1 ? std::make_shared<Ran>(2, std::vector<std::string>{"b", "x", "c"})
                               : std::make_shared<Ran>(1, std::vector<std::string>{"a", "b"});
    errors[static_cast<size_t>(rank)] = error_of<CommError>([&] { group.barrier(info); });
  });
  for (const auto& error : errors) {
    expect_contains(error, {"Unit 3 since the last step is the first that differs: rank 0 ran c; rank 1 ran x; rank 2 "
                            "ran nothing more"});
  }
}

// Without `debug` c10d compares only what has a signature.
TEST_P(CommErrors, DebugComparesEveryCollective) {
  const auto groups = connect_threads(GetParam(), 2, 1, {.debug = true});
  std::vector<std::string> errors(2);
  run_ranks(2, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    group.barrier();
    at::Tensor buffer = at::zeros({rank == 0 ? 8 : 16});
    errors[static_cast<size_t>(rank)] =
        error_of<CommError>([&] { group.all_reduce(buffer, ReduceOp::kSum, {.unit = "sum"}).wait(); });
  });
  for (const auto& error : errors) {
    expect_contains(error, {"disagree at operation 2", "rank 0: all_reduce of unit sum (numel 8",
                            "rank 1: all_reduce of unit sum (numel 16"});
  }
}

TEST_P(CommErrors, AgreementNamesTheFirstDifferenceOfEachRank) {
  const auto groups = connect_threads(GetParam(), 3, 1);
  std::vector<std::string> errors(3);
  run_ranks(3, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    require_agreement(group, "start", {});
    require_agreement(group, "start", {"a = 1", "b = " + std::string(100000, 'x')});
    errors[static_cast<size_t>(rank)] = error_of<CommError>([&] {
      std::vector<std::string> lines = {"a = 1", "b = 2", "c = 3"};
      if (rank == 1) lines[1] = "b = " + std::string(5000, 'y');
      if (rank == 2) lines.pop_back();
      require_agreement(group, "start", lines);
    });
    require_agreement(group, "start", {"the group works on"});
  });
  for (const auto& error : errors) {
    expect_contains(error, {"[start] ", "; rank 1: got b = yyyy", "; rank 2: got nothing, rank 0 has c = 3"});
    EXPECT_EQ(error.find("rank 0:"), std::string::npos) << error;
    EXPECT_LT(error.size(), 3000U);
  }
}

TEST_P(CommErrors, DifferentSignaturesAloneAreADisagreement) {
  const auto groups = connect_threads(GetParam(), 2, 1);
  run_ranks(2, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    const std::string error = error_of<CommError>([&] {
      group
          .all_reduce(at::zeros({0}), ReduceOp::kSum,
                      {.unit = rank == 0 ? "a" : "b", .signature = 5U + static_cast<uint64_t>(rank)})
          .wait();
    });
    expect_contains(error, {"disagree at operation 1", "rank 0: all_reduce of unit a (numel 0, float32, sum)",
                            "rank 1: all_reduce of unit b (numel 0, float32, sum)"});
  });
}

TEST_P(CommErrors, DeadlineNamesOperationAndMissingRanks) {
  const auto groups = connect_threads(GetParam(), 3, 1, {.name = "dp", .timeout = milliseconds(2500)});
  run_ranks(3, [&](int rank) {
    if (rank == 1) return;
    Work work = groups[static_cast<size_t>(rank)][0].all_reduce(at::zeros({77}), ReduceOp::kAvg, {.unit = "layers.1"});
    const std::string error = error_of<CommError>([&] { work.wait(); });
    EXPECT_EQ(error, error_of<CommError>([&] { work.wait(); }));  // every wait throws it
    // The slower of the two may hear of the other's failure before its own deadline.
    expect_contains(error, {"all_reduce of unit layers.1 (numel 77, float32, avg)", "group dp",
                            "deadline of 2500 ms passed; did not arrive: rank 1"});
    // The rank that waits is not called missing.
    EXPECT_EQ(error.find("did not arrive: rank 1, rank"), std::string::npos) << error;
    EXPECT_EQ(error.find("did not arrive: rank 0"), std::string::npos) << error;
    EXPECT_EQ(error.find("did not arrive: rank 2"), std::string::npos) << error;
  });
}

TEST_P(CommErrors, RanksThatWaitForEachOtherLearnItInSeconds) {
  const auto groups = connect_threads(GetParam(), 2, 2, {.timeout = seconds(60)});
  const auto start = steady_clock::now();
  run_ranks(2, [&](int rank) {
    const auto& channels = groups[static_cast<size_t>(rank)];
    const std::string error = error_of<CommError>([&] {
      if (rank == 0) {
        channels[0].all_gather(at::zeros({4}), at::zeros({8}), {.unit = "layers.4"}).wait();
      } else {
        channels[1].all_reduce(at::zeros({6}), ReduceOp::kSum, {.unit = "gradients"}).wait();
      }
    });
    expect_contains(error, {"rank 0 waits for all_gather of unit layers.4 (numel 8, float32) on channel 0",
                            "rank 1 waits for all_reduce of unit gradients (numel 6, float32, sum) on channel 1"});
  });
  EXPECT_LT(steady_clock::now() - start, seconds(30));
}

TEST_P(CommErrors, SlowRankIsNoCrossWait) {
  const auto groups = connect_threads(GetParam(), 2, 2, {.timeout = seconds(60)});
  run_ranks(2, [&](int rank) {
    const auto& channels = groups[static_cast<size_t>(rank)];
    // Both channels are issued before the waits, which come in different orders; rank 1 is late.
    if (rank == 1) std::this_thread::sleep_for(milliseconds(2500));
    Work first = channels[0].all_reduce(at::zeros({4}), ReduceOp::kSum);
    Work second = channels[1].all_reduce(at::zeros({4}), ReduceOp::kSum);
    (rank == 0 ? first : second).wait();
    (rank == 0 ? second : first).wait();
  });
}

TEST_P(CommErrors, FailedGroupSaysWhyItCannotGoOn) {
  const auto groups = connect_threads(GetParam(), 2, 1, {.timeout = milliseconds(300)});
  const Group& group = groups[0][0];
  const std::string first = error_of<CommError>([&] { group.barrier({.unit = "start"}); });
  const std::string second = error_of<CommError>([&] { group.all_reduce(at::zeros({1}), ReduceOp::kSum).wait(); });
  expect_contains(second, {"all_reduce", "has failed before", first});
}

TEST_P(CommErrors, DestructionEndsWhatHangs) {
  Work work;
  {
    auto groups = connect_threads(GetParam(), 2, 1);
    work = groups[0][0].all_reduce(at::zeros({4}), ReduceOp::kSum);
    groups[0].clear();
  }
  expect_contains(error_of<CommError>([&] { work.wait(); }), {"destroyed before its operations ended"});
}

TEST_P(CommErrors, WaitingDoesNotHoldTheProcessor) {
  const auto groups = connect_threads(GetParam(), 2, 1);
  const std::clock_t start = std::clock();
  run_ranks(2, [&](int rank) {
    if (rank == 1) std::this_thread::sleep_for(milliseconds(900));
    groups[static_cast<size_t>(rank)][0].barrier();
  });
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 0.45);
}

INSTANTIATE_TEST_SUITE_P(Backends, CommErrors, ::testing::Values("local", "shm", "c10d"),
                         [](const auto& info) { return info.param; });

class MemoryErrors : public ::testing::TestWithParam<std::string> {};

TEST_P(MemoryErrors, RankThatLeavesIsNamed) {
  auto groups = connect_threads(GetParam(), 2, 1);
  run_ranks(2, [&](int rank) {
    auto& own = groups[static_cast<size_t>(rank)];
    own[0].barrier();
    if (rank == 1) {
      own.clear();
      return;
    }
    expect_contains(error_of<CommError>([&] { own[0].barrier({.unit = "end"}); }),
                    {"barrier of unit end", "rank 1 has left the group"});
  });
}

TEST_P(MemoryErrors, DisagreementNeedsNoSignature) {
  const auto groups = connect_threads(GetParam(), 2, 1);
  run_ranks(2, [&](int rank) {
    const std::string error =
        error_of<CommError>([&] { groups[static_cast<size_t>(rank)][0].broadcast(at::zeros({3 + rank}), 0).wait(); });
    expect_contains(error,
                    {"rank 0: broadcast from 0 (numel 3, float32)", "rank 1: broadcast from 0 (numel 4, float32)"});
  });
}

TEST_P(MemoryErrors, ReceiverOfSomethingElseSaysWhat) {
  const auto groups = connect_threads(GetParam(), 2, 1);
  run_ranks(2, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    if (rank == 0) {
      group.send(at::zeros({7}, at::kInt), 1, {.unit = "activation"}).wait();
      return;
    }
    expect_contains(error_of<CommError>([&] { group.recv(at::zeros({7}), 0).wait(); }),
                    {"recv from 0 (numel 7, float32)", "rank 0 sent something else",
                     "send to 1 of unit activation (numel 7, int32)"});
  });
}

TEST_P(MemoryErrors, ReceiverWithoutSenderHasADeadline) {
  const auto groups = connect_threads(GetParam(), 2, 1, {.timeout = milliseconds(300)});
  expect_contains(error_of<CommError>([&] { groups[0][0].recv(at::zeros({7}), 1).wait(); }),
                  {"recv from 1", "deadline of 300 ms", "did not arrive: rank 1"});
}

TEST_P(MemoryErrors, FailureReachesThePeersWithItsReason) {
  const auto groups = connect_threads(GetParam(), 3, 1, {.timeout = seconds(60)});
  run_ranks(3, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    if (rank == 0) group.send(at::zeros({1}), 1).wait();
    if (rank == 1) error_of<CommError>([&] { group.recv(at::zeros({2}), 0).wait(); });
    if (rank == 1) return;
    expect_contains(error_of<CommError>([&] { group.barrier(); }),
                    {"rank 1 has failed", "rank 0 sent something else: send to 1 (numel 1, float32)"});
  });
}

// A work that ends between the end of a slice of waiting and the look at it.
class LateWork : public c10d::Work {
 public:
  explicit LateWork(bool fails) : fails_(fails) {}
  bool isCompleted() override { return waits_ > 0; }
  bool wait(std::chrono::milliseconds /*timeout*/) override {
    if (waits_++ == 0) throw std::runtime_error("Operation timed out!");
    if (fails_) throw std::runtime_error("connection lost");
    return true;
  }

 private:
  bool fails_;
  int waits_ = 0;
};

class LateBackend : public c10d::Backend {
 public:
  LateBackend() : c10d::Backend(0, 1) {}
  const std::string getBackendName() const override { return "late"; }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& /*options*/) override {
    return c10::make_intrusive<LateWork>(tensors[0].numel() == 2);
  }
};

TEST(C10dGroup, WorkThatEndsJustAfterASliceOfWaitingIsNoFailure) {
  auto process_group = c10::make_intrusive<c10d::ProcessGroup>(c10::make_intrusive<c10d::HashStore>(), 0, 1);
  process_group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::CUSTOM,
                            c10::make_intrusive<LateBackend>());
  process_group->setDefaultBackend(c10d::ProcessGroup::BackendType::CUSTOM);
  const Group group = make_c10d_group(process_group);
  group.all_reduce(at::zeros({1}), ReduceOp::kSum).wait();
  expect_contains(error_of<CommError>([&] { group.all_reduce(at::zeros({2}), ReduceOp::kSum).wait(); }),
                  {"all_reduce (numel 2, float32, sum)", "c10d:late", "connection lost"});
}

TEST(C10dGroup, RejectsProcessGroupsThatAreNot) {
  EXPECT_THROW(static_cast<void>(make_c10d_group(c10::intrusive_ptr<c10d::ProcessGroup>())), InvalidArgument);
  EXPECT_THROW(static_cast<void>(make_c10d_group("no such group")), InvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Backends, MemoryErrors, ::testing::Values("local", "shm"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace hydrofoil::comm
