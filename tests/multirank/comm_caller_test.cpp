// Operations that run on the thread of a caller who waits: NOTE [Running on the caller].
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "tests/support/comm_backends.h"

namespace hydrofoil::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::connect_threads;
using testing::error_of;
using testing::expect_contains;
using testing::run_ranks;

// Operations that end when the test says so.
class Gate : public Backend {
 public:
  struct State {
    std::atomic<int> entered{0}, open{0};
    std::atomic<int> under_way{0}, most_under_way{0};
  };
  explicit Gate(std::shared_ptr<State> state) : state_(std::move(state)) {}

  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string name() const override { return "gate"; }
  bool runs_on_callers() const override { return true; }
  void leave(const std::string& /*reason*/) override {}
  void run(const Operation& /*operation*/, const CallControl& control) override {
    state_->most_under_way = std::max(state_->most_under_way.load(), ++state_->under_way);
    const int number = ++state_->entered;
    while (state_->open < number) {
      control.throw_if_aborted();
      std::this_thread::sleep_for(milliseconds(1));
    }
    --state_->under_way;
  }

 private:
  std::shared_ptr<State> state_;
};

void wait_until(const std::atomic<int>& value, int wanted) {
  while (value < wanted) std::this_thread::sleep_for(milliseconds(1));
}

class Ends {
 public:
  OpInfo info(const std::string& unit, bool caller_waits) {
    OpInfo info{.unit = unit};
    info.caller_waits = caller_waits;
    info.on_end = [this, unit](const std::exception_ptr& /*error*/) {
      const std::lock_guard lock(mutex_);
      units_.push_back(unit);
      threads_.push_back(std::this_thread::get_id());
    };
    return info;
  }
  std::vector<std::string> units() {
    const std::lock_guard lock(mutex_);
    return units_;
  }
  std::vector<std::thread::id> threads() {
    const std::lock_guard lock(mutex_);
    return threads_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> units_;
  std::vector<std::thread::id> threads_;
};

TEST(CallersThread, IsTakenWhereNothingIsUnderWay) {
  const auto gate = std::make_shared<Gate::State>();
  gate->open = 100;
  const Group group(std::make_unique<Gate>(gate), {});
  Ends ends;
  group.start_barrier(ends.info("a", true)).wait();
  group.start_barrier(ends.info("b", false)).wait();
  group.start_barrier(ends.info("c", true)).wait();
  const auto threads = ends.threads();
  EXPECT_EQ(threads[0], std::this_thread::get_id());
  EXPECT_NE(threads[1], std::this_thread::get_id());
  EXPECT_EQ(ends.units(), (std::vector<std::string>{"a", "b", "c"}));
}

TEST(CallersThread, IsNotTakenBeforeWhatIsQueued) {
  const auto gate = std::make_shared<Gate::State>();
  const Group group(std::make_unique<Gate>(gate), {});
  Ends ends;
  Work first = group.start_barrier(ends.info("first", false));
  Work second = group.start_barrier(ends.info("second", false));
  Work third = group.start_barrier(ends.info("third", true));
  EXPECT_FALSE(third.done());
  gate->open = 100;
  third.wait();
  EXPECT_TRUE(first.done() && second.done());
  EXPECT_EQ(ends.units(), (std::vector<std::string>{"first", "second", "third"}));
  EXPECT_NE(ends.threads()[2], std::this_thread::get_id());
}

TEST(CallersThread, KeepsLaterCallsOfOtherThreadsWaiting) {
  const auto gate = std::make_shared<Gate::State>();
  const Group group(std::make_unique<Gate>(gate), {});
  Ends ends;
  std::thread caller([&] { group.start_barrier(ends.info("caller", true)).wait(); });
  wait_until(gate->entered, 1);
  Work queued = group.start_barrier(ends.info("queued", false));
  Work last = group.start_barrier(ends.info("last", true));
  EXPECT_FALSE(queued.wait_for(milliseconds(20)));
  EXPECT_EQ(gate->entered, 1);
  gate->open = 100;
  last.wait();
  caller.join();
  EXPECT_EQ(ends.units(), (std::vector<std::string>{"caller", "queued", "last"}));
  EXPECT_EQ(gate->most_under_way, 1);
}

TEST(CallersThread, IsReleasedByClose) {
  const auto gate = std::make_shared<Gate::State>();
  const Group group(std::make_unique<Gate>(gate), {.name = "tp"});
  std::string error;
  std::thread caller([&] { error = error_of<CommError>([&] { group.barrier(); }); });
  wait_until(gate->entered, 1);
  group.close();
  caller.join();
  expect_contains(error, {"group tp was destroyed before its operations ended"});
  for (const bool caller_waits : {true, false}) {
    Ends ends;
    Work late = group.start_barrier(ends.info("late", caller_waits));
    expect_contains(error_of<CommError>([&] { late.wait(); }), {"barrier of unit late", "group tp was closed"});
    EXPECT_EQ(ends.units(), std::vector<std::string>{"late"});
  }
}

class Callers : public ::testing::TestWithParam<std::string> {};

// Some ranks on their own thread, some not, in every mixture.
TEST_P(Callers, MixWithTheChannelsThreads) {
  const int size = 3;
  const auto groups = connect_threads(GetParam(), size, 1);
  run_ranks(size, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    at::Tensor buffer = at::ones({1001});
    at::Tensor large = at::ones({300'001});
    std::vector<Work> works;
    for (int i = 0; i < 60; ++i) {
      OpInfo info{.unit = std::to_string(i)};
      info.caller_waits = (i >> rank) % 2 == 0;
      works.push_back(i % 7 == 6 ? group.broadcast(large, i % size, std::move(info))
                                 : group.all_reduce(i % 10 == 9 ? large : buffer, ReduceOp::kAvg, std::move(info)));
      if ((i >> rank) % 2 == 0) works.back().wait();
    }
    for (auto& work : works) work.wait();
    EXPECT_TRUE(at::equal(buffer, at::ones({1001})));
    EXPECT_TRUE(at::equal(large, at::ones({300'001})));
    at::Tensor sum = at::full({5}, static_cast<float>(rank));
    group.all_reduce(sum, ReduceOp::kSum, {.caller_waits = true}).wait();
    EXPECT_TRUE(at::equal(sum, at::full({5}, 3.0F)));
  });
}

TEST_P(Callers, DeadlineNamesOperationAndMissingRanks) {
  const auto groups = connect_threads(GetParam(), 3, 1, {.name = "dp", .timeout = milliseconds(2500)});
  run_ranks(3, [&](int rank) {
    if (rank == 1) return;
    Work work = groups[static_cast<size_t>(rank)][0].all_reduce(at::zeros({77}), ReduceOp::kAvg,
                                                                {.unit = "layers.1", .caller_waits = true});
    expect_contains(error_of<CommError>([&] { work.wait(); }),
                    {"all_reduce of unit layers.1 (numel 77, float32, avg)", "group dp",
                     "deadline of 2500 ms passed; did not arrive: rank 1"});
  });
}

TEST_P(Callers, ThatWaitForEachOtherLearnItInSeconds) {
  const auto groups = connect_threads(GetParam(), 2, 2, {.timeout = seconds(60)});
  run_ranks(2, [&](int rank) {
    const auto& channels = groups[static_cast<size_t>(rank)];
    const std::string error = error_of<CommError>([&] {
      if (rank == 0) {
        channels[0].all_gather(at::zeros({4}), at::zeros({8}), {.unit = "layers.4", .caller_waits = true}).wait();
      } else {
        channels[1].all_reduce(at::zeros({6}), ReduceOp::kSum, {.unit = "gradients"}).wait();
      }
    });
    expect_contains(error, {"rank 0 waits for all_gather of unit layers.4 (numel 8, float32) on channel 0",
                            "rank 1 waits for all_reduce of unit gradients (numel 6, float32, sum) on channel 1"});
  });
}

TEST_P(Callers, DisagreementIsNamedOnEveryRank) {
  const auto groups = connect_threads(GetParam(), 2, 1);
  run_ranks(2, [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    OpInfo info{.unit = rank == 0 ? "a" : "b", .signature = 5U + static_cast<uint64_t>(rank)};
    info.caller_waits = rank == 0;
    expect_contains(error_of<CommError>([&] { group.all_reduce(at::zeros({3}), ReduceOp::kSum, info).wait(); }),
                    {"disagree at operation 1", "rank 0: all_reduce of unit a", "rank 1: all_reduce of unit b"});
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, Callers, ::testing::Values("local", "shm", "c10d"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace hydrofoil::comm
